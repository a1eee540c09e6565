"""Plans and applies exactly as the design has them: what goes on, what stops and asks, and what it is told by."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.audit.models import AuditEvent
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster, MaintenanceWindow
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import actions, drift_actions, planning, selectors
from apps.provisioning.choices import DeclarationStatus, PlanStatus, RunOutcome
from apps.provisioning.models import ApplyRun, Declaration, DeclaredObject, Drift, Observation, Plan
from tests.cluster.fixtures import (
    client_of,
    declare,
    fresh_namespace,
    limit_range,
    namespace,
    quota,
    register,
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


def _patch(live: KubernetesClient, path: str, body: dict[str, Any], manager: str = "kubectl-edit") -> None:
    live._call("PATCH", path, query=[("fieldManager", manager)], body=body, content_type="application/merge-patch+json")


def _quota_path(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}/resourcequotas/gpu-quota"


def _last(row: Declaration) -> ApplyRun:
    found = row.runs.order_by("pk").last()
    assert found is not None
    return found


def _plan(cluster: Cluster, owner: uuid.UUID, manifests: list[dict[str, Any]]) -> Plan:
    plan = actions.request_plan(cluster.pk, "workspace", owner, uuid.uuid4(), None, manifests)
    settle(only=ONLY)
    plan.refresh_from_db()
    return plan


@pytest.mark.requirement("provisioning-3.2")
def test_half_applied_goes_on(cluster: Cluster, live: KubernetesClient) -> None:
    """What a run before it brought there is not sent again; the rest is."""
    ns = fresh_namespace()
    live.apply(namespace(ns))
    live.apply(limit_range(ns))
    row = declare(cluster, workspace(ns))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    sent = [one["kind"] for one in _last(row).results if one["verb"] == "apply"]
    assert sent == ["ResourceQuota", "RoleBinding", "NetworkPolicy"]


@pytest.mark.requirement("provisioning-3.3", "provisioning-3.8", "provisioning-2.4")
def test_a_conflict_that_the_plan_showed_stops_and_a_person_takes_over(
    cluster: Cluster, simulated: SimulatedCluster, live: KubernetesClient, company: Company
) -> None:
    """The plan names who holds the field; applying stops there alone; other clusters go on; a take-over ends it."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    row = declare(cluster, workspace(ns, 8), owner_uid=owner)
    settle(only=ONLY)
    _patch(live, _quota_path(ns), {"spec": {"hard": {"requests.nvidia.com/gpu": "20"}}}, "helm")
    plan = _plan(cluster, owner, workspace(ns, 12))
    entry = next(one for one in plan.entries if one["kind"] == "ResourceQuota")
    assert [conflict["manager"] for conflict in entry["conflicts"]] == ["helm"]
    other = register(simulated)
    declare(cluster, workspace(ns, 12), owner_uid=owner)
    elsewhere = declare(other, workspace(fresh_namespace(), 12))
    settle(only=ONLY)
    row.refresh_from_db()
    elsewhere.refresh_from_db()
    assert (row.status, row.error_class) == (DeclarationStatus.STOPPED, "conflict")
    assert "helm" in row.last_error
    assert elsewhere.status == DeclarationStatus.APPLIED
    actions.retry(row.pk, actor=Actor.of(company.admin), take_over=True, reason="as approved")
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert live.get("ResourceQuota", "gpu-quota", ns)["spec"]["hard"]["requests.nvidia.com/gpu"] == "12"


