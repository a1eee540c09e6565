"""From declaration to cluster: generations, plans, apply runs, failures, other workers."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import transaction

from apps.audit.models import AuditEvent
from apps.clusters.actions import pause, resume
from apps.clusters.choices import Health
from apps.clusters.clients.guard import TransactionOpen
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import Forbidden
from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import Lease, OutboxMessage
from apps.core.testing import assert_queries, settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import actions, planning, ports, recording, running, selectors, works
from apps.provisioning.choices import DeclarationStatus, PlanStatus, RunOutcome
from apps.provisioning.models import ApplyRun, Declaration, DeclaredObject, Observation, Plan
from tests.cluster.fixtures import (
    client_of,
    declare,
    fresh_namespace,
    namespace,
    quota,
    register,
    role_binding,
    workspace,
)
from tests.factories import Company

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("provisioning.",)


@pytest.fixture
def cluster(simulated: SimulatedCluster) -> Cluster:
    """The simulated cluster as the portal knows it."""
    row: Cluster = register(simulated)
    return row


@pytest.fixture
def live(simulated: SimulatedCluster) -> KubernetesClient:
    """A look at the cluster beside the portal."""
    return client_of(simulated)


def _hard(live: KubernetesClient, ns: str) -> dict[str, str]:
    hard: dict[str, str] = live.get("ResourceQuota", "gpu-quota", ns)["spec"]["hard"]
    return hard


_before: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _trail_so_far(db: None) -> None:
    """The trail outlives tests: what stands there before is not this test's."""
    _before.clear()
    _before.update(Counter(AuditEvent.objects.values_list("action", flat=True)))


def _audited(action: str) -> int:
    return AuditEvent.objects.filter(action=action).count() - _before.get(action, 0)


def _foreign_edit(live: KubernetesClient, ns: str, manager: str = "kubectl-edit", **hard: str) -> None:
    """Change a quota as somebody else, by force."""
    body = quota(ns, 1)
    body["spec"]["hard"] = hard
    live._call(
        "PATCH", "/api/v1/namespaces/{namespace}/resourcequotas/{name}", {"namespace": ns, "name": "gpu-quota"},
        query=[("fieldManager", manager), ("force", "true")], body=json.dumps(body).encode(),
        content_type="application/apply-patch+yaml",
    )  # fmt: skip


# -- declarations -------------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-1.1")
def test_a_declaration_keeps_every_generation(cluster: Cluster) -> None:
    """Canonical bytes, in the caller's transaction only."""
    owner, ns = uuid.uuid4(), fresh_namespace()
    first = declare(cluster, workspace(ns), owner_uid=owner)
    second = declare(cluster, workspace(ns, 12), owner_uid=owner)
    assert (first.pk, second.generation, second.status) == (second.pk, 2, DeclarationStatus.APPLYING)
    assert [r.generation for r in second.revisions.order_by("generation")] == [1, 2]
    assert second.declared_objects.count() == 5
    assert {o.generation for o in second.declared_objects.all()} == {2}
    assert _audited("provisioning.declaration.declared") == 2

    def decide_and_fail() -> None:
        with transaction.atomic():
            declare(cluster, workspace(ns, 16), owner_uid=owner)
            raise LookupError

    with pytest.raises(LookupError):
        decide_and_fail()
    second.refresh_from_db()
    assert second.generation == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("provisioning-1.1")
def test_declaring_outside_a_transaction_is_a_mistake(simulated: SimulatedCluster) -> None:
    """It would not be undone with the decision behind it."""
    with pytest.raises(RuntimeError, match="transaction"):
        actions.declare(
            1, "workspace", uuid.uuid4(), "x", None, workspace("a"), grant_uid=None, actor=Actor.system("tests")
        )


@pytest.mark.requirement("provisioning-1.2")
def test_an_object_belongs_to_one_declaration(cluster: Cluster) -> None:
    """The second one is refused, whole."""
    ns = fresh_namespace()
    declare(cluster, workspace(ns))
    with pytest.raises(Conflict, match="belongs to another declaration"):
        declare(cluster, [quota(ns, 4)])
    assert DeclaredObject.objects.filter(namespace=ns, kind="ResourceQuota").count() == 1


