"""Priorities production > batch > development, and who may use the highest: pure renderer.

Design §5: only batch borrows, production fits in what is guaranteed. A PriorityClass can be named by every pod of the
cluster; a ResourceQuota scoped to it is what keeps the highest class to production workspaces and their guarantee.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.quotas.kueue import API

Manifest = dict[str, Any]

PRODUCTION, BATCH, DEVELOPMENT = "gpu-commons-production", "gpu-commons-batch", "gpu-commons-development"
SCOPED_QUOTA = "gpu-commons-serving"
#: name → (value, whether its pods may evict pods of lower priority from a node, meaning)
CLASSES: Mapping[str, tuple[int, bool, str]] = {
    PRODUCTION: (100_000, True, "Production services. Only in production workspaces, within what they are guaranteed."),
    BATCH: (10_000, False, "Training and other jobs that can wait; the only ones that borrow. Evicts nobody."),
    DEVELOPMENT: (1_000, False, "Notebooks and trials. Gives way first and evicts nobody."),
}


def priority_manifests(labels: Mapping[str, str], *, kueue: bool) -> list[Manifest]:
    """Return the PriorityClasses and, with Kueue, the WorkloadPriorityClasses of the same names and values."""
    found: list[Manifest] = []
    for name, (value, evicts, meaning) in CLASSES.items():
        found.append(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name, "labels": dict(labels)},
                # No "globalDefault": false: an API server drops it, and what it drops is no longer as approved.
                "value": value,
                "preemptionPolicy": "PreemptLowerPriority" if evicts else "Never",
                "description": meaning,
            }
        )
    if kueue:
        found += [
            {
                "apiVersion": API,
                "kind": "WorkloadPriorityClass",
                "metadata": {"name": name, "labels": dict(labels)},
                "value": value,
                "description": meaning,
            }
            for name, (value, _, meaning) in CLASSES.items()
        ]
    return found


def scoped_hard(environment: str, production: Mapping[str, int]) -> dict[str, str]:
    """Return the limits on pods of production priority: so many GPUs in production, no pod at all elsewhere."""
    if environment != "production":
        return {"pods": "0"}
    return {f"requests.{resource}": str(units) for resource, units in sorted(production.items())}


def scoped_quota(meta: Manifest, environment: str, production: Mapping[str, int]) -> Manifest:
    """Return the ResourceQuota that counts pods of production priority alone."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": meta,
        "spec": {
            "hard": scoped_hard(environment, production),
            "scopeSelector": {
                "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [PRODUCTION]}]
            },
        },
    }
