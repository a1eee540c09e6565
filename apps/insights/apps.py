"""App configuration of the insights room."""

from django.apps import AppConfig


class InsightsConfig(AppConfig):
    """Findings and idle cases."""

    name = "apps.insights"
    label = "insights"