@pytest.mark.requirement("provisioning-1.3")
def test_what_cannot_be_declared_is_invalid(cluster: Cluster) -> None:
    """Nothing is written."""
    with pytest.raises(Invalid, match="no namespace"):
        declare(cluster, [quota("../x", 4)])
    assert not Declaration.objects.exists()


# -- apply --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-3.1", "provisioning-3.7")
def test_a_declaration_is_applied(cluster: Cluster, live: KubernetesClient, nudges: list[Any]) -> None:
    """In order, by server-side apply, with every request in the run; a worker is nudged, the sweep would find it."""
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.observed_generation, row.status, row.attempts) == (1, DeclarationStatus.APPLIED, 0)
    assert _hard(live, ns)["requests.nvidia.com/gpu"] == "8"
    assert ("provisioning.apply_cluster", (cluster.pk,)) in nudges
    run = row.runs.get()
    assert run.outcome == RunOutcome.SUCCEEDED
    applied = [r["kind"] for r in run.results if r["verb"] == "apply"]
    assert applied == ["Namespace", "LimitRange", "ResourceQuota", "RoleBinding", "NetworkPolicy"]
    assert {r["status"] for r in run.results if r["verb"] == "apply"} == {201}
    managers = {m["manager"] for m in live.get("NetworkPolicy", "default-deny", ns)["metadata"]["managedFields"]}
    assert managers == {"gpu-commons"}
    assert _audited("provisioning.declaration.applied") == 1
    assert not Lease.objects.exists()


@pytest.mark.requirement("provisioning-3.2")
def test_what_lives_already_is_recorded_without_a_write(cluster: Cluster, live: KubernetesClient) -> None:
    """The same bytes again: a new generation, no request but reads."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    declare(cluster, workspace(ns), owner_uid=owner)
    settle(only=ONLY)
    version = live.get("ResourceQuota", "gpu-quota", ns)["metadata"]["managedFields"]
    row = declare(cluster, workspace(ns), owner_uid=owner)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.observed_generation == 2
    run = selectors.runs_for(row).first()
    assert run is not None
    assert {r["verb"] for r in run.results} == {"get"}
    assert live.get("ResourceQuota", "gpu-quota", ns)["metadata"]["managedFields"] == version


@pytest.mark.requirement("provisioning-3.3", "provisioning-3.8", "provisioning-3.9")
def test_a_conflict_stops_that_declaration_alone_and_asks(
    cluster: Cluster, live: KubernetesClient, company: Company
) -> None:
    """Others go on; admins are told; a retry without take-over stops again, with it goes through."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    declare(cluster, workspace(ns), owner_uid=owner)
    settle(only=ONLY)
    _foreign_edit(live, ns, **{"requests.nvidia.com/gpu": "99"})
    row = declare(cluster, workspace(ns, 12), owner_uid=owner)
    other = declare(cluster, workspace(fresh_namespace()))
    settle(only=ONLY)
    row.refresh_from_db()
    other.refresh_from_db()
    assert (row.status, row.error_class) == (DeclarationStatus.STOPPED, "conflict")
    assert "kubectl-edit" in row.last_error
    assert other.status == DeclarationStatus.APPLIED
    assert _hard(live, ns)["requests.nvidia.com/gpu"] == "99"
    told = OutboxMessage.objects.get(event="provisioning.declaration.stopped")
    assert company.admin.pk in told.recipient_ids
    assert selectors.standing(row).state == "stopped"
    for person in (company.lead_finance, company.auditor, company.vp):
        with pytest.raises(NotAllowed):
            actions.retry(row.pk, actor=Actor.of(person))
    with pytest.raises(Conflict):
        actions.retry(row.pk, actor=Actor.of(company.admin), expected_version=1)
    actions.retry(row.pk, actor=Actor.of(company.admin))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.STOPPED
    actions.retry(row.pk, actor=Actor.of(company.admin), take_over=True)
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.take_over) == (DeclarationStatus.APPLIED, False)
    assert _hard(live, ns)["requests.nvidia.com/gpu"] == "12"
    assert _audited("provisioning.declaration.retried") == 2
    with pytest.raises(Conflict, match="nothing to apply again"):
        actions.retry(row.pk, actor=Actor.of(company.admin))


