"""Adopting a namespace of a Kubernetes API server: nothing of theirs changes, and nobody is promised too much."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.choices import RequestStatus as ApprovalStatus
from apps.audit.models import AuditEvent
from apps.clusters import capabilities
from apps.clusters.capabilities import Capabilities, Kueue
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import Forbidden
from apps.clusters.models import Cluster, Node, Pool, PoolCapacity
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning.models import Declaration
from apps.quotas import adopting, adopting_reader, baseline_merge, changes
from apps.quotas.adopting_proposal import proposal_of
from apps.quotas.choices import ChangeKind, ReadingStatus, RequestStatus
from apps.quotas.models import ChangeRequest, NamespaceReading, Quota, Workspace
from apps.quotas.tasks import read_namespaces
from apps.teams.models import RoleGrant
from tests.cluster.fixtures import client_of, fresh_namespace, register, simulated, simulator
from tests.factories import Company, make_user
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.quotas.conftest import World, make_world
from tests.rates.factories import make_flavour

__all__ = ["simulated", "simulator"]
pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("provisioning.", "quotas.", "approvals.")
REASON = "Finance has trained there for a year; the portal takes it over."
GPU = "nvidia.com/gpu"
KINDS = ("ResourceQuota", "LimitRange", "RoleBinding", "NetworkPolicy", "Pod")


@pytest.fixture
def live(simulated: SimulatedCluster) -> KubernetesClient:
    """A look at the cluster beside the portal."""
    return client_of(simulated)


@pytest.fixture
def place(company: Company, simulated: SimulatedCluster) -> World:
    """The world on the simulated cluster, without workspaces, with team names that no other test uses."""
    return make_place(company, simulated)


@pytest.fixture
def queued(company: Company, tmp_path: Path) -> Iterator[tuple[World, KubernetesClient]]:
    """The same on a cluster with Kueue, which an admin uses for jobs."""
    with SimulatedCluster(tmp_path / "state", kueue=True) as cluster:
        world = make_place(company, cluster)
        world.cluster.kueue_mode = "jobs"
        there = Kueue(installed=True, api_versions=("v1beta2",))
        world.cluster.capabilities = capabilities.as_json(Capabilities(kueue=there, checked_at=clock.now()))
        world.cluster.save()
        yield world, client_of(cluster)


def make_place(company: Company, simulated: SimulatedCluster) -> World:
    for team in company.teams.values():
        team.slug = fresh_namespace("q")
        team.save()
    world = make_world(company, register(simulated))
    Workspace.objects.all().delete()
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(company.admin))
    return world


def theirs(name: str) -> list[dict[str, Any]]:
    """What a team made for itself."""
    rbac = "rbac.authorization.k8s.io"
    meta = {"namespace": name}
    return [
        {
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {**meta, "name": "team-quota"},
            "spec": {"hard": {f"requests.{GPU}": "8", "requests.cpu": "400", "pods": "300",
                              "requests.example.com/tpu": "2"}},
        },
        {
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {**meta, "name": "theirs"},
            "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "250m"}}]},
        },
        {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": {**meta, "name": "old-admins"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"apiGroup": rbac, "kind": "Group", "name": "old-team"}],
        },
        {
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {**meta, "name": "open"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]},
        },
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": "training"},
            "spec": {"containers": [{"name": "main", "image": "example.com/train:1",
                                     "resources": {"requests": {"cpu": "2", "memory": "4Gi", GPU: "3"},
                                                   "limits": {GPU: "3"}}}]},
        },
    ]  # fmt: skip


def make_theirs(live: KubernetesClient, *, labels: dict[str, str] | None = None) -> str:
    """Make a namespace as somebody else did, by create and with another manager."""
    name = fresh_namespace("adopt")
    level = {"pod-security.kubernetes.io/enforce": "privileged"} if labels is None else labels
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": level}}
    live.apply(namespace, manager="their-tool")
    for manifest in theirs(name):
        if manifest["kind"] == "Pod":
            live.create(manifest)
        else:
            live.apply(manifest, manager="their-tool")
    return name


def ask_reading(world: World, name: str, **values: Any) -> NamespaceReading:
    data: dict[str, Any] = {
        "namespace": name, "team_id": world.company.finance_team.pk, "environment": "development",
        "data_classes": ["internal"],
    }  # fmt: skip
    return adopting.request_reading(world.cluster.pk, **(data | values), actor=Actor.of(world.company.admin))


def read(world: World, name: str, **values: Any) -> NamespaceReading:
    reading = ask_reading(world, name, **values)
    read_namespaces.run()
    reading.refresh_from_db()
    return reading


def ask(world: World, reading: NamespaceReading, units: int = 8) -> ChangeRequest:
    change = adopting.request_adoption(
        reading.pk, {world.flavour.slug: units}, REASON, actor=Actor.of(world.company.admin)
    )
    settle(only=ONLY)
    change.refresh_from_db()
    return change


def approve(change: ChangeRequest, by: User) -> ChangeRequest:
    change.refresh_from_db()
    assert change.approval is not None
    approvals.decide(
        change.approval.pk, "approve", "Read and agreed.", actor=Actor.of(by),
        expected_digest=change.approval.subject_digest,
    )  # fmt: skip
    settle(only=ONLY)
    change.refresh_from_db()
    return change


def snapshot(live: KubernetesClient, name: str) -> dict[str, dict[str, Any]]:
    """Everything that lives there but what the cluster's own controllers count."""
    found = {}
    for kind in KINDS:
        for item in live.list(kind, name).items:
            if "gpu-commons/managed" not in (item["metadata"].get("labels") or {}) and kind != "Pod":
                item.pop("status", None)
                found[f"{kind}/{item['metadata']['name']}"] = item
    return found


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("adoption-1.1", "adoption-2.1", "adoption-2.2")
def test_what_is_there_becomes_a_proposal(place: World, live: KubernetesClient) -> None:
    name = make_theirs(live)
    reading = read(place, name)
    assert reading.status == ReadingStatus.DONE, reading.error
    assert reading.steps == [key for key, _ in adopting_reader.STEPS]
    found = proposal_of(reading, clock.now())
    row = next(one for one in found.gpus if one.flavour == place.flavour)
    assert (row.proposed, row.fits) == (8, True)
    assert "their limit is 8" in row.source
    assert "3 in use" in row.source
    assert any("example.com/tpu" in note for note in found.notes)
    assert (found.limits["cpu_cores"], found.limits["pods"], found.limits["memory_gib"]) == (400, 300, 2048)
    assert found.labels == {"pod-security.kubernetes.io/enforce": "privileged"}
    stays = {one["object"]: one for one in found.kept}
    assert {"ResourceQuota team-quota", "LimitRange theirs", "RoleBinding old-admins", "NetworkPolicy open"} <= set(
        stays
    )
    assert f"requests.{GPU} 8" in stays["ResourceQuota team-quota"]["what"]
    assert "ClusterRole admin to Group old-team" in stays["RoleBinding old-admins"]["what"]
    assert "ingress: everything" in stays["NetworkPolicy open"]["what"]
    assert found.clashes == []
    assert not Workspace.objects.exists()
    assert not any("gpu-commons" in one["metadata"]["name"] for one in live.list("ResourceQuota", name).items)


