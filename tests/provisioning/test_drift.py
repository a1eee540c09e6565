"""What people decide about drift, against the simulated cluster."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import drift_actions, ownership
from apps.provisioning.choices import DriftDecision, DriftResolution, Handling
from apps.provisioning.models import Declaration, DeclaredObject, Drift
from tests.cluster.fixtures import client_of, declare, fresh_namespace, register, workspace
from tests.factories import Company, client_for

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


def _patch(live: KubernetesClient, path: str, body: dict[str, Any], manager: str = "kubectl-edit") -> None:
    """Change an object as somebody else."""
    live._call("PATCH", path, query=[("fieldManager", manager)], body=body, content_type="application/merge-patch+json")


def _quota(live: KubernetesClient, ns: str, pods: str) -> None:
    _patch(live, f"/api/v1/namespaces/{ns}/resourcequotas/gpu-quota", {"spec": {"hard": {"pods": pods}}})


def _policy(live: KubernetesClient, ns: str) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/{ns}/networkpolicies/default-deny"
    _patch(live, path, {"spec": {"ingress": []}})


@pytest.fixture
def applied(cluster: Cluster) -> tuple[Declaration, str]:
    """A workspace that lives as declared, and its namespace."""
    ns = fresh_namespace()
    row = declare(cluster, workspace(ns))
    settle(only=ONLY)
    return row, ns


@pytest.mark.requirement("drift-1.2", "drift-1.4")
def test_a_lost_label_is_drift_and_no_deletion(applied: tuple[Declaration, str], live: KubernetesClient) -> None:
    """Told once; resolved when the label is back."""
    _, ns = applied
    path = f"/api/v1/namespaces/{ns}/limitranges/defaults"
    _patch(live, path, {"metadata": {"labels": {"gpu-commons/managed": None}}}, "kubectl-label")
    settle(only=ONLY)
    settle(only=ONLY)
    drift = Drift.objects.get(resolved_at__isnull=True)
    assert (drift.kind, drift.field) == ("LimitRange", 'metadata.labels["gpu-commons/managed"]')
    assert (drift.declared, drift.live) == ("true", "")
    assert OutboxMessage.objects.filter(event="provisioning.declaration.drifted").count() == 1
    _patch(live, path, {"metadata": {"labels": {"gpu-commons/managed": "true"}}}, "kubectl-label")
    settle(only=ONLY)
    drift.refresh_from_db()
    assert drift.resolution == DriftResolution.GONE


@pytest.mark.requirement("drift-1.3")
def test_who_holds_neighbours_is_not_blamed_for_what_is_gone() -> None:
    """Nobody holds a removed key; an atomic field around it does name its holder."""
    fields = {"f:metadata": {"f:labels": {"f:other": {}}}, "f:spec": {"f:podSelector": {}}}
    obj = {"metadata": {"managedFields": [{"manager": "helm", "operation": "Update", "fieldsV1": fields}]}}
    gone = ("metadata", "labels", "ours")
    assert ownership.foreign_owner(obj, gone, exact=True) is None
    atomic = ownership.foreign_owner(obj, ("spec", "podSelector", "matchLabels"), exact=True)
    assert atomic is not None
    assert atomic.manager == "helm"


@pytest.mark.requirement("drift-2.1", "drift-2.5", "drift-1.1")
def test_one_object_is_applied_again_and_the_others_stay(
    applied: tuple[Declaration, str], live: KubernetesClient, company: Company
) -> None:
    """Its fields are taken over; the other drifted object is left as it lives, with its finding open."""
    row, ns = applied
    _quota(live, ns, "99")
    _policy(live, ns)
    settle(only=ONLY)
    drifts = {drift.kind: drift for drift in Drift.objects.filter(resolved_at__isnull=True)}
    assert set(drifts) == {"ResourceQuota", "NetworkPolicy"}
    assert (drifts["ResourceQuota"].manager, drifts["ResourceQuota"].operation) == ("kubectl-edit", "Update")
    with pytest.raises(NotAllowed):
        drift_actions.reapply([drifts["ResourceQuota"].pk], "put it back", actor=Actor.of(company.lead_finance))
    with pytest.raises(Invalid):
        drift_actions.reapply([drifts["ResourceQuota"].pk], " ", actor=Actor.of(company.admin))
    drift_actions.reapply([drifts["ResourceQuota"].pk], "not approved", actor=Actor.of(company.admin))
    settle(only=ONLY)
    assert live.get("ResourceQuota", "gpu-quota", ns)["spec"]["hard"]["pods"] == "50"
    assert not live.get("NetworkPolicy", "default-deny", ns)["spec"].get("ingress")
    drifts["ResourceQuota"].refresh_from_db()
    drifts["NetworkPolicy"].refresh_from_db()
    assert drifts["ResourceQuota"].resolution == DriftResolution.REAPPLIED
    assert drifts["NetworkPolicy"].resolved_at is None
    assert set(DeclaredObject.objects.filter(declaration=row).values_list("handling", flat=True)) == {Handling.NORMAL}
    event = AuditEvent.objects.get(action="provisioning.drift.reapplied")
    assert event.actor_id == str(company.admin.uid)


@pytest.mark.requirement("drift-2.2", "drift-1.4")
def test_what_is_left_alone_opens_again(
    frozen_clock: datetime, applied: tuple[Declaration, str], live: KubernetesClient, company: Company
) -> None:
    """At its date, or at once when it is changed again; told once each time."""
    _, ns = applied
    _quota(live, ns, "99")
    settle(only=ONLY)
    drift, admin = Drift.objects.get(), Actor.of(company.admin)
    for wrong in (timedelta(0), timedelta(days=91)):
        with pytest.raises(Invalid):
            drift_actions.ignore(drift.pk, clock.now() + wrong, "load test", actor=admin)
    drift_actions.ignore(drift.pk, clock.now() + timedelta(days=7), "load test", actor=admin)
    settle(only=ONLY)
    assert not Drift.objects.open().exists()
    assert Drift.objects.ignored().get() == drift
    clock.advance(timedelta(days=7, seconds=1))
    assert Drift.objects.open().get() == drift
    settle(only=ONLY)
    assert OutboxMessage.objects.filter(event="provisioning.drift.reopened").count() == 1
    drift_actions.ignore(drift.pk, clock.now() + timedelta(days=7), "load test", actor=admin)
    _quota(live, ns, "120")
    settle(only=ONLY)
    drift.refresh_from_db()
    assert (drift.live, drift.ignored_until, drift.decision) == ("120", None, DriftDecision.NONE)
    assert OutboxMessage.objects.filter(event="provisioning.declaration.drifted").count() == 2
    with pytest.raises(Conflict):
        drift_actions.stop_ignoring(drift.pk, actor=admin)


@pytest.mark.requirement("drift-2.5")
def test_pages_decide(applied: tuple[Declaration, str], live: KubernetesClient, company: Company) -> None:
    """From the declaration's page: leave it with a reason, see it said there, open it again."""
    row, ns = applied
    _quota(live, ns, "99")
    settle(only=ONLY)
    drift = Drift.objects.get()
    client = client_for(company.admin)
    page = reverse("provisioning:declaration-detail", kwargs={"declaration_uid": row.uid})
    leave = reverse("provisioning:drift-ignore", kwargs={"drift_uid": drift.uid})
    assert leave in client.get(page).content.decode()
    until = (clock.now() + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M")
    answer = client.post(leave, {"until": until, "reason": "load test until Wednesday"})
    assert answer.status_code in (302, 303)
    assert "load test until Wednesday" in client.get(page).content.decode()
    assert client.get(reverse("provisioning:drift-list") + "?state=ignored").content.decode().count("kubectl-edit") >= 1
    client.post(reverse("provisioning:drift-reopen", kwargs={"drift_uid": drift.uid}))
    drift.refresh_from_db()
    assert drift.ignored_until is None