@pytest.mark.requirement("provisioning-3.4")
@pytest.mark.parametrize(
    ("fault", "code"), [("down", "unreachable"), ("429", "throttled"), ("500", "server_error"), ("409", "stale_read")]
)
def test_a_failing_cluster_is_retried_until_it_works(
    cluster: Cluster, simulated: SimulatedCluster, live: KubernetesClient, frozen_clock: datetime, fault: str, code: str
) -> None:
    """By a stored time, not before; the trail says since when, once; then it is applied by itself."""
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))
    simulated.faults.set(fault)
    running.apply_cluster(cluster.pk)
    row.refresh_from_db()
    assert (row.status, row.error_class, row.observed_generation) == (DeclarationStatus.APPLYING, code, 0)
    assert row.failing_since == frozen_clock
    assert row.retry_at is not None
    assert row.retry_at > frozen_clock
    standing = selectors.standing(Declaration.objects.select_related("cluster").get(pk=row.pk))
    assert standing.state in ("waiting", "failing")
    assert standing.why
    assert running.apply_cluster(cluster.pk)[0] == 0  # not due yet
    for _ in range(5):
        clock.advance(timedelta(minutes=5))
        running.apply_cluster(cluster.pk)
    assert row.runs.count() == 6
    assert _audited("provisioning.declaration.failing") == 1
    simulated.faults.clear()
    clock.advance(timedelta(minutes=5))
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.error_class, row.failing_since) == (DeclarationStatus.APPLIED, "", None)
    assert _hard(live, ns)["requests.nvidia.com/gpu"] == "8"


@pytest.mark.requirement("provisioning-3.4")
def test_failures_in_the_middle_leave_no_trace(
    cluster: Cluster, simulated: SimulatedCluster, live: KubernetesClient, frozen_clock: datetime
) -> None:
    """The third write fails: the next attempt goes on there."""
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))
    simulated.faults.set("500", match="resourcequotas", methods=["PATCH"], count=1)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.error_class == "server_error"
    clock.advance(timedelta(seconds=10))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    last = selectors.runs_for(row)[0]
    assert [r["kind"] for r in last.results if r["verb"] == "apply"] == [
        "ResourceQuota",
        "RoleBinding",
        "NetworkPolicy",
    ]


@pytest.mark.requirement("provisioning-3.4")
def test_a_refused_object_stops_and_tells(cluster: Cluster, live: KubernetesClient) -> None:
    """An unknown field comes back as 500 and is no fault of the server's."""
    ns = fresh_namespace()
    bad = quota(ns, 8)
    bad["spec"]["hrd"] = {}
    row = declare(cluster, [namespace(ns), bad])
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.error_class) == (DeclarationStatus.STOPPED, "invalid")
    assert "gpu-quota" in row.last_error
    assert row.runs.count() == 1


@pytest.mark.requirement("provisioning-3.4")
def test_a_slow_cluster_is_unreachable_once_it_exceeds_the_time_out(
    cluster: Cluster, simulated: SimulatedCluster, monkeypatch: pytest.MonkeyPatch, frozen_clock: datetime
) -> None:
    """And works again when it is quick again."""
    quick = client_of(simulated, read_seconds=0.2)
    monkeypatch.setattr(KubernetesClient, "for_cluster", lambda row: quick)
    row = declare(cluster, workspace(fresh_namespace()))
    simulated.faults.set("slow", delay_ms=600, count=2)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.error_class == "unreachable"
    simulated.faults.clear()
    clock.advance(timedelta(minutes=2))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED


class Killed(BaseException):
    """What a worker's death looks like from inside: nothing after it runs."""


