"""The loop on a Kubernetes API: request, plan, approval, apply, observation, use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from apps.clusters.clients.kubernetes import KubernetesClient
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.quotas import selectors
from apps.quotas.choices import RequestStatus
from apps.quotas.use_it import Place, pod_of, ready_made
from tests.cluster.fixtures import client_of, fresh_namespace, register, simulated, simulator
from tests.factories import Company, client_for
from tests.quotas.conftest import World, make_world

__all__ = ["simulated", "simulator"]
pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("provisioning.", "quotas.", "approvals.")


@pytest.fixture
def live(simulated: SimulatedCluster) -> KubernetesClient:
    """A look at the cluster beside the portal."""
    return client_of(simulated)


@pytest.fixture
def loop(company: Company, simulated: SimulatedCluster) -> Iterator[World]:
    """The world on the simulated cluster, with team names that no other test uses."""
    for team in company.teams.values():
        team.slug = fresh_namespace("q")
        team.save()
    world = make_world(company, register(simulated))
    for name, team in (("finance", company.finance_team), ("marketing", company.marketing_team)):
        world.workspaces[name] = world.workspaces[team.slug]
    return world


def hard(live: KubernetesClient, world: World) -> dict[str, str]:
    namespace = world.workspaces["finance"].namespace
    found: dict[str, str] = live.get("ResourceQuota", "gpu-commons", namespace)["spec"]["hard"]
    return found


def test_pod(world: World, gpus: int) -> dict[str, Any]:
    flavour = world.flavour
    place = Place("x", "", "", world.workspaces["finance"].namespace, "", flavour.resource_name, gpus, {}, [])
    return pod_of(ready_made(place, "job"))


test_pod.__test__ = False  # type: ignore[attr-defined]  # a helper, not a test


@pytest.mark.requirement("quotas-4.1", "quotas-3.3")
def test_from_request_to_the_cluster_and_back(loop: World, live: KubernetesClient) -> None:
    request = loop.ask(guaranteed=20)
    settle(only=ONLY)
    lead = client_for(loop["lead_finance"])
    url = reverse("quotas:request-detail", kwargs={"request_uid": request.uid})
    page = lead.get(url).content.decode()
    assert "ResourceQuota gpu-commons" in page
    assert "shown as rendered" in page
    assert "requests.nvidia.com/gpu: &#x27;20&#x27;" in page, "a new object is shown whole, not only as created"
    loop.approve(request)
    settle(only=ONLY)
    request.refresh_from_db()
    assert request.status == RequestStatus.ACTIVE
    assert hard(live, loop)["requests.nvidia.com/gpu"] == "20"
    namespace = loop.workspaces["finance"].namespace
    assert live.get("Namespace", namespace)["metadata"]["labels"]["gpu-commons/team"] == loop.company.finance_team.slug
    row = selectors.team_quota_rows(loop.company.finance_team)[0]
    assert row.guaranteed == 20
    # The next change goes through the cluster's own dry run, and says exactly one thing.
    second = loop.ask(guaranteed=30)
    settle(only=ONLY)
    second.refresh_from_db()
    rows = selectors.plan_rows(second.plan)
    assert [(line.before, line.after) for line in rows] == [("20", "30")]
    loop.approve(second)
    settle(only=ONLY)
    assert hard(live, loop)["requests.nvidia.com/gpu"] == "30"


@pytest.mark.requirement("quotas-7.2")
def test_the_cluster_itself_says_whether_it_would_take_it(loop: World, live: KubernetesClient) -> None:
    loop.granted(guaranteed=2)
    settle(only=ONLY)
    workspace = loop.workspaces["finance"]
    kwargs = {"workspace_uid": workspace.uid, "flavour_slug": loop.flavour.slug}
    member = client_for(loop["member_finance"])
    for shape in ("job", "pod", "deployment"):
        url = reverse("quotas:use-check", kwargs=kwargs | {"shape": shape})
        assert "would take it now" in member.post(url).content.decode(), shape
    live.create(test_pod(loop, 2))
    page = member.post(reverse("quotas:use-check", kwargs=kwargs | {"shape": "job"})).content.decode()
    assert "would not take it now" in page
    assert "2 of 2 are in use" in page
    # Nothing was created by asking.
    assert len(live.list("Pod", workspace.namespace).items) == 1
    pending = member.post(reverse("quotas:workspace-pending", kwargs={"workspace_uid": workspace.uid}))
    assert pending.status_code == 200
    assert "could not be asked" not in pending.content.decode()


@pytest.mark.requirement("quotas-4.1")
def test_a_cluster_that_is_down_is_applied_when_it_is_back(
    loop: World, live: KubernetesClient, simulated: SimulatedCluster
) -> None:
    from apps.clusters.actions import pause, resume
    from apps.core.actor import Actor

    admin = Actor.of(loop["admin"])
    pause(loop.cluster.pk, "Maintenance of the network.", actor=admin)
    request = loop.granted(guaranteed=20)
    settle(only=ONLY)
    request.refresh_from_db()
    assert request.status == RequestStatus.APPLYING
    url = reverse("quotas:request-detail", kwargs={"request_uid": request.uid})
    assert "Maintenance of the network." in client_for(loop["lead_finance"]).get(url).content.decode()
    resume(loop.cluster.pk, actor=admin)
    settle(only=ONLY)
    request.refresh_from_db()
    assert request.status == RequestStatus.ACTIVE
    assert hard(live, loop)["requests.nvidia.com/gpu"] == "20"
