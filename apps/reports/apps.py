"""App configuration of the reports room."""

from django.apps import AppConfig


class ReportsConfig(AppConfig):
    """Home, overviews, the monthly report: selectors and views only."""

    name = "apps.reports"
    label = "reports"

    def ready(self) -> None:
        """Let mails carry the report."""
        from apps.notifications import attachments
        from apps.reports import events, files

        attachments.register(events.REPORT_FILE, files.for_mail)
