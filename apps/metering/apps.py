"""App configuration of the metering room."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    """Sources, ingest runs, hourly facts, capacity lines."""

    name = "apps.metering"
    label = "metering"
