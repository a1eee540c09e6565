"""What the nodes give of pools and flavours, from the last observation. Every function states its queries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import QuerySet, TextField, prefetch_related_objects
from django.db.models.functions import Cast

from apps.clusters.capacity_view import (
    Composition,
    FlavourCapacity,
    compose,
    cpu_capacity,
    flavour_capacity,
    is_cpu_node,
)
from apps.clusters.choices import DeviceClass
from apps.clusters.models import Cluster, Flavour, Node, Pool
from apps.clusters.node_layout import Layout, layout
from apps.core.db_time import Micros, at_micros


class SeenNode(NamedTuple):
    """A node as last observed, in bare columns: a pool may have thousands."""

    name: str
    gpu_model: str
    physical_gpus: int
    sharing: str
    schedulable: bool
    ready: bool
    allocatable: dict[str, str]
    capacity: dict[str, str]
    mig_strategy: str
    replicas: int
    gpu_memory_mib: int
    slices: dict[str, int]
    labels: dict[str, str]
    problem: str
    observed_at: datetime


_COLUMNS = SeenNode._fields
_JSON = ("allocatable", "capacity", "slices", "labels")
_BARE = {"seen_micros": Micros("observed_at"), **{f"{name}_text": Cast(name, TextField()) for name in _JSON}}
_NAMES = {**{name: f"{name}_text" for name in _JSON}, "observed_at": "seen_micros"}
_READ = tuple(_NAMES.get(name, name) for name in _COLUMNS)
_JSON_AT = tuple(_COLUMNS.index(name) for name in _JSON)
_SEEN_AT = _COLUMNS.index("observed_at")


def _seen(rows: QuerySet[Node]) -> list[SeenNode]:
    """Read nodes; what many of them say alike is parsed once and shared."""
    parsed: dict[str, dict[str, Any]] = {}
    times: dict[int, datetime] = {}
    found = []
    for row in rows.order_by("name").annotate(**_BARE).values_list(*_READ):
        values: list[Any] = list(row)
        for at in _JSON_AT:
            text = values[at]
            if text not in parsed:
                parsed[text] = json.loads(text)
            values[at] = parsed[text]
        micros = values[_SEEN_AT]
        values[_SEEN_AT] = times.get(micros) or times.setdefault(micros, at_micros(micros))
        found.append(SeenNode._make(values))
    return found


@dataclass(frozen=True, slots=True)
class FlavourUnits:
    """A flavour of a pool and what the nodes give of it. `limit` None: the layout sets none that is known."""

    flavour: Flavour
    capacity: FlavourCapacity
    limit: int | None


@dataclass(frozen=True, slots=True)
class PoolInventory:
    """A pool's nodes: their composition (GPU pools), cores (CPU pools), and units per flavour."""

    pool: Pool
    composition: Composition
    cores: FlavourCapacity
    flavours: tuple[FlavourUnits, ...]
    observed_at: datetime | None

    @property
    def observed(self) -> bool:
        """Whether any node of the pool was seen."""
        return bool(self.composition.nodes or self.cores.nodes)


def _layouts(nodes: Sequence[SeenNode]) -> list[Layout]:
    """Return how each node is cut. Nodes that say the same share what they say (`_seen`): each is laid out once."""
    known: dict[tuple[object, ...], Layout] = {}
    cuts = []
    for node in nodes:
        alike = (
            node.gpu_model, node.physical_gpus, node.sharing, node.mig_strategy, node.replicas, node.gpu_memory_mib,
            node.problem, id(node.slices), id(node.capacity), id(node.allocatable),
        )  # fmt: skip
        cut = known.get(alike)
        if cut is None:
            cut = known[alike] = layout(node)
        cuts.append(cut)
    return cuts


def nodes_of(pool: Pool) -> list[SeenNode]:
    """Return the nodes of a pool: of its GPU model, or for a CPU class those that its flavours' labels select."""
    rows = _seen(Node.objects.filter(cluster=pool.cluster_id, gpu_model=_model(pool)))
    if pool.device_class != DeviceClass.CPU:
        return rows
    chosen = [flavour.node_labels for flavour in pool.flavours.all()]
    return [node for node in rows if any(cpu_capacity(labels, [node]).nodes for labels in chosen)]


def _model(pool: Pool) -> str:
    return "" if pool.device_class == DeviceClass.CPU else pool.gpu_model


