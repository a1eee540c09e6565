"""Observation, drift and the observer's threads, against the simulated cluster."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from apps.audit.models import AuditEvent
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.models import OutboxMessage
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import actions, observing, selectors
from apps.provisioning.choices import DeclarationStatus
from apps.provisioning.models import Drift, Observation, WatchCursor
from apps.provisioning.observer import ClusterObserver, KindWatcher, Observers, Report
from tests.cluster.fixtures import client_of, declare, fresh_namespace, quota, register, workspace
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


def _edit(live: KubernetesClient, manifest: dict[str, Any], manager: str = "kubectl-edit") -> None:
    """Apply something as somebody else, by force."""
    meta, plural = manifest["metadata"], {"ResourceQuota": "resourcequotas", "RoleBinding": "rolebindings"}
    prefix = "/api/v1" if manifest["apiVersion"] == "v1" else f"/apis/{manifest['apiVersion']}"
    live._call(
        "PATCH", f"{prefix}/namespaces/{meta['namespace']}/{plural[manifest['kind']]}/{meta['name']}",
        query=[("fieldManager", manager), ("force", "true")], body=json.dumps(manifest).encode(),
        content_type="application/apply-patch+yaml",
    )  # fmt: skip


def _pod(ns: str, gpus: int) -> dict[str, Any]:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"cpu": "1"}}
    spec = {"containers": [{"name": "main", "image": "registry.example.com/train:1", "resources": resources}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train", "namespace": ns}, "spec": spec}


def _await(condition: Any, seconds: float = 60.0) -> None:
    """Wait until a condition holds. Fails after `seconds`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)


@pytest.mark.requirement("provisioning-4.1")
def test_the_quota_status_is_there_after_the_sweep(cluster: Cluster, live: KubernetesClient) -> None:
    """Hard and used as numbers, with their age."""
    ns = fresh_namespace()
    declare(cluster, workspace(ns, 8))
    settle(only=ONLY)
    status = selectors.quota_status(cluster.pk, ns)
    assert status.resources["requests.nvidia.com/gpu"][0] == Decimal(8)
    live.create(_pod(ns, 2))
    _await(lambda: settle(only=ONLY) and selectors.quota_status(cluster.pk, ns).resources["pods"][1] == 1)
    status = selectors.quota_status(cluster.pk, ns)
    assert status.resources["requests.nvidia.com/gpu"] == (Decimal(8), Decimal(2))
    assert status.observed_at is not None
    assert clock.now() - status.observed_at < timedelta(seconds=5)
    assert selectors.quota_status(cluster.pk, "elsewhere") == ({}, None)
    seen = Observation.objects.get(cluster=cluster, kind="ResourceQuota", namespace=ns)
    assert set(seen.status) == {"hard", "used"}


@pytest.mark.requirement("provisioning-4.3")
def test_drift_names_field_values_manager_and_time(cluster: Cluster, live: KubernetesClient, company: Company) -> None:
    """Told once, audited, resolved when it is equal again."""
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns, 8))
    settle(only=ONLY)
    assert not Drift.objects.exists()
    _edit(live, {**quota(ns, 99), "metadata": {"name": "gpu-quota", "namespace": ns}})
    settle(only=ONLY)
    settle(only=ONLY)
    drift = Drift.objects.get()
    assert (drift.declaration_id, drift.kind, drift.name) == (row.pk, "ResourceQuota", "gpu-quota")
    assert (drift.field, drift.declared, drift.live) == ('spec.hard["requests.nvidia.com/gpu"]', "8", "99")
    assert drift.manager == "kubectl-edit"
    assert drift.changed_at is not None
    assert abs((clock.now() - drift.changed_at).total_seconds()) < 60
    told = AuditEvent.objects.filter(action="provisioning.declaration.drifted", object_id=str(row.uid))
    assert told.count() == 1
    assert company.admin.pk in OutboxMessage.objects.get(event="provisioning.declaration.drifted").recipient_ids
    _edit(live, {**quota(ns, 8), "metadata": {"name": "gpu-quota", "namespace": ns}})
    settle(only=ONLY)
    drift.refresh_from_db()
    assert drift.resolved_at is not None


@pytest.mark.requirement("provisioning-4.3", "provisioning-3.8")
def test_an_admin_applies_again_over_a_drift(cluster: Cluster, live: KubernetesClient, company: Company) -> None:
    """With take-over; the drift is resolved by it."""
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns, 8))
    settle(only=ONLY)
    _edit(live, {**quota(ns, 99), "metadata": {"name": "gpu-quota", "namespace": ns}})
    live.delete("RoleBinding", "team-leads", ns)
    settle(only=ONLY)
    assert {(d.kind, d.field, d.live) for d in Drift.objects.filter(resolved_at__isnull=True)} == {
        ("ResourceQuota", 'spec.hard["requests.nvidia.com/gpu"]', "99"),
        ("RoleBinding", "", "missing"),
    }
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    actions.retry(row.pk, actor=Actor.of(company.admin), take_over=True)
    settle(only=ONLY)
    assert not Drift.objects.filter(resolved_at__isnull=True).exists()
    assert live.get("RoleBinding", "team-leads", ns)
    assert live.get("ResourceQuota", "gpu-quota", ns)["spec"]["hard"]["requests.nvidia.com/gpu"] == "8"


