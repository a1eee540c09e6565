"""Tables of requests and policies."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables

from apps.approvals import notices, ports
from apps.approvals.models import ApprovalRequest, Policy
from apps.core.tables import AgeColumn, CommonsTable, MoneyColumn, StatusColumn, TimeColumn, UidLinkColumn

WIDE = {"cell": {"class": "d-none d-lg-table-cell"}}


class CostColumn(MoneyColumn):
    """The change of the monthly cost as of submission; a dash where it is unknown."""

    def _money(self, value: Any, record: Any) -> Any:
        return notices.monthly_cost(record)


class RequestTable(CommonsTable):
    """Approval requests."""

    title = UidLinkColumn("approvals:request-detail", kwarg="request_uid", accessor="title", verbose_name="Request")
    status = StatusColumn()
    team = tables.Column(accessor="team__name", verbose_name="Team")
    kind = tables.Column(accessor="subject_type", verbose_name="Kind", attrs=WIDE)
    cost = CostColumn(accessor="facts", verbose_name="Monthly cost change", orderable=False)
    requester = tables.Column(accessor="requester__display_name", verbose_name="Requester", attrs=WIDE)
    submitted_at = AgeColumn(verbose_name="Age")
    due_at = TimeColumn(verbose_name="Decide until", attrs=WIDE)

    class Meta(CommonsTable.Meta):
        model = ApprovalRequest
        fields = ("title", "status", "team", "kind", "cost", "requester", "submitted_at", "due_at")
        order_by = "-submitted_at"
        caption = "Approval requests"

    def render_kind(self, value: str) -> str:
        """Write the kind in words."""
        return ports.label_of(value)


class PolicyTable(CommonsTable):
    """Policies with their newest version."""

    name = UidLinkColumn("approvals:policy-detail", kwarg="slug", lookup="slug", verbose_name="Policy")
    subject_type = tables.Column(verbose_name="For")
    newest_number = tables.Column(verbose_name="Version", attrs={"cell": {"class": "figure"}})
    newest_at = TimeColumn(verbose_name="In force since")

    class Meta(CommonsTable.Meta):
        model = Policy
        fields = ("name", "subject_type", "newest_number", "newest_at")
        order_by = "name"
        caption = "Policies"

    def render_subject_type(self, value: str) -> str:
        """Write the kind in words."""
        return ports.label_of(value)
