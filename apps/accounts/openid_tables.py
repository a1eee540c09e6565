"""Table and filter of identity providers."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.db.models import Case, Count, Q, QuerySet, Value, When

from apps.accounts.models import IdentityProvider
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, UidLinkColumn

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
LABELS = {"active": "Open for sign-in", "failed": "Test failed", "none": "Off", "archived": "Archived"}
TONES = {"active": "positive", "failed": "critical", "none": "neutral", "archived": "neutral"}


def with_state(rows: Any) -> Any:
    """Add `state` (active, failed, none, archived) and how many `people` are connected."""
    return rows.annotate(
        state=Case(
            When(archived_at__isnull=False, then=Value("archived")),
            When(~Q(check_error=""), then=Value("failed")),
            When(enabled=True, then=Value("active")),
            default=Value("none"),
        ),
        people=Count("identities"),
    )


class ProviderTable(CommonsTable):
    """One provider a row."""

    name = UidLinkColumn("accounts:provider-detail", kwarg="provider_uid", verbose_name="Provider")
    issuer = tables.Column(attrs=_WIDE)
    state = StatusColumn(verbose_name="State", labels=LABELS, tones=TONES, orderable=False)
    people = tables.Column(verbose_name="People", attrs={"cell": {"class": "figure"}})
    checked_at = AgeColumn(verbose_name="Tested", default="never", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = IdentityProvider
        fields = ("name", "issuer", "state", "people", "checked_at")
        order_by = ("name",)
        caption = "Identity providers"


class ProviderFilter(CommonsFilterSet):
    """Search; archived ones only when asked for."""

    q = SearchFilter(columns=["name", "issuer"])
    archived = django_filters.ChoiceFilter(
        label="Archived",
        choices=[("yes", "Archived"), ("all", "All")],
        empty_label="In use",
        method="by_archived",
    )

    class Meta:
        model = IdentityProvider
        fields: list[str] = []

    def by_archived(self, rows: QuerySet[IdentityProvider], _: str, value: str) -> QuerySet[IdentityProvider]:
        """Show archived ones, or all."""
        return rows.filter(archived_at__isnull=False) if value == "yes" else rows
