"""Tables of pools, flavours and nodes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import django_filters
import django_tables2 as tables
from django.core.paginator import Paginator

from apps.clusters.choices import PoolKind, Sharing
from apps.clusters.models import Cluster, Flavour, Node, Pool
from apps.clusters.tables import HEALTH_TONES, HEALTH_WORDS, SlugLinkColumn
from apps.core import formats
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, QuantityColumn, StatusColumn

NODE_STATES = {
    "ready": "Takes pods", "cordoned": "Cordoned", "not_ready": "Not ready", "unknown": "Contradicts itself",
}  # fmt: skip
NODE_TONES = {"ready": "positive", "cordoned": "caution", "not_ready": "critical", "unknown": "caution"}
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


class PoolTable(CommonsTable):
    """Pools: what may be promised and what is there."""

    gpu_model = tables.Column(verbose_name="Pool", linkify=("clusters:pool-detail", {"pool_uid": tables.A("uid")}))
    cluster = SlugLinkColumn(accessor="cluster__name", verbose_name="Cluster")
    health = StatusColumn(
        tones=HEALTH_TONES,
        labels=HEALTH_WORDS,
        orderable=False,
        accessor="cluster__shown_health",
        verbose_name="Health",
    )
    kind = tables.Column(attrs=_WIDE)
    committable = QuantityColumn(unit=None, verbose_name="Committable now")
    observed_gpus = QuantityColumn(unit=None, verbose_name="Observed")
    unit = tables.Column(verbose_name="Counted in", orderable=False)
    observed_at = AgeColumn(verbose_name="Observed", attrs={"cell": {"class": "text-nowrap d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = Pool
        fields = ("gpu_model", "cluster", "health", "kind", "committable", "observed_gpus", "unit", "observed_at")
        order_by = ("gpu_model",)
        caption = "Pools"


class PoolFilter(CommonsFilterSet):
    """Search and kind."""

    search = SearchFilter(columns=["gpu_model", "cluster__name"])
    kind = django_filters.ChoiceFilter(choices=PoolKind.choices, label="Kind", empty_label="All")

    class Meta:
        model = Pool
        fields: list[str] = []


class FlavourTable(CommonsTable):
    """Flavours that can be asked for."""

    name = tables.Column(verbose_name="Flavour")
    gpu_model = tables.Column(verbose_name="GPU model")
    resource_name = tables.Column(verbose_name="Resource", attrs=_WIDE)
    sharing = tables.Column()
    share = tables.Column(accessor="numerator", verbose_name="Share of a device", orderable=False)
    memory_mib = QuantityColumn(unit=None, verbose_name="Memory (MiB)")
    clusters = tables.Column(accessor="pk", verbose_name="Offered on", orderable=False, attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Flavour
        fields = ("name", "gpu_model", "resource_name", "sharing", "share", "memory_mib", "clusters")
        order_by = ("name",)
        caption = "Flavours"

    def render_share(self, record: Flavour) -> str:
        """Write the fraction."""
        return "a core" if record.unit == "cores" else f"{record.numerator}/{record.denominator}"

    def value_share(self, record: Flavour) -> str:
        """Export the fraction."""
        return f"{record.numerator}/{record.denominator}"

    def render_clusters(self, record: Flavour) -> str:
        """Name the clusters whose pools offer it."""
        return ", ".join(sorted({pool.cluster.name for pool in record.pools.all()})) or formats.UNKNOWN

    def value_clusters(self, record: Flavour) -> str:
        """Export the clusters."""
        return ", ".join(sorted({pool.cluster.name for pool in record.pools.all()}))


class FlavourFilter(CommonsFilterSet):
    """Search and sharing."""

    search = SearchFilter(columns=["name", "slug", "gpu_model", "resource_name"])
    sharing = django_filters.ChoiceFilter(choices=Sharing.choices, label="Sharing", empty_label="All")

    class Meta:
        model = Flavour
        fields: list[str] = []


class _NodeColumns(CommonsTable):
    """What is said of a node: what is built in, how it is shared, what it offers to pods."""

    name = tables.Column(verbose_name="Node")
    gpu_model = tables.Column(verbose_name="GPU model", default=formats.UNKNOWN)
    physical_gpus = QuantityColumn(unit=None, verbose_name="GPUs")
    sharing = tables.Column(verbose_name="Shared as", orderable=False, empty_values=())
    offers = tables.Column(verbose_name="Offered to pods", orderable=False, empty_values=(), attrs=_WIDE)
    state = StatusColumn(labels=NODE_STATES, tones=NODE_TONES, accessor="state", verbose_name="State", orderable=False)
    observed_at = AgeColumn(verbose_name="Observed")

    def render_physical_gpus(self, value: int, record: Node) -> str:
        """A node that contradicts itself has an unknown number of GPUs, not none."""
        return "unknown" if record.problem else f"{value:,}"

    def render_sharing(self, record: Node) -> str:
        """Write how its GPUs are shared, or why that is unknown."""
        return sharing_words(record)

    def value_sharing(self, record: Node) -> str:
        """Export the same."""
        return sharing_words(record)

    def render_offers(self, record: Node) -> str:
        """Write the GPU resources that it offers now, or its cores."""
        return offer_words(record)

    def value_offers(self, record: Node) -> str:
        """Export the same."""
        return offer_words(record)


def counted(total: int) -> type[Paginator[Any]]:
    """Return a paginator for rows that a page has counted already."""

    class Counted(Paginator):  # type: ignore[type-arg]  # Django's own class takes no parameter at run time
        @cached_property
        def count(self) -> int:
            return total

    return Counted


class NodeTable(_NodeColumns):
    """Nodes of one cluster, as last observed."""

    class Meta(CommonsTable.Meta):
        model = Node
        fields = ("name", "gpu_model", "physical_gpus", "sharing", "offers", "state", "observed_at")
        order_by = ("name",)
        caption = "Nodes"


class NodeListTable(_NodeColumns):
    """Nodes of all clusters."""

    cluster = SlugLinkColumn(accessor="cluster__name", verbose_name="Cluster")

    class Meta(CommonsTable.Meta):
        model = Node
        fields = ("name", "cluster", "gpu_model", "physical_gpus", "sharing", "offers", "state", "observed_at")
        order_by = ("name",)
        caption = "Nodes"


class NodeFilter(CommonsFilterSet):
    """Search, cluster, and what needs a look."""

    search = SearchFilter(columns=["name", "gpu_model"])
    cluster = django_filters.ModelChoiceFilter(
        queryset=Cluster.objects.order_by("name", "pk"), to_field_name="slug", empty_label="All"
    )
    state = django_filters.ChoiceFilter(
        choices=list(NODE_STATES.items()), method="in_state", label="State", empty_label="All"
    )

    class Meta:
        model = Node
        fields: list[str] = []

    def in_state(self, rows: Any, _: str, value: str) -> Any:
        """Keep the nodes of one state."""
        if value == "unknown":
            return rows.exclude(problem="")
        rows = rows.filter(problem="")
        if value == "not_ready":
            return rows.filter(ready=False)
        return rows.filter(ready=True, schedulable=value == "ready")


def sharing_words(node: Node) -> str:
    """Return how a node's GPUs are shared, in words."""
    if node.problem:
        return node.problem
    if not node.physical_gpus:
        return formats.UNKNOWN
    if node.slices:
        made = ", ".join(f"{count} × {profile}" for profile, count in sorted(node.slices.items()))
        return f"MIG {node.mig_strategy}: {made}" + (f", {node.replicas} pods each" if node.replicas > 1 else "")
    if node.sharing == Sharing.TIME_SLICED:
        return f"Time-sliced, {node.replicas} pods a GPU"
    return "MIG, no instance made" if node.sharing == Sharing.MIG else "Exclusive"


def offer_words(node: Node) -> str:
    """Return the GPU resources that a node offers to pods now; of a node without GPUs its cores."""
    found = [f"{name.removeprefix('nvidia.com/')} {count}" for name, count in sorted(node.allocatable.items())
             if name.startswith("nvidia.com/")]  # fmt: skip
    if found:
        return ", ".join(found)
    return f"{node.allocatable['cpu']} cores" if node.allocatable.get("cpu") else formats.UNKNOWN
