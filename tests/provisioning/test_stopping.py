"""Stopping workloads and starting them again, on the simulated cluster and on answers of kinds it does not serve."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.audit.models import AuditEvent
from apps.clusters.actions import pause, resume
from apps.clusters.capabilities import Capabilities, Keda, KServe, Kueue, as_json
from apps.clusters.clients.kubernetes import Answer, KubernetesClient, Listing
from apps.clusters.errors import Forbidden, NotFound, ServerError, StaleRead
from apps.clusters.models import Cluster, MaintenanceWindow
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import levers, stop_worker, stopping
from apps.provisioning.choices import StopCause, StopStatus
from apps.provisioning.draining import Owner, gpu_owners
from apps.provisioning.models import StopOrder
from tests.cluster.conftest import await_that
from tests.cluster.fixtures import client_of, fresh_namespace, namespace, register
from tests.factories import Company

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("provisioning.run_stop_orders",)
GPU = "nvidia.com/gpu"


@pytest.fixture
def cluster(simulated: SimulatedCluster) -> Cluster:
    """The simulated cluster as the portal knows it."""
    row: Cluster = register(simulated)
    return row


@pytest.fixture
def live(simulated: SimulatedCluster) -> KubernetesClient:
    """A look at the cluster beside the portal."""
    return client_of(simulated)


@pytest.fixture
def space(live: KubernetesClient) -> str:
    """A namespace of this test's own."""
    name = fresh_namespace("stop")
    live.create(namespace(name))
    return name


def _pod(gpus: int, policy: str) -> dict[str, Any]:
    resources = {"limits": {GPU: str(gpus)}, "requests": {GPU: str(gpus), "cpu": "100m", "memory": "64Mi"}}
    container = {"name": "main", "image": "registry.example.com/train:1", "resources": resources}
    return {"containers": [container], "restartPolicy": policy}


def job(space: str, name: str = "train", gpus: int = 1, **spec: Any) -> dict[str, Any]:
    """A Job that runs until it is stopped."""
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": space},
        "spec": {"template": {"spec": _pod(gpus, "Never")}, **spec},
    }  # fmt: skip


def deployment(space: str, name: str = "serve", replicas: int = 2, gpus: int = 1) -> dict[str, Any]:
    """A Deployment that serves."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": space},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod(gpus, "Always")},
        },
    }  # fmt: skip


def owner_applies(live: KubernetesClient, manifest: dict[str, Any], *, force: bool = False) -> Answer:
    """Apply as the owner's own tool does."""
    return live.apply(manifest, manager="owner-ci", force=force)


def order(cluster: Cluster, kind: str, space: str, name: str, **extra: Any) -> StopOrder:
    """An order because of idleness."""
    given: dict[str, Any] = {"team_id": None, "cause": StopCause.IDLE, "cause_uid": uuid.uuid4(), **extra}
    return stopping.order_stop(cluster.pk, kind, space, name, **given)


def pods(live: KubernetesClient, space: str) -> list[dict[str, Any]]:
    """What runs there."""
    return live.list("Pod", space).items


def managers(obj: dict[str, Any]) -> set[str]:
    """Who holds fields of an object."""
    return {one["manager"] for one in obj["metadata"].get("managedFields") or []}


def _audited(action: str) -> int:
    return AuditEvent.objects.filter(action=action).count()


