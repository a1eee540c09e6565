"""App configuration of the demo room."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    """The sample company; the simulated cluster beside it is no part of Django."""

    name = "apps.demo"
    label = "demo"
