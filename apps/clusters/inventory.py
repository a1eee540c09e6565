"""What a node carries, from the labels of GPU feature discovery and its resources. Pure; exact or said to be unknown.

Labels and their traps: reference kubernetes.md C3 (GFD v0.20): with MIG strategy *single* a slice is counted as a GPU,
with time-slicing or MPS a GPU is counted once per replica (product ends in -SHARED, or the resource is renamed
`.shared`), with *mixed* slices are resources of their own. A node whose labels contradict its resources is reported
with the contradiction (`problem`); its GPUs are then counted nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.clusters import mig
from apps.clusters.choices import Sharing
from apps.clusters.quantities import parse

GPU = "nvidia.com/gpu"
SHARED = ".shared"
_PRODUCT_MIG = re.compile(r"-MIG-(\d+g\.\d+gb[^-]*)")
_RESOURCE_MIG = re.compile(r"nvidia\.com/mig-(\d+g\.\d+gb(?:\.(?!shared)[a-z.]+?)?)(\.shared)?")
#: Labels not worth keeping: they change for ever, or are hundreds that tell nothing about where a pod may run.
_DROPPED = re.compile(
    r"nvidia\.com/(?:gfd\.|cuda\.|gpu\.deploy)|feature\.node\.kubernetes\.io/(?!cpu-model)|beta\.kubernetes\.io/"
    r"|kubernetes\.io/(?:hostname|os)$"
)
_MOST_LABELS = 100
#: Set by Kubernetes itself while something is wrong; nobody tolerates them for good.
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")


class _Unknown(Exception):
    """What a node says contradicts itself; the message is the reason in words."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: GPU model without sharing suffix, physical GPUs, how they are shared, whether it takes new pods.

    `slices`: MIG profile → instances built in; `replicas`: pods per GPU (or instance) where time-sliced; `problem`: why
    its GPUs are unknown ("": they are known); `gpu_memory_mib` of one whole physical GPU.
    """

    name: str
    gpu_model: str = ""
    physical_gpus: int = 0
    sharing: str = Sharing.EXCLUSIVE
    schedulable: bool = True
    ready: bool = False
    allocatable: dict[str, str] = field(default_factory=dict)
    capacity: dict[str, str] = field(default_factory=dict)
    mig_strategy: str = ""
    replicas: int = 1
    gpu_memory_mib: int = 0
    slices: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Gpus:
    model: str = ""
    physical: int = 0
    sharing: str = Sharing.EXCLUSIVE
    strategy: str = ""
    replicas: int = 1
    memory_mib: int = 0
    slices: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


def read_node(node: Mapping[str, Any]) -> NodeFacts:
    """Return the facts of a Node object."""
    meta, spec, status = node.get("metadata") or {}, node.get("spec") or {}, node.get("status") or {}
    labels = {str(k): str(v) for k, v in (meta.get("labels") or {}).items()}
    allocatable = _resources(status.get("allocatable"))
    # Capacity says what is built in: a device reported unhealthy leaves allocatable only.
    capacity = {**allocatable, **_resources(status.get("capacity"))}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or [] if isinstance(c, dict)}
    gpus = read_gpus(labels, capacity)
    return NodeFacts(
        name=str(meta.get("name", "")),
        gpu_model=gpus.model,
        physical_gpus=gpus.physical,
        sharing=gpus.sharing,
        schedulable=not spec.get("unschedulable", False),
        ready=conditions.get("Ready") == "True",
        allocatable=allocatable,
        capacity=capacity,
        mig_strategy=gpus.strategy,
        replicas=gpus.replicas,
        gpu_memory_mib=gpus.memory_mib,
        slices=dict(gpus.slices),
        labels=dict([item for item in sorted(labels.items()) if keeps(item[0])][:_MOST_LABELS]),
        taints=_taints(spec.get("taints")),
        problem=gpus.problem,
    )


def keeps(label: str) -> bool:
    """Whether a node's label is kept in the inventory; of others nothing can be said later."""
    return _DROPPED.match(label) is None


def read_gpus(labels: Mapping[str, str], capacity: Mapping[str, str]) -> _Gpus:
    """Return the GPUs of a node from its labels and capacity; where these contradict each other, with the problem."""
    product = labels.get("nvidia.com/gpu.product", "")
    base = re.sub(r"-MIG-.*$", "", product.removesuffix("-SHARED"))
    strategy = labels.get("nvidia.com/mig.strategy", "")
    try:
        return _read(product, base, strategy, labels, capacity)
    except _Unknown as unknown:
        return _Gpus(model=base, strategy=strategy, problem=str(unknown)[:300])


def _read(product: str, base: str, strategy: str, labels: Mapping[str, str], capacity: Mapping[str, str]) -> _Gpus:
    offered, renamed = _count(capacity.get(GPU)), _count(capacity.get(GPU + SHARED))
    profiles = [m for name in sorted(capacity) if (m := _RESOURCE_MIG.fullmatch(name)) and _count(capacity[name])]
    count = _count(labels.get("nvidia.com/gpu.count"))
    if not product:
        if offered or renamed or profiles:
            raise _Unknown("It offers GPUs, but has no label nvidia.com/gpu.product: does GPU feature discovery run?")
        return _Gpus()
    if offered and renamed:
        raise _Unknown(f"It offers both {GPU} and {GPU}{SHARED}.")
    replicas = max(1, _count(labels.get("nvidia.com/gpu.replicas")))
    memory = _count(labels.get("nvidia.com/gpu.memory"))
    sliced = _PRODUCT_MIG.search(product)
    if sliced is not None:
        if strategy not in ("", "single") or profiles:
            raise _Unknown(f"The product label says MIG strategy single, the node says {strategy or 'mixed'}.")
        return _single(base, sliced.group(1), count, offered + renamed, replicas)
    if profiles:
        if strategy not in ("", "mixed"):
            raise _Unknown(f"It offers MIG profiles as resources, but is labelled MIG strategy {strategy}.")
        return _mixed(base, labels, capacity, profiles, count, offered + renamed, replicas, memory)
    if replicas > 1 or renamed or product.endswith("-SHARED"):
        physical = _shared(product, count, offered, renamed, replicas)
        return _Gpus(base, physical, Sharing.TIME_SLICED, strategy, replicas, memory)
    if not count and not offered:
        raise _Unknown("It has a GPU product label, but neither a count nor a GPU resource.")
    if "nvidia.com/gpu.count" in labels and offered > count:
        raise _Unknown(f"It offers {offered} GPUs and is labelled with {count}.")
    if strategy == "mixed" and count and offered < count:
        # MIG is on there and no instance is made: those GPUs give nothing until someone cuts them.
        return _Gpus(base, count, Sharing.MIG, strategy, 1, memory)
    return _Gpus(base, count or offered, Sharing.EXCLUSIVE, strategy, 1, memory)