@pytest.mark.requirement("provisioning-3.5")
@pytest.mark.parametrize("where", ["before the network", "before the record"])
def test_a_killed_worker_is_completed_by_the_next(
    cluster: Cluster, live: KubernetesClient, monkeypatch: pytest.MonkeyPatch, frozen_clock: datetime, where: str
) -> None:
    """Its lease runs out, its run is marked, the generation is applied once, the trail tells."""
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))

    def die(*args: Any, **kwargs: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        target = (works, "works_of") if where == "before the network" else (recording, "finish")
        patch.setattr(*target, die)
        with pytest.raises(Killed):
            running.apply_cluster(cluster.pk)
    assert row.runs.get().outcome == RunOutcome.RUNNING
    assert settle(only=("provisioning.apply",)) == 0  # the dead worker's lease still stands
    clock.advance(timedelta(seconds=running.LEASE_SECONDS + 1))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert [r.outcome for r in row.runs.order_by("pk")] == [RunOutcome.ABANDONED, RunOutcome.SUCCEEDED]
    assert _audited("provisioning.run.abandoned") == 1
    assert _audited("provisioning.declaration.applied") == 1
    if where == "before the record":  # everything had been applied: nothing is sent again
        assert {r["verb"] for r in row.runs.order_by("pk").last().results} == {"get"}  # type: ignore[union-attr]  # there are two


@pytest.mark.requirement("provisioning-3.5")
def test_a_slow_worker_does_not_record_over_a_newer_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, frozen_clock: datetime
) -> None:
    """Its lease moved while it was on the network."""
    row = declare(cluster, workspace(fresh_namespace()))
    real = running.applier.run

    def slow(*args: Any, **kwargs: Any) -> Any:
        return real(*args, **kwargs)

    def lose(cluster_: Cluster, token: uuid.UUID, run: ApplyRun, outcome: Any) -> None:
        with monkeypatch.context():
            Lease.objects.update(holder=uuid.uuid4())
        finish(cluster_, token, run, outcome)

    finish = recording.finish
    monkeypatch.setattr(running.applier, "run", slow)
    monkeypatch.setattr(recording, "finish", lose)
    done, left = running.apply_cluster(cluster.pk)
    assert (done, left) == (0, True)
    row.refresh_from_db()
    assert (row.observed_generation, row.runs.get().outcome) == (0, RunOutcome.RUNNING)


@pytest.mark.requirement("provisioning-3.5")
def test_a_generation_declared_meanwhile_is_not_taken_for_applied(
    cluster: Cluster, live: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is superseded; the newer generation follows at once."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    row = declare(cluster, workspace(ns), owner_uid=owner)
    real = recording.finish
    again = iter([lambda: declare(cluster, workspace(ns, 12), owner_uid=owner)])

    def finish(*args: Any) -> None:
        for act in again:
            act()
        real(*args)

    monkeypatch.setattr(recording, "finish", finish)
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.generation, row.observed_generation) == (2, 2)
    assert [r.outcome for r in row.runs.order_by("pk")] == [RunOutcome.SUPERSEDED, RunOutcome.SUCCEEDED]
    assert _hard(live, ns)["requests.nvidia.com/gpu"] == "12"


@pytest.mark.requirement("provisioning-3.5")
def test_the_same_task_twice_does_the_work_once(cluster: Cluster) -> None:
    """Delivered again afterwards, or while the lease is held."""
    row = declare(cluster, workspace(fresh_namespace()))
    token = leases.claim(f"apply:{cluster.uid}", seconds=60)
    assert token is not None
    assert running.apply_cluster(cluster.pk) == (0, False)
    leases.release(f"apply:{cluster.uid}", token)
    assert running.apply_cluster(cluster.pk)[0] == 1
    assert running.apply_cluster(cluster.pk)[0] == 0
    assert row.runs.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("provisioning-3.5")
def test_two_workers_at_once_do_the_work_once(simulated: SimulatedCluster) -> None:
    """Real transactions, two threads."""
    from django.db import connection

    cluster = register(simulated)
    rows = [declare(cluster, workspace(fresh_namespace())) for _ in range(6)]
    results: list[int] = []
    barrier = threading.Barrier(2)

    def work() -> None:
        try:
            barrier.wait(5)
            results.append(running.apply_cluster(cluster.pk)[0])
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(results) == 6
    for row in rows:
        row.refresh_from_db()
        assert (row.status, row.runs.count()) == (DeclarationStatus.APPLIED, 1)


