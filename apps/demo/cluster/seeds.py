"""What a fresh cluster holds: system namespaces, the user-facing ClusterRoles, priority classes and the nodes."""

from __future__ import annotations

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.history import Rules
from apps.demo.cluster.nodes import SIMULATED, node_object

__all__ = ["SIMULATED", "cluster_roles", "namespaces", "nodes", "priority_classes"]

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
    return [node_object(node, rules.gpu, index, now) for index, node in enumerate(rules.nodes, start=1)]
