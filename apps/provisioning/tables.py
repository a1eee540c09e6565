"""Tables of declarations, apply runs and drift."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.db.models import F, Q, QuerySet
from django.utils.safestring import SafeString

from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, QuantityColumn, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.templatetags import commons
from apps.provisioning.choices import DeclarationStatus, RunOutcome
from apps.provisioning.models import ApplyRun, Declaration, Drift
from apps.provisioning.selectors import APPLIED_BADGES, drift_of

#: Tones of an apply run's outcome.
OUTCOME_TONES = {
    RunOutcome.RUNNING: "info", RunOutcome.SUCCEEDED: "positive", RunOutcome.FAILED: "caution",
    RunOutcome.STOPPED: "critical", RunOutcome.SUPERSEDED: "neutral", RunOutcome.ABANDONED: "caution",
}  # fmt: skip
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
_WIDE_TIME = {"cell": {"class": "text-nowrap d-none d-md-table-cell"}}


class AppliedColumn(StatusColumn):
    """How far a declaration has come; what is applied says whether it drifted since."""

    def _shown(self, record: Declaration) -> tuple[str, str]:
        if record.status != DeclarationStatus.APPLIED or record.generation != record.observed_generation:
            return str(record.status), str(record.get_status_display())
        return APPLIED_BADGES[drift_of(record)]

    def render(self, value: Any, record: Any, bound_column: Any) -> SafeString:
        """Draw the badge."""
        return commons.status_badge(*self._shown(record))

    def value(self, value: Any, record: Any, bound_column: Any, **_: Any) -> str:
        """Export the words."""
        return self._shown(record)[1]


class DeclarationTable(CommonsTable):
    """What is declared where, and how it stands."""

    title = UidLinkColumn("provisioning:declaration-detail", kwarg="declaration_uid", verbose_name="Declaration")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    team = tables.Column(accessor="team__name", verbose_name="Team", attrs=_WIDE)
    status = AppliedColumn()
    generation = QuantityColumn(unit=None)
    observed_generation = QuantityColumn(unit=None, verbose_name="Applied generation")
    declared_at = AgeColumn(verbose_name="Declared", attrs=_WIDE_TIME)
    failing_since = AgeColumn(verbose_name="Failing since", attrs=_WIDE_TIME)
    last_error = tables.Column(verbose_name="Why", orderable=False, attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Declaration
        fields = (
            "title", "cluster", "team", "status", "generation", "observed_generation", "declared_at", "failing_since",
            "last_error",
        )  # fmt: skip
        order_by = ("-declared_at",)
        caption = "Declarations"

    def render_last_error(self, value: str) -> str:
        """Cut a long reason; its page has the whole."""
        return value if len(value) <= 120 else f"{value[:119]}…"


class DeclarationFilter(CommonsFilterSet):
    """Search, status and whether it needs somebody."""

    search = SearchFilter(columns=["title", "cluster__name", "team__name"])
    status = django_filters.ChoiceFilter(choices=DeclarationStatus.choices, label="Status", empty_label="All")
    state = django_filters.ChoiceFilter(
        choices=[("failed", "Failing or stopped"), ("drifted", "Drifted"), ("waiting", "Not applied yet")],
        method="by_state",
        label="Show",
        empty_label="All",
    )

    class Meta:
        model = Declaration
        fields: list[str] = []

    def by_state(self, queryset: QuerySet[Declaration], name: str, value: str) -> QuerySet[Declaration]:
        """Keep what needs somebody."""
        if value == "failed":
            return queryset.filter(Q(status=DeclarationStatus.STOPPED) | Q(failing_since__isnull=False))
        if value == "drifted":
            return queryset.filter(pk__in=Drift.objects.filter(resolved_at__isnull=True).values("declaration_id"))
        return queryset.filter(generation__gt=F("observed_generation"))


class RunTable(CommonsTable):
    """Attempts, newest first."""

    started_at = TimeColumn(verbose_name="Began")
    declaration = UidLinkColumn(
        "provisioning:run-detail", kwarg="run_uid", accessor="declaration__title", verbose_name="Declaration"
    )
    cluster = tables.Column(accessor="declaration__cluster__name", verbose_name="Cluster")
    generation = QuantityColumn(unit=None)
    outcome = StatusColumn(tones={str(key): value for key, value in OUTCOME_TONES.items()})
    duration = tables.Column(
        accessor="duration_ms", verbose_name="Took (ms)", orderable=False, attrs={"cell": {"class": "figure"}}
    )
    error = tables.Column(verbose_name="Error", orderable=False, attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = ApplyRun
        fields = ("started_at", "declaration", "cluster", "generation", "outcome", "duration", "error")
        order_by = ("-started_at",)
        caption = "Apply runs"

    def render_error(self, value: str) -> str:
        """Cut a long error; its page has the whole."""
        return value if len(value) <= 120 else f"{value[:119]}…"


class RunFilter(CommonsFilterSet):
    """Search and outcome."""

    search = SearchFilter(columns=["declaration__title", "declaration__cluster__name", "error"])
    outcome = django_filters.ChoiceFilter(choices=RunOutcome.choices, label="Outcome", empty_label="All")

    class Meta:
        model = ApplyRun
        fields: list[str] = []


class DriftTable(CommonsTable):
    """What lives otherwise than declared."""

    object = UidLinkColumn(
        "provisioning:declaration-detail", kwarg="declaration_uid", target="declaration", accessor="name",
        verbose_name="Object",
    )  # fmt: skip
    cluster = tables.Column(accessor="declaration__cluster__name", verbose_name="Cluster")
    field = tables.Column(empty_values=())
    manager = tables.Column(verbose_name="Changed by")
    operation = tables.Column(attrs=_WIDE)
    state = tables.Column(empty_values=(), orderable=False, verbose_name="State")
    changed_at = AgeColumn(verbose_name="Changed")
    found_at = AgeColumn(verbose_name="Found", attrs=_WIDE_TIME)
    resolved_at = AgeColumn(verbose_name="Resolved", attrs=_WIDE_TIME)

    class Meta(CommonsTable.Meta):
        model = Drift
        fields = (
            "object",
            "cluster",
            "field",
            "declared",
            "live",
            "manager",
            "operation",
            "state",
            "changed_at",
            "found_at",
            "resolved_at",
        )
        order_by = ("object", "-found_at")
        caption = "Drift"

    def render_object(self, record: Drift) -> Any:
        """Name the object with kind and namespace."""
        column = self.columns["object"].column
        return column.render(f"{record.kind} {record.namespace}/{record.name}".replace(" /", " "), record)

    def value_object(self, record: Drift) -> str:
        """Export kind, namespace and name."""
        return f"{record.kind} {record.namespace}/{record.name}".replace(" /", " ")

    def order_object(self, queryset: QuerySet[Drift], is_descending: bool) -> tuple[QuerySet[Drift], bool]:
        """Group by object."""
        sign = "-" if is_descending else ""
        columns = ("declaration__cluster__name", "namespace", "kind", "name", "field")
        return queryset.order_by(*(f"{sign}{column}" for column in columns), "pk"), True

    def render_state(self, record: Drift) -> str:
        """Say what became of it, or what was decided."""
        if record.resolved_at is not None:
            return record.get_resolution_display() if record.resolution else "Resolved"
        if record.ignored_until is not None:
            return f"Left until {record.ignored_until:%Y-%m-%d}: {record.ignore_reason}"
        return record.get_decision_display()

    def render_field(self, record: Drift) -> str:
        """An empty field means the object itself."""
        return record.field or "the object itself"


class DriftFilter(CommonsFilterSet):
    """Search, open or resolved."""

    search = SearchFilter(columns=["name", "namespace", "kind", "field", "manager", "declaration__title"])
    state = django_filters.ChoiceFilter(
        choices=[("open", "Open"), ("ignored", "Left until a date"), ("resolved", "Resolved")],
        method="by_state",
        label="State",
        empty_label="All",
    )

    class Meta:
        model = Drift
        fields: list[str] = []

    def by_state(self, queryset: QuerySet[Drift], name: str, value: str) -> QuerySet[Drift]:
        """Open ones, those that are left alone for now, or resolved ones."""
        rows: Any = queryset
        if value == "open":
            return rows.open()  # type: ignore[no-any-return]  # DriftQuerySet
        return rows.ignored() if value == "ignored" else queryset.filter(resolved_at__isnull=False)
