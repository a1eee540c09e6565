"""App configuration of the reports room."""

from django.apps import AppConfig


class ReportsConfig(AppConfig):
    """Home, overviews, the monthly report: selectors and views only."""

    name = "apps.reports"
    label = "reports"