@pytest.mark.requirement("provisioning-3.11", "provisioning-2.4")
@pytest.mark.parametrize("settled_by", ["adopted", "applied again", "set back by hand", "applied by kubectl"])
def test_a_drift_that_is_settled_leaves_no_dead_end(
    cluster: Cluster, live: KubernetesClient, company: Company, settled_by: str
) -> None:
    """However it was settled: the next change of the field is planned, applied and audited, and names from whom."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    row = declare(cluster, workspace(ns, 8), owner_uid=owner)
    settle(only=ONLY)
    hard = {"spec": {"hard": {"requests.nvidia.com/gpu": "20"}}}
    back = {"spec": {"hard": {"requests.nvidia.com/gpu": "8"}}}
    _patch(live, _quota_path(ns), hard, "kubectl-edit")
    settle(only=ONLY)
    drifts = Drift.objects.filter(declaration=row, resolved_at__isnull=True)
    assert drifts.count() == 1
    before = _plan(cluster, owner, workspace(ns, 0))
    assert any(entry["conflicts"] for entry in before.entries)
    if settled_by == "adopted":
        declare(cluster, workspace(ns, 20), owner_uid=owner)
    elif settled_by == "applied again":
        drift_actions.reapply(list(drifts.values_list("pk", flat=True)), "not approved", actor=Actor.of(company.admin))
        settle(only=ONLY)
        _patch(live, _quota_path(ns), hard, "helm")  # and once more, and back: nobody decides anything about it
        _patch(live, _quota_path(ns), back, "helm")
    elif settled_by == "set back by hand":
        _patch(live, _quota_path(ns), back)
    else:
        live.apply(quota(ns, 8), manager="kubectl", force=True)
    settle(only=ONLY)
    assert not drifts.exists()
    before.refresh_from_db()
    if planning.may_be_remade(before):
        planning.remake_failed(before.pk, actor=Actor.of(company.admin))
        settle(only=ONLY)
        before.refresh_from_db()
    assert (before.status, [one["conflicts"] for one in before.entries if one["conflicts"]]) == (PlanStatus.READY, [])
    planned = _plan(cluster, owner, workspace(ns, 0))
    found = next(one for one in planned.entries if one["kind"] == "ResourceQuota")
    assert (planned.status, found["conflicts"]) == (PlanStatus.READY, [])
    manager = {"applied again": "helm", "applied by kubectl": "kubectl"}.get(settled_by, "kubectl-edit")
    assert {one["manager"] for one in found["taken_over"]} == {manager}
    declare(cluster, workspace(ns, 0), owner_uid=owner)
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.last_error) == (DeclarationStatus.APPLIED, "")
    taken = [one["taken_over"] for one in _last(row).results if one.get("taken_over")]
    assert taken == [[{"manager": manager, "field": ".spec.hard.requests.nvidia.com/gpu"}]]
    said = AuditEvent.objects.filter(action="provisioning.declaration.applied", object_id=row.uid)
    assert f"held by {manager}" in said.latest("occurred_at").canonical_text
    assert live.get("ResourceQuota", "gpu-quota", ns)["spec"]["hard"]["requests.nvidia.com/gpu"] == "0"
    after = _plan(cluster, owner, workspace(ns, 0))
    assert {entry["operation"] for entry in after.entries} == {"unchanged"}


@pytest.mark.requirement("provisioning-2.5")
def test_two_requests_on_one_workspace(cluster: Cluster) -> None:
    """When one lands, the other's plan is made anew against what lives by then."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    declare(cluster, workspace(ns, 4), owner_uid=owner)
    settle(only=ONLY)
    other = _plan(cluster, owner, workspace(ns, 16))
    assert other.base_generation == 1
    declare(cluster, workspace(ns, 8), owner_uid=owner)
    settle(only=ONLY)
    other.refresh_from_db()
    assert (other.status, other.base_generation) == (PlanStatus.READY, 2)
    changes = next(one["changes"] for one in other.entries if one["kind"] == "ResourceQuota")
    assert [(one["before"], one["after"]) for one in changes] == [("8", "16")]