def read(pool: Pool, flavours: Iterable[Flavour] | None = None) -> PoolInventory:
    """Return what a pool's nodes carry and give. Two queries."""
    prefetch_related_objects([pool], "flavours")
    nodes = nodes_of(pool)
    offered = sorted(pool.flavours.all() if flavours is None else flavours, key=lambda one: (one.name, one.pk))
    at = min((node.observed_at for node in nodes), default=None)
    if pool.device_class == DeviceClass.CPU:
        # The nodes are those that a flavour's labels select already.
        units = [FlavourUnits(one, found := cpu_capacity(one.node_labels, nodes), _limit(pool, found, nodes))
                 for one in offered]  # fmt: skip
        return PoolInventory(pool, compose([]), cpu_capacity({}, nodes), tuple(units), at)
    cuts = _layouts(nodes)
    made = compose(nodes, cuts)
    known = not made.unknown and made.nodes > 0
    units = []
    for one in offered:
        found = flavour_capacity(one, nodes, cuts)
        units.append(FlavourUnits(one, found, _limit(pool, found, nodes) if known else None))
    return PoolInventory(pool, made, FlavourCapacity(), tuple(units), at)


@dataclass(frozen=True, slots=True)
class ClusterInventory:
    """A cluster's nodes: composition per GPU model, cores of nodes without GPUs, nodes that need a look."""

    models: tuple[tuple[str, Composition], ...]
    cores: FlavourCapacity
    unknown: tuple[SeenNode, ...]
    drained: tuple[SeenNode, ...]
    physical_gpus: int
    nodes: int


def of_cluster(cluster: Cluster) -> ClusterInventory:
    """Return `by_model`, once for all that shows this very instance of a cluster (a page loads one)."""
    held: ClusterInventory | None = cluster.__dict__.get("_inventory_read")
    if held is None:
        held = cluster.__dict__["_inventory_read"] = by_model(cluster.pk)
    return held


def by_model(cluster_id: int) -> ClusterInventory:
    """Return what a cluster's nodes carry. One query."""
    nodes = _seen(Node.objects.filter(cluster=cluster_id))
    models = sorted({node.gpu_model for node in nodes if node.gpu_model})
    return ClusterInventory(
        tuple((model, compose([node for node in nodes if node.gpu_model == model])) for model in models),
        cpu_capacity({}, nodes),
        tuple(node for node in nodes if node.problem),
        tuple(node for node in nodes if not node.problem and not (node.ready and node.schedulable)),
        sum(node.physical_gpus for node in nodes),
        len(nodes),
    )


def of_page(pool: Pool) -> PoolInventory:
    """Return `read(pool)`, once for all panels that show this very instance of a pool (a page loads one)."""
    held: PoolInventory | None = pool.__dict__.get("_inventory_read")
    if held is None:
        held = pool.__dict__["_inventory_read"] = read(pool)
    return held


def _limit(pool: Pool, found: FlavourCapacity, nodes: Sequence[SeenNode]) -> int | None:
    """Return the units that the layout gives in the long run; nodes of an elastic pool are not there yet."""
    return None if pool.elastic or not nodes else found.built


def flavour_limits(pool: Pool) -> dict[int, int | None]:
    """Return flavour id → units that the pool's nodes are cut into; None where no layout sets a limit that is known
    (elastic, nothing observed, or a node that contradicts itself). Two queries.

    Drained and unhealthy devices count: a promise lasts longer than a drain. More may be promised than this, it is a
    warning: an administrator can cut GPUs anew.
    """
    return {entry.flavour.pk: entry.limit for entry in read(pool).flavours}


def observe_pools(cluster_id: int) -> None:
    """Write down per pool of a cluster what its nodes physically carry: GPUs of its model, or cores of its class.

    Three queries and one per pool. What was never observed stays unknown.
    """
    physical: dict[str, int] = {}
    bare: list[SeenNode] = []
    observed_at: datetime | None = None
    for node in _seen(Node.objects.filter(cluster_id=cluster_id)):
        physical[node.gpu_model] = physical.get(node.gpu_model, 0) + node.physical_gpus
        observed_at = node.observed_at if observed_at is None else min(observed_at, node.observed_at)
        if is_cpu_node(node):
            bare.append(node)
    if observed_at is None:
        return
    for pool in Pool.objects.filter(cluster_id=cluster_id).prefetch_related("flavours"):
        count = physical.get(pool.gpu_model, 0)
        if pool.device_class == DeviceClass.CPU:
            chosen = [flavour.node_labels for flavour in pool.flavours.all()]
            mine = [node for node in bare if any(cpu_capacity(labels, [node]).nodes for labels in chosen)]
            count = cpu_capacity({}, mine).built
        Pool.objects.filter(pk=pool.pk).update(observed_gpus=count, observed_at=observed_at)


__all__ = ["FlavourUnits", "PoolInventory", "flavour_limits", "nodes_of", "observe_pools", "of_page", "read"]
