"""Node objects from the node rules of the history file, with the labels of NVIDIA's feature discovery (v0.20).

A rule may slice its GPUs (MIG `single` or `mixed`), share them in time, cordon the node, or have no GPU at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apps.demo.cluster.discovery import GIT_VERSION
from apps.demo.cluster.errors import Obj

SIMULATED = "simulated.gpu-commons.internal"
"""Prefix of the labels and annotations that this simulation reads and writes."""


@dataclass(frozen=True)
class Gpu:
    """A GPU model, and the resource by which pods ask for it."""

    resource: str
    product: str
    model: str
    memory_mib: int
    family: str
    machine: str
    taint: Obj = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Slicing:
    """How a node's GPUs are divided. `profiles` are slices of the whole node: `(("1g.10gb", 28), …)`."""

    strategy: str = "none"
    profiles: tuple[tuple[str, int], ...] = ()
    replicas: int = 1
    renamed: bool = False
    """Time slicing under another resource name, `nvidia.com/gpu.shared`."""


@dataclass(frozen=True)
class NodeRule:
    """A node that is there from `historyStart` on. `gpus` are physical."""

    name: str
    gpus: int
    cpu: int
    memory_gib: int
    gpu: Gpu | None = None
    slicing: Slicing = Slicing()
    unschedulable: bool = False
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that come when pods need them and go when nobody does."""

    name: str
    most: int
    least: int
    start_seconds: float
    idle_seconds: float
    node: NodeRule


def resources_of(rule: NodeRule, gpu: Gpu) -> dict[str, str]:
    """Extended resources of a node, as the device plug-in advertises them."""
    slicing = rule.slicing
    if not rule.gpus:
        return {}
    if slicing.strategy == "mixed":
        prefix = gpu.resource.rpartition("/")[0]
        return {f"{prefix}/mig-{profile}": str(count) for profile, count in slicing.profiles}
    if slicing.strategy == "single":
        return {gpu.resource: str(sum(count for _, count in slicing.profiles))}
    name = f"{gpu.resource}.shared" if slicing.renamed else gpu.resource
    return {name: str(rule.gpus * slicing.replicas)}


def labels_of(rule: NodeRule, gpu: Gpu) -> dict[str, str]:
    """Labels of a node with GPUs."""
    slicing, product = rule.slicing, gpu.product
    count, memory = rule.gpus, gpu.memory_mib
    labels: dict[str, str] = {}
    if slicing.strategy == "single" and slicing.profiles:
        profile = slicing.profiles[0][0]
        product, count = f"{product}-MIG-{profile}", sum(amount for _, amount in slicing.profiles)
        memory = slice_memory(profile)
    if slicing.replicas > 1 and not slicing.renamed:
        product = f"{product}-SHARED"
    if slicing.strategy == "mixed":
        for profile, amount in slicing.profiles:
            prefix = f"nvidia.com/mig-{profile}"
            labels |= {
                f"{prefix}.count": str(amount),
                f"{prefix}.memory": str(slice_memory(profile)),
                f"{prefix}.product": f"{gpu.product}-MIG-{profile}",
                f"{prefix}.slices.gi": profile.partition("g.")[0],
                f"{prefix}.replicas": "1",
            }
    return labels | {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.memory": str(memory),
        "nvidia.com/gpu.family": gpu.family,
        "nvidia.com/gpu.machine": gpu.machine,
        "nvidia.com/gpu.replicas": str(slicing.replicas),
        "nvidia.com/gpu.sharing-strategy": "time-slicing" if slicing.replicas > 1 else "none",
        "nvidia.com/mig.capable": "true",
        # An undivided node reports what its operator is set to; `single` without slices is a whole GPU.
        "nvidia.com/mig.strategy": "mixed" if slicing.strategy == "mixed" else "single",
    }


def slice_memory(profile: str) -> int:
    """MiB of a MIG slice, from its profile's name (`1g.10gb`): a little less than it says, as on the real card."""
    gigabytes = profile.partition("g.")[2].removesuffix("gb").partition("+")[0]
    return int(gigabytes) * 1024 - 512 if gigabytes.isdigit() else 0


def node_object(rule: NodeRule, default: Gpu, index: int, now: str, extra: dict[str, str] | None = None) -> Obj:
    """The Node object of a rule, ready."""
    gpu = rule.gpu or default
    labels = {
        "kubernetes.io/hostname": rule.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node-role.kubernetes.io/worker": "",
        f"{SIMULATED}/node": "true",
    }
    capacity = {"cpu": str(rule.cpu), "memory": f"{rule.memory_gib}Gi", "ephemeral-storage": "2Ti", "pods": "110"}
    spec: dict[str, Any] = {"providerID": f"simulated://{rule.name}"}
    if rule.gpus:
        labels |= labels_of(rule, gpu)
        capacity |= resources_of(rule, gpu)
        if gpu.taint:
            spec["taints"] = [gpu.taint]
    if rule.unschedulable:
        spec["unschedulable"] = True
        cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        spec["taints"] = [*spec.get("taints", []), cordoned]
    labels |= dict(rule.labels) | (extra or {})
    healthy = {"MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True"}
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": "Simulated",
            "message": "this node is simulated",
            "lastTransitionTime": now,
            "lastHeartbeatTime": now,
        }
        for kind, status in healthy.items()
    ]
    return {
        "metadata": {"name": rule.name, "labels": labels},
        "spec": spec,
        "status": {
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": f"192.0.2.{index % 250}"},
                {"type": "Hostname", "address": rule.name},
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "simulated://0",
                "kernelVersion": "simulated",
                "kubeProxyVersion": GIT_VERSION,
                "kubeletVersion": GIT_VERSION,
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "Simulated node",
                "systemUUID": "",
            },
        },
    }
