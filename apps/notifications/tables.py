"""Tables of notifications and mail."""

from __future__ import annotations

import django_tables2 as tables

from apps.core.tables import ActionsColumn, AgeColumn, CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.notifications.models import Notification, SentMail


class NotificationTable(CommonsTable):
    """A person's news, newest first."""

    title = tables.TemplateColumn(template_name="notifications/rows/title.html", verbose_name="News", orderable=False)
    group_label = tables.Column(
        verbose_name="About", orderable=False, attrs={"cell": {"class": "d-none d-md-table-cell"}}
    )
    happened_at = AgeColumn(verbose_name="When")
    actions = ActionsColumn(template_name="notifications/rows/actions.html")

    class Meta(CommonsTable.Meta):
        model = Notification
        fields = ("title", "group_label", "happened_at", "actions")
        order_by = ("-happened_at",)
        caption = "Your notifications"
        row_attrs = {"class": lambda record: "" if record.read_at else "row-unread"}

    def value_title(self, record: Notification) -> str:
        """Export headline and text."""
        return f"{record.title}: {record.body}" if record.body else record.title


class OwnMailTable(CommonsTable):
    """The mail that a person was sent."""

    subject = UidLinkColumn("notifications:mail-detail", kwarg="mail_uid", verbose_name="Subject")
    status = StatusColumn(verbose_name="Status")
    created_at = TimeColumn(verbose_name="Made")
    sent_at = TimeColumn(verbose_name="Sent")

    class Meta(CommonsTable.Meta):
        model = SentMail
        fields = ("subject", "status", "created_at", "sent_at")
        order_by = ("-created_at",)
        caption = "Mail you were sent"


class MailTable(OwnMailTable):
    """All mail that left the portal."""

    address = tables.Column(verbose_name="To")
    attempts = tables.Column(verbose_name="Attempts", attrs={"cell": {"class": "figure"}})

    class Meta(CommonsTable.Meta):
        model = SentMail
        order_by = ("-created_at",)
        fields = ("subject", "address", "status", "attempts", "created_at", "sent_at")
        sequence = ("subject", "address", "status", "attempts", "created_at", "sent_at")
        caption = "Mail that left the portal"
