"""The table of the trail."""

from __future__ import annotations

import django_tables2 as tables

from apps.audit.models import AuditEvent
from apps.core.tables import CommonsTable, TimeColumn, UidLinkColumn


class AuditEventTable(CommonsTable):
    """One event a row, newest first. The name in *Who* is looked up when the page is drawn; the trail holds ids."""

    occurred_at = TimeColumn(verbose_name="Time")
    action = UidLinkColumn("audit:event-detail", kwarg="event_uid", verbose_name="What")
    who = tables.Column(verbose_name="Who", orderable=False)
    object_type = tables.Column(verbose_name="Object")
    object_id = tables.Column(
        verbose_name="Object uid",
        orderable=False,
        attrs={"cell": {"class": "d-none d-lg-table-cell font-monospace text-nowrap"}},
    )
    channel = tables.Column(verbose_name="Through", attrs={"cell": {"class": "d-none d-md-table-cell"}})
    request_id = tables.Column(
        verbose_name="Request id", orderable=False, attrs={"cell": {"class": "d-none d-xl-table-cell font-monospace"}}
    )

    class Meta(CommonsTable.Meta):
        model = AuditEvent
        fields: tuple[str, ...] = (
            "occurred_at", "action", "who", "object_type", "object_id", "channel", "request_id",
        )  # fmt: skip
        order_by = ("-occurred_at",)
        caption = "Audit events, newest first"


class AuditExportTable(AuditEventTable):
    """What an export holds beyond the page: the ids themselves."""

    uid = tables.Column(verbose_name="Event uid")
    actor_type = tables.Column(verbose_name="Actor kind")
    actor_id = tables.Column(verbose_name="Actor id")
    on_behalf_of = tables.Column(verbose_name="On behalf of")
    team_uid = tables.Column(verbose_name="Team uid")
    data = tables.Column(accessor="canonical_text", verbose_name="Canonical bytes", orderable=False)

    class Meta(AuditEventTable.Meta):
        fields = (
            *AuditEventTable.Meta.fields[:3], "actor_type", "actor_id", "on_behalf_of", "object_type", "object_id",
            "team_uid", "channel", "request_id", "uid", "data",
        )  # fmt: skip
        sequence = fields
