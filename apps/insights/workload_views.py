"""Workloads by month: what each held, used, cost, and what stopping it when idle would have saved."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import django_filters
import django_tables2 as tables
from django.core.validators import RegexValidator
from django.db.models import F
from django.forms import TextInput
from django.urls import reverse
from django.utils.html import format_html

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import CommonsTable, MoneyColumn, QuantityColumn
from apps.core.views import ListView
from apps.insights.events import WORKLOADS_EXPORTED
from apps.insights.report_models import WorkloadMonth
from apps.metering import billing
from apps.teams.models import Team

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


class WorkloadTable(CommonsTable):
    """Workloads of a month, the dearest first; each leads to its last day."""

    workload_name = tables.Column(verbose_name="Workload")
    workload_kind = tables.Column(verbose_name="Kind", default="–", attrs=_WIDE)
    team_name = tables.Column(verbose_name="Team", default="no owner known")
    namespace = tables.Column(attrs=_WIDE)
    flavour_name = tables.Column(verbose_name="Flavour", default="unknown", attrs=_WIDE)
    project = tables.Column(default="–", attrs=_WIDE)
    purpose = tables.Column(default="–", attrs=_WIDE)
    environment = tables.Column(default="–", attrs=_WIDE)
    hours = QuantityColumn(unit=None, verbose_name="Hours", attrs=_WIDE)
    allocated_gpu_ms = QuantityColumn(verbose_name="Allocated, GPU-hours")
    used_gpu_ms = QuantityColumn(verbose_name="Used, GPU-hours", default="unknown", attrs=_WIDE)
    idle_gpu_ms = QuantityColumn(verbose_name="Idle, GPU-hours", attrs=_WIDE)
    cost = MoneyColumn(verbose_name="Cost", default="unknown", order_by="amount")
    savable = MoneyColumn(verbose_name="Saved by stopping when idle", default="unknown", order_by="savable_product")

    class Meta(CommonsTable.Meta):
        model = WorkloadMonth
        fields = (
            "workload_name", "workload_kind", "team_name", "namespace", "flavour_name", "project", "purpose",
            "environment", "hours", "allocated_gpu_ms", "used_gpu_ms", "idle_gpu_ms", "cost", "savable",
        )  # fmt: skip
        order_by = ("-cost",)
        caption = "Workloads"

    def __init__(self, *args: Any, links: dict[str, dict[int, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.links = links or {}

    def render_workload_name(self, value: str, record: WorkloadMonth) -> str:
        """Lead to the hourly facts of its last day."""
        url = day_url(record, self.links.get("teams", {}), self.links.get("clusters", {}))
        return format_html('<a href="{}">{}</a>', url, value) if url else value

    def value_workload_name(self, value: str) -> str:
        """Files hold the name alone."""
        return value

    def order_cost(self, queryset: Any, is_descending: bool) -> tuple[Any, bool]:
        """Put what has no price last either way: unknown is neither dear nor cheap."""
        amount = F("amount")
        ordered = amount.desc(nulls_last=True) if is_descending else amount.asc(nulls_last=True)
        return queryset.order_by(ordered, "pk"), True


def day_url(row: Any, teams: dict[int, str], clusters: dict[int, str]) -> str:
    """Return the page of a workload's hours on its last day; "" where the team or cluster is not known."""
    team, cluster = teams.get(row.team_id or 0), clusters.get(row.cluster_id)
    if team is None or cluster is None:
        return ""
    day = billing.day_of(row.last_hour)
    address = reverse("costs:workload-day", kwargs={"team_slug": team, "day": day.isoformat()})
    query = {"cluster": cluster, "namespace": row.namespace, "name": row.workload_name}
    return f"{address}?{urlencode(query)}"


class WorkloadFilter(CommonsFilterSet):
    """One month; team, cluster, project, purpose, environment."""

    search = SearchFilter(columns=["workload_name", "namespace"])
    month = django_filters.CharFilter(
        label="Month (yyyy-mm)", method="by_month", widget=TextInput(attrs={"type": "month"}),
        validators=[RegexValidator(r"^20\d\d-(0[1-9]|1[0-2])$", "Write a month as yyyy-mm, for example 2026-11.")],
    )  # fmt: skip
    team = django_filters.ChoiceFilter(field_name="team_name", label="Team")
    cluster = django_filters.ModelChoiceFilter(
        queryset=Cluster.objects.order_by("name"), method="by_cluster", label="Cluster"
    )
    project = django_filters.CharFilter(label="Project")
    purpose = django_filters.CharFilter(label="Purpose")
    environment = django_filters.CharFilter(label="Environment")

    class Meta:
        model = WorkloadMonth
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = Team.objects.visible_to(self.request.user).order_by("name").values_list("name", flat=True)
        self.filters["team"].extra["choices"] = [(name, name) for name in mine]

    def by_month(self, queryset: Any, name: str, value: str) -> Any:
        """Keep a billing month."""
        return queryset.filter(month=billing.parse_month(value))

    def by_cluster(self, queryset: Any, name: str, value: Cluster) -> Any:
        """Keep a cluster."""
        return queryset.filter(cluster_id=value.pk)


class WorkloadList(ListView):
    """The workloads of a month that a person may see."""

    title = "Workloads by month"
    intro = (
        "What each workload held, used and cost in a month (the present one unless you choose another); made once a "
        "day. Saved: what stopping it after 4 idle hours would have saved."
    )
    permission = "costs.charge.view"
    queryset = WorkloadMonth.objects.all()
    table_class = WorkloadTable
    filterset_class = WorkloadFilter
    export_event = WORKLOADS_EXPORTED
    empty_title = "No workloads in this month"
    empty_text = "Choose another month above; the running one is made once a day."
    empty_icon = "list"

    def get_filterset(self, queryset: Any) -> Any:
        """Filter always: the list keeps to one month."""
        data = self.request.GET.copy()
        data.setdefault("month", f"{billing.month_of(clock.now()):%Y-%m}")
        return WorkloadFilter(data, queryset=queryset, request=self.request)

    def get_table_kwargs(self) -> dict[str, Any]:
        """Look up teams and clusters once, for the links."""
        return {
            "links": {
                "teams": dict(Team.objects.values_list("pk", "slug")),
                "clusters": dict(Cluster.objects.values_list("pk", "slug")),
            }
        }


__all__ = ["WorkloadFilter", "WorkloadList", "WorkloadTable", "day_url"]
