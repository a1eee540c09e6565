"""Live figures: on the page within five seconds, cheap where nothing changed, and never green where nobody answers."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning.models import Observation
from apps.provisioning.observer import LEASE_SECONDS, ClusterObserver
from apps.quotas.live_rows import QuotaRow
from apps.quotas.models import QuotaRequest
from tests.cluster.fixtures import client_of, register, simulated, simulator
from tests.factories import client_for as signed_in
from tests.factories import make_company
from tests.quotas.conftest import World, make_world

__all__ = ["simulated", "simulator"]


def use(world: World, team: str, used: int, hard: int = 40) -> None:
    """Let the observer have seen a namespace's use just now."""
    Observation.objects.update_or_create(
        cluster=world.cluster, kind="ResourceQuota", namespace=world.workspaces[team].namespace, name="gpu-quota",
        defaults={
            "status": {"hard": {"requests.nvidia.com/gpu": str(hard)}, "used": {"requests.nvidia.com/gpu": str(used)}},
            "observed_at": clock.now(),
        },
    )  # fmt: skip


def live_url(world: World, team: str) -> str:
    """Where a team's workspace page asks."""
    return reverse("quotas:workspace-live", kwargs={"workspace_uid": world.workspaces[team].uid})


def figures(page: str) -> str:
    """The page's text without runs of blanks."""
    return " ".join(page.split())


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-5.1")
def test_pages_ask_for_their_figures_and_only_changes_are_sent(world: World) -> None:
    world.granted("finance", 10)
    use(world, "finance", 3)
    client = signed_in(world["member_finance"])
    workspace = reverse("quotas:workspace-detail", kwargs={"workspace_uid": world.workspaces["finance"].uid})
    assert (
        f'hx-get="{live_url(world, "finance")}" hx-trigger="every 3s, live"' in client.get(workspace).content.decode()
    )
    team = client.get(reverse("reports:team", kwargs={"team_slug": "finance"})).content.decode()
    assert reverse("quotas:team-live", kwargs={"team_slug": "finance"}) in team
    with clock.frozen(clock.now()):
        for url in (live_url(world, "finance"), reverse("quotas:team-live", kwargs={"team_slug": "finance"})):
            first = client.get(url)
            assert first.status_code == 200
            assert "<html" not in first.content.decode()
            assert first["Cache-Control"] == "private, no-cache"
            again = client.get(url, headers={"If-None-Match": first["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
            # Another person's figures are another thing, whatever the browser kept.
            other = signed_in(world["lead_finance"]).get(url, headers={"If-None-Match": first["ETag"]})
            assert other.status_code == 200
    url = live_url(world, "finance")
    before = client.get(url)
    use(world, "finance", 4)
    after = client.get(url, headers={"If-None-Match": before["ETag"]})
    assert after.status_code == 200
    assert '<td class="figure"> 4 ' in figures(after.content.decode())
    assert Client().get(url, headers={"If-None-Match": after["ETag"]}).status_code == 302


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-5.1")
def test_a_look_takes_four_queries_besides_those_of_every_request(world: World, query_limit: Any) -> None:
    for team in world.workspaces:
        world.granted(team, 10)
        use(world, team, 3)
    client = signed_in(world["member_finance"])
    url = live_url(world, "finance")
    etag = client.get(url)["ETag"]
    with clock.frozen(clock.now()):
        etag = client.get(url)["ETag"]
        # Session, person, scope, the workspace itself: what a page asks before it says a word.
        with query_limit(8):
            assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
        with query_limit(12):
            assert client.get(url).status_code == 200


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-5.2")
def test_a_silent_cluster_is_named_and_the_last_figures_stay(world: World) -> None:
    world.granted("finance", 10)
    use(world, "finance", 3)
    client = signed_in(world["member_finance"])
    url = live_url(world, "finance")
    etag = client.get(url)["ETag"]
    since = clock.now() - timedelta(minutes=4)
    Cluster.objects.update(health="unreachable", unreachable_since=since)
    response = client.get(url, headers={"If-None-Match": etag})
    page = figures(response.content.decode())
    assert response.status_code == 200
    assert "Atlas is unreachable since" in page
    assert "4 min ago" in page
    assert '3 <span class="text-secondary"><time' in page
    assert "Not known" in page
    assert "In force" not in page
    Cluster.objects.update(health="healthy", unreachable_since=None, paused_at=clock.now())
    assert "Atlas is paused since" in client.get(url).content.decode()


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-5.2")
def test_more_in_use_than_allowed_is_said_in_words(world: World) -> None:
    world.granted("finance", 10)
    use(world, "finance", 14, hard=10)
    page = signed_in(world["member_finance"]).get(live_url(world, "finance")).content.decode()
    assert "14 in use, 10 allowed: nothing that runs is stopped, and nothing new starts until 4 end." in page
    row = QuotaRow(
        world.workspaces["finance"], world.flavour, None, 10, "none", 0, 10, 10, None, 10, None, "guaranteed"
    )
    assert row.over_words == ""
    # Borrowing reaches beyond what the quota for production pods alone allows: that one limits other pods only.
    seen = Observation.objects.get(kind="ResourceQuota")
    Observation.objects.filter(pk=seen.pk).update(status={**seen.status, "scoped": True})
    assert "allowed" not in signed_in(world["member_finance"]).get(live_url(world, "finance")).content.decode()


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-5.3")
def test_a_request_that_waits_for_a_decision_brings_its_page_up_to_date(world: World) -> None:
    request = world.ask("finance", 20)
    client = signed_in(world["lead_finance"])
    url = reverse("quotas:request-detail", kwargs={"request_uid": request.uid})
    page = client.get(url).content.decode()
    watch = next(part for part in page.split('hx-get="')[1:] if "/live/?mark=" in part).split('"')[0]
    assert watch.startswith(reverse("quotas:request-live", kwargs={"request_uid": request.uid}))
    quiet = client.get(watch)
    assert (quiet.status_code, quiet.has_header("HX-Refresh")) == (204, False)
    world.approve(request)
    assert client.get(watch)["HX-Refresh"] == "true"
    QuotaRequest.objects.filter(pk=request.pk).update(status="withdrawn")
    assert "/live/?mark=" not in client.get(url).content.decode()
    assert signed_in(world["lead_marketing"]).get(watch).status_code == 404


def _pod(ns: str, gpus: int) -> dict[str, Any]:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"cpu": "1"}}
    context = {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
               "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    container = {
        "name": "main", "image": "registry.example.com/train:1", "resources": resources, "securityContext": context,
    }  # fmt: skip
    spec = {"containers": [container], "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train", "namespace": ns}, "spec": spec}


