"""Flavours and pools proposed from what a cluster's nodes carry. `propose` is pure; accepting is one audited action."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol

from django.db import transaction
from django.utils.text import slugify

from apps import audit
from apps.clusters import capacity, events, mig
from apps.clusters.access import require
from apps.clusters.capacity_view import flavour_capacity, is_cpu_node
from apps.clusters.choices import DeviceClass, KueueMode, Sharing
from apps.clusters.models import Cluster, Flavour, Node, Pool
from apps.clusters.node_layout import NodeState, Offer, PartKind, layout, units
from apps.clusters.pool_rules import clash, cpu_class_clash
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotVisible

PRODUCT = "nvidia.com/gpu.product"
INSTANCE_TYPE, ARCH = "node.kubernetes.io/instance-type", "kubernetes.io/arch"


class TaintedNode(NodeState, Protocol):
    """A node with its lasting taints."""

    @property
    def taints(self) -> Sequence[Mapping[str, str]]: ...


@dataclass(frozen=True, slots=True)
class FlavourProposal:
    """A flavour that nodes carry: `units` of it are built in on `nodes` nodes. `key` names it until it is accepted."""

    key: str
    name: str
    slug: str
    gpu_model: str
    resource_name: str
    sharing: str = Sharing.EXCLUSIVE
    device_class: str = DeviceClass.GPU
    numerator: int = 1
    denominator: int = 1
    memory_mib: int = 0
    node_labels: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    nodes: int = 0
    units: int = 0
    #: Nodes that carry taints besides those which all have: its pods do not run there.
    kept_out: int = 0


@dataclass(frozen=True, slots=True)
class PoolProposal:
    """A pool of one GPU model or CPU class, and the flavours that it would offer."""

    gpu_model: str
    device_class: str
    physical: int
    nodes: int
    flavours: tuple[FlavourProposal, ...]


@dataclass(slots=True)
class _Group:
    offer: Offer
    nodes: list[TaintedNode] = field(default_factory=list)
    units: int = 0


def propose(nodes: Iterable[TaintedNode]) -> list[PoolProposal]:
    """Return the pools that nodes make up, with a flavour per way in which their GPUs are offered. Pure.

    Nodes that contradict themselves propose nothing.
    """
    seen = [node for node in nodes if not node.problem]
    by_model: dict[str, list[TaintedNode]] = {}
    for node in seen:
        if node.physical_gpus:
            by_model.setdefault(node.gpu_model, []).append(node)
    found = [_gpu_pool(model, mine) for model, mine in sorted(by_model.items())]
    return [*(pool for pool in found if pool.flavours), *_cpu_pools([node for node in seen if is_cpu_node(node)])]


def _gpu_pool(model: str, nodes: Sequence[TaintedNode]) -> PoolProposal:
    groups: dict[tuple[str, str, Fraction, str, str], _Group] = {}
    for node in nodes:
        for offer in layout(node).offers:
            product = node.labels.get(PRODUCT, "")
            key = (offer.kind.value, offer.resource, offer.share, offer.profile, product)
            group = groups.setdefault(key, _Group(offer))
            group.nodes.append(node)
            group.units += offer.built
    # One product label may stand for several replica counts: then the count selects, too.
    several = {
        (group.offer.resource, product)
        for (_, resource, _, _, product), group in groups.items()
        if sum(1 for (_, other, _, _, again) in groups if (other, again) == (resource, product)) > 1
    }
    flavours = [
        _flavour(model, product, group, (group.offer.resource, product) in several)
        for (_, _, _, _, product), group in groups.items()
        if group.units
    ]
    flavours.sort(key=lambda one: (-Fraction(one.numerator, one.denominator), one.resource_name, one.key))
    return PoolProposal(model, DeviceClass.GPU, sum(node.physical_gpus for node in nodes), len(nodes), tuple(flavours))


def _flavour(model: str, product: str, group: _Group, by_replicas: bool) -> FlavourProposal:
    offer = group.offer
    labels = {PRODUCT: product} if product else {}
    if by_replicas and offer.replicas > 1:
        labels["nvidia.com/gpu.replicas"] = str(offer.replicas)
    tolerations, kept_out = _tolerations(group.nodes)
    words = short_model(model)
    if offer.profile:
        words += f" {offer.profile}"
    if offer.replicas > 1:
        words += f" shared 1/{offer.replicas}"
    numerator, denominator = offer.share.numerator, offer.share.denominator
    key = "|".join([model, offer.resource, f"{numerator}/{denominator}", offer.profile, str(offer.replicas), product])
    return FlavourProposal(
        key=key, name=words, slug=_slug(words), gpu_model=model, resource_name=offer.resource,
        sharing=_SHARING[offer.kind], numerator=numerator, denominator=denominator,
        memory_mib=_memory(group.nodes[0], offer), node_labels=labels, tolerations=tolerations,
        nodes=len(group.nodes), units=group.units, kept_out=kept_out,
    )  # fmt: skip


_SHARING = {
    PartKind.EXCLUSIVE: Sharing.EXCLUSIVE.value,
    PartKind.MIG: Sharing.MIG.value,
    PartKind.TIME_SLICED: Sharing.TIME_SLICED.value,
}


def _memory(node: TaintedNode, offer: Offer) -> int:
    """Return the memory that a unit may count on (MiB): of the GPU, of the instance, or an equal part of either."""
    if not offer.profile:
        return node.gpu_memory_mib // offer.replicas
    labels = node.labels
    said = units(labels.get(f"nvidia.com/mig-{offer.profile}.memory"))
    if node.mig_strategy == "single":
        said = units(labels.get("nvidia.com/gpu.memory"))
    if not said:
        cut = mig.geometry(node.gpu_model, node.gpu_memory_mib, offer.profile)
        found = cut.profile(offer.profile) if cut else None
        said = found.memory_gb * 1024 if found else 0
    return said // offer.replicas


def _tolerations(nodes: Sequence[TaintedNode]) -> tuple[tuple[Mapping[str, str], ...], int]:
    """Return tolerations of the taints that all nodes have, and how many nodes have others besides."""
    each = [{tuple(sorted(taint.items())) for taint in node.taints} for node in nodes]
    common = set.intersection(*each) if each else set()
    made = []
    for items in sorted(common):
        taint = dict(items)
        value = {"value": taint["value"]} if taint.get("value") else {}
        effect = {"effect": taint["effect"]} if taint.get("effect") else {}
        made.append({"key": taint["key"], "operator": "Equal" if value else "Exists", **value, **effect})
    return tuple(made), sum(1 for taints in each if taints - common)


def _cpu_pools(nodes: Sequence[TaintedNode]) -> list[PoolProposal]:
    """Return a pool per CPU class: by instance type, or by architecture where nodes tell none."""
    by_type = all(INSTANCE_TYPE in node.labels for node in nodes)
    classes: dict[str, list[TaintedNode]] = {}
    for node in nodes:
        name = node.labels.get(INSTANCE_TYPE if by_type else ARCH, "")
        if name:
            classes.setdefault(name, []).append(node)
    found = []
    for name, mine in sorted(classes.items()):
        tolerations, kept_out = _tolerations(mine)
        cores = sum(units(node.capacity.get("cpu")) or units(node.allocatable.get("cpu")) for node in mine)
        if not cores:
            continue
        made = FlavourProposal(
            key=f"cpu|{name}", name=f"CPU {name}", slug=_slug(f"cpu {name}"), gpu_model=f"cpu-{name}",
            resource_name="cpu", device_class=DeviceClass.CPU, node_labels={INSTANCE_TYPE if by_type else ARCH: name},
            tolerations=tolerations, nodes=len(mine), units=cores, kept_out=kept_out,
        )  # fmt: skip
        found.append(PoolProposal(made.gpu_model, DeviceClass.CPU, cores, len(mine), (made,)))
    return found


def short_model(model: str) -> str:
    """Return a product label as people say it: `NVIDIA-A100-SXM4-80GB` → `A100 SXM4 80GB`."""
    return re.sub(r"^(NVIDIA|Tesla)-", "", model).replace("-", " ").strip() or model


def _slug(words: str) -> str:
    return slugify(re.sub(r"[./]", "-", words))[:40].strip("-") or "flavour"


@dataclass(frozen=True, slots=True)
class Offered:
    """A proposed flavour beside what is there: `flavour` the same one in the portal, `in_pool` offered already."""

    proposal: FlavourProposal
    flavour: Flavour | None
    in_pool: bool


@dataclass(frozen=True, slots=True)
class OfferedPool:
    """A proposed pool beside what is there. `clash`: why it cannot be offered as things are."""

    proposal: PoolProposal
    pool: Pool | None
    flavours: tuple[Offered, ...]
    clash: str | None

    @property
    def open(self) -> bool:
        """Whether anything of it can still be accepted."""
        return self.clash is None and not all(one.in_pool for one in self.flavours)


@dataclass(frozen=True, slots=True)
class ClusterProposals:
    """What a cluster's nodes propose, and the nodes that propose nothing because they contradict themselves."""

    pools: tuple[OfferedPool, ...]
    nodes: int
    unknown: tuple[Node, ...]


