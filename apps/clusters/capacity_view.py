"""What nodes really give: physical GPUs split by how they are shared, units per flavour. Pure, in exact fractions.

Every physical GPU is on exactly one part: exclusive, a MIG profile, time-sliced, stranded, unhealthy, maintenance.
A unit is what a pod asks for (a GPU, an instance, a replica); `gpus` is the share of physical GPUs that the units are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from apps.clusters import mig
from apps.clusters.inventory import keeps
from apps.clusters.node_layout import Layout, NodeState, Offer, PartKind, layout, units

WORDS = {
    PartKind.EXCLUSIVE: "Exclusive",
    PartKind.MIG: "MIG",
    PartKind.TIME_SLICED: "Time-sliced",
    PartKind.STRANDED: "Stranded by MIG layout",
    PartKind.UNHEALTHY: "Unhealthy",
    PartKind.MAINTENANCE: "In maintenance",
}
TONES = {
    PartKind.EXCLUSIVE: "accent",
    PartKind.MIG: "info",
    PartKind.TIME_SLICED: "positive",
    PartKind.STRANDED: "caution",
    PartKind.UNHEALTHY: "critical",
    PartKind.MAINTENANCE: "neutral",
}
_ORDER = list(PartKind)
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


class FlavourShape(Protocol):
    """What is needed of a flavour."""

    @property
    def resource_name(self) -> str: ...
    @property
    def sharing(self) -> str: ...
    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...
    @property
    def node_labels(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a pool: so many units, which are so many physical GPUs. `units` None: these cannot be asked for."""

    kind: PartKind
    gpus: Fraction
    units: int | None = None
    resource: str = ""
    profile: str = ""
    replicas: int = 1

    @property
    def label(self) -> str:
        """What a page calls it."""
        if self.kind == PartKind.MIG:
            return f"MIG {self.profile}"
        if self.kind == PartKind.TIME_SLICED:
            return f"Time-sliced, {self.replicas} a GPU"
        return WORDS[self.kind]

    @property
    def shown(self) -> str:
        """The physical GPUs for people."""
        return gpus_words(self.gpus)

    @property
    def segment(self) -> dict[str, Any]:
        """The part for `components/bar.html`."""
        value = Decimal(self.gpus.numerator) / Decimal(self.gpus.denominator)
        return {"label": self.label, "value": value, "text": self.shown, "tone": TONES[self.kind]}