@pytest.mark.django_db(transaction=True)
@pytest.mark.cluster
@pytest.mark.requirement("feasibility-5.1")
def test_a_change_on_the_cluster_reaches_the_fragment_by_itself(simulated: SimulatedCluster) -> None:
    """A real observer thread, a real watch: a pod takes two GPUs, and the open page says so.

    That it takes at most five seconds is held stage by stage in tests/provisioning/test_lag.py.
    """
    world = make_world(make_company(), cluster=register(simulated))
    world.granted("finance", 4)
    settle(only=("provisioning.",))
    cluster = Cluster.objects.get(pk=world.cluster.pk)
    token = leases.claim(f"observe:{cluster.uid}", seconds=LEASE_SECONDS)
    assert token is not None
    observer = ClusterObserver(cluster, token)

    def run() -> None:
        try:
            observer.run()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        client = signed_in(world["member_finance"])
        url = live_url(world, "finance")
        _await(lambda: '<td class="figure"> 0 ' in figures(client.get(url).content.decode()), 10.0)
        etag = client.get(url)["ETag"]
        client_of(simulated).create(_pod(world.workspaces["finance"].namespace, 2))

        def shown() -> bool:
            response = client.get(url, headers={"If-None-Match": etag})
            return response.status_code == 200 and '<td class="figure"> 2 ' in figures(response.content.decode())

        _await(shown, 60.0)
    finally:
        observer.stop.set()
        for watcher in list(observer.watchers.values()):
            watcher.end()
        thread.join(timeout=10.0)
        leases.release(f"observe:{cluster.uid}", token)


def _await(condition: Any, seconds: float) -> None:
    """Wait until a condition holds. Fails after `seconds`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.05)