@pytest.mark.requirement("adoption-2.1")
def test_without_a_limit_it_is_what_is_in_use(place: World, live: KubernetesClient) -> None:
    """Two flavours carry one name: where the pods run tells them apart; a pool that is too small says so."""
    name = make_theirs(live)
    live.delete("ResourceQuota", "team-quota", name)
    other = make_flavour("h100", gpu_model="NVIDIA-H100-80GB-HBM3", node_labels={})
    Pool.objects.create(cluster=place.cluster, gpu_model=other.gpu_model).flavours.set([other])
    reading = read(place, name)
    node = next(iter(reading.found["pods"]["gpus"][GPU]))
    Node.objects.filter(cluster=place.cluster, name=node).delete()
    found = proposal_of(reading, clock.now())
    assert [row.proposed for row in found.gpus] == [0, 0]
    assert any("cannot be told apart" in note for note in found.notes)
    Node.objects.create(cluster=place.cluster, name=node, gpu_model=place.flavour.gpu_model, observed_at=clock.now())
    found = proposal_of(reading, clock.now())
    assert {row.flavour.slug: row.proposed for row in found.gpus} == {place.flavour.slug: 3, "h100": 0}
    PoolCapacity.objects.filter(pool=place.pool).update(committable_gpus=2)
    row = next(one for one in proposal_of(reading, clock.now()).gpus if one.flavour == place.flavour)
    assert not row.fits
    assert "2 GPUs left" in row.room
    with pytest.raises(Invalid) as refused:
        ask(place, reading, 3)
    assert "more than the pool has" in str(refused.value.errors[f"gpus_{place.flavour.slug}"])