@dataclass(frozen=True, slots=True)
class StrandedLayout:
    """One way in which nodes are cut, and the compute slices of each such node that no profile uses."""

    instances: Mapping[str, int]
    partitioned: int
    slices: int
    of: int
    nodes: int

    @property
    def words(self) -> str:
        """The layout in words: `2 × 3g.40gb on 1 GPU`."""
        made = ", ".join(f"{count} × {name}" for name, count in sorted(self.instances.items())) or "no instance"
        return f"{made} on {self.partitioned} GPU{'' if self.partitioned == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Composition:
    """A pool's physical GPUs, each on exactly one part. `unknown`: nodes whose GPUs are counted nowhere, and why."""

    physical: int
    parts: tuple[Part, ...]
    stranded_layouts: tuple[StrandedLayout, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()
    nodes: int = 0
    drained: tuple[str, ...] = ()

    def gpus(self, *kinds: PartKind) -> Fraction:
        """Return the physical GPUs on parts of these kinds."""
        return sum((part.gpus for part in self.parts if part.kind in kinds), Fraction(0))


def gpus_words(gpus: Fraction) -> str:
    """Return physical GPUs for people: whole where they are whole, else with up to three decimals."""
    if gpus.denominator == 1:
        return f"{gpus.numerator:,}"
    return f"{float(gpus):,.3f}".rstrip("0").rstrip(".")


def open_to_pods(node: NodeState) -> bool:
    """Whether a node takes new pods: ready and not cordoned."""
    return node.ready and node.schedulable


def compose(nodes: Iterable[NodeState], cuts: Sequence[Layout] | None = None) -> Composition:
    """Split the physical GPUs of nodes (of one GPU model) into parts that sum to them exactly.

    `cuts`: the nodes' layouts in the same order, where the caller has them.
    """
    sums: dict[tuple[PartKind, str, str, int], tuple[int, Fraction]] = {}
    layouts: dict[tuple[tuple[tuple[str, int], ...], int, int, int], int] = {}
    unknown, drained = [], []
    physical = count = 0

    def add(kind: PartKind, gpus: Fraction, number: int = 0, offer: Offer | None = None) -> None:
        key = (kind, offer.resource, offer.profile, offer.replicas) if offer else (kind, "", "", 1)
        before = sums.get(key, (0, Fraction(0)))
        sums[key] = (before[0] + number * times, before[1] + gpus * times)

    # By identity: nodes that are cut alike mostly share one layout, and comparing layouts is slow.
    alike: dict[int, tuple[Layout, list[NodeState]]] = {}
    times = 1
    for index, node in enumerate(nodes):
        count += 1
        if node.problem:
            unknown.append((node.name, node.problem))
            continue
        cut = layout(node) if cuts is None else cuts[index]
        physical += cut.physical
        if open_to_pods(node):
            alike.setdefault(id(cut), (cut, []))[1].append(node)
        else:
            drained.append(node.name)
            add(PartKind.MAINTENANCE, Fraction(cut.physical))
    for cut, same in alike.values():
        times = len(same)
        for offer in cut.offers:
            add(offer.kind, offer.share * offer.offered, offer.offered, offer)
            add(PartKind.UNHEALTHY, offer.share * (offer.built - offer.offered))
        add(PartKind.STRANDED, cut.stranded)
        add(PartKind.UNHEALTHY, cut.missing)
        for node in same if cut.stranded else ():
            key = _layout_key(node, cut)
            layouts[key] = layouts.get(key, 0) + 1
    parts = [
        Part(kind, gpus, number if resource else None, resource, profile, replicas)
        for (kind, resource, profile, replicas), (number, gpus) in sums.items()
        if gpus or number
    ]
    parts.sort(key=lambda part: (_ORDER.index(part.kind), -(part.gpus / (part.units or 1)), part.resource))
    stranded = [StrandedLayout(dict(made), on, left, of, times) for (made, on, left, of), times in layouts.items()]
    stranded.sort(key=lambda one: (-one.slices * one.nodes, one.words))
    return Composition(physical, tuple(parts), tuple(stranded), tuple(sorted(unknown)), count, tuple(sorted(drained)))


def _layout_key(node: NodeState, cut: Layout) -> tuple[tuple[tuple[str, int], ...], int, int, int]:
    """Return (instances, partitioned GPUs, stranded compute slices, slices of one GPU) of a node."""
    found = mig.geometry(node.gpu_model, node.gpu_memory_mib, next(iter(node.slices), ""))
    of = found.compute if found is not None else cut.stranded.denominator
    whole = sum(-(-offer.built // offer.replicas) for offer in cut.offers if offer.kind != PartKind.MIG)
    return tuple(sorted(node.slices.items())), cut.physical - whole, int(cut.stranded * of), of


@dataclass(frozen=True, slots=True)
class FlavourCapacity:
    """What nodes give of one flavour: units built in (drained and unhealthy ones too), and units offered now."""

    built: int = 0
    offered: int = 0
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool's composition and what its nodes give of each flavour, by flavour id."""

    composition: Composition
    flavours: Mapping[int, FlavourCapacity] = field(default_factory=dict)


def flavour_capacity(
    flavour: FlavourShape, nodes: Sequence[NodeState], cuts: Sequence[Layout] | None = None
) -> FlavourCapacity:
    """Return what nodes (of the flavour's model) give of a flavour: offers of its resource, sharing and exact share on
    nodes that its labels select. Never a sum of allocatable. `cuts`: the nodes' layouts, where the caller has them."""
    built = offered = carrying = 0
    share = Fraction(flavour.numerator, flavour.denominator)
    wanted = _known(flavour.node_labels)
    laid = [layout(node) for node in nodes] if cuts is None else cuts
    given: dict[int, tuple[int, int, bool]] = {}
    for node, cut in zip(nodes, laid, strict=True):
        if node.problem or not _selects(wanted, node):
            continue
        if id(cut) not in given:
            matching = [
                offer
                for offer in cut.offers
                if offer.resource == flavour.resource_name and offer.share == share and offer.kind == flavour.sharing
            ]
            units_built, units_offered = sum(one.built for one in matching), sum(one.offered for one in matching)
            given[id(cut)] = (units_built, units_offered, bool(matching))
        there, open_units, carries = given[id(cut)]
        built += there
        carrying += carries
        if open_to_pods(node):
            offered += open_units
    return FlavourCapacity(built, offered, carrying)


def _known(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that are kept of nodes; of others nothing can be said."""
    return {key: value for key, value in labels.items() if keeps(key)}


def _selects(wanted: Mapping[str, str], node: NodeState) -> bool:
    """Whether labels select a node, as far as is known: a row without any says nothing."""
    labels = node.labels
    return not labels or all(labels.get(key) == value for key, value in wanted.items())


def cpu_capacity(node_labels: Mapping[str, str], nodes: Iterable[NodeState]) -> FlavourCapacity:
    """Return the whole cores of nodes of a CPU class: nodes without GPUs that its labels select."""
    wanted = _known(node_labels)
    mine = [node for node in nodes if is_cpu_node(node) and _selects(wanted, node)]
    return FlavourCapacity(
        built=sum(units(node.capacity.get("cpu")) or units(node.allocatable.get("cpu")) for node in mine),
        offered=sum(units(node.allocatable.get("cpu")) for node in mine if open_to_pods(node)),
        nodes=len(mine),
    )


def is_cpu_node(node: NodeState) -> bool:
    """Whether a node is there for its cores: it has no GPU, says nothing of one, and is no control plane."""
    return (
        not node.gpu_model
        and not node.physical_gpus
        and not node.problem
        and not any(role in node.labels for role in _CONTROL_PLANE)
    )
