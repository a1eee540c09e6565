"""Whether every GPU of a cluster is exclusive: allocation APIs misstate all others (reference cost, 0.2)."""

from __future__ import annotations

import re

from apps.clusters.choices import DeviceClass, Sharing
from apps.clusters.models import Flavour, Node
from apps.metering.choices import SourceKind

#: Kinds whose quantities are right for exclusive GPUs only.
ALLOCATION_KINDS = (SourceKind.ALLOCATION, SourceKind.KUBECOST)
_SHARED_RESOURCE = re.compile(r"(\.shared$|/mig-|gpucores$|gpumem)")
WHY = (
    "Allocation APIs bill MIG slices and shared GPUs at nothing or as whole ones. Use Prometheus as source of this"
    " cluster."
)


def shared_gpus(cluster_id: int) -> tuple[str, ...]:
    """Return the reasons why not every GPU of a cluster is exclusive, from its flavours and its nodes; empty: all are.

    Two queries.
    """
    reasons = []
    flavours = Flavour.objects.filter(
        pools__cluster_id=cluster_id, pools__device_class=DeviceClass.GPU, device_class=DeviceClass.GPU
    )
    for flavour in flavours.distinct().order_by("name", "pk"):
        if flavour.sharing != Sharing.EXCLUSIVE or flavour.numerator != flavour.denominator:
            reasons.append(f"flavour “{flavour.name}” is {flavour.get_sharing_display().lower()}")
    nodes = []
    for node in Node.objects.filter(cluster_id=cluster_id).order_by("name").only(
        "name", "sharing", "replicas", "slices", "allocatable", "capacity"
    ):  # fmt: skip
        held = {**(node.capacity or {}), **(node.allocatable or {})}
        odd = sorted(name for name, count in held.items() if _SHARED_RESOURCE.search(name) and str(count) != "0")
        if node.sharing != Sharing.EXCLUSIVE or node.replicas > 1 or node.slices or odd:
            nodes.append(f"{node.name} ({odd[0]})" if odd else f"{node.name} ({node.get_sharing_display().lower()})")
    if nodes:
        shown = ", ".join(nodes[:5]) + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
        reasons.append(f"GPUs are shared on {shown}")
    return tuple(reasons)


def refusal(cluster_id: int, kind: str) -> str:
    """Return why a source of this kind cannot be registered for a cluster; "" where it can."""
    if kind not in ALLOCATION_KINDS:
        return ""
    reasons = shared_gpus(cluster_id)
    return f"Not every GPU of this cluster is exclusive: {'; '.join(reasons)}. {WHY}" if reasons else ""
