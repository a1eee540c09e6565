"""Tables of pools, flavours and nodes."""

from __future__ import annotations

import django_filters
import django_tables2 as tables

from apps.clusters.choices import PoolKind, Sharing
from apps.clusters.models import Flavour, Node, Pool
from apps.clusters.tables import HEALTH_TONES, HEALTH_WORDS, SlugLinkColumn
from apps.core import formats
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import AgeColumn, CommonsTable, QuantityColumn, StatusColumn

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
    committable = QuantityColumn(unit=None, verbose_name="Committable GPUs now")
    observed_gpus = QuantityColumn(unit=None, verbose_name="Observed GPUs")
    observed_at = AgeColumn(verbose_name="Observed", attrs={"cell": {"class": "text-nowrap d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = Pool
        fields = ("gpu_model", "cluster", "health", "kind", "committable", "observed_gpus", "observed_at")
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
        return f"{record.numerator}/{record.denominator}"

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


class NodeTable(CommonsTable):
    """Nodes as last observed."""

    ready = StatusColumn(
        labels={"True": "Ready", "False": "Not ready"},
        tones={"True": "positive", "False": "critical"},
        verbose_name="State",
    )
    schedulable = StatusColumn(
        labels={"True": "Takes pods", "False": "Cordoned"}, tones={"True": "neutral", "False": "caution"},
        verbose_name="Scheduling",
    )  # fmt: skip
    physical_gpus = QuantityColumn(unit=None, verbose_name="GPUs")
    observed_at = AgeColumn(verbose_name="Observed")

    class Meta(CommonsTable.Meta):
        model = Node
        fields = ("name", "gpu_model", "sharing", "physical_gpus", "ready", "schedulable", "observed_at")
        order_by = ("name",)
        caption = "Nodes"
