"""Tables and filters of findings and idle workloads."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.db.models import F
from django.utils.functional import cached_property

from apps.core.filters import CommonsFilterSet, DateFromFilter, SearchFilter
from apps.core.tables import (
    AgeColumn,
    CommonsTable,
    MoneyColumn,
    QuantityColumn,
    StatusColumn,
    TimeColumn,
    UidLinkColumn,
)
from apps.insights import selectors
from apps.insights.choices import FindingKind, FindingStatus, IdleStatus
from apps.insights.models import Finding, IdleCase
from apps.teams.models import Team

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
FINDING_TONES = {"open": "caution", "snoozed": "info", "acted": "positive", "dismissed": "neutral", "gone": "neutral"}
IDLE_TONES = {
    "noticed": "caution", "kept": "info", "stopping": "info", "stopped": "positive", "resumed": "neutral",
    "ended": "neutral",
}  # fmt: skip


class FindingTable(CommonsTable):
    """Findings: what, whose, how much."""

    title = UidLinkColumn(
        "insights:finding-detail", kwarg="finding_uid", verbose_name="Finding", attrs={"td": {"class": "sentence"}}
    )
    status = StatusColumn(tones=FINDING_TONES)
    kind = tables.Column(attrs=_WIDE)
    team = tables.Column(accessor="team__name", verbose_name="Team", default="The platform", attrs=_WIDE)
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster", attrs=_WIDE)
    gpu_ms = QuantityColumn(verbose_name="Unused, GPU-hours")
    amount = MoneyColumn(verbose_name="Cost in the window", default="unknown")
    included = tables.Column(
        verbose_name="Counted with another", empty_values=(), orderable=False, accessor="pk", attrs=_WIDE
    )
    found_at = AgeColumn(verbose_name="Found", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Finding
        fields = ("title", "status", "kind", "team", "cluster", "gpu_ms", "amount", "included", "found_at")
        order_by = ("-amount", "-found_at")
        caption = "Findings"

    @cached_property
    def overlaps(self) -> dict[int, selectors.Overlap]:
        """What of each open proposal another one of the same workspace saves anyway: one query."""
        return selectors.overlaps(selectors.open_findings(self.request.user, kind__in=selectors.PROPOSED))

    def value_included(self, record: Any) -> str:
        """Say what of it is counted with which other."""
        return selectors.overlap_words(self.overlaps.get(record.pk))

    def render_included(self, record: Any) -> str:
        """Say what of it is counted with which other."""
        return self.value_included(record) or "–"

    def order_amount(self, queryset: Any, is_descending: bool) -> tuple[Any, bool]:
        """Put what has no price last either way: unknown is neither dear nor cheap."""
        amount = F("amount")
        ordered = amount.desc(nulls_last=True) if is_descending else amount.asc(nulls_last=True)
        return queryset.order_by(ordered, "-found_at", "-pk"), True


class FindingFilter(CommonsFilterSet):
    """Status, kind, team, day; closed findings only where asked for."""

    search = SearchFilter(columns=["title"])
    status = django_filters.ChoiceFilter(choices=FindingStatus.choices, empty_label="Open and snoozed")
    kind = django_filters.ChoiceFilter(choices=FindingKind.choices, empty_label="All")
    team = django_filters.ModelChoiceFilter(queryset=Team.objects.none(), empty_label="All")
    found_from = DateFromFilter(field_name="found_at", label="Found from")

    class Meta:
        model = Finding
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = Finding.objects.visible_to(self.request.user).order_by().values("team")
        self.filters["team"].queryset = Team.objects.filter(pk__in=mine).order_by("name", "pk")

    @property
    def qs(self) -> Any:
        """Without a status, what is still to be decided."""
        found = super().qs
        return found if self.data.get("status") else found.filter(status__in=("open", "snoozed"))


class IdleCaseTable(CommonsTable):
    """Idle workloads: what holds how many GPUs since when, and what becomes of it."""

    workload_name = UidLinkColumn("insights:idle-detail", kwarg="case_uid", verbose_name="Workload")
    workload_kind = tables.Column(verbose_name="Kind", attrs=_WIDE)
    status = StatusColumn(tones=IDLE_TONES)
    team = tables.Column(accessor="team__name", verbose_name="Team", attrs=_WIDE)
    workspace = tables.Column(accessor="workspace__namespace", verbose_name="Workspace")
    cluster = tables.Column(accessor="workspace__cluster__name", verbose_name="Cluster", attrs=_WIDE)
    gpus = QuantityColumn(unit=None, verbose_name="Units")
    flavour = tables.Column(accessor="flavour__name", verbose_name="Flavour", default="unknown", attrs=_WIDE)
    idle_since = TimeColumn(verbose_name="Idle since")
    stop_at = TimeColumn(verbose_name="Stops, unless answered", attrs=_WIDE)
    saved_gpu_ms = QuantityColumn(verbose_name="Saved, GPU-hours")

    class Meta(CommonsTable.Meta):
        model = IdleCase
        fields = (
            "workload_name", "workload_kind", "status", "team", "workspace", "cluster", "gpus", "flavour", "idle_since",
            "stop_at", "saved_gpu_ms",
        )  # fmt: skip
        order_by = ("-idle_since",)
        caption = "Idle workloads"


class IdleCaseFilter(CommonsFilterSet):
    """Status, team, workspace, name."""

    search = SearchFilter(columns=["workload_name", "workspace__namespace"])
    status = django_filters.ChoiceFilter(choices=IdleStatus.choices, empty_label="All")
    team = django_filters.ModelChoiceFilter(queryset=Team.objects.none(), empty_label="All")
    idle_from = DateFromFilter(field_name="idle_since", label="Idle from")

    class Meta:
        model = IdleCase
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = IdleCase.objects.visible_to(self.request.user).order_by().values("team")
        self.filters["team"].queryset = Team.objects.filter(pk__in=mine).order_by("name", "pk")