def for_cluster(cluster: Cluster) -> ClusterProposals:
    """Return the proposals of a cluster with what exists already. About five queries and one or two per new pool."""
    nodes = list(Node.objects.filter(cluster=cluster).order_by("name"))
    proposed = propose(nodes)
    pools = {pool.gpu_model: pool for pool in Pool.objects.filter(cluster=cluster).prefetch_related("flavours")}
    existing = list(Flavour.objects.filter(gpu_model__in=[one.gpu_model for one in proposed]).order_by("pk"))
    found = []
    for proposal in proposed:
        pool = pools.get(proposal.gpu_model)
        offered = {flavour.pk for flavour in pool.flavours.all()} if pool is not None else set()
        mine = [node for node in nodes if node.gpu_model == proposal.gpu_model]
        rows = []
        for one in proposal.flavours:
            same = [flavour for flavour in existing if _same(one, flavour, mine)]
            same.sort(key=lambda flavour: flavour.pk not in offered)
            rows.append(Offered(one, same[0] if same else None, bool(same) and same[0].pk in offered))
        reason = None if pool is not None else _why_not(cluster, proposal)
        found.append(OfferedPool(proposal, pool, tuple(rows), reason))
    unknown = tuple(node for node in nodes if node.problem)
    return ClusterProposals(tuple(found), len(nodes), unknown)