@pytest.mark.requirement("provisioning-3.9")
def test_a_new_approval_goes_before_the_rest(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, frozen_clock: datetime
) -> None:
    """Never tried before tried, newest first; every fifth pick is the oldest, so nothing starves."""
    monkeypatch.setattr(running, "LANES", 5)
    order: list[int] = []
    real = recording.begin

    def begin(cluster_: Cluster, token: uuid.UUID, declaration: Declaration) -> ApplyRun:
        order.append(declaration.pk)
        if len(order) == 5:  # in the middle of it somebody approves something
            clock.advance(timedelta(seconds=1))
            rows.append(declare(cluster, [namespace(fresh_namespace())]))
        return real(cluster_, token, declaration)

    monkeypatch.setattr(recording, "begin", begin)
    rows = [declare(cluster, [namespace(fresh_namespace())]) for _ in range(12)]
    retried = rows[3]
    Declaration.objects.filter(pk=retried.pk).update(attempts=3)
    settle(only=ONLY)
    assert order[:4] == [row.pk for row in rows[11:7:-1]]
    assert order[4] == rows[0].pk
    assert order[5] == rows[12].pk
    assert order[-1] == retried.pk
    assert sorted(order) == sorted(row.pk for row in rows)


@pytest.mark.requirement("provisioning-3.9")
def test_a_dead_cluster_delays_nobody(cluster: Cluster, simulated: SimulatedCluster, frozen_clock: datetime) -> None:
    """Its breaker opens at the first call; the others are applied; nothing is tried on it in vain."""
    dead = register(simulated)
    Cluster.objects.filter(pk=dead.pk).update(api_url="https://127.0.0.1:9")
    stuck = [declare(dead, workspace(fresh_namespace())) for _ in range(3)]
    fine = declare(cluster, workspace(fresh_namespace()))
    settle(only=ONLY)
    fine.refresh_from_db()
    dead.refresh_from_db()
    assert fine.status == DeclarationStatus.APPLIED
    assert dead.health == Health.UNREACHABLE
    assert ApplyRun.objects.filter(declaration__in=stuck).count() <= running.LANES
    tried = ApplyRun.objects.filter(declaration__in=stuck).count()
    clock.advance(timedelta(minutes=2))
    settle(only=ONLY)
    assert ApplyRun.objects.filter(declaration__in=stuck).count() == tried + 1  # one lane asks first
    shown = selectors.unapplied(Declaration.objects.filter(cluster=dead))
    assert {s.state for s in shown} == {"waiting"}
    assert all("does not answer" in s.why for s in shown)


