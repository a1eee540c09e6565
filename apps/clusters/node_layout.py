"""How one node's physical GPUs are cut: exclusive, MIG instances, replicas, and what no offer covers. Pure.

A unit is what a pod asks for (a GPU, an instance, a replica); its share is the part of a physical GPU that it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

from apps.clusters import mig
from apps.clusters.choices import Sharing
from apps.clusters.inventory import GPU, SHARED
from apps.clusters.quantities import parse


class PartKind(StrEnum):
    """What becomes of a physical GPU, in the order in which pages show it."""

    EXCLUSIVE = "exclusive"
    MIG = "mig"
    TIME_SLICED = "time_sliced"
    STRANDED = "stranded"
    UNHEALTHY = "unhealthy"
    MAINTENANCE = "maintenance"


class NodeState(Protocol):
    """What is needed of a node; rows of Node and NodeFacts have it."""

    @property
    def name(self) -> str: ...
    @property
    def gpu_model(self) -> str: ...
    @property
    def physical_gpus(self) -> int: ...
    @property
    def sharing(self) -> str: ...
    @property
    def schedulable(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def allocatable(self) -> Mapping[str, str]: ...
    @property
    def capacity(self) -> Mapping[str, str]: ...
    @property
    def mig_strategy(self) -> str: ...
    @property
    def replicas(self) -> int: ...
    @property
    def gpu_memory_mib(self) -> int: ...
    @property
    def slices(self) -> Mapping[str, int]: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def problem(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """Units of one kind that one node has built in, and how many of them it offers to pods now."""

    kind: PartKind
    resource: str
    share: Fraction
    built: int
    offered: int
    profile: str = ""
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How one node's GPUs are cut: its offers, and what no offer covers. All parts sum to `physical`."""

    physical: int
    offers: tuple[Offer, ...]
    stranded: Fraction = Fraction(0)
    #: Whole GPUs that are there and that the node does not offer at all.
    missing: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What a node's layout depends on; most nodes of a pool are alike."""

    gpu_model: str
    physical_gpus: int
    sharing: str
    mig_strategy: str
    replicas: int
    gpu_memory_mib: int
    slice_items: tuple[tuple[str, int], ...]
    built_items: tuple[tuple[str, str], ...]
    offered_items: tuple[tuple[str, str], ...]

    @property
    def slices(self) -> dict[str, int]:
        """Instances by profile."""
        return dict(self.slice_items)

    @property
    def capacity(self) -> dict[str, str]:
        """What is built in."""
        return dict(self.built_items)

    @property
    def allocatable(self) -> dict[str, str]:
        """What is offered."""
        return dict(self.offered_items)


def layout(node: NodeState) -> Layout:
    """Return how a node's GPUs are cut. A node that says nothing clear carries nothing."""
    if node.problem or node.physical_gpus == 0:
        return Layout(0, ())
    return _layout(
        _Cut(
            node.gpu_model, node.physical_gpus, node.sharing, node.mig_strategy, node.replicas, node.gpu_memory_mib,
            tuple(node.slices.items()), tuple(item for item in node.capacity.items() if "/" in item[0]),
            tuple(item for item in node.allocatable.items() if "/" in item[0]),
        )
    )  # fmt: skip


@lru_cache(maxsize=2048)
def _layout(node: _Cut) -> Layout:
    physical = node.physical_gpus
    if node.sharing == Sharing.MIG and node.mig_strategy == "single" and node.slices:
        return _single(node, physical)
    offers: list[Offer] = []
    stranded, partitioned = Fraction(0), 0
    replicas = node.replicas if node.sharing != Sharing.EXCLUSIVE else 1
    whole = _whole(node, physical, max(1, replicas))
    if node.sharing == Sharing.MIG:
        partitioned = physical - sum(-(-offer.built // offer.replicas) for offer in whole)
        cut = mig.geometry(node.gpu_model, node.gpu_memory_mib, next(iter(node.slices), ""))
        held = Fraction(0)
        if cut is not None:
            for profile, count in sorted(node.slices.items()):
                made = _instances(node, profile, count, cut.share(profile))
                offers.append(made)
                held += made.share * made.built
        stranded = partitioned - held
    offers = [*whole, *offers]
    covered = sum((offer.share * offer.built for offer in offers), stranded)
    return Layout(physical, tuple(offers), stranded, physical - covered)


def _whole(node: _Cut, physical: int, replicas: int) -> list[Offer]:
    """Return the GPUs that a node offers uncut: exclusively, or in replicas."""
    for resource in (GPU, GPU + SHARED):
        built = units(node.capacity.get(resource)) or units(node.allocatable.get(resource))
        if not built and not node.capacity and not node.allocatable and resource == GPU:
            built = physical * replicas  # a row from before resources were kept
            return [_offer_of(resource, replicas, built, built)]
        if built:
            built = min(built, physical * replicas)
            return [_offer_of(resource, replicas, built, min(built, units(node.allocatable.get(resource))))]
    return []


def _offer_of(resource: str, replicas: int, built: int, offered: int) -> Offer:
    kind = PartKind.TIME_SLICED if replicas > 1 else PartKind.EXCLUSIVE
    return Offer(kind, resource, Fraction(1, replicas), built, offered, replicas=replicas)


def _single(node: _Cut, physical: int) -> Layout:
    """Strategy single: every unit is an instance (or a replica of one); what instances leave of a GPU is stranded."""
    ((profile, count),) = node.slices.items()
    cut = mig.geometry(node.gpu_model, node.gpu_memory_mib, profile)
    if cut is None or cut.profile(profile) is None:
        return Layout(physical, (), Fraction(0), Fraction(physical))
    replicas = max(1, node.replicas)
    share = cut.share(profile) / replicas
    resource = GPU if units(node.capacity.get(GPU)) or not units(node.capacity.get(GPU + SHARED)) else GPU + SHARED
    offered = min(count * replicas, units(node.allocatable.get(resource)))
    offer = Offer(PartKind.MIG, resource, share, count * replicas, offered, mig.plain(profile), replicas)
    return Layout(physical, (offer,), physical - share * offer.built, Fraction(0))


def _instances(node: _Cut, profile: str, count: int, share: Fraction) -> Offer:
    """Strategy mixed: the instances of one profile, under whichever spelling of its resource the node has."""
    names = [name for name in node.capacity if _is_profile(name, profile)]
    built = sum(units(node.capacity[name]) for name in names)
    replicas = max(1, built // count) if count else 1
    offered = min(count * replicas, sum(units(node.allocatable.get(name)) for name in names))
    resource = min(names, default=f"nvidia.com/mig-{profile}")
    return Offer(PartKind.MIG, resource, share / replicas, count * replicas, offered, profile, replicas)


def _is_profile(resource: str, profile: str) -> bool:
    name = resource.removeprefix("nvidia.com/mig-").removesuffix(SHARED)
    return resource.startswith("nvidia.com/mig-") and mig.plain(name) == profile


def units(value: object) -> int:
    """Return a resource's whole units; what is absent or no quantity is none."""
    try:
        return max(0, int(parse(value)))
    except ValueError:
        return 0