@pytest.mark.requirement("provisioning-2.5", "provisioning-2.6")
def test_a_plan_with_a_conflict_is_made_anew_once_that_is_over(
    cluster: Cluster, live: KubernetesClient, company: Company
) -> None:
    """By itself when what was approved is applied again; by a person where somebody undid it on the cluster."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    row = declare(cluster, workspace(ns, 8), owner_uid=owner)
    settle(only=ONLY)
    _patch(live, _quota_path(ns), {"spec": {"hard": {"requests.nvidia.com/gpu": "20"}}}, "helm")
    plan = _plan(cluster, owner, workspace(ns, 12))
    assert planning.may_be_remade(plan)
    settle(only=ONLY)
    found = list(Drift.objects.filter(declaration=row, resolved_at__isnull=True).values_list("pk", flat=True))
    drift_actions.reapply(found, "not approved", actor=Actor.of(company.admin))
    settle(only=ONLY)
    plan.refresh_from_db()
    assert (plan.status, [one for entry in plan.entries for one in entry["conflicts"]]) == (PlanStatus.READY, [])
    with pytest.raises(Conflict):
        planning.remake_failed(plan.pk, actor=Actor.of(company.admin))
    _patch(live, _quota_path(ns), {"spec": {"hard": {"requests.nvidia.com/gpu": "20"}}}, "helm")
    fought = _plan(cluster, owner, workspace(ns, 16))
    live.apply(quota(ns, 8), force=True)
    planning.remake_failed(fought.pk, actor=Actor.of(company.admin))
    settle(only=ONLY)
    fought.refresh_from_db()
    assert not planning.may_be_remade(fought)


@pytest.mark.requirement("provisioning-1.1", "provisioning-3.1")
def test_what_was_stored_is_applied_whatever_the_renderer_says_now(cluster: Cluster, live: KubernetesClient) -> None:
    """A lost object comes back byte for byte as approved; nothing is rendered at apply time."""
    ns = fresh_namespace()
    approved = workspace(ns, 8)
    approved[0]["metadata"]["labels"]["made-by"] = "renderer-1"
    row = declare(cluster, approved)
    settle(only=ONLY)
    stored = bytes(DeclaredObject.objects.get(declaration=row, kind="ResourceQuota").body)
    live.delete("ResourceQuota", "gpu-quota", ns)
    Declaration.objects.filter(pk=row.pk).update(observed_generation=0, status=DeclarationStatus.APPLYING)
    settle(only=ONLY)
    again = live.get("ResourceQuota", "gpu-quota", ns)
    assert again["metadata"]["labels"] == json.loads(stored)["metadata"]["labels"]
    assert again["metadata"]["labels"]["made-by"] == "renderer-1"


@pytest.mark.requirement("provisioning-3.2", "provisioning-3.3")
def test_a_cluster_that_moved_between_plan_and_apply(cluster: Cluster, live: KubernetesClient) -> None:
    """A field of others goes on; our field at the new value already goes on; a field others took stops."""
    ns, owner = fresh_namespace(), uuid.uuid4()
    row = declare(cluster, workspace(ns, 8), owner_uid=owner)
    settle(only=ONLY)
    _plan(cluster, owner, workspace(ns, 12))
    _patch(live, _quota_path(ns), {"metadata": {"annotations": {"theirs": "1"}}}, "somebody")
    declare(cluster, workspace(ns, 12), owner_uid=owner)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert not [one for one in _last(row).results if one["verb"] == "dry run"]
    assert live.get("ResourceQuota", "gpu-quota", ns)["metadata"]["annotations"]["theirs"] == "1"
    _patch(live, _quota_path(ns), {"spec": {"hard": {"requests.nvidia.com/gpu": "16"}}}, "kubectl-edit")
    declare(cluster, workspace(ns, 16), owner_uid=owner)
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    _patch(live, _quota_path(ns), {"spec": {"hard": {"requests.nvidia.com/gpu": "99"}}}, "kubectl-edit")
    declare(cluster, workspace(ns, 20), owner_uid=owner)
    settle(only=ONLY)
    row.refresh_from_db()
    assert (row.status, row.error_class) == (DeclarationStatus.STOPPED, "conflict")
    assert [one["verb"] for one in _last(row).results if one["status"] == 409] == ["dry run"]


@pytest.mark.requirement("provisioning-3.7")
def test_every_request_is_kept_with_its_path(cluster: Cluster) -> None:
    """Verb, path, status, milliseconds."""
    ns = fresh_namespace()
    row = declare(cluster, [namespace(ns), quota(ns, 1)])
    settle(only=ONLY)
    sent = [one for one in _last(row).results if one["verb"] == "apply"]
    assert [one["path"] for one in sent] == [f"/api/v1/namespaces/{ns}", _quota_path(ns)]
    assert all(one["status"] in (200, 201) and one["ms"] >= 0 and one["warnings"] == [] for one in sent)


@pytest.mark.requirement("drift-4.1")
def test_a_maintenance_window_holds_back_applying_alone(
    frozen_clock: datetime, cluster: Cluster, live: KubernetesClient
) -> None:
    """Plans are made and objects observed; afterwards what is due is applied by itself."""
    first = fresh_namespace()
    declare(cluster, workspace(first))
    settle(only=ONLY)
    now = clock.now()
    MaintenanceWindow.objects.create(
        cluster=cluster, valid=DateTimeTZRange(now, now + timedelta(hours=2), "[)"), reason="new switches"
    )
    ns, owner = fresh_namespace(), uuid.uuid4()
    row = declare(cluster, workspace(ns), owner_uid=owner)
    assert _plan(cluster, owner, workspace(ns, 9)).status == PlanStatus.READY
    assert row.runs.count() == 0
    standing = selectors.standing(Declaration.objects.select_related("cluster").get(pk=row.pk))
    assert standing.state == "waiting"
    assert "maintenance" in standing.why
    assert "new switches" in standing.why
    clock.advance(timedelta(minutes=5))
    _patch(live, _quota_path(first), {"spec": {"hard": {"pods": "60"}}})
    settle(only=ONLY)
    seen = Observation.objects.get(cluster=cluster, kind="ResourceQuota", namespace=first)
    assert seen.status["hard"]["pods"] == "60"
    clock.advance(timedelta(hours=2))
    settle(only=ONLY)
    row.refresh_from_db()
    assert row.status == DeclarationStatus.APPLIED
    assert _last(row).outcome == RunOutcome.SUCCEEDED


@pytest.mark.requirement("provisioning-3.9", "provisioning-3.7")
def test_a_mass_apply_records_together_and_loses_nothing(cluster: Cluster, live: KubernetesClient) -> None:
    """One refused among many stops alone; every other one is applied with one request an object and no GET."""
    rows = [declare(cluster, [namespace(ns := fresh_namespace()), quota(ns, 2)]) for _ in range(29)]
    ns = fresh_namespace()
    bad = declare(cluster, [namespace(ns), quota(ns, "1500m", **{"requests.cpu": "no quantity"})])
    settle(only=("provisioning.apply",))
    done = Declaration.objects.filter(pk__in=[row.pk for row in rows], status=DeclarationStatus.APPLIED)
    assert done.count() == 29
    bad.refresh_from_db()
    assert (bad.status, bad.error_class) == (DeclarationStatus.STOPPED, "invalid")
    verbs = [one["verb"] for run in ApplyRun.objects.filter(declaration__in=rows) for one in run.results]
    assert set(verbs) == {"apply"}
    assert len(verbs) == 58
    assert Observation.objects.filter(cluster=cluster, missing=False).count() >= 58
