"""What a node carries, from the labels of GPU feature discovery and its allocatable resources. Pure.

Labels and their traps: reference kubernetes.md C3 (GFD v0.20): with MIG strategy *single* a slice is counted as a GPU,
with time-slicing a GPU is counted once per replica, with *mixed* slices are resources of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.clusters.choices import Sharing
from apps.clusters.quantities import parse

_MIG_PRODUCT = re.compile(r"-MIG-(\d+)g\.")
_MIG_RESOURCE = re.compile(r"nvidia\.com/mig-(\d+)g\.")
#: Instances of a MIG profile that fit on one device with seven compute slices (A100, H100, B200), by its slices.
_PER_DEVICE = {1: 7, 2: 3, 3: 2, 4: 1, 7: 1}


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: GPU model without sharing suffix, physical GPUs, whether it is ready and takes new pods."""

    name: str
    gpu_model: str = ""
    physical_gpus: int = 0
    sharing: str = Sharing.EXCLUSIVE
    schedulable: bool = True
    ready: bool = False
    allocatable: dict[str, str] = field(default_factory=dict)


def read_node(node: Mapping[str, Any]) -> NodeFacts:
    """Return the facts of a Node object."""
    meta, spec, status = node.get("metadata") or {}, node.get("spec") or {}, node.get("status") or {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    resources = {str(k): str(v) for k, v in (status.get("allocatable") or {}).items()}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or [] if isinstance(c, dict)}
    product = labels.get("nvidia.com/gpu.product", "")
    model, sharing, physical = _gpus(product, labels, {**resources, **_capacity(status)})
    return NodeFacts(
        name=str(meta.get("name", "")),
        gpu_model=model,
        physical_gpus=physical,
        sharing=sharing,
        schedulable=not spec.get("unschedulable", False),
        ready=conditions.get("Ready") == "True",
        allocatable={k: v for k, v in resources.items() if "/" in k or k in ("cpu", "memory", "pods")},
    )


def _capacity(status: Mapping[str, Any]) -> dict[str, str]:
    """Capacity, not allocatable, says what is built in: a device reported unhealthy leaves allocatable only."""
    return {str(k): str(v) for k, v in (status.get("capacity") or {}).items()}


def _gpus(product: str, labels: Mapping[str, str], resources: Mapping[str, str]) -> tuple[str, str, int]:
    replicas = max(1, _int(labels.get("nvidia.com/gpu.replicas")))
    count = _int(labels.get("nvidia.com/gpu.count"))
    strategy = labels.get("nvidia.com/mig.strategy", "")
    base = re.sub(r"-MIG-.*$", "", product.removesuffix("-SHARED"))
    if (sliced := _MIG_PRODUCT.search(product)) is not None:  # strategy single: the "GPUs" are slices
        slices = count or _int(resources.get("nvidia.com/gpu")) // replicas
        return base, Sharing.MIG, -(-slices // _PER_DEVICE.get(int(sliced.group(1)), 1))
    profiles = [m for name in resources if (m := _MIG_RESOURCE.match(name)) and _int(resources[name])]
    if strategy == "mixed" and profiles:
        if count:
            return base, Sharing.MIG, count
        compute = sum(int(m.group(1)) * _int(resources[m.string]) for m in profiles)
        return base, Sharing.MIG, -(-compute // 7) + _int(resources.get("nvidia.com/gpu"))
    if not count:
        shared = _int(resources.get("nvidia.com/gpu.shared"))
        count = (_int(resources.get("nvidia.com/gpu")) + shared) // replicas
    return base, Sharing.TIME_SLICED if replicas > 1 else Sharing.EXCLUSIVE, count


def _int(value: object) -> int:
    try:
        return int(parse(value))
    except ValueError:
        return 0