# -- stop and undo --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("insights-1.1")
@pytest.mark.requirement("insights-1.3")
def test_a_deployment_is_stopped_and_comes_back_as_it_was(
    cluster: Cluster, live: KubernetesClient, space: str, company: Company
) -> None:
    """Its replicas are remembered, exactly one field is taken, and after the undo nobody but its owner governs."""
    owner_applies(live, deployment(space))
    await_that(lambda: len(pods(live, space)) == 2)
    row = order(cluster, "Deployment", space, "serve", team_id=company.finance_team.pk)
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.before["replicas"]) == (StopStatus.STOPPED, 2)
    await_that(lambda: not pods(live, space))
    stopped = live.get("Deployment", "serve", space)
    held = [one for one in stopped["metadata"]["managedFields"] if one["manager"] == levers.MANAGER]
    assert [one["fieldsV1"] for one in held] == [{"f:spec": {"f:replicas": {}}}]
    assert _audited("provisioning.stop.done") == 1
    told = OutboxMessage.objects.get(event="provisioning.stop.done")
    assert told.recipient_ids == [company.lead_finance.pk]

    stopping.undo(row.pk, actor=Actor.of(company.lead_finance))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.UNDONE
    back = live.get("Deployment", "serve", space)
    assert back["spec"]["replicas"] == 2
    assert levers.MANAGER not in managers(back)
    await_that(lambda: len(pods(live, space)) == 2)
    # Its owner's tools change the field again without a conflict, with whatever value.
    assert owner_applies(live, deployment(space, replicas=3)).object["spec"]["replicas"] == 3


@pytest.mark.requirement("insights-1.1")
@pytest.mark.requirement("insights-1.3")
def test_a_job_is_suspended_and_goes_on(cluster: Cluster, live: KubernetesClient, space: str) -> None:
    """Its pods go, the Job stays; afterwards the field is nobody's."""
    owner_applies(live, job(space, suspend=False))
    await_that(lambda: pods(live, space))
    row = order(cluster, "Job", space, "train")
    settle(only=ONLY)
    assert live.get("Job", "train", space)["spec"]["suspend"] is True
    await_that(lambda: not pods(live, space))
    stopping.undo(row.pk, actor=Actor.system("tests"))
    settle(only=ONLY)
    row.refresh_from_db()
    back = live.get("Job", "train", space)
    assert (row.status, back["spec"]["suspend"]) == (StopStatus.UNDONE, False)
    assert levers.MANAGER not in managers(back)
    await_that(lambda: pods(live, space))


@pytest.mark.requirement("insights-1.2")
@pytest.mark.parametrize("kind", ["Pod", "StatefulSet"])
def test_what_could_only_be_deleted_is_refused(cluster: Cluster, live: KubernetesClient, space: str, kind: str) -> None:
    """The portal deletes nothing, and says so."""
    bare = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare", "namespace": space},
        "spec": _pod(1, "Never"),
    }
    live.create(bare)
    row = order(cluster, kind, space, "bare")
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.REFUSED
    assert "deletes nothing" in row.last_error
    assert [p["metadata"]["name"] for p in pods(live, space)] == ["bare"]
    assert _audited("provisioning.stop.refused") == 1


@pytest.mark.requirement("insights-1.4")
def test_an_owner_who_starts_it_again_is_not_fought(
    cluster: Cluster, live: KubernetesClient, space: str, frozen_clock: datetime
) -> None:
    """The order is undone, the workload stays as its owner wants it."""
    owner_applies(live, deployment(space))
    row = order(cluster, "Deployment", space, "serve")
    settle(only=ONLY)
    owner_applies(live, deployment(space, replicas=1), force=True)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.STOPPED  # nobody has looked yet
    clock.advance(stop_worker.LOOK_EVERY + timedelta(seconds=1))
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.last_error) == (StopStatus.UNDONE, "Started by its owner.")
    assert live.get("Deployment", "serve", space)["spec"]["replicas"] == 1
    with pytest.raises(Conflict):
        stopping.undo(row.pk, actor=Actor.system("tests"))


@pytest.mark.requirement("insights-1.4")
def test_an_undo_leaves_what_the_owner_set_meanwhile(cluster: Cluster, live: KubernetesClient, space: str) -> None:
    """Started by its owner before our worker came to it: their number stands, and our hold is gone."""
    owner_applies(live, deployment(space))
    row = order(cluster, "Deployment", space, "serve")
    settle(only=ONLY)
    stopping.undo(row.pk, actor=Actor.system("tests"))
    owner_applies(live, deployment(space, replicas=1), force=True)
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.last_error) == (StopStatus.UNDONE, "Its owner had started it already.")
    assert live.get("Deployment", "serve", space)["spec"]["replicas"] == 1


