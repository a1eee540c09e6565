"""A workspace's queue for those who see the workspace: limits, place, reason in plain words, honest range."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.core import clock
from apps.provisioning.models import Observation, QueueEntry, QueueWait
from apps.quotas import queue_views
from apps.quotas.waiting_reasons import REASONS, explain, why
from apps.quotas.why_pending import held_up
from tests.cluster.fixtures import declare
from tests.quotas.conftest import World

ASSIGN = "couldn't assign flavors to pod set main:"
UNUSED = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100-80gb, "
    "4 more needed"
)
OVER = (
    "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor a100-80gb, previously "
    "considered podsets requests (0) + current podset request (20) > maximum capacity (10)"
)


@pytest.mark.requirement("feasibility-3.4")
@pytest.mark.parametrize(
    ("message", "kind", "part"),
    [
        (UNUSED, "queue", "4 nvidia.com/gpu of a100-80gb more would have to be free"),
        (OVER, "queue_never", "it asks for 20 nvidia.com/gpu of a100-80gb, and the queue reaches 10 at most"),
        ("resource nvidia.com/gpu unavailable in ClusterQueue", "queue_never", "holds no nvidia.com/gpu at all"),
        ("LocalQueue best doesn't exist", "queue_never", "The queue best does not exist"),
        ("ClusterQueue finance is inactive", "queue", "admits nothing just now"),
        (f"{ASSIGN} flavor a100 doesn't match node affinity", "queue_never", "No flavour of its queue has the nodes"),
        (f"{ASSIGN} untolerated taint {{x y NoSchedule <nil>}} in flavor a100", "queue_never", "or the taints"),
        ("workload namespace doesn't match ClusterQueue selector", "queue_never", "belongs to another workspace"),
        (f'{ASSIGN} Flavor "a100" supports only TopologyAwareScheduling', "queue_never", "placement by topology"),
        (f"{UNUSED}. Pending the preemption of 2 workload(s)", "queue", "taken back from work that borrowed it"),
    ],
)
def test_messages_of_kueue_in_plain_words(message: str, kind: str, part: str) -> None:
    found = explain(message)
    assert found is not None
    assert found.kind == kind
    assert part in found.summary


@pytest.mark.requirement("feasibility-3.4")
def test_every_reason_has_words_and_an_unknown_one_is_shown_as_it_is() -> None:
    for reason in (
        "WaitingForQuota", "ExceedsMaxQuota", "NoMatchingFlavor", "TopologyPlacementFailed", "PendingEvaluation",
        "WaitingForPreemptedWorkloads", "Misconfigured", "Suspended", "WaitingForPodsReady", "Inadmissible",
    ):  # fmt: skip
        assert why(reason, "").summary == REASONS[reason].summary
    assert why("Novel", "something new").summary == "something new"
    assert explain('pods "x" not found') is None


@pytest.mark.requirement("feasibility-3.4")
def test_why_pending_names_the_job_behind_a_workload() -> None:
    workload = {
        "metadata": {
            "name": "job-train-abc12", "creationTimestamp": "2026-11-22T08:00:00Z",
            "ownerReferences": [{"kind": "Job", "name": "train"}],
        },
        "spec": {},
        "status": {
            "conditions": [
                {"type": "QuotaReserved", "status": "False", "reason": "WaitingForQuota", "message": UNUSED},
                {"type": "Evicted", "status": "True", "reason": "Preempted"},
            ]
        },
    }  # fmt: skip
    (held,) = held_up([], [], [], [], [workload])
    assert (held.kind, held.name) == ("Job", "train")
    assert "4 nvidia.com/gpu" in held.explanations[0].summary
    assert "stopped, so that work with a right" in held.explanations[1].summary
    workload["status"]["conditions"][0]["status"] = "True"
    assert held_up([], [], [], [], [workload]) == []


def queue_of(world: World, team: str, nominal: int = 10, borrow: str | None = "4") -> None:
    """Declare a team's ClusterQueue as its workspace's declaration holds it."""
    resource: dict[str, Any] = {"name": "nvidia.com/gpu", "nominalQuota": str(nominal), "lendingLimit": "6"}
    if borrow is not None:
        resource["borrowingLimit"] = borrow
    workspace = world.workspaces[team]
    body = {
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue",
        "metadata": {"name": workspace.namespace, "labels": {"gpu-commons/managed": "true"}},
        "spec": {"resourceGroups": [{"coveredResources": ["nvidia.com/gpu"], "flavors": [
            {"name": world.flavour.slug, "resources": [resource]}]}]},
    }  # fmt: skip
    declare(world.cluster, [body], owner_uid=workspace.uid, team_id=workspace.team_id)


def seen(world: World, team: str, used: int, borrowed: int = 0) -> None:
    """Let the observer have seen a queue's use."""
    cell = {"reserved": str(used), "used": str(used), "borrowed": str(borrowed)}
    Observation.objects.create(
        cluster=world.cluster, kind="ClusterQueue", name=world.workspaces[team].namespace, observed_at=clock.now(),
        status={"active": True, "flavours": {world.flavour.slug: {"nvidia.com/gpu": cell}}},
    )  # fmt: skip


