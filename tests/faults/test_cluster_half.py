"""The cluster half under bad conditions: refused credentials, certificates, cut watches, wrong clocks, half applies."""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from apps.clusters.actions import replace_credentials
from apps.clusters.choices import Health
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import selectors
from apps.provisioning.choices import DeclarationStatus
from apps.provisioning.models import Declaration, Drift, Observation
from apps.provisioning.observer import Observers
from tests.cluster.fixtures import client_of, declare, fresh_namespace, register, simulated, simulator, workspace

__all__ = ["simulated", "simulator"]
pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("provisioning.",)


@pytest.fixture
def live(simulated: SimulatedCluster) -> KubernetesClient:
    """A look at the cluster beside the portal."""
    return client_of(simulated)


def _standing(row: Declaration) -> selectors.Standing:
    return selectors.standing(Declaration.objects.select_related("cluster").get(pk=row.pk))


def _pods(live: KubernetesClient, ns: str, pods: str) -> None:
    live._call(
        "PATCH", f"/api/v1/namespaces/{ns}/resourcequotas/gpu-quota", query=[("fieldManager", "kubectl-edit")],
        body={"spec": {"hard": {"pods": pods}}}, content_type="application/merge-patch+json",
    )  # fmt: skip


@pytest.mark.requirement("resilience-3.1", "resilience-3.2", "provisioning-3.4")
def test_a_revoked_token_is_shown_as_refused_until_it_is_replaced(
    frozen_clock: datetime, simulated: SimulatedCluster, live: KubernetesClient
) -> None:
    """Nothing is applied or lost; after new credentials what is due goes on."""
    cluster: Cluster = register(simulated)
    replace_credentials(cluster.pk, actor=Actor.system("tests"), token="revoked-token")
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))
    settle(only=ONLY)
    cluster.refresh_from_db()
    assert cluster.health == Health.REFUSED
    standing = _standing(row)
    assert standing.state == "waiting"
    assert "refuses the portal's credentials" in standing.why
    replace_credentials(cluster.pk, actor=Actor.system("tests"), kubeconfig=simulated.kubeconfig())
    clock.advance(timedelta(minutes=6))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert live.get("ResourceQuota", "gpu-quota", ns)


@pytest.mark.requirement("resilience-3.1", "provisioning-3.4")
def test_a_certificate_that_expires_while_running_stops_the_calls_until_it_is_renewed(
    frozen_clock: datetime, simulated: SimulatedCluster, live: KubernetesClient
) -> None:
    """Nothing goes over a connection that cannot be trusted; the page says why; after renewal it goes on by itself."""
    cluster: Cluster = register(simulated)
    ns, owner = fresh_namespace(), uuid.uuid4()
    row = declare(cluster, workspace(ns), owner_uid=owner)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    simulated.faults.set("expired-cert")
    KubernetesClient.forget_all()  # connections made under the old certificate end with their idle time
    declare(cluster, workspace(ns, 12), owner_uid=owner)
    for _ in range(3):
        settle(only=ONLY)
        clock.advance(timedelta(minutes=2))
    cluster.refresh_from_db()
    assert cluster.health == Health.UNREACHABLE
    assert "certificate has expired" in cluster.last_error
    assert "certificate has expired" in _standing(row).why
    row.refresh_from_db()
    assert (row.generation, row.observed_generation) == (2, 1)
    simulated.faults.clear()
    assert live.get("ResourceQuota", "gpu-quota", ns)["spec"]["hard"]["requests.nvidia.com/gpu"] == "8"
    clock.advance(timedelta(minutes=6))
    settle(only=ONLY)
    row.refresh_from_db()
    cluster.refresh_from_db()
    assert (row.observed_generation, cluster.health, cluster.last_error) == (2, Health.HEALTHY, "")
    assert live.get("ResourceQuota", "gpu-quota", ns)["spec"]["hard"]["requests.nvidia.com/gpu"] == "12"


@pytest.mark.requirement("provisioning-3.4", "provisioning-3.10")
@pytest.mark.parametrize("after", [0, 2, 4])
def test_half_of_the_objects_applied_and_then_an_hour_of_silence(
    frozen_clock: datetime, simulated: SimulatedCluster, live: KubernetesClient, after: int
) -> None:
    """Wherever it broke off, it goes on there when the cluster is back; figures keep their age meanwhile."""
    cluster: Cluster = register(simulated)
    ns = fresh_namespace()
    simulated.faults.set("half", after=after, match=ns)
    row = declare(cluster, workspace(ns))
    settle(only=ONLY)
    simulated.faults.set("down")
    began = clock.now()
    for _ in range(6):
        clock.advance(timedelta(minutes=10))
        settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLYING
    seen = Observation.objects.filter(cluster=cluster, observed_at__gt=began)
    assert not seen.exists()
    simulated.faults.clear()
    clock.advance(timedelta(minutes=6))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert live.get("NetworkPolicy", "default-deny", ns)


@pytest.mark.requirement("provisioning-4.3", "drift-1.1")
def test_a_wrong_clock_on_the_cluster_moves_no_age(simulated: SimulatedCluster, live: KubernetesClient) -> None:
    """Found and seen are the portal's own times; the time of the change is the cluster's, as it says."""
    cluster: Cluster = register(simulated)
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))
    settle(only=ONLY)
    simulated.faults.set("clock-skew", skew_seconds=6 * 3600)
    _pods(live, ns, "99")
    settle(only=ONLY)
    drift = Drift.objects.get(declaration=row)
    assert abs((clock.now() - drift.found_at).total_seconds()) < 60
    assert drift.changed_at is not None
    assert drift.changed_at - drift.found_at > timedelta(hours=5)
    age = clock.now() - Observation.objects.get(cluster=cluster, kind="ResourceQuota", namespace=ns).observed_at
    assert timedelta(0) <= age < timedelta(minutes=1)


def _await(condition: Any, seconds: float) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.02)


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("provisioning-4.1", "provisioning-4.2", "drift-1.1", "drift-1.2")
def test_watches_cut_every_second_lose_nothing(simulated: SimulatedCluster, live: KubernetesClient) -> None:
    """Drift and a lost label are found, and nothing is listed again for it (how soon: provisioning/test_lag.py)."""
    cluster: Cluster = register(simulated)
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))
    settle(only=ONLY)
    simulated.faults.set("watch-cut", delay_ms=1000)
    observers = Observers()
    try:
        observers.tend()
        observer, _ = next(iter(observers._running.values()))
        _await(lambda: len(observer.watchers) == 5, 60)
        for pods in ("91", "92", "93"):
            _pods(live, ns, pods)
            _await(lambda: Drift.objects.filter(declaration=row, live=pods).exists(), 60)  # noqa: B023 (awaited within the turn)
        live._call(
            "PATCH", f"/api/v1/namespaces/{ns}/limitranges/defaults", query=[("fieldManager", "kubectl-label")],
            body={"metadata": {"labels": {"gpu-commons/managed": None}}}, content_type="application/merge-patch+json",
        )  # fmt: skip
        lost = Drift.objects.filter(declaration=row, kind="LimitRange", field__startswith="metadata.labels")
        _await(lost.exists, 60)
        assert not Drift.objects.filter(declaration=row, live="missing").exists()
        assert {watcher.lists for watcher in observer.watchers.values()} == {0}  # the sweep's versions were resumed
        assert Cluster.objects.get(pk=cluster.pk).health == Health.HEALTHY
    finally:
        observers.end()
        connection.close()