@pytest.mark.requirement("insights-1.4")
def test_what_its_owner_had_stopped_is_not_ours(cluster: Cluster, live: KubernetesClient, space: str) -> None:
    """So that an undo never starts what the owner wanted stopped."""
    owner_applies(live, deployment(space, replicas=0))
    row = order(cluster, "Deployment", space, "serve")
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.GONE
    assert levers.MANAGER not in managers(live.get("Deployment", "serve", space))


@pytest.mark.requirement("insights-1.2")
def test_an_order_creates_nothing(cluster: Cluster, live: KubernetesClient, space: str) -> None:
    """Server-side apply would create what is not there; and one of the same name later is another workload."""
    row = order(cluster, "Job", space, "train")
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.GONE
    assert live.list("Job", space).items == []
    owner_applies(live, job(space))
    target = levers.prepare(live, "Job", space, "train", {})
    live.delete("Job", "train", space)
    await_that(lambda: not live.list("Job", space).items)
    with pytest.raises(StaleRead):
        levers.pull(live, target)
    assert live.list("Job", space).items == []
    owner_applies(live, job(space))
    with pytest.raises(levers.Ended, match="another one has its name"):
        levers.release(live, space, target.before)


@pytest.mark.requirement("insights-1.2")
@pytest.mark.parametrize("times", [1, 4])
def test_a_status_written_while_it_is_given_back_is_no_owners_start(
    live: KubernetesClient, space: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Between the replicas and letting go of them a controller writes; what is told stays true."""
    owner_applies(live, deployment(space, replicas=3))
    target = levers.prepare(live, "Deployment", space, "serve", {})
    levers.pull(live, target)
    # Once, and so often that it begins anew: what it set itself is then still no owner's start.
    real, moved = KubernetesClient.disown, iter([StaleRead("it moved")] * times)

    def disown(self: KubernetesClient, obj: Any, manager: str) -> Answer:
        for error in moved:
            raise error
        return real(self, obj, manager)

    monkeypatch.setattr(KubernetesClient, "disown", disown)
    assert levers.release(live, space, target.before) == ""
    back = live.get("Deployment", "serve", space)
    assert back["spec"]["replicas"] == 3
    assert levers.MANAGER not in managers(back)


# -- workers and failures -------------------------------------------------------------------------------------------


class _Killed(BaseException):
    """The worker is gone."""


@pytest.mark.requirement("insights-1.5")
def test_a_worker_killed_after_the_call_loses_nothing(
    cluster: Cluster, live: KubernetesClient, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one sees that the field is ours, and still knows how many replicas there were."""
    owner_applies(live, deployment(space, replicas=3))
    row = order(cluster, "Deployment", space, "serve")
    real = levers.pull

    def pull(client: Any, target: Any) -> None:
        real(client, target)
        raise _Killed

    monkeypatch.setattr(levers, "pull", pull)
    with pytest.raises(_Killed):
        stop_worker.run_cluster(cluster.pk)
    monkeypatch.undo()
    row.refresh_from_db()
    assert (row.status, row.before["replicas"]) == (StopStatus.PENDING, 3)
    assert live.get("Deployment", "serve", space)["spec"]["replicas"] == 0
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.before["replicas"]) == (StopStatus.STOPPED, 3)

    stopping.undo(row.pk, actor=Actor.system("tests"))

    def disown(self: KubernetesClient, obj: Any, manager: str) -> Answer:
        raise _Killed

    monkeypatch.setattr(KubernetesClient, "disown", disown)
    with pytest.raises(_Killed):
        stop_worker.run_cluster(cluster.pk)
    monkeypatch.undo()
    settle(only=ONLY)
    row.refresh_from_db()
    back = live.get("Deployment", "serve", space)
    assert (row.status, back["spec"]["replicas"]) == (StopStatus.UNDONE, 3)
    assert levers.MANAGER not in managers(back)