@pytest.mark.requirement("provisioning-3.1")
def test_never_more_than_five_calls_in_flight(
    cluster: Cluster, simulated: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is due."""
    lock, now, most = threading.Lock(), 0, 0
    real = KubernetesClient._open

    def counted(self: KubernetesClient, *args: Any, **kwargs: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return real(self, *args, **kwargs)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(KubernetesClient, "_open", counted)
    simulated.faults.set("slow", delay_ms=5)
    rows = [declare(cluster, [namespace(fresh_namespace())]) for _ in range(12)]
    settle(only=("provisioning.apply",))
    assert 1 < most <= 5
    assert Declaration.objects.filter(pk__in=[r.pk for r in rows], status=DeclarationStatus.APPLIED).count() == 12


def test_many_due_declarations_are_read_by_list(
    cluster: Cluster, live: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reconcile of what already lives takes one LIST per kind and no GET."""
    spaces = [(uuid.uuid4(), fresh_namespace()) for _ in range(running.LIST_FROM)]
    for owner, ns in spaces:
        declare(cluster, [namespace(ns), quota(ns, 4)], owner_uid=owner)
    settle(only=("provisioning.apply",))
    asked: list[tuple[str, str]] = []
    real = KubernetesClient._open

    def noted(self: KubernetesClient, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        asked.append((method, path))
        return real(self, method, path, *args, **kwargs)

    monkeypatch.setattr(KubernetesClient, "_open", noted)
    for owner, ns in spaces:
        declare(cluster, [namespace(ns), quota(ns, 4)], owner_uid=owner)
    settle(only=("provisioning.apply",))
    assert {method for method, _ in asked} == {"GET"}
    assert len(asked) == 2
    runs = ApplyRun.objects.filter(generation=2, declaration__cluster=cluster)
    assert [(run.outcome, run.results) for run in runs] == [(RunOutcome.SUCCEEDED, [])] * len(spaces)

    real_record = recording.record_unchanged
    moved: list[Declaration] = []

    def declared_meanwhile(on: Cluster, token: uuid.UUID, alike: Any) -> int:
        if not moved:
            owner, ns = spaces[0]
            moved.append(declare(cluster, [namespace(ns), quota(ns, 5)], owner_uid=owner))
        return real_record(on, token, alike)

    monkeypatch.setattr(recording, "record_unchanged", declared_meanwhile)
    for owner, ns in spaces:
        declare(cluster, [namespace(ns), quota(ns, 4)], owner_uid=owner)
    settle(only=("provisioning.apply",))
    declaration = Declaration.objects.get(pk=moved[0].pk)
    assert (declaration.generation, declaration.observed_generation) == (4, 4)
    generations = declaration.runs.order_by("generation").values_list("generation", "outcome")
    assert list(generations) == [(one, RunOutcome.SUCCEEDED) for one in (1, 2, 4)]
    assert live.get("ResourceQuota", "gpu-quota", spaces[0][1])["spec"]["hard"]["requests.nvidia.com/gpu"] == "5"


@pytest.mark.requirement("provisioning-3.2")
def test_another_look_at_many_is_told_once_and_misses_nothing(
    cluster: Cluster, live: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lived so already: a run each, one event for all. What somebody changed meanwhile is none of it."""
    spaces = [fresh_namespace() for _ in range(running.LIST_FROM)]
    owners = [uuid.uuid4() for _ in spaces]
    rows = [declare(cluster, [namespace(ns), quota(ns, 4)], owner_uid=owners[n]) for n, ns in enumerate(spaces)]
    settle(only=("provisioning.apply",))
    places = Observation.objects.filter(cluster=cluster, kind="Namespace").order_by("pk")
    seen = list(places.values())
    _foreign_edit(live, spaces[0], **{"requests.nvidia.com/gpu": "99"})
    live.apply({**namespace(spaces[1]), "metadata": {"name": spaces[1], "labels": {"team": "a"}}}, manager="someone")
    live.delete("ResourceQuota", "gpu-quota", spaces[2])
    # No longer declared although no plan says so, and no longer in any list by the portal's label: still there.
    declare(cluster, [namespace(spaces[3])], owner_uid=owners[3])
    bare = {**quota(spaces[3], 4), "metadata": {"name": "gpu-quota", "namespace": spaces[3], "labels": None}}
    path = f"/api/v1/namespaces/{spaces[3]}/resourcequotas/gpu-quota"
    live._call("PATCH", path, body=bare, content_type="application/merge-patch+json")
    with transaction.atomic():
        for row in Declaration.objects.select_for_update().filter(cluster=cluster):
            actions.apply_again(row)
    with assert_queries(130):  # those three need attempts of their own
        settle(only=("provisioning.apply",))
    told = AuditEvent.objects.filter(action="provisioning.cluster.reconciled", object_id=cluster.uid).get()
    changes = json.loads(bytes(told.canonical))["changes"]
    assert changes["count"] == len(spaces) - 3
    assert sorted(changes["declarations"]) == sorted(f"{row.uid} 1" for row in (rows[1], *rows[4:]))
    assert _audited("provisioning.declaration.applied") == len(spaces) + 1  # the quota that had to be made anew
    assert Counter(ApplyRun.objects.filter(declaration__in=rows).values_list("outcome", flat=True)) == {
        RunOutcome.SUCCEEDED: 2 * len(rows) - 2, RunOutcome.STOPPED: 2,
    }  # fmt: skip
    for row, why in ((rows[0], "conflict"), (rows[3], "unplanned_removal")):
        row.refresh_from_db()
        assert (row.status, row.error_class) == (DeclarationStatus.STOPPED, why)
    assert _hard(live, spaces[2])["requests.nvidia.com/gpu"] == "4"
    moved = {was["name"] for was, now in zip(seen, places.values(), strict=True) if was != now}
    assert moved == {spaces[1], spaces[2]}  # nothing is written of what did not move


@pytest.mark.requirement("provisioning-3.2")
def test_without_the_right_to_list_everything_is_read_one_by_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slower, and nothing else: no object is taken for absent or for unchanged because no list shows it."""
    monkeypatch.setattr(running, "LIST_FROM", 2)
    rows = [declare(cluster, [namespace(fresh_namespace())]) for _ in range(2)]
    settle(only=("provisioning.apply",))

    def closed(self: KubernetesClient, *args: Any, **kwargs: Any) -> Any:
        raise Forbidden("namespaces is forbidden", status=403)

    monkeypatch.setattr(KubernetesClient, "pages", closed)
    with transaction.atomic():
        for row in Declaration.objects.select_for_update().filter(cluster=cluster):
            actions.apply_again(row)
    settle(only=("provisioning.apply",))
    for row in rows:
        last = row.runs.order_by("-pk").first()
        assert last is not None
        assert (last.outcome, [call["verb"] for call in last.results]) == (RunOutcome.SUCCEEDED, ["get"])


@pytest.mark.requirement("clusters-1.5")
def test_a_paused_cluster_gets_nothing_until_it_is_resumed(cluster: Cluster, live: KubernetesClient) -> None:
    """And the page says why."""
    pause(cluster.pk, "Rack is being moved", actor=Actor.system("tests"))
    row = declare(cluster, workspace(fresh_namespace()))
    settle(only=ONLY)
    standing = selectors.standing(Declaration.objects.select_related("cluster").get(pk=row.pk))
    assert (standing.state, standing.why) == ("waiting", f"{cluster} is paused: Rack is being moved")
    resume(cluster.pk, actor=Actor.system("tests"))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED


def test_an_error_of_our_own_holds_up_no_other(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that fails is retried with pauses; the neighbours are applied."""
    calls: list[int] = []

    def fails(declaration: Declaration) -> None:
        calls.append(declaration.pk)
        raise ValueError("a bug")

    monkeypatch.setitem(ports._owners, "release", ports.Owner(on_applied=fails))
    bad = declare(cluster, workspace(fresh_namespace()), kind="release")
    good = declare(cluster, workspace(fresh_namespace()))
    settle(only=ONLY)
    bad.refresh_from_db()
    good.refresh_from_db()
    assert good.status == DeclarationStatus.APPLIED
    assert (bad.error_class, bad.observed_generation) == ("internal", 0)
    assert "a bug" in bad.last_error
    assert set(calls) == {bad.pk}


def test_the_owner_learns_in_the_same_transaction(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the declaration as written; its lock hook comes before the declaration is locked."""
    told: list[tuple[str, int]] = []
    hooks = ports.Owner(
        on_applied=lambda d: told.append(("applied", d.observed_generation)),
        lock=lambda d: told.append(("lock", d.observed_generation)),
    )
    monkeypatch.setitem(ports._owners, "workspace", hooks)
    declare(cluster, workspace(fresh_namespace()))
    settle(only=ONLY)
    assert told == [("lock", 0), ("applied", 1)]


# -- removal ------------------------------------------------------------------------------------------------------


def _planned(cluster: Cluster, owner: uuid.UUID, manifests: list[dict[str, Any]]) -> Plan:
    plan = actions.request_plan(cluster.pk, "workspace", owner, uuid.uuid4(), None, manifests)
    settle(only=ONLY)
    plan.refresh_from_db()
    return plan


@pytest.mark.requirement("provisioning-3.6", "provisioning-3.3")
def test_only_a_planned_removal_happens(cluster: Cluster, live: KubernetesClient) -> None:
    """Without a plan that names it: stopped; with it: gone; the namespace stays in any case."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    declare(cluster, workspace(ns), owner_uid=owner)
    settle(only=ONLY)
    fewer = [m for m in workspace(ns) if m["kind"] not in ("RoleBinding", "Namespace")]
    row = declare(cluster, fewer, owner_uid=owner)
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.error_class) == (DeclarationStatus.STOPPED, "unplanned_removal")
    assert live.get("RoleBinding", "team-leads", ns)
    declare(cluster, workspace(ns), owner_uid=owner)
    settle(only=ONLY)
    plan = _planned(cluster, owner, fewer)
    assert {e["kind"]: e["operation"] for e in plan.entries if e["operation"] != "unchanged"} == {
        "RoleBinding": "remove", "Namespace": "retain",
    }  # fmt: skip
    row = declare(cluster, fewer, owner_uid=owner, plan_uid=plan.uid)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert live.list("RoleBinding", ns).items == []
    assert live.get("Namespace", ns)
    assert not row.declared_objects.filter(kind="RoleBinding").exists()
    plan.refresh_from_db()
    assert plan.closed_at is not None


# -- plans --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-2.1", "provisioning-2.3")
def test_a_plan_is_made_by_a_worker(cluster: Cluster, live: KubernetesClient, nudges: list[Any]) -> None:
    """New: rendered below the namespace; existing: the server's own diff."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    plan = actions.request_plan(cluster.pk, "workspace", owner, uuid.uuid4(), None, workspace(ns))
    assert plan.status == PlanStatus.PENDING
    assert ("provisioning.make_plan", (plan.pk,)) not in nudges  # not before the commit
    settle(only=ONLY)
    plan.refresh_from_db()
    assert plan.status == PlanStatus.READY
    assert [e["server_checked"] for e in plan.entries] == [True, False, False, False, False]
    assert live.list("Namespace", field_selector=f"metadata.name={ns}").items == []
    declare(cluster, workspace(ns), owner_uid=owner)
    settle(only=ONLY)
    after = _planned(cluster, owner, workspace(ns, 12))
    assert [e["operation"] for e in after.entries] == ["unchanged", "unchanged", "update", "unchanged", "unchanged"]
    assert all(e["server_checked"] for e in after.entries)


@pytest.mark.requirement("provisioning-2.5")
def test_open_plans_are_made_anew_when_a_generation_lands(cluster: Cluster) -> None:
    """Decided ones are evidence and stay as they are."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    declare(cluster, workspace(ns, 4), owner_uid=owner)
    settle(only=ONLY)
    still_open, decided = _planned(cluster, owner, workspace(ns, 12)), _planned(cluster, owner, workspace(ns, 16))
    actions.close_plans(decided.subject_uid)
    before = decided.entries
    declare(cluster, workspace(ns, 8), owner_uid=owner)
    settle(only=ONLY)
    still_open.refresh_from_db()
    decided.refresh_from_db()
    assert (still_open.status, still_open.base_generation) == (PlanStatus.READY, 2)
    assert still_open.entries[2]["changes"][0]["before"] == "8"
    assert decided.entries == before


@pytest.mark.requirement("provisioning-2.6")
def test_a_plan_waits_for_its_cluster(cluster: Cluster, simulated: SimulatedCluster, frozen_clock: datetime) -> None:
    """Open with the reason while the cluster is away, made once it is back."""
    simulated.faults.set("down")
    plan = _planned(cluster, uuid.uuid4(), workspace(fresh_namespace()))
    assert (plan.status, plan.error_class) == (PlanStatus.PENDING, "unreachable")
    simulated.faults.clear()
    clock.advance(timedelta(minutes=2))
    settle(only=ONLY)
    plan.refresh_from_db()
    assert (plan.status, plan.error_class, plan.last_error) == (PlanStatus.READY, "", "")


@pytest.mark.requirement("provisioning-2.6")
def test_a_refused_object_fails_the_plan_with_the_servers_words(cluster: Cluster) -> None:
    """And can be tried again by a person."""
    owner, ns = uuid.uuid4(), fresh_namespace()
    declare(cluster, [namespace(ns)], owner_uid=owner)
    settle(only=ONLY)
    bad = role_binding(ns)
    bad["roleRef"]["colour"] = "red"
    plan = _planned(cluster, owner, [namespace(ns), bad])
    assert (plan.status, plan.error_class) == (PlanStatus.FAILED, "invalid")
    assert "colour" in plan.last_error
    planning.remake_failed(plan.pk, actor=Actor.system("tests"))
    settle(only=ONLY)
    plan.refresh_from_db()
    assert plan.status == PlanStatus.FAILED


def test_nothing_is_called_inside_a_transaction(cluster: Cluster) -> None:
    """Apply and plan refuse to start."""
    calls: list[Callable[[], Any]] = [
        lambda: running.apply_cluster(cluster.pk),
        lambda: planning.make_plan(1),
    ]
    for call in calls:
        with transaction.atomic(), pytest.raises(TransactionOpen):
            call()
