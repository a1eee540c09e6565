"""App configuration of the rates room."""

from django.apps import AppConfig


class RatesConfig(AppConfig):
    """Rate cards, prices and estimates."""

    name = "apps.rates"
    label = "rates"