def _same(proposal: FlavourProposal, flavour: Flavour, nodes: Sequence[Node]) -> bool:
    """Whether a flavour in the portal is the proposed one: of the same shape, on at least one of the nodes."""
    shape = (proposal.gpu_model, proposal.device_class, proposal.resource_name, proposal.sharing)
    if shape != (flavour.gpu_model, flavour.device_class, flavour.resource_name, flavour.sharing):
        return False
    if Fraction(flavour.numerator, flavour.denominator) != Fraction(proposal.numerator, proposal.denominator):
        return False
    if proposal.device_class == DeviceClass.CPU:
        return True
    mine = [node for node in nodes if all(node.labels.get(k) == v for k, v in proposal.node_labels.items())]
    return flavour_capacity(flavour, mine).built > 0


def _why_not(cluster: Cluster, proposal: PoolProposal) -> str | None:
    """Return why a pool cannot be made beside what the cluster offers."""
    if proposal.device_class == DeviceClass.CPU:
        made = [Flavour(gpu_model=proposal.gpu_model, node_labels=dict(proposal.flavours[0].node_labels))]
        return cpu_class_clash(cluster, made)
    return clash(cluster, proposal.gpu_model, {one.resource_name for one in proposal.flavours})


def rivals(found: ClusterProposals, cluster: Cluster) -> str | None:
    """Return the warning that two models which are both still open share a resource name, so that one can be chosen."""
    if cluster.kueue_mode != KueueMode.OFF:
        return None
    by_resource: dict[str, set[str]] = {}
    for entry in found.pools:
        if entry.pool is None and entry.clash is None and entry.proposal.device_class == DeviceClass.GPU:
            for one in entry.proposal.flavours:
                by_resource.setdefault(one.resource_name, set()).add(entry.proposal.gpu_model)
    several = next(((name, models) for name, models in sorted(by_resource.items()) if len(models) > 1), None)
    if several is None:
        return None
    name, models = several
    return (
        f"{', '.join(sorted(models))} are counted under one name, {name}: a ResourceQuota cannot tell GPU models apart."
        " Choose one of them, use Kueue on this cluster, or give one of the models a resource name of its own."
    )