def _shared(product: str, count: int, offered: int, renamed: int, replicas: int) -> int:
    """Return the physical GPUs of a time-sliced (or MPS) node."""
    units = offered + renamed
    if replicas == 1:
        what = f"offers {GPU}{SHARED}" if renamed else f"is labelled {product}"
        raise _Unknown(f"It {what}, but no label nvidia.com/gpu.replicas says how many pods share a GPU.")
    if units % replicas:
        raise _Unknown(f"It offers {units} shares, which {replicas} replicas a GPU do not divide.")
    if count and units and units != count * replicas:
        raise _Unknown(f"It offers {units} shares; {count} GPUs with {replicas} replicas each would be more or less.")
    if not count and not units:
        raise _Unknown("It has a GPU product label, but neither a count nor a GPU resource.")
    return count or units // replicas


def _single(base: str, profile: str, count: int, units: int, replicas: int) -> _Gpus:
    """MIG strategy single: every "GPU" is an instance of one profile; all instances of a GPU fill it as far as fits."""
    cut = mig.geometry(base, profile=profile)
    if cut is None or (most := cut.most(profile)) == 0:
        raise _Unknown(f"How many instances of {profile} fit on {base} is not known to the portal.")
    if units % replicas:
        raise _Unknown(f"It offers {units} shares, which {replicas} replicas an instance do not divide.")
    built = units // replicas
    if count and built and count not in (built, units):
        raise _Unknown(f"It offers {built} instances and is labelled with {count}.")
    slices = built or count
    if slices % most:
        raise _Unknown(
            f"{slices} instances of {profile} do not fill whole GPUs ({most} each): of how many cannot be told."
        )
    return _Gpus(
        base, slices // most, Sharing.MIG, "single", replicas, cut.memory_gb * 1024, {mig.plain(profile): slices}
    )


def _mixed(
    base: str,
    labels: Mapping[str, str],
    capacity: Mapping[str, str],
    profiles: list[re.Match[str]],
    count: int,
    whole: int,
    replicas: int,
    memory: int,
) -> _Gpus:
    """MIG strategy mixed: profiles are resources of their own, `count` is of devices, whole GPUs are beside them."""
    if not count:
        raise _Unknown("It offers MIG profiles, but no label nvidia.com/gpu.count says of how many GPUs.")
    cut = mig.geometry(base, memory, mig.plain(profiles[0].group(1)))
    if cut is None:
        raise _Unknown(f"How {base} is cut into {profiles[0].group(1)} is not known to the portal.")
    slices: dict[str, int] = {}
    for match in profiles:
        name, units = match.group(1), _count(capacity[match.string])
        pods = max(1, _count(labels.get(f"nvidia.com/mig-{name}.replicas")))
        if units % pods or (match.group(2) and pods == 1):
            raise _Unknown(f"It offers {units} shares of {name}, which {pods} replicas an instance do not divide.")
        said = _count(labels.get(f"nvidia.com/mig-{name}.count"))
        if said and said not in (units // pods, units):
            raise _Unknown(f"It offers {units // pods} instances of {name} and is labelled with {said}.")
        slices[mig.plain(name)] = slices.get(mig.plain(name), 0) + units // pods
    if whole % replicas:
        raise _Unknown(f"It offers {whole} shares, which {replicas} replicas a GPU do not divide.")
    partitioned = count - whole // replicas
    if partitioned < 0 or not cut.fits(slices, partitioned):
        made = ", ".join(f"{number} × {name}" for name, number in sorted(slices.items()))
        raise _Unknown(f"{made} cannot be cut out of {max(0, partitioned)} of its {count} GPUs.")
    return _Gpus(base, count, Sharing.MIG, "mixed", replicas, memory or cut.memory_gb * 1024, slices)


def _resources(found: object) -> dict[str, str]:
    items = found.items() if isinstance(found, Mapping) else ()
    return {str(k): str(v) for k, v in items if "/" in str(k) or k in ("cpu", "memory", "pods")}


def _taints(found: object) -> list[dict[str, str]]:
    """Return the lasting taints: what Kubernetes sets itself while a node is cordoned or ill goes away again."""
    rows = [row for row in found or [] if isinstance(row, Mapping)] if isinstance(found, list) else []
    kept = [
        {key: str(row[key]) for key in ("key", "value", "effect") if row.get(key)}
        for row in rows
        if row.get("key") and not str(row["key"]).startswith(_PASSING)
    ]
    return sorted(kept, key=lambda row: (row["key"], row.get("value", ""), row.get("effect", "")))


def _count(value: object) -> int:
    """Return a count; what is absent or no number is none."""
    try:
        return max(0, int(parse(value)))
    except ValueError:
        return 0
