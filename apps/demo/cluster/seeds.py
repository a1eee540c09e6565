"""What a fresh cluster holds: system namespaces, the user-facing ClusterRoles, priority classes and the nodes."""

from __future__ import annotations

from apps.demo.cluster.discovery import GIT_VERSION
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.history import Gpu, NodeRule, Rules

SIMULATED = "simulated.gpu-commons.internal"
"""Prefix of the labels and annotations that this simulation reads and writes."""

_READ, _WRITE = ["get", "list", "watch"], ["create", "delete", "deletecollection", "patch", "update"]
_RBAC = "rbac.authorization.k8s.io"


def _rules(*, write: bool, roles: bool) -> list[Obj]:
    # Like the real `edit`, writing covers workloads; quotas, limits and the namespace stay read-only.
    rules: list[Obj] = [
        {
            "apiGroups": [""],
            "resources": [
                "events",
                "limitranges",
                "namespaces",
                "namespaces/status",
                "pods",
                "pods/status",
                "resourcequotas",
                "resourcequotas/status",
                "serviceaccounts",
            ],
            "verbs": _READ,
        },
        {"apiGroups": ["apps"], "resources": ["deployments", "deployments/status"], "verbs": _READ},
        {"apiGroups": ["batch"], "resources": ["jobs", "jobs/status"], "verbs": _READ},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": _READ},
    ]
    if write:
        rules += [
            {"apiGroups": [""], "resources": ["pods", "serviceaccounts"], "verbs": _WRITE},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": _WRITE},
            {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": _WRITE},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": _WRITE},
        ]
    if roles:
        rules.append({"apiGroups": [_RBAC], "resources": ["rolebindings"], "verbs": [*_READ, *_WRITE]})
    return rules


def cluster_roles() -> list[Obj]:
    """`view`, `edit`, `admin` and `cluster-admin`."""
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    table = {
        "view": _rules(write=False, roles=False),
        "edit": _rules(write=True, roles=False),
        "admin": _rules(write=True, roles=True),
        "cluster-admin": everything,
    }
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    return [{"metadata": {"name": name, "labels": labels}, "rules": rules} for name, rules in table.items()]


def priority_classes() -> list[Obj]:
    """The two classes every cluster has."""
    return [
        {"metadata": {"name": "system-cluster-critical"}, "value": 2_000_000_000, "description": "Cluster critical"},
        {"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000, "description": "Node critical"},
    ]


def namespaces() -> list[Obj]:
    """The namespaces every cluster has."""
    return [{"metadata": {"name": name}} for name in ("default", "kube-system", "kube-public", "kube-node-lease")]


def nodes(rules: Rules, now: str) -> list[Obj]:
    """Node objects with the labels that NVIDIA's feature discovery sets."""
    return [_node(rules.gpu, node, index, now) for index, node in enumerate(rules.nodes, start=1)]


def _node(gpu: Gpu, node: NodeRule, index: int, now: str) -> Obj:
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node-role.kubernetes.io/worker": "",
        f"{SIMULATED}/node": "true",
    }
    capacity = {"cpu": str(node.cpu), "memory": f"{node.memory_gib}Gi", "ephemeral-storage": "2Ti", "pods": "110"}
    spec: Obj = {"providerID": f"simulated://{node.name}"}
    if node.gpus:
        labels |= {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": gpu.product,
            "nvidia.com/gpu.count": str(node.gpus),
            "nvidia.com/gpu.memory": str(gpu.memory_mib),
            "nvidia.com/gpu.family": gpu.family,
            "nvidia.com/gpu.machine": gpu.machine,
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/gpu.sharing-strategy": "none",
            "nvidia.com/mig.capable": "true",
            "nvidia.com/mig.strategy": "single",
        }
        capacity[gpu.resource] = str(node.gpus)
        if gpu.taint:
            spec["taints"] = [gpu.taint]
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
        "metadata": {"name": node.name, "labels": labels},
        "spec": spec,
        "status": {
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": f"192.0.2.{index}"},
                {"type": "Hostname", "address": node.name},
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