@transaction.atomic
def accept_proposals(cluster_id: int, keys: Collection[str], *, actor: Actor) -> list[Pool]:
    """Create the flavours of `keys` and the pools that offer them; returns the pools made or extended.

    What exists already is left as it is, so pressing twice makes nothing twice. Raises Invalid where the cluster could
    not tell two models apart, Conflict where nodes no longer propose a key, NotAllowed, NotVisible.
    """
    require(actor, capacity.MANAGE)
    cluster = Cluster.objects.select_for_update(of=("self",)).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    found = for_cluster(cluster)
    wanted = set(keys)
    if missing := wanted - {one.proposal.key for entry in found.pools for one in entry.flavours}:
        raise Conflict(f"The nodes changed meanwhile: {len(missing)} of the chosen flavours are no longer there.")
    made, touched = [], []
    for entry in found.pools:
        chosen = [one for one in entry.flavours if one.proposal.key in wanted and not one.in_pool]
        if not chosen:
            continue
        flavours = [one.flavour or _create(one.proposal, actor) for one in chosen]
        made += [flavour for flavour, one in zip(flavours, chosen, strict=True) if one.flavour is None]
        ids = [flavour.pk for flavour in flavours]
        if entry.pool is not None:
            touched.append(capacity.edit_pool(entry.pool.pk, actor=actor, flavour_ids=ids))
        else:
            touched.append(capacity.create_pool(cluster.pk, entry.proposal.gpu_model, actor=actor, flavour_ids=ids))
    if touched:
        payload = events.ProposalsAccepted(
            cluster.slug, [flavour.slug for flavour in made], [pool.gpu_model for pool in touched]
        )
        audit.record(
            events.PROPOSALS_ACCEPTED, payload, actor=actor, subject_type="clusters.cluster", subject_uid=cluster.uid
        )
    return touched


def _create(proposal: FlavourProposal, actor: Actor) -> Flavour:
    """Create a proposed flavour; a slug that something else has gets a number."""
    slug, number = proposal.slug, 1
    while Flavour.objects.filter(slug=slug).exists():
        number += 1
        slug = f"{proposal.slug[:36].rstrip('-')}-{number}"
    free = replace(proposal, slug=slug)
    return capacity.create_flavour(
        free.name, actor=actor, slug=free.slug, gpu_model=free.gpu_model, resource_name=free.resource_name,
        sharing=free.sharing, device_class=free.device_class, numerator=free.numerator, denominator=free.denominator,
        memory_mib=free.memory_mib, node_labels=free.node_labels, tolerations=free.tolerations,
    )  # fmt: skip


__all__ = [
    "ClusterProposals",
    "FlavourProposal",
    "Offered",
    "OfferedPool",
    "PoolProposal",
    "accept_proposals",
    "for_cluster",
    "propose",
    "rivals",
]
