"""What waits in the queues of a cluster: reading Workloads, positions, history, and what a silent cluster leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.clusters.clients.kubernetes import KubernetesClient, Page
from apps.clusters.errors import ClusterError, NotFound, Unreachable
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.sweeps import registered
from apps.provisioning import observing, queue_reading, queues
from apps.provisioning.models import QueueEntry, QueueWait
from apps.provisioning.queue_reading import Admitted, Pending
from tests.cluster.fixtures import declare

QUEUES = {("finance", "default"): "finance", ("marketing", "default"): "marketing"}
AT = datetime(2026, 11, 22, 9, tzinfo=UTC)


def stamp(minutes: float) -> str:
    return (AT + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def condition(kind: str, status: str, minutes: float, reason: str = "", message: str = "") -> dict[str, Any]:
    return {
        "type": kind, "status": status, "lastTransitionTime": stamp(minutes), "reason": reason, "message": message,
    }  # fmt: skip


def workload(
    name: str, *found: Mapping[str, Any], ns: str = "finance", made: float = 0, priority: int = 0, **spec: Any
) -> dict[str, Any]:
    """A Workload of two pods with two GPUs each, as Kueue makes it for a Job."""
    container = {"name": "main", "resources": {"requests": {"cpu": "4"}, "limits": {"nvidia.com/gpu": "2"}}}
    pod_set = {"name": "main", "count": 2, "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload",
        "metadata": {"name": name, "namespace": ns, "uid": f"uid-{ns}-{name}", "creationTimestamp": stamp(made)},
        "spec": {"queueName": "default", "priority": priority, "podSets": [pod_set], **spec},
        "status": {"conditions": list(found)},
    }  # fmt: skip


def waits(reason: str = "WaitingForQuota", message: str = "no quota") -> dict[str, Any]:
    return condition("QuotaReserved", "False", 0, reason, message)


@pytest.mark.requirement("feasibility-3.1")
def test_a_workload_is_read_as_what_it_is() -> None:
    pending = queue_reading.read(workload("train", waits(), priority=1000), QUEUES)
    assert isinstance(pending, Pending)
    assert (pending.cluster_queue, pending.priority, pending.reason) == ("finance", 1000, "WaitingForQuota")
    assert pending.requests == {"nvidia.com/gpu": 4}
    assert pending.queued_at == AT
    assert queue_reading.read(workload("stopped", waits(), active=False), QUEUES) is None
    assert queue_reading.read(workload("over", condition("Finished", "True", 5)), QUEUES) is None
    assert queue_reading.read(workload("foreign", waits(), ns="elsewhere"), QUEUES) is None
    new = queue_reading.read(workload("new"), QUEUES)
    assert isinstance(new, Pending)
    assert new.reason == "PendingEvaluation"
    put_back = queue_reading.read(workload("evicted", waits(), condition("Evicted", "True", 30, "Preempted")), QUEUES)
    assert isinstance(put_back, Pending)
    assert put_back.queued_at == AT + timedelta(minutes=30)


@pytest.mark.requirement("feasibility-3.2")
def test_words_on_a_preemption_leave_the_other_team_out() -> None:
    said = (
        "Preempted to accommodate a workload (UID: 9810e942, JobUID: 2ff3e536) due to reclamation within the cohort; "
        "preemptor path: /unit-group/unit-lines/marketing-production; preemptee path: /unit-group/finance-production"
    )
    kept = "Preempted to accommodate a workload due to reclamation within the cohort"
    assert queue_reading.without_others(said) == kept
    assert queue_reading.without_others("couldn't assign flavors") == "couldn't assign flavors"


@pytest.mark.requirement("feasibility-3.2")
def test_a_wait_ends_when_quota_is_reserved() -> None:
    reserved = condition("QuotaReserved", "True", 12)
    admitted = queue_reading.read(workload("train", reserved, made=2), QUEUES)
    assert isinstance(admitted, Admitted)
    assert admitted.admitted_at - admitted.queued_at == timedelta(minutes=10)
    # Evicted is reset when it is admitted again: only Requeued remembers since when it waited a second time.
    back = (condition("Evicted", "False", 12), condition("Requeued", "True", 8))
    again = queue_reading.read(workload("again", reserved, *back), QUEUES)
    assert isinstance(again, Admitted)
    assert again.admitted_at - again.queued_at == timedelta(minutes=4)
    assert queue_reading.read(workload("unclear", reserved, back[0]), QUEUES) is None
    assert queue_reading.read(workload("clocks", reserved, made=13), QUEUES) is None


@pytest.mark.requirement("feasibility-3.1")
def test_without_positions_priority_and_age_decide() -> None:
    found = [
        queue_reading.read(workload(name, waits(), made=made, priority=priority, ns=ns), QUEUES)
        for name, made, priority, ns in (
            ("late", 5, 0, "finance"), ("early", 1, 0, "finance"), ("urgent", 9, 100, "finance"),
            ("other", 0, 0, "marketing"),
        )
    ]  # fmt: skip
    placed = {one.name: one for one in queue_reading.order_by_age([one for one in found if isinstance(one, Pending)])}
    assert {name: one.position_cluster for name, one in placed.items()} == {
        "urgent": 0, "early": 1, "late": 2, "other": 0,
    }  # fmt: skip


@pytest.mark.requirement("feasibility-3.5")
def test_a_queues_status_is_kept_in_short() -> None:
    cell = {"name": "nvidia.com/gpu", "total": "10", "borrowed": "2"}
    queue = {
        "kind": "ClusterQueue",
        "status": {
            "conditions": [condition("Active", "False", 0, "FlavorNotFound", "no such flavor")],
            "pendingWorkloads": 3, "admittedWorkloads": 2, "reservingWorkloads": 2,
            "flavorsReservation": [{"name": "a100", "resources": [cell]}],
            "flavorsUsage": [{"name": "a100", "resources": [{**cell, "total": "8"}]}],
            "fairSharing": {"weightedShare": 120},
        },
    }  # fmt: skip
    assert observing.status_of(queue) == {
        "pending": 3, "reserving": 2, "admitted": 2, "active": False, "reason": "FlavorNotFound",
        "message": "no such flavor", "weighted_share": 120,
        "flavours": {"a100": {"nvidia.com/gpu": {"reserved": "10", "borrowed": "2", "used": "8"}}},
    }  # fmt: skip


class Queue:
    """A cluster that lists Workloads and tells positions, or fails."""

    def __init__(self, *workloads: dict[str, Any]) -> None:
        self.workloads = list(workloads)
        self.positions: dict[str, list[str]] | None = None
        self.error: ClusterError | None = None
        self.asked: list[str] = []
        self.pages_of = 500

    def pages(self, kind: str, namespace: str = "", **options: Any) -> Iterator[Page]:
        """List them, a page at a time."""
        assert kind == "Workload"
        self.asked.append(kind)
        if self.error is not None:
            raise self.error
        for start in range(0, max(1, len(self.workloads)), self.pages_of):
            yield Page(self.workloads[start : start + self.pages_of], "7")

    def get_path(
        self, path: str, params: Mapping[str, str], *, query: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Any]:
        """Tell the positions of one queue."""
        assert path.endswith("/clusterqueues/{name}/pendingworkloads")
        self.asked.append(params["name"])
        if self.positions is None:
            raise NotFound("the server could not find the requested resource", status=404)
        limit, offset = (int(dict(query)[name]) for name in ("limit", "offset"))
        items = [
            {"metadata": {"namespace": params["name"], "name": name}, "positionInClusterQueue": index}
            for index, name in enumerate(self.positions[params["name"]])
        ]
        return {"items": items[offset : offset + limit]}


def local_queue(ns: str) -> list[dict[str, Any]]:
    """What a workspace's declaration holds of its queue."""
    meta = {"name": "default", "namespace": ns, "labels": {"gpu-commons/managed": "true"}}
    return [
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": meta,
            "spec": {"clusterQueue": ns},
        }
    ]


