"""The portal beside the cluster under test: what it observes there, what it calls drift, what people decide."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.provisioning import drift_actions, observing, selectors
from apps.provisioning.choices import DriftResolution
from apps.provisioning.models import Declaration, Drift, WatchCursor
from apps.provisioning.observer import Observers
from apps.quotas import drift_changes
from tests.cluster.conftest import await_that
from tests.cluster.fixtures import LABELS, declare, limit_range, network_policy, role_binding, workspace
from tests.cluster.helpers import merge_patch, pod
from tests.cluster.place import approved, hard, made_world, registered, work
from tests.factories import Company

pytestmark = pytest.mark.cluster
GPU = "requests.nvidia.com/gpu"
SOMEBODY = "kubectl-edit"


def create(api: KubernetesClient, manifest: dict[str, Any]) -> None:
    """Create what needs its namespace's service account or quota figures: controllers make those in a moment."""

    def done() -> bool:
        try:
            api.create(manifest)
        except errors.Forbidden:
            return False
        return True

    await_that(done)


def edit_pods(api: KubernetesClient, space: str, pods: str, name: str = "gpu-quota") -> None:
    """Change a limit as somebody with kubectl does."""
    meta = {"name": name, "namespace": space}
    merge_patch(
        api, {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": pods}}}, SOMEBODY
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("provisioning-4.1", "provisioning-4.2", "provisioning-4.3")
def test_an_observer_sees_use_drift_and_deletion(api: KubernetesClient, kubeconfig: str, space: str) -> None:
    """By its watches alone: nobody lists again."""
    cluster = registered(kubeconfig)
    row = declare(cluster, workspace(space, 8))
    work()
    observers = Observers()
    try:
        assert observers.tend() == 1
        await_that(lambda: WatchCursor.objects.filter(cluster=cluster, listed_at__isnull=False).count() == 5)
        lists = _lists(observers)
        create(api, pod(space, "train", 2))
        await_that(lambda: selectors.quota_status(cluster.pk, space).resources.get(GPU) == (Decimal(8), Decimal(2)))
        seen = selectors.quota_status(cluster.pk, space).observed_at
        assert seen is not None
        assert clock.now() - seen < timedelta(minutes=1)
        edit_pods(api, space, "99")
        await_that(lambda: Drift.objects.filter(declaration=row, live="99", manager=SOMEBODY).exists())
        api.delete("RoleBinding", "team-leads", space)
        await_that(lambda: Drift.objects.filter(declaration=row, kind="RoleBinding", live="missing").exists())
        assert _lists(observers) == lists
    finally:
        observers.end()
        connections.close_all()


def _lists(observers: Observers) -> int:
    return sum(watcher.lists for observer, _ in observers._running.values() for watcher in observer.watchers.values())


@pytest.fixture
def applied(db: None, api: KubernetesClient, kubeconfig: str, space: str) -> tuple[Cluster, Declaration]:
    """A workspace that lives as declared."""
    cluster = registered(kubeconfig)
    row = declare(cluster, workspace(space))
    work()
    row.refresh_from_db()
    assert row.status == "applied", row.last_error
    return cluster, row


def look(cluster: Cluster) -> dict[str, Drift]:
    """List what the portal owns; returns what is open, by kind."""
    observing.observe_cluster(cluster.pk)
    return {drift.kind: drift for drift in Drift.objects.open().filter(declaration__cluster=cluster)}


@pytest.mark.requirement("drift-1.1", "drift-1.2", "drift-1.3")
def test_every_kind_that_is_owned_is_looked_at(
    applied: tuple[Cluster, Declaration], api: KubernetesClient, space: str
) -> None:
    """Each with its field, both values, the manager and the time; gone once it is as declared again."""
    cluster, _ = applied
    assert look(cluster) == {}
    began = clock.now()
    edit_pods(api, space, "99")
    binding, policy, limits = role_binding(space), network_policy(space), limit_range(space)
    binding["subjects"].append({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"})
    merge_patch(api, binding, SOMEBODY)
    policy["spec"]["ingress"] = []
    merge_patch(api, policy, SOMEBODY)
    limits["metadata"]["labels"] = dict.fromkeys(LABELS)
    merge_patch(api, limits, SOMEBODY)
    space_of = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": dict.fromkeys(LABELS)}}
    merge_patch(api, space_of, SOMEBODY)
    found = look(cluster)
    assert {kind: (drift.field, drift.declared, drift.live) for kind, drift in found.items()} == {
        "ResourceQuota": ("spec.hard.pods", "50", "99"),
        "RoleBinding": ("subjects[name=somebody]", "", found["RoleBinding"].live),
        "NetworkPolicy": ("spec.ingress", found["NetworkPolicy"].declared, ""),
        "LimitRange": ('metadata.labels["gpu-commons/managed"]', "true", ""),
        "Namespace": ('metadata.labels["gpu-commons/managed"]', "true", ""),
    }
    assert (found["ResourceQuota"].manager, found["ResourceQuota"].operation) == (SOMEBODY, "Update")
    changed = found["ResourceQuota"].changed_at
    assert changed is not None
    assert abs(changed - began) < timedelta(minutes=1)
    for manifest in (role_binding(space), network_policy(space), limit_range(space), workspace(space)[-1]):
        merge_patch(api, manifest, SOMEBODY)
    assert set(look(cluster)) == {"ResourceQuota"}
    gone = Drift.objects.filter(declaration__cluster=cluster, resolved_at__isnull=False)
    assert set(gone.values_list("resolution", flat=True)) == {DriftResolution.GONE}


@pytest.mark.requirement("drift-2.1", "drift-2.2")
def test_it_is_applied_again_or_left_until_a_date(
    applied: tuple[Cluster, Declaration], api: KubernetesClient, space: str, company: Company
) -> None:
    """Applied again: ours, and nothing else. Left: quiet until the date, and open again then."""
    cluster, _ = applied
    admin = Actor.of(company.admin)
    edit_pods(api, space, "99")
    policy = network_policy(space)
    policy["spec"]["ingress"] = []
    merge_patch(api, policy, SOMEBODY)
    found = look(cluster)
    drift_actions.ignore(found["NetworkPolicy"].pk, clock.now() + timedelta(days=7), "They test it.", actor=admin)
    drift_actions.reapply([found["ResourceQuota"].pk], "Nobody approved that.", actor=admin)
    work()
    assert hard(api, space, "gpu-quota")["pods"] == "50"
    assert not api.get("NetworkPolicy", "default-deny", space)["spec"].get("ingress")
    found["ResourceQuota"].refresh_from_db()
    assert found["ResourceQuota"].resolution == DriftResolution.REAPPLIED
    assert look(cluster) == {}
    with clock.frozen(clock.now() + timedelta(days=7, seconds=1)):
        assert set(look(cluster)) == {"NetworkPolicy"}


@pytest.mark.django_db
@pytest.mark.requirement("drift-2.3")
def test_it_is_adopted_by_a_request(api: KubernetesClient, kubeconfig: str, company: Company) -> None:
    """Approved: declared as it lives, applied, and nobody's drift any more."""
    world = made_world(company, registered(kubeconfig))
    world.granted("finance", 4)
    work()
    space = world.workspaces["finance"].namespace
    declared = hard(api, space)
    edit_pods(api, space, "321", "gpu-commons")
    drift = look(world.cluster)["ResourceQuota"]
    assert (drift.field, drift.live, drift.manager) == ("spec.hard.pods", "321", SOMEBODY)
    change = drift_changes.request_adoption([drift.pk], "The evaluation jobs need it.", actor=Actor.of(company.admin))
    approved(world, change)
    drift.refresh_from_db()
    assert drift.resolution == DriftResolution.ADOPTED
    assert hard(api, space) == declared | {"pods": "321"}
    assert look(world.cluster) == {}
    row = Declaration.objects.get(owner_uid=world.workspaces["finance"].uid)
    assert (row.status, row.observed_generation) == ("applied", row.generation)