@pytest.mark.requirement("adoption-1.2")
@pytest.mark.parametrize("name", ["kube-system", "default", "openshift-monitoring", "gpu-commons", "Nope", "a.b"])
def test_some_namespaces_are_nobodys(place: World, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        ask_reading(place, name)
    assert set(refused.value.errors) == {"namespace"}


@pytest.mark.requirement("adoption-1.1", "adoption-1.2")
def test_who_and_what_is_refused(place: World) -> None:
    with pytest.raises(NotAllowed):
        adopting.request_reading(
            place.cluster.pk, "team-a", place.company.finance_team.pk, "staging", [], actor=Actor.of(place.company.vp)
        )
    taken = Workspace.objects.create(
        team=place.company.finance_team, cluster=place.cluster, environment="staging", namespace="taken"
    )
    with pytest.raises(Invalid, match="belongs to a workspace already"):
        ask_reading(place, taken.namespace)
    with pytest.raises(Invalid, match="has a staging workspace"):
        ask_reading(place, "team-a", environment="staging")


@pytest.mark.requirement("adoption-1.3")
def test_what_cannot_be_read_says_why(place: World, live: KubernetesClient, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = read(place, "not-there")
    assert (missing.status, missing.error_class) == (ReadingStatus.FAILED, "missing")
    name = make_theirs(live)
    with monkeypatch.context() as patch:
        patch.setattr(adopting_reader, "MOST_PODS", 0)
        large = read(place, name)
    assert (large.status, large.error_class) == (ReadingStatus.FAILED, "too_many")
    assert "more than 0 pods" in large.error
    pages = KubernetesClient.pages

    def closed(self: KubernetesClient, kind: str, *args: Any, **kwargs: Any) -> Any:
        if kind == "RoleBinding":
            raise Forbidden("rolebindings is forbidden", status=403)
        return pages(self, kind, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(KubernetesClient, "pages", closed)
        refused = read(place, name)
    assert (refused.status, refused.error_class) == (ReadingStatus.FAILED, "forbidden")
    assert "may not list rolebindings (rbac.authorization.k8s.io)" in refused.error
    again = adopting.read_again(refused.pk, actor=Actor.of(place.company.admin))
    read_namespaces.run()
    again.refresh_from_db()
    assert again.status == ReadingStatus.DONE
    ended = {"metadata": {"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {}}
    monkeypatch.setattr(KubernetesClient, "get", lambda *args, **kwargs: ended)
    gone = read(place, name)
    assert (gone.status, gone.error_class) == (ReadingStatus.FAILED, "terminating")


@pytest.mark.requirement("adoption-1.4")
def test_a_cluster_that_is_away_is_asked_again(place: World, live: KubernetesClient) -> None:
    name = make_theirs(live)
    address = place.cluster.api_url
    Cluster.objects.filter(pk=place.cluster.pk).update(api_url="https://127.0.0.1:1")
    reading = read(place, name)
    assert (reading.status, reading.attempts) == (ReadingStatus.PENDING, 1)
    assert reading.error
    assert reading.retry_at is not None
    assert read_namespaces.run() == 0  # not before it is due
    Cluster.objects.filter(pk=place.cluster.pk).update(api_url=address)
    with clock.frozen(clock.now() + timedelta(minutes=10)):
        read_namespaces.run()
    reading.refresh_from_db()
    assert (reading.status, reading.error) == (ReadingStatus.DONE, "")


# -- clashes -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("adoption-2.3")
def test_what_lives_differently_blocks_until_a_person_resolves_it(place: World, live: KubernetesClient) -> None:
    """Held by a manager or by nobody, an object of our name or a label of the namespace."""
    name = make_theirs(live, labels={"gpu-commons/team": "somebody"})
    ours = theirs(name)[0] | {"metadata": {"name": "gpu-commons", "namespace": name}, "spec": {"hard": {"pods": "150"}}}
    live.apply(ours, manager="their-tool")
    found = live.get("Namespace", name)
    live.disown(found, "their-tool")
    reading = read(place, name)
    clashes = {(one["object"], one["field"]): one for one in proposal_of(reading, clock.now()).clashes}
    label = clashes[(f"Namespace {name}", 'metadata.labels["gpu-commons/team"]')]
    assert (label["live"], label["wanted"]) == ("somebody", place.company.finance_team.slug)
    pods = clashes[("ResourceQuota gpu-commons", "spec.hard.pods")]
    assert (pods["live"], pods["manager"]) == ("150", "their-tool")
    with pytest.raises(Invalid, match="Resolve it on the cluster first"):
        ask(place, reading)
    assert not ChangeRequest.objects.exists()
    live.delete("ResourceQuota", "gpu-commons", name)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    labelled = {"name": name, "labels": {"gpu-commons/team": "somebody"}}
    live.apply(namespace | {"metadata": labelled}, manager="repair")
    live.apply(namespace, manager="repair")
    adopting.read_again(reading.pk, actor=Actor.of(place.company.admin))
    read_namespaces.run()
    reading.refresh_from_db()
    assert proposal_of(reading, clock.now()).clashes == []


# -- request and grant ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("adoption-3.1", "adoption-3.3")
def test_a_granted_adoption_adds_ours_and_changes_nothing_of_theirs(place: World, live: KubernetesClient) -> None:
    name = make_theirs(live)
    before, space = snapshot(live, name), live.get("Namespace", name)
    change = ask(place, read(place, name))
    assert (change.status, change.receiver) == (RequestStatus.IN_REVIEW, place.company.finance_team)
    assert change.approval is not None
    assert (change.approval.team, change.approval.unit) == (place.company.finance_team, place.company.unit)
    assert not Workspace.objects.exists()
    for person in (place.company.admin, place["lead_finance"], place["member_finance"]):
        with pytest.raises((NotAllowed, NotVisible)):
            approve(change, person)
    assert snapshot(live, name) == before
    approve(change, place.company.vp)
    assert change.status == RequestStatus.ACTIVE
    workspace = Workspace.objects.get()
    assert (workspace.namespace, workspace.environment, workspace.cpu_cores) == (name, "development", 400)
    quota = Quota.objects.get()
    assert (quota.workspace, quota.guaranteed, quota.valid.upper) == (workspace, 8, None)
    assert live.get("ResourceQuota", "gpu-commons", name)["spec"]["hard"][f"requests.{GPU}"] == "8"
    # Byte for byte, managers and resource versions included.
    assert snapshot(live, name) == before
    after = live.get("Namespace", name)
    assert before
    assert space["metadata"]["labels"].items() <= after["metadata"]["labels"].items()
    assert after["metadata"]["labels"]["gpu-commons/workspace"] == str(workspace.uid)
    managers = {one["manager"] for one in after["metadata"]["managedFields"]}
    assert {"their-tool", "gpu-commons"} <= managers
    assert AuditEvent.objects.filter(action="quotas.namespace.adopted").count() == 1
    # It is a workspace like any other from now on.
    place.workspaces["finance"] = workspace
    request = place.ask(guaranteed=10)
    if request.status == RequestStatus.IN_REVIEW:
        place.approve(request)
    settle(only=ONLY)
    assert live.get("ResourceQuota", "gpu-commons", name)["spec"]["hard"][f"requests.{GPU}"] == "10"


@pytest.mark.requirement("adoption-3.1")
def test_a_rejected_adoption_leaves_nothing_behind(place: World, live: KubernetesClient) -> None:
    name = make_theirs(live)
    reading = read(place, name)
    change = ask(place, reading)
    with pytest.raises(Invalid, match="requested already"):
        ask_reading(place, name)
    with pytest.raises(Conflict):
        adopting.read_again(reading.pk, actor=Actor.of(place.company.admin))
    assert change.approval is not None
    approvals.decide(
        change.approval.pk, "reject", "They move elsewhere.", actor=Actor.of(place.company.vp),
        expected_digest=change.approval.subject_digest,
    )  # fmt: skip
    settle(only=ONLY)
    assert not Workspace.objects.exists()
    assert not Declaration.objects.exists()
    assert "gpu-commons/managed" not in live.get("Namespace", name)["metadata"]["labels"]
    assert ask_reading(place, name).status == ReadingStatus.PENDING


@pytest.mark.requirement("adoption-3.2")
def test_where_the_pool_is_full_it_waits(place: World, live: KubernetesClient) -> None:
    """No workspace, no quota, nothing declared; with room it is granted by itself."""
    change = ask(place, read(place, make_theirs(live)))
    other = Workspace.objects.create(
        team=place.company.marketing_team, cluster=place.cluster, environment="staging", namespace=fresh_namespace("w")
    )
    held = Quota.objects.create(workspace=other, flavour=place.flavour, guaranteed=45, valid=(clock.now(), None))
    approve(change, place.company.vp)
    assert change.status == RequestStatus.WAITING
    assert change.approval is not None
    assert change.approval.status == ApprovalStatus.WAITING
    assert change.approval.queue == f"pool:{place.pool.uid}"
    assert not Workspace.objects.filter(team=place.company.finance_team).exists()
    held.delete()
    settle(only=ONLY)
    change.refresh_from_db()
    assert change.status == RequestStatus.ACTIVE
    assert Quota.objects.get().guaranteed == 8


@pytest.mark.requirement("adoption-3.4")
def test_what_changes_on_the_cluster_meanwhile_is_not_approved(place: World, live: KubernetesClient) -> None:
    name = make_theirs(live)
    reading = read(place, name)
    with clock.frozen(clock.now() + timedelta(hours=25)), pytest.raises(Invalid, match="read it again first"):
        adopting.request_adoption(reading.pk, {}, REASON, actor=Actor.of(place.company.admin))
    change = ask(place, reading)
    handler = changes.handler_of(ChangeKind.ADOPT_NAMESPACE)
    assert handler.blockers(change, clock.now()) == []  # type: ignore[attr-defined]  # this kind has them
    assert "more than a day old" in handler.blockers(change, clock.now() + timedelta(hours=25))[0]  # type: ignore[attr-defined]  # the same
    more = theirs(name)[0]
    more["spec"]["hard"][f"requests.{GPU}"] = "12"
    live.apply(more, manager="their-tool")
    NamespaceReading.objects.filter(pk=reading.pk).update(read_at=F("read_at") - timedelta(hours=13))
    settle(only=ONLY)
    reading.refresh_from_db()
    assert reading.status == ReadingStatus.DONE
    assert "has changed on the cluster" in handler.blockers(change, clock.now())[0]  # type: ignore[attr-defined]  # the same
    with pytest.raises((Conflict, NotAllowed)):
        approve(change, place.company.vp)
    assert not Workspace.objects.exists()


@pytest.mark.requirement("adoption-3.4", "adoption-3.3")
def test_an_object_of_our_name_that_appears_after_the_grant_is_not_overwritten(
    place: World, live: KubernetesClient
) -> None:
    from apps.clusters.actions import pause, resume

    name = make_theirs(live)
    change = ask(place, read(place, name))
    admin = Actor.of(place.company.admin)
    pause(place.cluster.pk, "Network.", actor=admin)
    approve(change, place.company.vp)
    meta = {"name": "gpu-commons", "namespace": name}
    theirs_now = theirs(name)[0] | {"metadata": meta, "spec": {"hard": {"pods": "150"}}}
    live.apply(theirs_now, manager="their-tool")
    before = live.get("ResourceQuota", "gpu-commons", name)
    resume(place.cluster.pk, actor=admin)
    settle(only=ONLY)
    declaration = Declaration.objects.get()
    assert (declaration.status, declaration.error_class) == ("stopped", "conflict")
    assert (
        live.get("ResourceQuota", "gpu-commons", name)["metadata"]["managedFields"]
        == before["metadata"]["managedFields"]
    )
    assert "gpu-commons/managed" not in live.get("Namespace", name)["metadata"]["labels"]


@pytest.mark.requirement("adoption-3.5")
def test_a_later_baseline_keeps_what_was_taken_over(place: World, live: KubernetesClient) -> None:
    change = ask(place, read(place, make_theirs(live)))
    approve(change, place.company.vp)
    adopted = baseline_merge.adopted_fields(place.cluster)
    workspace = Workspace.objects.get()
    path = f"v1/Namespace//{workspace.namespace}#/metadata/labels/pod-security.kubernetes.io~1enforce"
    assert adopted == {workspace.uid: {path}}


# -- with Kueue ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("adoption-2.3", "adoption-3.3")
def test_with_kueue_it_gets_a_queue_of_its_own_name(queued: tuple[World, KubernetesClient]) -> None:
    """Not before the baseline is there; a LocalQueue of theirs called `default` is a clash."""
    place, live = queued
    name = make_theirs(live)
    reading = read(place, name)
    with pytest.raises(Invalid, match="baseline"):
        ask(place, reading)
    deputy = make_user("deputy")
    RoleGrant.objects.create(user=deputy, role="platform_admin", granted_by=place.company.admin)
    baseline = changes.request_change(
        ChangeKind.BASELINE, cluster_id=place.cluster.pk, values={}, reason=REASON, actor=Actor.of(place.company.admin)
    )
    settle(only=ONLY)
    approve(baseline, deputy)
    assert baseline.status == RequestStatus.ACTIVE, Declaration.objects.get(kind="baseline").last_error
    queue = {
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue",
        "metadata": {"name": "default", "namespace": name}, "spec": {"clusterQueue": "of-theirs"},
    }  # fmt: skip
    live.apply(queue, manager="their-tool")
    adopting.read_again(reading.pk, actor=Actor.of(place.company.admin))
    read_namespaces.run()
    reading.refresh_from_db()
    found = proposal_of(reading, clock.now())
    assert [(one["object"], one["live"]) for one in found.clashes] == [("LocalQueue default", "of-theirs")]
    assert any("not admitted by Kueue" in text for text in found.warnings)
    live.delete("LocalQueue", "default", name)
    adopting.read_again(reading.pk, actor=Actor.of(place.company.admin))
    read_namespaces.run()
    before = snapshot(live, name)
    reading.refresh_from_db()
    change = approve(ask(place, reading), place.company.vp)
    assert change.status == RequestStatus.ACTIVE
    assert live.get("LocalQueue", "default", name)["spec"]["clusterQueue"] == name
    groups = live.get("ClusterQueue", name)["spec"]["resourceGroups"]
    shares = {f["name"]: f["resources"][0]["nominalQuota"] for g in groups for f in g["flavors"]}
    assert shares[place.flavour.slug] == "8"
    assert snapshot(live, name) == before


# -- pods ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("adoption-2.1")
def test_a_pod_asks_for_its_containers_or_its_largest_init_container() -> None:
    def container(**amounts: str) -> dict[str, Any]:
        return {"resources": {"requests": amounts}}

    pod = {
        "spec": {
            "containers": [container(cpu="500m"), {"resources": {"limits": {GPU: "2"}}}],
            "initContainers": [container(cpu="2"), container(**{GPU: "1"}), container(memory="what")],
        }
    }
    asked = adopting_reader.asked_by(pod)
    assert {name: str(value) for name, value in asked.items()} == {"cpu": "2", GPU: "2"}
