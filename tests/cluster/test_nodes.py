"""Fake nodes: GPU labels and capacity by status, seen by the inventory, and gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from apps.clusters.clients.kubernetes import KubernetesClient
from tests.cluster.conftest import PREFIX, fresh

pytestmark = pytest.mark.cluster


def _node(name: str, labels: dict[str, str], **capacity: str) -> dict[str, Any]:
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "110", **capacity}
    taint = {"key": "gpu-commons-test/none", "effect": "NoSchedule"}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint]}, "status": {"capacity": amounts, "allocatable": amounts},
    }  # fmt: skip


@pytest.mark.requirement("simulated-operations-4.1")
def test_fake_nodes_show_what_they_carry(api: KubernetesClient) -> None:
    """Whole, sliced and cordoned ones, by one LIST."""
    whole, mixed, away = fresh(), fresh(), fresh()
    product = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"}
    api.create(_node(whole, product, **{"nvidia.com/gpu": "8"}))
    slices = {**product, "nvidia.com/mig.strategy": "mixed", "nvidia.com/mig-1g.10gb.count": "14"}
    api.create(_node(mixed, slices, **{"nvidia.com/mig-1g.10gb": "14"}))
    cordoned = _node(away, product, **{"nvidia.com/gpu": "8"})
    cordoned["spec"]["unschedulable"] = True
    api.create(cordoned)
    found = {n["metadata"]["name"]: n for n in api.list("Node").items if n["metadata"]["name"].startswith(PREFIX)}
    assert found[whole]["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert found[mixed]["status"]["allocatable"]["nvidia.com/mig-1g.10gb"] == "14"
    assert found[mixed]["metadata"]["labels"]["nvidia.com/mig.strategy"] == "mixed"
    assert found[away]["spec"]["unschedulable"] is True


@pytest.mark.requirement("simulated-operations-4.1")
def test_capacity_is_changed_by_the_status_alone(api: KubernetesClient) -> None:
    """As the device plug-in does when a GPU falls out."""
    name = fresh()
    api.create(_node(name, {}, **{"nvidia.com/gpu": "8"}))
    change = {"status": {"allocatable": {"nvidia.com/gpu": "7"}}}
    media, params = "application/merge-patch+json", {"name": name}
    api._call("PATCH", "/api/v1/nodes/{name}", params, body=change, content_type=media)
    assert api.get("Node", name)["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    api._call("PATCH", "/api/v1/nodes/{name}/status", params, body=change, content_type=media)
    assert api.get("Node", name)["status"]["allocatable"]["nvidia.com/gpu"] == "7"