@pytest.mark.requirement("insights-1.5")
def test_a_worker_whose_lease_moved_records_nothing(
    cluster: Cluster, live: KubernetesClient, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one holds the cluster by then; it completes the order."""
    owner_applies(live, job(space))
    row = order(cluster, "Job", space, "train")
    real = levers.pull

    def pull(client: Any, target: Any) -> None:
        real(client, target)
        leases.Lease.objects.filter(name=stop_worker.lease_name(cluster)).update(holder=uuid.uuid4())

    monkeypatch.setattr(levers, "pull", pull)
    assert stop_worker.run_cluster(cluster.pk) == (1, False)
    monkeypatch.undo()
    row.refresh_from_db()
    assert row.status == StopStatus.PENDING
    leases.Lease.objects.filter(name=stop_worker.lease_name(cluster)).delete()
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.STOPPED


@pytest.mark.requirement("insights-1.6")
def test_a_resting_paused_or_maintained_cluster_is_left_alone(
    cluster: Cluster, live: KubernetesClient, space: str, frozen_clock: datetime, company: Company
) -> None:
    """The order waits, and is carried out afterwards."""
    owner_applies(live, job(space))
    row = order(cluster, "Job", space, "train")
    admin = Actor.of(company.admin)
    pause(cluster.pk, "a test", actor=admin)
    settle(only=ONLY)
    resume(cluster.pk, actor=admin)
    now = clock.now()
    MaintenanceWindow.objects.create(
        cluster=cluster, valid=DateTimeTZRange(now, now + timedelta(hours=1), "[)"), reason="new switches"
    )
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.attempts) == (StopStatus.PENDING, 0)
    Cluster.objects.filter(pk=cluster.pk).update(api_url="https://127.0.0.1:9")
    clock.advance(timedelta(hours=2))
    settle(only=ONLY)
    row.refresh_from_db()
    cluster.refresh_from_db()
    assert row.status == StopStatus.PENDING
    assert cluster.retry_at is not None
    Cluster.objects.filter(pk=cluster.pk).update(api_url=live.url)
    clock.advance(timedelta(minutes=5))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.STOPPED


@pytest.mark.requirement("insights-1.6")
def test_failures_are_told_apart(
    cluster: Cluster, live: KubernetesClient, space: str, monkeypatch: pytest.MonkeyPatch, frozen_clock: datetime
) -> None:
    """A 5xx is tried again later; a 403 is refused with what is missing."""
    owner_applies(live, job(space))
    row = order(cluster, "Job", space, "train")

    def failing(error: Exception) -> Callable[..., Any]:
        def apply(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise error

        return apply

    monkeypatch.setattr(KubernetesClient, "apply", failing(ServerError("etcd is busy", status=503)))
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.attempts, row.last_error) == (StopStatus.PENDING, 1, "etcd is busy")
    assert row.retry_at is not None
    assert row.retry_at > clock.now()
    clock.advance(timedelta(minutes=5))
    monkeypatch.setattr(KubernetesClient, "apply", failing(Forbidden("jobs.batch is forbidden", status=403)))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == StopStatus.REFUSED
    assert "get, list and patch on jobs (API group batch)" in row.last_error


def test_one_open_order_a_workload_and_undo_is_for_its_people(cluster: Cluster, company: Company) -> None:
    """Ordered twice is ordered once; strangers undo nothing, leads undo no drain."""
    idle = order(cluster, "Job", "ns-a", "train", team_id=company.finance_team.pk)
    assert order(cluster, "Job", "ns-a", "train").pk == idle.pk
    assert _audited("provisioning.stop.ordered") == 1
    drained = order(cluster, "Job", "ns-a", "other", team_id=company.finance_team.pk, cause=StopCause.DRAIN)
    for person in (company.lead_marketing, company.member_finance, company.auditor):
        with pytest.raises(NotAllowed):
            stopping.undo(idle.pk, actor=Actor.of(person))
    with pytest.raises(NotAllowed):
        stopping.undo(drained.pk, actor=Actor.of(company.lead_finance))
    assert stopping.undo(idle.pk, actor=Actor.of(company.lead_finance)).status == StopStatus.UNDOING
    assert stopping.undo(drained.pk, actor=Actor.of(company.admin)).status == StopStatus.UNDOING


# -- draining -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("insights-1.7")
def test_draining_stops_what_holds_gpus(cluster: Cluster, live: KubernetesClient, space: str, company: Company) -> None:
    """Jobs and Deployments with GPUs, each once; a bare pod is named as what is left; CPU work goes on."""
    owner_applies(live, job(space))
    owner_applies(live, deployment(space))
    owner_applies(live, deployment(space, name="web", gpus=0))
    bare = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare", "namespace": space},
        "spec": _pod(1, "Never"),
    }
    live.create(bare)
    from apps.clusters.models import Flavour

    Flavour.objects.create(name="H100", slug=fresh_namespace("f"), gpu_model="H100", resource_name=GPU)
    given: dict[str, Any] = {"team_id": company.finance_team.pk, "cause_uid": uuid.uuid4()}
    assert stopping.drain_namespace(cluster.pk, space, **given) == 3
    settle(only=ONLY)
    found = {(o.kind, o.name): o.status for o in StopOrder.objects.filter(namespace=space)}
    assert found == {
        ("Job", "train"): StopStatus.STOPPED,
        ("Deployment", "serve"): StopStatus.STOPPED,
        ("Pod", "bare"): StopStatus.REFUSED,
    }
    assert stopping.drain_namespace(cluster.pk, space, **given) == 0
    assert live.get("Deployment", "web", space)["spec"]["replicas"] == 2


class _Served:
    """Answers of a cluster with Kueue, KServe and KEDA, as their objects look; writes are noted."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = list(objects)
        self.applied: list[dict[str, Any]] = []

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        """One object."""
        for one in self.objects:
            if (one["kind"], one["metadata"]["name"]) == (kind, name):
                return json.loads(json.dumps(one))  # type: ignore[no-any-return]  # a copy of what went in
        raise NotFound(f"{kind} {name}", status=404)

    def list(self, kind: str, namespace: str = "") -> Listing:
        """All objects of a kind; a kind without any is one that the cluster does not know."""
        found = [one for one in self.objects if one["kind"] == kind]
        if not found:
            raise NotFound(f"the server could not find the requested resource {kind}", status=404)
        return Listing(found, "1")

    def apply(self, manifest: Any, *, force: bool = False, manager: str = "") -> Answer:
        """Note the write, and lay it over the object."""
        assert (force, manager) == (True, levers.MANAGER)
        self.applied.append(manifest)
        body = self.get(manifest["kind"], manifest["metadata"]["name"])
        body.setdefault("spec", {}).update(manifest.get("spec", {}))
        body["metadata"].setdefault("annotations", {}).update(manifest["metadata"].get("annotations", {}))
        return Answer(body, 200)

    def disown(self, obj: Any, manager: str) -> Answer:
        """Not asked for here."""
        raise AssertionError("nothing is to be disowned")


def _obj(kind: str, name: str, spec: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    return {
        "kind": kind, "spec": spec or {},
        "metadata": {"name": name, "namespace": "ns", "uid": f"{kind}-{name}", "resourceVersion": "7", **meta},
    }  # fmt: skip


def _owned(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "uid": f"{kind}-{name}", "controller": True}]


@pytest.mark.requirement("insights-1.1")
def test_who_would_start_it_again_is_stopped() -> None:
    """A queued Job by its Workload, a scaled Deployment by its ScaledObject, a served one by its InferenceService."""
    labels = {levers.QUEUE_LABEL: "default"}
    served = _Served(
        _obj("Job", "train", labels=labels),
        _obj("Workload", "job-train", ownerReferences=_owned("Job", "train")),
        _obj("Deployment", "api", {"replicas": 4}),
        _obj("ScaledObject", "api", {"scaleTargetRef": {"name": "api"}}),
        _obj("Deployment", "fraud-predictor", {"replicas": 2}, ownerReferences=_owned("InferenceService", "fraud")),
        _obj("InferenceService", "fraud"),
    )
    for kind, name in (("Job", "train"), ("Deployment", "api"), ("Deployment", "fraud-predictor")):
        levers.pull(served, levers.prepare(served, kind, "ns", name, {}))
    assert [(one["kind"], one.get("spec"), one["metadata"].get("annotations")) for one in served.applied] == [
        ("Workload", {"active": False}, None),
        ("ScaledObject", None, {"autoscaling.keda.sh/paused-replicas": "0"}),
        ("InferenceService", None, {"serving.kserve.io/stop": "true"}),
    ]
    assert all(one["metadata"]["uid"] and one["metadata"]["resourceVersion"] == "7" for one in served.applied)


@pytest.mark.requirement("insights-1.6")
def test_kinds_that_are_not_installed_are_not_asked_for(cluster: Cluster, live: KubernetesClient) -> None:
    """Without rights on what is not there the answer would be 403, which means something else."""
    there = Capabilities(keda=Keda(installed=False), kueue=Kueue(installed=None), kserve=KServe(installed=True))
    cluster.capabilities = as_json(there)
    cluster.save()
    client = stopping.client_of(cluster)
    assert client.list("ScaledObject", "default").items == []
    assert client._absent == {"ScaledObject"}


@pytest.mark.requirement("insights-1.2")
def test_what_another_controller_governs_is_refused() -> None:
    """It would be started again at once; and Kueue stops a bare pod by deleting it."""
    served = _Served(
        _obj("Job", "step", ownerReferences=_owned("JobSet", "pipeline")),
        _obj("Workload", "pod-x", ownerReferences=_owned("Pod", "x")),
        _obj("Job", "nightly", ownerReferences=_owned("CronJob", "nightly")),
    )
    with pytest.raises(levers.Refusal, match="JobSet pipeline, which would start it again"):
        levers.prepare(served, "Job", "ns", "step", {})
    with pytest.raises(levers.Refusal, match="deletes nothing"):
        levers.prepare(served, "Workload", "ns", "pod-x", {})
    assert levers.prepare(served, "Job", "ns", "nightly", {}).kind == "Job"


@pytest.mark.requirement("insights-1.7")
def test_owners_of_gpu_pods_are_found_through_what_governs_them() -> None:
    """ReplicaSets lead to Deployments, other controllers to their Workload, unknown ones are named."""
    gpu = {"containers": [{"resources": {"limits": {GPU: "1"}}}]}
    label = {"app": "api"}
    served = _Served(
        _obj("Deployment", "api", {"selector": {"matchLabels": label}, "template": {"spec": gpu}}),
        _obj("Pod", "api-5d-x", gpu, labels=label, ownerReferences=_owned("ReplicaSet", "api-5d")),
        _obj("Workload", "w", {"podSets": [{"template": {"spec": gpu}}]}, ownerReferences=_owned("PyTorchJob", "p")),
        _obj("Pod", "p-0", gpu, ownerReferences=_owned("PyTorchJob", "p")),
        _obj("Pod", "s-0", gpu, ownerReferences=_owned("StatefulSet", "s")),
        _obj("Pod", "cpu", {"containers": [{}]}),
        _obj("InferenceService", "llm", {"predictor": {"model": {"resources": {"requests": {GPU: "1"}}}}}),
    )
    assert gpu_owners(served, "ns", {GPU}) == [
        Owner("Deployment", "api"), Owner("InferenceService", "llm"), Owner("StatefulSet", "s"), Owner("Workload", "w"),
    ]  # fmt: skip
