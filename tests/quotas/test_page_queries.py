"""How many statements the pages take on which many parts of the portal show something, when all of them do."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from apps.clusters.models import Node
from apps.core import clock
from apps.provisioning.models import ApplyRun, Declaration, Drift, Observation, WatchCursor
from apps.quotas.models import BaselineState
from tests.cluster.fixtures import declare
from tests.factories import client_for
from tests.quotas.conftest import World
from tests.quotas.test_granting import applied
from tests.quotas.test_queues import entry, on_kueue, queue_of, seen

pytestmark = pytest.mark.django_db


def busy(world: World, used: int = 7) -> World:
    """Quotas, use, a queue in which work waits, drift, an apply on its way, nodes, and a baseline."""
    for index in range(3):
        world.granted(guaranteed=3 + index)
    world.granted("marketing", 12)
    applied(world.workspaces["marketing"])
    on_kueue(world)
    now = clock.now()
    workspace = world.workspaces["finance"]
    queue_of(world, "finance")
    seen(world, "finance", 5)
    for name in ("train", "tune"):
        entry(world, "finance", name)
    for team in ("finance", "marketing"):
        Observation.objects.create(
            cluster=world.cluster, kind="ResourceQuota", namespace=world.workspaces[team].namespace, observed_at=now,
            name="gpu-commons",
            status={"hard": {"requests.nvidia.com/gpu": "5", "pods": "200"},
                    "used": {"requests.nvidia.com/gpu": str(used), "pods": "3"}},
        )  # fmt: skip
    for kind in ("ResourceQuota", "ClusterQueue"):
        WatchCursor.objects.create(cluster=world.cluster, kind=kind, resource_version="1", seen_at=now)
    declaration = Declaration.objects.get(owner_uid=workspace.uid)
    Drift.objects.create(declaration=declaration, kind="ResourceQuota", namespace=workspace.namespace,
                         name="gpu-commons", field="/spec/hard/pods", found_at=now)  # fmt: skip
    Node.objects.create(cluster=world.cluster, name="node-1", gpu_model=world.flavour.gpu_model, physical_gpus=8,
                        observed_at=now)  # fmt: skip
    body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": "gpu-commons-batch", "labels": {"gpu-commons/managed": "true"}},
            "value": 10000}  # fmt: skip
    baseline = declare(world.cluster, [body], kind="baseline", owner_uid=world.cluster.uid, title="Baseline")
    Declaration.objects.filter(pk=baseline.pk).update(observed_generation=1, status="applied")
    ApplyRun.objects.create(declaration=baseline, generation=1, outcome="succeeded", lease_token=baseline.uid,
                            started_at=now, finished_at=now)  # fmt: skip
    BaselineState.objects.create(cluster=world.cluster, due_since=now)
    return world


@pytest.mark.requirement("quotas-6.6")
@pytest.mark.parametrize("person", ["lead_finance", "vp", "admin", "auditor"])
def test_a_workspace_with_everything_on_its_page_takes_26_statements(
    world: World, query_limit: Any, person: str
) -> None:
    busy(world)
    client = client_for(world[person])
    url = reverse("quotas:workspace-detail", kwargs={"workspace_uid": world.workspaces["finance"].uid})
    client.get(url)
    with query_limit(26):
        page = client.get(url).content.decode()
    assert "7 in use, 5 allowed" in page
    assert "insufficient unused quota" in page or "4 nvidia.com/gpu" in page


@pytest.mark.requirement("quotas-6.6")
def test_a_cluster_with_everything_on_its_page_takes_25_statements(world: World, query_limit: Any) -> None:
    busy(world)
    client = client_for(world["admin"])
    url = reverse("clusters:cluster-detail", kwargs={"slug": world.cluster.slug})
    client.get(url)
    with query_limit(25):
        page = client.get(url).content.decode()
    assert "node-1" in page


@pytest.mark.requirement("quotas-6.6")
def test_a_team_with_quota_and_a_queue_takes_23_statements(world: World, query_limit: Any) -> None:
    busy(world, used=4)
    client = client_for(world["lead_finance"])
    url = reverse("reports:team", kwargs={"team_slug": world.company.finance_team.slug})
    client.get(url)
    with query_limit(23):
        assert client.get(url).status_code == 200