@pytest.mark.requirement("provisioning-4.3")
def test_a_subject_smuggled_into_a_role_binding_is_drift(cluster: Cluster, live: KubernetesClient) -> None:
    """A list without merge keys is whole."""
    ns = fresh_namespace()
    manifests = workspace(ns)
    declare(cluster, manifests)
    settle(only=ONLY)
    binding = next(json.loads(json.dumps(m)) for m in manifests if m["kind"] == "RoleBinding")
    binding["subjects"].append({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"})
    _edit(live, binding)
    settle(only=ONLY)
    assert Drift.objects.get().field == "subjects[name=mallory]"


def test_differences_while_applying_are_work_and_no_drift(cluster: Cluster, live: KubernetesClient) -> None:
    """Drift is looked for once the newest generation is applied."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    declare(cluster, workspace(ns, 8), owner_uid=owner)
    settle(only=ONLY)
    declare(cluster, workspace(ns, 12), owner_uid=owner)
    observing.observe_cluster(cluster.pk)
    assert not Drift.objects.exists()


def test_an_older_reading_never_replaces_a_newer_one(cluster: Cluster, live: KubernetesClient) -> None:
    """Watch and sweep may meet in any order."""
    ns = fresh_namespace()
    declare(cluster, workspace(ns, 8))
    settle(only=ONLY)
    before = Observation.objects.get(kind="ResourceQuota", namespace=ns)
    key = observing.Key("ResourceQuota", ns, "gpu-quota")
    assert observing.record_objects(cluster.pk, [(key, None)], before.observed_at - timedelta(seconds=1)) == 0
    assert not Observation.objects.get(pk=before.pk).missing


def test_the_later_version_stands_whoever_writes_last(cluster: Cluster, live: KubernetesClient) -> None:
    """A list that began before an apply ended, and an apply's answer that is written after the watch's event."""
    ns = fresh_namespace()
    declaration = declare(cluster, workspace(ns, 8))
    settle(only=ONLY)
    declaration.refresh_from_db()
    key = observing.Key("ResourceQuota", ns, "gpu-quota")
    row = Observation.objects.get(kind=key.kind, namespace=ns)
    number = int(row.resource_version)
    fresh = live.get(*key[:1], key.name, key.namespace)

    def told(version: int, used: str) -> dict[str, object]:
        body = json.loads(json.dumps(fresh))
        body["kind"] = key.kind
        body["metadata"]["resourceVersion"] = str(version)
        body["status"]["used"] = {"requests.nvidia.com/gpu": used}
        return body

    def seen() -> tuple[str, str]:
        now = Observation.objects.get(pk=row.pk)
        return now.resource_version, now.status["used"]["requests.nvidia.com/gpu"]

    observing.record_objects(cluster.pk, [(key, told(number + 2, "6"))], row.observed_at - timedelta(seconds=5))
    assert seen() == (str(number + 2), "6")
    observing.record_applied(cluster.pk, [(declaration, {key: told(number + 1, "0")}, [])], clock.now())
    assert seen() == (str(number + 2), "6")
    observing.record_objects(cluster.pk, [(key, told(number - 50, "1"))], clock.now() + timedelta(minutes=5))
    assert seen() == (str(number - 50), "1"), "a server restored from a copy counts anew"


def test_a_quota_for_some_pods_is_not_what_the_namespace_has(cluster: Cluster) -> None:
    """A quota scoped to a priority stands beside the namespace's own and changes no figure of it."""
    ns = fresh_namespace()
    scoped = quota(ns, 0)
    scoped["metadata"]["name"] = "serving"
    scoped["spec"] = {
        "hard": {"pods": "0", "requests.nvidia.com/gpu": "0"},
        "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]},
    }
    declare(cluster, [*workspace(ns, 8), scoped])
    settle(only=ONLY)
    observing.observe_cluster(cluster.pk)
    resources = selectors.quota_statuses([(cluster.pk, ns)])[(cluster.pk, ns)].resources
    assert resources["requests.nvidia.com/gpu"] == (Decimal(8), Decimal(0))


def test_an_unreachable_cluster_keeps_its_last_figures_with_their_age(
    cluster: Cluster, simulated: SimulatedCluster
) -> None:
    """Never fresher than they are."""
    ns = fresh_namespace()
    declare(cluster, workspace(ns, 8))
    settle(only=ONLY)
    before = selectors.quota_status(cluster.pk, ns)
    simulated.faults.set("down")
    assert settle(only=ONLY) == 0
    assert selectors.quota_status(cluster.pk, ns) == before
    cluster.refresh_from_db()
    assert cluster.health == "unreachable"


# -- the observer's threads ---------------------------------------------------------------------------------------


def _reports(reports: queue.Queue[Report], kind: str, seconds: float = 60.0) -> Report:
    """Return the next report of a sort: "listing", "event", "bookmark" or "error"."""
    until = time.monotonic() + seconds
    while True:
        report = reports.get(timeout=max(0.01, until - time.monotonic()))
        event = report.event
        found = (
            "listing" if report.page is not None else "error" if report.error is not None
            else "bookmark" if event is not None and event.type == "BOOKMARK" else "event"
        )  # fmt: skip
        if found == kind:
            return report


@pytest.mark.requirement("provisioning-4.2")
def test_a_watcher_resumes_without_listing_again(simulated: SimulatedCluster, live: KubernetesClient) -> None:
    """A cut watch goes on at the last version; only an expired one lists."""
    ns = fresh_namespace()
    stop, reports = threading.Event(), queue.Queue[Report]()
    watcher = KindWatcher(live, "Namespace", reports, stop)
    watcher.start()
    try:
        _reports(reports, "listing")
        live.apply(workspace(ns)[-1])
        _reports(reports, "event")
        watcher.end()
        live.apply({**workspace(ns)[-1], "metadata": {"name": ns, "labels": {"gpu-commons/managed": "true", "a": "b"}}})
        event = _reports(reports, "event").event
        assert event is not None
        assert event.object["metadata"]["labels"]["a"] == "b"
        assert watcher.lists == 1
    finally:
        stop.set()
        watcher.end()
        watcher.join(5)
    assert not watcher.is_alive()


@pytest.mark.requirement("provisioning-4.2")
def test_an_expired_version_lists_again(live: KubernetesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else does."""
    from apps.clusters.errors import Gone

    stop, reports = threading.Event(), queue.Queue[Report]()
    watcher = KindWatcher(live, "Namespace", reports, stop, resource_version="5", listed_at=clock.now())
    real, versions = KubernetesClient.watch, []

    def watch(self: KubernetesClient, kind: str, version: str, **kwargs: Any) -> Any:
        versions.append(version)
        if version == "5":
            raise Gone("too old", status=410)
        return real(self, kind, version, **kwargs)

    monkeypatch.setattr(KubernetesClient, "watch", watch)
    watcher.start()
    _reports(reports, "listing")
    _reports(reports, "bookmark")
    stop.set()
    watcher.end()
    watcher.join(5)
    assert watcher.lists == 1
    assert versions[0] == "5"


@pytest.mark.requirement("provisioning-4.2")
def test_everything_is_listed_again_after_ten_minutes(live: KubernetesClient) -> None:
    """Whatever the watch told."""
    stop, reports = threading.Event(), queue.Queue[Report]()
    long_ago = clock.now() - timedelta(minutes=11)
    watcher = KindWatcher(live, "Namespace", reports, stop, resource_version="5", listed_at=long_ago)
    watcher.start()
    _reports(reports, "listing")
    stop.set()
    watcher.end()
    watcher.join(5)
    assert watcher.lists == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("provisioning-4.1", "provisioning-4.2")
def test_the_observer_shows_what_changes(simulated: SimulatedCluster, live: KubernetesClient) -> None:
    """Use, drift and deletion; two observers share by lease; it survives the cluster going away and coming back.

    How soon is told stage by stage in test_lag.py, where no busy machine can delay it.
    """
    cluster = register(simulated)
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns, 8))
    settle(only=ONLY)
    observers, others = Observers(), Observers()
    try:
        assert observers.tend() == 1
        assert others.tend() == 0
        _await(lambda: WatchCursor.objects.filter(cluster=cluster).count() == 5)
        live.create(_pod(ns, 2))
        used = lambda: selectors.quota_status(cluster.pk, ns).resources["requests.nvidia.com/gpu"][1]  # noqa: E731 (short)
        _await(lambda: used() == 2)
        _edit(live, {**quota(ns, 99), "metadata": {"name": "gpu-quota", "namespace": ns}})
        _await(lambda: Drift.objects.filter(declaration=row, live="99").exists())
        simulated.faults.set("down")
        _await(lambda: Cluster.objects.get(pk=cluster.pk).health == "unreachable")
        simulated.faults.clear()
        live.delete("RoleBinding", "team-leads", ns)
        _await(lambda: Drift.objects.filter(declaration=row, live="missing").exists())
        _await(lambda: Cluster.objects.get(pk=cluster.pk).health == "healthy")
    finally:
        observers.end()
        others.end()
    assert others.tend() == 1  # the lease was given back
    others.end()


def test_an_observer_without_its_lease_writes_nothing(cluster: Cluster, live: KubernetesClient) -> None:
    """Another process has taken over."""
    from apps.core.errors import Conflict

    declare(cluster, workspace(fresh_namespace()))
    settle(only=ONLY)
    token = leases.claim(f"observe:{cluster.uid}", seconds=30)
    assert token is not None
    observer = ClusterObserver(cluster, token)
    page = next(live.pages("Namespace", label_selector="gpu-commons/managed=true"))
    report = Report("Namespace", clock.now(), page=page)
    observer.record([report])
    leases.release(f"observe:{cluster.uid}", token)
    with pytest.raises(Conflict):
        observer.record([report])
    assert connection.in_atomic_block  # the test's own transaction still stands