def entry(world: World, team: str, name: str = "train", **values: Any) -> QueueEntry:
    """Let a workload wait."""
    namespace = world.workspaces[team].namespace
    return QueueEntry.objects.create(
        **{
            "cluster": world.cluster, "namespace": namespace, "name": name, "local_queue": "default",
            "cluster_queue": namespace, "position_cluster": 1, "requests": {"nvidia.com/gpu": 4},
            "reason": "WaitingForQuota", "message": UNUSED, "queued_at": clock.now() - timedelta(minutes=7),
            "observed_at": clock.now(), **values,
        }
    )  # fmt: skip


def on_kueue(world: World) -> World:
    """Let the cluster have Kueue."""
    world.cluster.kueue_mode = "jobs"
    world.cluster.capabilities = {"kueue": {"installed": True, "api_versions": ["v1beta2"], "visibility": True}}
    world.cluster.save()
    for workspace in world.workspaces.values():
        workspace.refresh_from_db()
    world.pool.refresh_from_db()
    return world


@pytest.fixture
def kueue(world: World) -> World:
    """The world on a cluster with Kueue."""
    return on_kueue(world)


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-3.3", "feasibility-3.5")
def test_a_member_sees_limits_and_what_waits(kueue: World, client_for: Any) -> None:
    queue_of(kueue, "finance")
    seen(kueue, "finance", 12, borrowed=2)
    entry(kueue, "finance")
    entry(kueue, "marketing", "secret-campaign")
    found = queue_views.of_workspace(kueue.workspaces["finance"])
    assert found is not None
    (limit,) = found.limits
    assert (limit.guaranteed, limit.borrow, limit.lend) == (10, 4, 6)
    assert (limit.reserved, limit.used, limit.borrowed) == (12, 12, 2)
    assert [(one.place, one.asks) for one in found.waiting] == [("2nd", "4 nvidia.com/gpu")]
    url = reverse("quotas:workspace-detail", kwargs={"workspace_uid": kueue.workspaces["finance"].uid})
    page = client_for(kueue["member_finance"]).get(url).content.decode()
    assert "2nd in line" in page
    assert "4 nvidia.com/gpu of a100-80gb more would have to be free" in page
    assert "No history yet, so no estimate" in page
    assert "secret-campaign" not in page
    for minutes in range(5, 11):
        at = clock.now() - timedelta(hours=minutes)
        QueueWait.objects.create(
            cluster=kueue.cluster, namespace="x", cluster_queue=found.name, workload_uid=str(minutes), queued_at=at,
            admitted_at=at + timedelta(minutes=minutes), waited_ms=minutes * 60_000,
        )  # fmt: skip
    page = client_for(kueue["member_finance"]).get(url).content.decode()
    assert "Like ones waited 6 min to 9 min (the middle of the last 6" in page


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-3.3", "feasibility-3.5")
def test_what_is_not_known_is_said_to_be_unknown(kueue: World) -> None:
    queue_of(kueue, "finance", borrow=None)
    kueue.cluster.capabilities["kueue"]["visibility"] = False
    kueue.cluster.save()
    workspace = kueue.workspaces["finance"]
    workspace.cluster.refresh_from_db()
    found = queue_views.of_workspace(workspace)
    assert found is not None
    assert (found.limits[0].borrow, found.limits[0].used, found.observed_at) == (None, None, None)
    assert "visibility API" in found.no_positions
    workspace.cluster.kueue_mode = "off"
    assert queue_views.of_workspace(workspace) is None


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-3.5")
def test_admins_see_who_borrows_while_who_waits(world: World, client_for: Any) -> None:
    world.granted("finance", 10)
    world.granted("marketing", 20)
    kueue = on_kueue(world)
    seen(kueue, "finance", 4)
    seen(kueue, "marketing", 26, borrowed=6)
    found = queue_views.imbalance(kueue.pool)
    assert found is not None
    # Nothing of finance waits, so it starves of nothing.
    assert (found.starved, [one.borrowed for one in found.borrowers]) == ([], [6])
    entry(kueue, "finance")
    found = queue_views.imbalance(kueue.pool)
    assert found is not None
    assert [(one.workspace.namespace, one.starved) for one in found.starved] == [("finance-development", 6)]
    assert found.owed == 6
    url = reverse("clusters:pool-detail", kwargs={"pool_uid": kueue.pool.uid})
    page = client_for(kueue["admin"]).get(url).content.decode()
    assert "Who borrows, who waits" in page
    tenant = client_for(kueue["lead_finance"]).get(reverse("quotas:pool-detail", kwargs={"pool_uid": kueue.pool.uid}))
    assert "Who borrows" not in tenant.content.decode()
