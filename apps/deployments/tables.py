"""Tables and filters of endpoints, releases and placement rules."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables

from apps.clusters.choices import Location
from apps.clusters.models import Cluster
from apps.core.events import declare
from apps.core.exports import Exported
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.money import Money
from apps.core.tables import AgeColumn, CommonsTable, MoneyColumn, StatusColumn, TimeColumn, UidLinkColumn
from apps.deployments.choices import ReleaseStatus
from apps.deployments.models import Endpoint, PlacementRule, Release
from apps.quotas.choices import DataClass, Environment
from apps.teams.models import Team

ENDPOINTS_EXPORTED = declare("deployments.endpoint.exported", Exported, audience="auditors")
RELEASES_EXPORTED = declare("deployments.release.exported", Exported, audience="auditors")
RULES_EXPORTED = declare("deployments.rule.exported", Exported, audience="auditors")
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
#: What an endpoint is doing, for people: worked out in the query, so that it can be filtered and sorted.
STATES = (
    ("serving", "Serving"), ("canary", "Canary"), ("starting", "Starting"), ("stopped", "Stopped"),
    ("empty", "Nothing deployed"),
)  # fmt: skip
STATE_TONES = {
    "serving": "positive", "canary": "info", "starting": "info", "stopped": "neutral", "empty": "neutral",
}  # fmt: skip
RELEASE_TONES = {
    "in_review": "info", "waiting_for_capacity": "caution", "starting": "info", "canary": "info", "held": "caution",
    "live": "positive", "superseded": "neutral", "rolled_back": "critical", "failed": "critical",
    "rejected": "critical", "withdrawn": "neutral", "lapsed": "neutral", "ended": "neutral",
}  # fmt: skip


class EndpointTable(CommonsTable):
    """Endpoints by name."""

    name = UidLinkColumn("deployments:endpoint-detail", kwarg="endpoint_uid", verbose_name="Endpoint")
    state = StatusColumn(tones=STATE_TONES, verbose_name="State")
    version = tables.Column(accessor="current__model_version", verbose_name="Version", orderable=False, default="–")
    traffic = tables.Column(verbose_name="Canary", empty_values=(), attrs=_WIDE)
    team = tables.Column(accessor="workspace__team__name", verbose_name="Team")
    environment = tables.Column(accessor="workspace__environment", verbose_name="Environment", attrs=_WIDE)
    cluster = tables.Column(accessor="workspace__cluster__name", verbose_name="Cluster", attrs=_WIDE)
    ready_replicas = tables.Column(verbose_name="Ready replicas", default="unknown", attrs=_WIDE)
    updated_at = AgeColumn(verbose_name="Changed")

    class Meta(CommonsTable.Meta):
        model = Endpoint
        fields = (
            "name", "state", "version", "traffic", "team", "environment", "cluster", "ready_replicas", "updated_at",
        )  # fmt: skip
        order_by = ("name",)
        caption = "Endpoints"

    def render_state(self, value: str) -> str:
        """The state in words."""
        return dict(STATES).get(value, value)

    def value_state(self, value: str) -> str:
        """Export the same."""
        return dict(STATES).get(value, value)

    def render_traffic(self, record: Endpoint) -> str:
        """The candidate's share, where there is one."""
        return f"{record.traffic} %" if record.candidate_id is not None else "–"

    def value_traffic(self, record: Endpoint) -> int | str:
        """Export the number."""
        return record.traffic if record.candidate_id is not None else ""


class EndpointFilter(CommonsFilterSet):
    """Name, team, cluster, environment, state."""

    search = SearchFilter(columns=["name", "model__name"])
    team = django_filters.ModelChoiceFilter(
        field_name="workspace__team", label="Team", queryset=Team.objects.none(), empty_label="All"
    )
    cluster = django_filters.ModelChoiceFilter(
        field_name="workspace__cluster", label="Cluster", queryset=Cluster.objects.none(), empty_label="All"
    )
    environment = django_filters.ChoiceFilter(
        field_name="workspace__environment", label="Environment", choices=Environment.choices, empty_label="All"
    )
    state = django_filters.ChoiceFilter(label="State", choices=STATES, empty_label="All")

    class Meta:
        model = Endpoint
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = Endpoint.objects.visible_to(self.request.user).order_by()
        teams = Team.objects.filter(pk__in=mine.values("workspace__team")).order_by("name")
        clusters = Cluster.objects.filter(pk__in=mine.values("workspace__cluster")).order_by("name")
        self.filters["team"].queryset, self.filters["cluster"].queryset = teams, clusters