@pytest.fixture
def cluster(db: None) -> Cluster:
    """A cluster with Kueue on which two workspaces have a queue."""
    row: Cluster = Cluster.objects.create(
        name="Atlas", slug="atlas", api_url="https://atlas.example.com", kueue_mode="jobs",
        capabilities={"kueue": {"installed": True, "api_versions": ["v1beta2"], "visibility": True}},
    )  # fmt: skip
    for ns in ("finance", "marketing"):
        declare(row, local_queue(ns))
    return row


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """What answers in the cluster's place."""
    made = Queue()
    monkeypatch.setattr(KubernetesClient, "for_cluster", classmethod(lambda cls, cluster: made))
    monkeypatch.setattr(queues, "no_transaction", lambda what: None)
    return made


def look(cluster: Cluster) -> int:
    """Run the sweep as a worker-less process does; returns rows changed."""
    return next(one for one in registered() if one.name == "provisioning.observe_queues").run()


@pytest.mark.requirement("feasibility-3.1", "feasibility-3.2")
def test_the_sweep_keeps_entries_and_history(cluster: Cluster, queue: Queue) -> None:
    queue.workloads = [
        workload("b", waits(), made=2),
        workload("a", waits("ExceedsMaxQuota", "borrowing limit"), made=1),
        workload("m", waits(), ns="marketing"),
        workload("done", condition("QuotaReserved", "True", 30)),
    ]
    queue.positions = {"finance": ["b", "a"], "marketing": ["m"]}
    queue.pages_of = 2
    with clock.frozen(AT + timedelta(hours=1)):
        assert look(cluster) == 4
        assert look(cluster) == 0
    # The order is the cluster's, not ours; only queues in which something waits were asked.
    assert list(
        QueueEntry.objects.filter(namespace="finance")
        .order_by("position_cluster")
        .values_list("name", "position_cluster", "position_local", "reason")
    ) == [("b", 0, 0, "WaitingForQuota"), ("a", 1, 1, "ExceedsMaxQuota")]
    wait = QueueWait.objects.get()
    assert (wait.namespace, wait.cluster_queue, wait.waited_ms) == ("finance", "finance", 30 * 60_000)
    queue.workloads = [workload("a", condition("QuotaReserved", "True", 70), made=1), queue.workloads[3]]
    queue.asked.clear()
    with clock.frozen(AT + timedelta(hours=2)):
        assert look(cluster) == 4
    assert not QueueEntry.objects.exists()
    assert QueueWait.objects.count() == 2
    assert queue.asked == ["Workload"]


