"""Tables and filters of workspaces, quota requests and pools."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables

from apps.clusters.models import Cluster, Flavour
from apps.core.events import declare
from apps.core.exports import Exported
from apps.core.filters import CommonsFilterSet, DateFromFilter, DateUntilFilter, SearchFilter
from apps.core.money import Money
from apps.core.tables import (
    AgeColumn,
    CommonsTable,
    MoneyColumn,
    QuantityColumn,
    StatusColumn,
    TimeColumn,
    UidLinkColumn,
)
from apps.quotas import recurrence
from apps.quotas.choices import Environment, RequestStatus, Rung
from apps.quotas.models import QuotaRequest, Workspace
from apps.teams.models import Team

REQUESTS_EXPORTED = declare("quotas.request.exported", Exported, audience="auditors")
RUNG_TONES = {"none": "positive", "stopped_admitting": "caution", "drained": "caution", "archived": "neutral"}
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
_WIDEST = {"cell": {"class": "text-nowrap d-none d-xxl-table-cell"}}


class WorkspaceTable(CommonsTable):
    """Workspaces by team."""

    namespace = UidLinkColumn("quotas:workspace-detail", kwarg="workspace_uid", verbose_name="Workspace")
    team = tables.Column(accessor="team__name", verbose_name="Team")
    cluster = tables.Column(accessor="cluster__name", verbose_name="Cluster")
    environment = tables.Column(verbose_name="Environment")
    data_classes = tables.Column(verbose_name="Data allowed", orderable=False, attrs=_WIDE)
    rung = StatusColumn(tones=RUNG_TONES, verbose_name="State")
    open_requests = QuantityColumn(unit=None, verbose_name="Open requests")

    class Meta(CommonsTable.Meta):
        model = Workspace
        fields = ("namespace", "rung", "team", "cluster", "environment", "data_classes", "open_requests")
        order_by = ("namespace",)
        caption = "Workspaces"

    def render_data_classes(self, value: list[str]) -> str:
        """Write the classes as a list."""
        return ", ".join(value)

    def value_data_classes(self, value: list[str]) -> str:
        """Export the same."""
        return ", ".join(value)


class WorkspaceFilter(CommonsFilterSet):
    """Team, cluster, environment."""

    search = SearchFilter(columns=["namespace"])
    team = django_filters.ModelChoiceFilter(queryset=Team.objects.none(), empty_label="All")
    cluster = django_filters.ModelChoiceFilter(queryset=Cluster.objects.none(), empty_label="All")
    environment = django_filters.ChoiceFilter(choices=Environment.choices, empty_label="All")
    rung = django_filters.ChoiceFilter(label="State", choices=Rung.choices, empty_label="All")

    class Meta:
        model = Workspace
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = Workspace.objects.visible_to(self.request.user).order_by()
        self.filters["team"].queryset = Team.objects.filter(pk__in=mine.values("team")).order_by("name")
        self.filters["cluster"].queryset = Cluster.objects.filter(pk__in=mine.values("cluster")).order_by("name")


class RequestTable(CommonsTable):
    """Quota requests, newest first; what a narrow screen has no room for stands on the request's page."""

    summary = UidLinkColumn(
        "quotas:request-detail", kwarg="request_uid", accessor="workspace__namespace", verbose_name="Workspace"
    )
    cluster = tables.Column(accessor="workspace__cluster__name", verbose_name="Cluster", attrs=_WIDE)
    status = StatusColumn(verbose_name="Status")
    team = tables.Column(accessor="workspace__team__name", verbose_name="Team", attrs=_WIDE)
    flavour = tables.Column(accessor="flavour__name", verbose_name="Flavour")
    guaranteed = QuantityColumn(unit=None, verbose_name="GPUs")
    borrow_limit = QuantityColumn(unit=None, verbose_name="Borrow", attrs=_WIDE)
    cost = MoneyColumn(verbose_name="Monthly cost change", orderable=False, empty_values=())
    created_at = AgeColumn(verbose_name="Submitted")
    valid_from = TimeColumn(verbose_name="From", attrs=_WIDEST)
    valid_until = TimeColumn(verbose_name="Until", attrs=_WIDEST)
    repeats = tables.Column(accessor="recurrence", verbose_name="Repeats", orderable=False, attrs=_WIDEST, default="")
    requester = tables.Column(accessor="requester__display_name", verbose_name="Requested by", attrs=_WIDEST)

    class Meta(CommonsTable.Meta):
        model = QuotaRequest
        fields = (
            "summary", "cluster", "status", "team", "flavour", "guaranteed", "borrow_limit", "cost", "created_at",
            "valid_from", "valid_until", "repeats", "requester",
        )  # fmt: skip
        order_by = ("-created_at",)
        caption = "Quota requests"

    def render_borrow_limit(self, value: int, record: QuotaRequest) -> str:
        """Unlimited is a word, never a number."""
        return "unlimited" if record.borrow_mode == "unlimited" else f"{value:,}"

    def value_borrow_limit(self, value: int, record: QuotaRequest) -> int | str:
        """Export the same."""
        return "unlimited" if record.borrow_mode == "unlimited" else value

    def render_repeats(self, value: object) -> str:
        """Write the repetition in words."""
        found = recurrence.parse(value)
        return recurrence.words(found) if found is not None else ""

    def value_repeats(self, value: object) -> str:
        """Export the same."""
        return self.render_repeats(value)

    def render_cost(self, record: QuotaRequest) -> str:
        """Write the frozen estimate, or that it is unknown."""
        money = record.cost
        return str(money) if money is not None else "unknown"

    def value_cost(self, record: QuotaRequest) -> Money | str:
        """Export the amount."""
        return record.cost or "unknown"


class RequestFilter(CommonsFilterSet):
    """Status, team, flavour, day of submission."""

    status = django_filters.ChoiceFilter(choices=RequestStatus.choices, empty_label="All")
    team = django_filters.ModelChoiceFilter(
        field_name="workspace__team", label="Team", queryset=Team.objects.none(), empty_label="All"
    )
    flavour = django_filters.ModelChoiceFilter(queryset=Flavour.objects.order_by("name"), empty_label="All")
    submitted_from = DateFromFilter(field_name="created_at", label="Submitted from")
    submitted_until = DateUntilFilter(field_name="created_at", label="Submitted until")

    class Meta:
        model = QuotaRequest
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = Workspace.objects.visible_to(self.request.user).order_by()
        self.filters["team"].queryset = Team.objects.filter(pk__in=mine.values("team")).order_by("name")