class ReleaseTable(CommonsTable):
    """Releases, newest first."""

    summary = UidLinkColumn(
        "deployments:release-detail", kwarg="release_uid", accessor="endpoint__name", verbose_name="Endpoint"
    )
    number = tables.Column(verbose_name="Release")
    status = StatusColumn(tones=RELEASE_TONES, verbose_name="Status")
    version = tables.Column(accessor="model_version", verbose_name="Version", orderable=False)
    flavour = tables.Column(accessor="flavour__name", verbose_name="Flavour", attrs=_WIDE)
    team = tables.Column(accessor="endpoint__workspace__team__name", verbose_name="Team", attrs=_WIDE)
    environment = tables.Column(accessor="endpoint__workspace__environment", verbose_name="Environment", attrs=_WIDE)
    cost = MoneyColumn(verbose_name="Monthly cost change", orderable=False, empty_values=())
    created_at = AgeColumn(verbose_name="Requested")

    class Meta(CommonsTable.Meta):
        model = Release
        fields = (
            "summary", "number", "status", "version", "flavour", "team", "environment", "cost", "created_at",
        )  # fmt: skip
        order_by = ("-created_at",)
        caption = "Releases"

    def render_cost(self, record: Release) -> str:
        """The frozen estimate, or that it is unknown."""
        return str(record.cost) if record.cost is not None else "unknown"

    def value_cost(self, record: Release) -> Money | str:
        """Export the amount."""
        return record.cost or "unknown"


class ReleaseFilter(CommonsFilterSet):
    """Name, status, team."""

    search = SearchFilter(columns=["endpoint__name", "model_version__model__name"])
    status = django_filters.ChoiceFilter(choices=ReleaseStatus.choices, empty_label="All")
    team = django_filters.ModelChoiceFilter(
        field_name="endpoint__workspace__team", label="Team", queryset=Team.objects.none(), empty_label="All"
    )

    class Meta:
        model = Release
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = Release.objects.visible_to(self.request.user).order_by()
        teams = Team.objects.filter(pk__in=mine.values("endpoint__workspace__team")).order_by("name")
        self.filters["team"].queryset = teams


class RuleTable(CommonsTable):
    """Placement rules, those in force first."""

    text = tables.Column(verbose_name="Rule")
    data_class = tables.Column(verbose_name="Data class")
    location = tables.Column(verbose_name="Location", default="anywhere")
    jurisdictions = tables.Column(verbose_name="Jurisdictions", orderable=False, default="any")
    citation = tables.Column(verbose_name="Citation", default="–", attrs=_WIDE)
    valid_from = TimeColumn(accessor="valid__lower", verbose_name="Since", orderable=False)
    valid_until = TimeColumn(accessor="valid__upper", verbose_name="Until", orderable=False, default="–")
    end = tables.TemplateColumn(
        template_name="deployments/rule_end_link.html",
        verbose_name="Actions",
        orderable=False,
        exclude_from_export=True,
    )

    class Meta(CommonsTable.Meta):
        model = PlacementRule
        fields = (
            "text", "data_class", "location", "jurisdictions", "citation", "valid_from", "valid_until", "end",
        )  # fmt: skip
        order_by = ("data_class",)
        caption = "Placement rules"

    def render_data_class(self, value: str) -> str:
        """Write the class as people read it."""
        return str(dict(DataClass.choices).get(value, value))

    def value_data_class(self, value: str) -> str:
        """Export the same."""
        return self.render_data_class(value)

    def render_location(self, value: str) -> str:
        """Write the place in words."""
        return str(dict(Location.choices).get(value, value))

    def value_location(self, value: str) -> str:
        """Export the same."""
        return self.render_location(value)

    def render_jurisdictions(self, value: list[str]) -> str:
        """Write the codes as a list."""
        return ", ".join(value)

    def value_jurisdictions(self, value: list[str]) -> str:
        """Export the same."""
        return ", ".join(value)


class RuleFilter(CommonsFilterSet):
    """Data class."""

    data_class = django_filters.ChoiceFilter(choices=DataClass.choices, empty_label="All")

    class Meta:
        model = PlacementRule
        fields: list[str] = []