@pytest.mark.requirement("feasibility-3.1")
def test_where_positions_are_not_served_the_order_is_still_known(cluster: Cluster, queue: Queue) -> None:
    queue.workloads = [workload("b", waits(), made=2), workload("a", waits(), made=1)]
    look(cluster)
    assert list(QueueEntry.objects.order_by("position_cluster").values_list("name", flat=True)) == ["a", "b"]
    Cluster.objects.update(capabilities={"kueue": {"installed": True, "api_versions": ["v1beta2"]}})
    queue.asked.clear()
    look(cluster)
    assert queue.asked == ["Workload"]


@pytest.mark.requirement("feasibility-3.1")
def test_a_long_queue_is_asked_page_by_page(cluster: Cluster, queue: Queue) -> None:
    names = [f"w{number:04}" for number in range(1001)]
    queue.workloads = [workload(name, waits()) for name in names]
    queue.positions = {"finance": names}
    look(cluster)
    assert queue.asked == ["Workload", "finance", "finance"]
    assert QueueEntry.objects.get(name="w1000").position_cluster == 1000


@pytest.mark.requirement("feasibility-3.6")
def test_a_silent_cluster_leaves_what_was_known_and_is_left_alone(cluster: Cluster, queue: Queue) -> None:
    queue.workloads = [workload("a", waits())]
    look(cluster)
    before = QueueEntry.objects.get()
    queue.error = Unreachable("no answer")
    queue.asked.clear()
    assert look(cluster) == 0
    entry = QueueEntry.objects.get()
    assert (entry.name, entry.observed_at) == ("a", before.observed_at)
    cluster.refresh_from_db()
    assert cluster.retry_at is not None
    look(cluster)
    assert queue.asked == ["Workload"]
    # Kueue off, and no call at all.
    Cluster.objects.update(kueue_mode="off", retry_at=None)
    queue.asked.clear()
    look(cluster)
    assert queue.asked == []


@pytest.mark.requirement("feasibility-3.2")
def test_history_is_forgotten_after_ninety_days(cluster: Cluster) -> None:
    now = clock.now()
    for days in (89, 91):
        at = now - timedelta(days=days)
        QueueWait.objects.create(
            cluster=cluster, namespace="finance", cluster_queue="finance", workload_uid=str(days), queued_at=at,
            admitted_at=at, waited_ms=0,
        )  # fmt: skip
    assert next(one for one in registered() if one.name == "provisioning.forget_old_waits").run() == 1
    assert QueueWait.objects.get().workload_uid == "89"
