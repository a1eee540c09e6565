"""The cluster's API misbehaves while a request is planned and applied; time is injected."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.clusters import health
from apps.clusters.choices import Health
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.core import clock
from apps.core.testing import settle
from apps.demo.cluster.faults import Faults
from apps.provisioning import retries
from apps.provisioning.models import Declaration
from apps.quotas.choices import RequestStatus
from apps.quotas.models import QuotaRequest
from tests.acceptance.world import World
from tests.cluster.fixtures import client_of

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]

#: Fault → how the request's page puts it.
FAULTS = {
    "down": "does not answer",
    "slow": "does not answer",
    "500": "Internal error",
    "429": "asked for a pause|too many requests",
    "409": "has been modified",
}
ONLY = ("provisioning.", "quotas.", "notifications.")


def page(world: World, request: QuotaRequest) -> str:
    answer = world.client("finance-lead").get(reverse("quotas:request-detail", kwargs={"request_uid": request.uid}))
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", answer.content.decode())


@pytest.fixture
def impatient(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Time-outs of a fifth of a second, so that *slow* is slow."""
    quick = client_of(world.simulated, read_seconds=0.2)
    monkeypatch.setattr(KubernetesClient, "for_cluster", lambda row: quick)
    return world


def strike(world: World, fault: str) -> None:
    # Reads too: whatever the worker asks first meets the fault. A 409 exists for writes only.
    world.simulated.faults.set(fault, delay_ms=500)


@pytest.mark.requirement("resilience-3.1", "resilience-3.2")
@pytest.mark.parametrize("fault", FAULTS)
def test_an_approved_request_outlives_the_clusters_bad_hour(impatient: World, fault: str) -> None:
    """*Applying*, with why, since when and the next try; after healing applied once, exactly as approved."""
    world = impatient
    request = world.ask()
    settle(only=ONLY)
    approved_at = clock.now()
    strike(world, fault)
    world.approve(request)
    world.stage.advance(timedelta(seconds=5))
    settle(only=ONLY)
    for _ in range(3):
        world.stage.advance(timedelta(minutes=6))
        settle(only=ONLY)
    request.refresh_from_db()
    assert request.status == RequestStatus.APPLYING
    assert world.client("finance-lead").get(f"/api/v1/quota-requests/{request.uid}").json()["status"] == "applying"
    said = page(world, request)
    assert re.search(FAULTS[fault], said), said
    assert f"{approved_at:%H:%M}" in said
    assert "It completes by itself" in said
    assert "Next try" in said
    declaration = Declaration.objects.get(owner_uid=world.workspace().uid)
    assert declaration.retry_at is not None
    world.simulated.faults.clear()
    assert world.hard() is None
    world.stage.advance(timedelta(minutes=6))
    settle(only=ONLY)
    request.refresh_from_db()
    assert request.status == RequestStatus.ACTIVE
    assert world.hard() == "8"
    assert "Applied on the cluster" in page(world, request)
    told = list(
        AuditEvent.objects.filter(object_id=declaration.uid).order_by("occurred_at").values_list("action", flat=True)
    )
    assert told == [f"provisioning.declaration.{word}" for word in ("declared", "failing", "applied")]
    if fault in ("down", "slow", "500"):
        cluster_told = AuditEvent.objects.filter(object_id=world.cluster.uid).values_list("action", flat=True)
        expected = {"clusters.cluster.unreachable", "clusters.cluster.recovered"}
        assert expected <= set(cluster_told) or fault == "500"


@pytest.mark.requirement("resilience-3.1", "resilience-3.2")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_plan_waits_for_its_cluster_and_says_so(impatient: World, fault: str) -> None:
    """The request can be read and decided meanwhile; the dry run is made when the cluster is back."""
    world = impatient
    strike(world, fault)
    request = world.ask()
    settle(only=ONLY)
    request.refresh_from_db()
    assert request.plan is not None
    assert (request.plan.status, request.plan.entries) == ("pending", [])
    assert re.search(r"Not yet, because: .+", page(world, request))
    world.simulated.faults.clear()
    world.stage.advance(timedelta(minutes=6))
    settle(only=ONLY)
    request.plan.refresh_from_db()
    assert request.plan.status == "ready"
    assert {"Namespace", "ResourceQuota"} <= {entry["kind"] for entry in request.plan.entries}


class Counting:
    """Counts what reaches the cluster's API."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        strike_as_before = Faults.strike

        def counted(faults: Faults, method: str, path: str) -> None:
            self.seen.append(f"{method} {path}")
            strike_as_before(faults, method, path)

        monkeypatch.setattr(Faults, "strike", counted)

    @property
    def calls(self) -> int:
        return len(self.seen)


@pytest.mark.requirement("resilience-3.3")
def test_a_cluster_that_asks_for_a_pause_gets_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After: nothing is called before, whatever sweeps; it stays healthy all the while."""
    request = world.ask()
    settle(only=ONLY)
    counting = Counting(monkeypatch)
    world.simulated.faults.set("429", count=1)
    world.approve(request)
    settle(only=("provisioning.",))
    assert counting.calls == 1
    cluster = world.cluster
    assert cluster.retry_at is not None
    assert cluster.retry_at >= clock.now() + timedelta(seconds=1)
    settle(only=("provisioning.", "clusters."))
    assert counting.calls == 1
    assert health.shown_health(cluster) == Health.HEALTHY
    world.stage.advance(timedelta(seconds=3))
    settle(only=("provisioning.",))
    assert world.hard() == "8"


@pytest.mark.requirement("resilience-3.3")
def test_a_dead_cluster_costs_one_call_per_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses grow to a minute; in half an hour of outage a few dozen calls, not thousands."""
    request = world.ask()
    settle(only=ONLY)
    monkeypatch.setattr(health.random, "random", lambda: 0.0)
    monkeypatch.setattr(retries.random, "random", lambda: 0.0)
    world.simulated.faults.set("down")
    counting = Counting(monkeypatch)
    world.approve(request)
    for _ in range(90):
        before = counting.calls
        settle(only=("provisioning.apply", "clusters."))
        assert counting.calls - before <= 2, counting.seen  # a read cut off is repeated once
        world.stage.advance(timedelta(seconds=20))
    assert 10 <= counting.calls <= 80
    cluster = world.cluster
    assert cluster.health == Health.UNREACHABLE
    assert "does not answer" in page(world, request)
    told = AuditEvent.objects.filter(action="clusters.cluster.unreachable", object_id=str(cluster.uid))
    assert told.count() == 1
    world.simulated.faults.clear()
    world.stage.advance(timedelta(minutes=6))
    settle(only=ONLY)
    assert world.hard() == "8"
