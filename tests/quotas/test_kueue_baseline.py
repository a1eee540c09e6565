"""The baseline of a cluster: one request for everybody, what is due, what waits for it, and quota upon it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.db.models import F

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import Grant
from apps.clusters import capabilities
from apps.clusters.capabilities import Capabilities, Kueue
from apps.clusters.models import Cluster, Node, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.provisioning.choices import DeclarationKind, DeclarationStatus
from apps.provisioning.models import Declaration, DeclaredObject
from apps.quotas import (
    baseline,
    baseline_asking,
    baseline_look,
    book,
    change_granting,
    change_records,
    changes,
    granting,
    kueue,
    kueue_state,
)
from apps.quotas.baseline_merge import brought_over
from apps.quotas.choices import ChangeKind, RequestStatus
from apps.quotas.manifests import Manifest, workspace_manifests
from apps.quotas.models import BaselineState, ChangeRequest
from apps.quotas.tasks import carry_out_changes, look_at_baselines, replan_changes, request_baselines
from apps.teams.models import RoleGrant
from tests.factories import client_for, make_user
from tests.quotas.change_kinds import CHANGE_POLICY
from tests.quotas.conftest import World
from tests.quotas.test_manifests import spec
from tests.rates.factories import make_flavour

REASON = "Kueue takes borrowed GPUs back from now on."
GPU = "nvidia.com/gpu"


@pytest.fixture
def deputy(world: World) -> User:
    """A second platform admin: nobody decides on what they requested themselves."""
    user = make_user("deputy")
    RoleGrant.objects.create(user=user, role="platform_admin", granted_by=world.company.admin)
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(world.company.admin))
    return user


def use_kueue(world: World, mode: str = "jobs", **found: Any) -> None:
    """An admin decides that Kueue, which a check has found, is used."""
    kueue_there = Kueue(installed=True, api_versions=("v1beta2",), **found)
    world.cluster.kueue_mode = mode
    world.cluster.capabilities = capabilities.as_json(Capabilities(kueue=kueue_there, checked_at=clock.now()))
    world.cluster.kueue_namespace_labels = {"kueue.x-k8s.io/managed-namespace": "true"}
    world.cluster.save()
    for workspace in world.workspaces.values():
        workspace.cluster.refresh_from_db()


def ask(world: World) -> ChangeRequest:
    return changes.request_change(
        ChangeKind.BASELINE, cluster_id=world.cluster.pk, values={}, reason=REASON, actor=Actor.of(world.company.admin)
    )


def approve(change: ChangeRequest, by: User) -> ChangeRequest:
    change.refresh_from_db()
    assert change.approval is not None
    approvals.decide(
        change.approval.pk, "approve", "Read and agreed.", actor=Actor.of(by),
        expected_digest=change.approval.subject_digest,
    )  # fmt: skip
    change.refresh_from_db()
    return change


def applied() -> None:
    """Everything declared is on the cluster."""
    Declaration.objects.update(observed_generation=F("generation"), status=DeclarationStatus.APPLIED)
    for declaration in Declaration.objects.order_by("pk"):
        if declaration.kind == DeclarationKind.WORKSPACE:
            granting.on_applied(declaration)
        change_granting.on_applied(declaration)


def declared(owner: uuid.UUID) -> list[Manifest]:
    rows = DeclaredObject.objects.filter(declaration__owner_uid=owner, removal="").order_by("ordinal", "pk")
    return [json.loads(bytes(row.body)) for row in rows]


def with_baseline(world: World, deputy: User, mode: str = "jobs") -> ChangeRequest:
    use_kueue(world, mode)
    change = approve(ask(world), deputy)
    applied()
    change.refresh_from_db()
    return change


def queue_numbers(world: World, team: str = "finance", flavour: str | None = None) -> dict[str, str]:
    queue = kueue.queue_of(declared(world.workspaces[team].uid))
    assert queue is not None
    wanted = flavour or world.flavour.slug
    entries = [f for g in queue["spec"]["resourceGroups"] for f in g["flavors"] if f["name"] == wanted]
    found: dict[str, str] = entries[0]["resources"][0]
    return found


@pytest.mark.requirement("kueue-3.1")
@pytest.mark.requirement("kueue-3.2")
def test_one_request_brings_the_cluster_and_every_workspace_into_kueue(world: World, deputy: User) -> None:
    for team, gpus in (("finance", 10), ("marketing", 8)):
        world.granted(team, gpus)
    applied()
    use_kueue(world)
    change = ask(world)
    lines = {(line["object"], line["count"]) for line in change.change["objects"]}
    unit = world.workspaces["finance"].team.unit
    assert {("ClusterQueue", 2), ("LocalQueue default", 2), (f"Cohort unit-{unit.slug}", 0)} <= lines
    assert change.change["declarations"][0]["kind"] == "baseline"
    approve(change, deputy)
    kinds = {m["kind"] for m in declared(world.cluster.uid)}
    assert kinds == {"PriorityClass", "WorkloadPriorityClass", "ResourceFlavor", "Cohort"}
    assert queue_numbers(world)["nominalQuota"] == "10"
    assert queue_numbers(world, "marketing")["nominalQuota"] == "8"
    namespace = declared(world.workspaces["finance"].uid)[0]
    assert namespace["metadata"]["labels"]["kueue.x-k8s.io/managed-namespace"] == "true"
    assert len(change.generations) == 3
    applied()
    change.refresh_from_db()
    assert change.status == RequestStatus.ACTIVE
    with pytest.raises(Invalid, match="nothing would change"):
        ask(world)
    page = client_for(world.company.admin).get(f"/quotas/baselines/{world.cluster.uid}/").content.decode()
    assert "there is nothing to request" in page
    assert "Submit the request" not in page


@pytest.mark.requirement("kueue-3.2")
def test_quota_that_lands_meanwhile_is_carried_and_voids_nothing(world: World, deputy: User) -> None:
    world.granted("finance", 10)
    applied()
    use_kueue(world)
    change = ask(world)
    world.granted("finance", 12)
    approve(change, deputy)
    assert queue_numbers(world)["nominalQuota"] == "12"


@pytest.mark.requirement("kueue-1.6")
@pytest.mark.requirement("kueue-1.4")
@pytest.mark.requirement("kueue-1.7")
def test_quota_upon_it_moves_the_queue_too_and_borrowing_counts(world: World, deputy: User) -> None:
    world.granted("finance", 10)
    with_baseline(world, deputy)
    request = world.ask("finance", 15, borrow_mode="limited", borrow_limit=5)
    paths = [leaf["path"].split("#")[0].split("/")[-3] for leaf in request.change["leaves"]]
    assert paths == ["ResourceQuota", "ClusterQueue"]
    before = declared(world.workspaces["finance"].uid)
    world.approve(request)
    assert request.status == RequestStatus.APPLYING
    after = declared(world.workspaces["finance"].uid)
    assert queue_numbers(world) == {"name": GPU, "nominalQuota": "15", "borrowingLimit": "5"}
    quota = next(m for m in after if m["kind"] == "ResourceQuota" and m["metadata"]["name"] == "gpu-commons")
    assert quota["spec"]["hard"][f"requests.{GPU}"] == "20"
    moved = [m["kind"] for m, n in zip(before, after, strict=True) if m != n]
    assert sorted(moved) == ["ClusterQueue", "ResourceQuota"]


@pytest.mark.requirement("kueue-1.1")
@pytest.mark.requirement("kueue-3.7")
def test_many_workspaces_are_declared_in_portions_under_the_same_grant(
    world: World, deputy: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_granting, "PORTION", 1)
    for team in ("finance", "marketing"):
        world.granted(team, 10)
    applied()
    use_kueue(world)
    change = approve(ask(world), deputy)
    assert len(change.generations) == 1  # the cluster's own
    assert len(change.change["pending"]) == 2
    applied()
    change.refresh_from_db()
    assert change.status == RequestStatus.APPLYING
    world.granted("marketing", 12)  # lands in between, and is carried
    assert carry_out_changes() == 2
    assert queue_numbers(world)["nominalQuota"] == "10"
    assert queue_numbers(world, "marketing")["nominalQuota"] == "12"
    applied()
    change.refresh_from_db()
    assert change.status == RequestStatus.ACTIVE
    assert carry_out_changes() == 0


@pytest.mark.requirement("kueue-3.2")
def test_plans_of_many_workspaces_are_asked_for_in_portions(
    world: World, deputy: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_records, "PORTION", 1)
    for team in ("finance", "marketing"):
        world.granted(team, 10)
    applied()
    use_kueue(world)
    change = ask(world)
    assert [plan.declaration_kind for plan in change_records.plans_of(change)] == ["baseline"]
    assert replan_changes() == 2
    assert len(change_records.plans_of(change)) == 3
    assert replan_changes() == 0
    world.granted("finance", 12)
    assert replan_changes() == 1
    assert change_records.plans_of(change)[0].closed_at is None


@pytest.mark.requirement("kueue-3.7")
def test_a_grant_that_was_revoked_declares_no_further_portion(
    world: World, deputy: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_granting, "PORTION", 1)
    world.granted("finance", 10)
    applied()
    use_kueue(world)
    change = approve(ask(world), deputy)
    Grant.objects.filter(request=change.approval).update(revoked_at=clock.now())
    with pytest.raises(Conflict, match="not usable"):
        change_granting.carry_out(change.pk)
    assert carry_out_changes() == 0
    assert kueue.queue_of(declared(world.workspaces["finance"].uid)) is None


@pytest.mark.requirement("kueue-3.4")
def test_a_new_workspace_waits_for_the_baseline_and_then_brings_its_queue(world: World, deputy: User) -> None:
    use_kueue(world)
    request = world.ask("finance", 10)
    with pytest.raises(Conflict, match="baseline"):
        world.approve(request)
    change = approve(ask(world), deputy)
    second = world.ask("marketing", 8)
    with pytest.raises(Conflict, match="still on its way"):
        world.approve(second)
    applied()
    change.refresh_from_db()
    assert change.status == RequestStatus.ACTIVE
    world.approve(second)
    assert queue_numbers(world, "marketing")["nominalQuota"] == "8"
    assert [m["kind"] for m in declared(world.workspaces["marketing"].uid)][-2:] == ["ClusterQueue", "LocalQueue"]
    # What was asked for before the workspace had a queue did not name it: it has to be corrected.
    with pytest.raises(Conflict, match="came into Kueue"):
        world.approve(request)


@pytest.mark.requirement("kueue-3.4")
def test_borrowing_waits_until_the_workspace_is_in_kueue(world: World, deputy: User) -> None:
    world.granted("finance", 10)
    applied()
    use_kueue(world)
    request = world.ask("finance", 15, borrow_mode="limited", borrow_limit=4)
    with pytest.raises(Conflict, match="not in Kueue yet"):
        world.approve(request)
    at = clock.now()
    assert book.gpu_limits(world.workspaces["finance"], at) == {GPU: 10}


@pytest.mark.requirement("kueue-3.4")
def test_a_flavour_that_the_baseline_lacks_is_named(world: World, deputy: User) -> None:
    world.granted("finance", 10)
    with_baseline(world, deputy)
    other = make_flavour(slug="a100-2", name="A100, second row", node_labels={"row": "2"})
    world.pool.flavours.add(other)
    found = kueue_state.blockers(world.workspaces["finance"], other, borrows=False, creates=False)
    assert "A100, second row" in found[0]


@pytest.mark.requirement("kueue-1.8")
def test_flavours_with_one_resource_name_are_told_apart_by_their_nodes(world: World, deputy: User) -> None:
    world.flavour.node_labels = {"nvidia.com/gpu.product": "A"}
    world.flavour.save()
    world.granted("finance", 10)
    other = make_flavour(slug="h100", gpu_model="NVIDIA-H100", node_labels={"nvidia.com/gpu.product": "H"})
    same = make_flavour(slug="h100-same", gpu_model="NVIDIA-H100", node_labels={})
    finance, now = world.workspaces["finance"], clock.now()
    assert book.indistinguishable(finance, other, now, None) == world.flavour
    with_baseline(world, deputy)
    assert book.indistinguishable(finance, other, now, None) is None
    assert book.indistinguishable(finance, same, now, None) == world.flavour


@pytest.mark.requirement("kueue-3.3")
def test_a_difference_is_noticed_said_once_and_changes_nothing(world: World, deputy: User) -> None:
    world.granted("finance", 10)
    with_baseline(world, deputy)
    assert look_at_baselines() == 0
    state = BaselineState.objects.get(cluster=world.cluster)
    assert not state.is_due
    before = declared(world.workspaces["finance"].uid)
    world.pool.flavours.add(make_flavour(slug="h100-new", name="H100, new"))
    assert look_at_baselines() == 1
    assert look_at_baselines() == 0
    state.refresh_from_db()
    assert state.is_due
    assert state.workspaces == 1
    assert declared(world.workspaces["finance"].uid) == before
    message = OutboxMessage.objects.get(event="quotas.baseline.due")
    assert set(message.recipient_ids) == {world.company.admin.pk, deputy.pk}
    approve(ask(world), deputy)
    applied()
    look_at_baselines()
    state.refresh_from_db()
    assert not state.is_due
    assert queue_numbers(world, flavour="h100-new")["nominalQuota"] == "0"


@pytest.mark.requirement("kueue-3.2")
def test_switching_kueue_off_takes_the_queues_away_by_request_only(world: World, deputy: User) -> None:
    world.granted("finance", 10)
    with_baseline(world, deputy)
    world.granted("finance", 12, borrow_mode="limited", borrow_limit=5)
    use_kueue(world, "off")
    assert kueue.queue_of(declared(world.workspaces["finance"].uid)) is not None
    change = ask(world)
    assert any(path.startswith("kueue.x-k8s.io/v1beta2/ClusterQueue") for path in change.change["removes"])
    change.refresh_from_db()
    assert change.approval is not None
    with pytest.raises(Conflict, match="not ready"):
        approve(change, deputy)
    from apps.provisioning.models import Plan

    Plan.objects.filter(subject_uid=change.uid).update(status="ready", entries=[])
    approve(change, deputy)
    objects = declared(world.workspaces["finance"].uid)
    assert not {"ClusterQueue", "LocalQueue"} & {m["kind"] for m in objects}
    # Nothing takes a borrowed GPU back any more.
    assert book.gpu_limits(world.workspaces["finance"], clock.now()) == {GPU: 12}
    quota = next(m for m in objects if m["kind"] == "ResourceQuota" and m["metadata"]["name"] == "gpu-commons")
    assert quota["spec"]["hard"][f"requests.{GPU}"] == "12"


@pytest.mark.requirement("kueue-3.1")
def test_taints_of_the_nodes_are_in_the_flavour_and_their_topology_beside_it(world: World, deputy: User) -> None:
    world.flavour.node_labels = {"nvidia.com/gpu.product": world.flavour.gpu_model}
    world.flavour.save()
    taint = {"key": GPU, "effect": "NoSchedule"}
    for name in ("n1", "n2"):
        Node.objects.create(
            cluster=world.cluster, name=name, gpu_model=world.flavour.gpu_model, observed_at=clock.now(),
            labels={"topology.kubernetes.io/rack": "r1"}, taints=[taint],
        )  # fmt: skip
    use_kueue(world, topology=True)
    rendered = baseline.rendered_baseline(world.cluster)
    flavour = next(m for m in rendered if m["metadata"]["name"] == world.flavour.slug)
    assert flavour["spec"]["nodeTaints"] == [taint]
    topology = next(m for m in rendered if m["kind"] == "Topology")
    assert topology["spec"]["levels"][0] == {"nodeLabel": "topology.kubernetes.io/rack"}
    assert "topologyName" not in flavour["spec"]  # it would take no job that asks for no placement
    use_kueue(world, topology=False)
    assert not any(m["kind"] == "Topology" for m in baseline.rendered_baseline(world.cluster))


@pytest.mark.requirement("kueue-3.6")
def test_other_parts_contribute_objects(world: World, deputy: User) -> None:
    extra = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "extra", "labels": baseline.labels()}}

    def contributor(cluster: Any) -> list[Manifest]:
        return [extra]

    baseline.contribute(contributor)
    try:
        approve(ask(world), deputy)
        assert extra in declared(world.cluster.uid)
    finally:
        baseline.withdraw_contribution(contributor)


@pytest.mark.requirement("kueue-3.5")
def test_adopted_fields_and_objects_stay_when_a_workspace_is_rendered_anew() -> None:
    stored = workspace_manifests(spec("development"))
    stored[0]["metadata"]["labels"]["owner"] = "by-hand"
    stored[2]["spec"]["hard"]["pods"] = "333"
    stored[5]["spec"]["egress"] = []
    fresh = workspace_manifests(spec("development", pods=250, jobs=7))
    adopted = {
        "v1/ResourceQuota/finance-development/gpu-commons#/spec/hard/pods",
        "v1/Namespace//finance-development#/metadata/labels/owner",
        "networking.k8s.io/v1/NetworkPolicy/finance-development/gpu-commons-default-deny",
    }
    merged = brought_over(stored, fresh, adopted)
    assert merged[2]["spec"]["hard"]["pods"] == "333"
    assert merged[2]["spec"]["hard"]["count/jobs.batch"] == "7"
    assert merged[0]["metadata"]["labels"]["owner"] == "by-hand"
    assert merged[5] == stored[5]
    plain = brought_over(stored, fresh)
    assert plain == fresh


@pytest.mark.requirement("kueue-3.2")
@pytest.mark.requirement("kueue-3.3")
def test_pages_show_what_is_due_and_take_the_request(world: World, deputy: User) -> None:
    world.granted("finance", 10)
    applied()
    use_kueue(world)
    look_at_baselines()
    client = client_for(world.company.admin)
    url = f"/quotas/baselines/{world.cluster.uid}/"
    page = client.get(f"/clusters/{world.cluster.slug}/").content.decode()
    assert "No baseline yet" in page
    assert url in page
    page = client.get(url).content.decode()
    assert "ClusterQueue" in page
    answer = client.post(url, {"reason": REASON})
    assert answer.status_code == 303
    change = ChangeRequest.objects.get()
    assert answer.headers["Location"] == f"/quotas/changes/{change.uid}/"
    assert client.get(answer.headers["Location"]).status_code == 200
    assert client.get(url).status_code == 409
    page = client.get(f"/clusters/{world.cluster.slug}/").content.decode()
    assert "On its way" in page
    assert client_for(world["lead_finance"]).get(url).status_code in (403, 404)


@pytest.mark.requirement("kueue-3.2")
def test_kueue_that_no_check_has_found_is_not_used(world: World, deputy: User) -> None:
    world.cluster.kueue_mode = "jobs"
    world.cluster.capabilities = capabilities.as_json(
        Capabilities(kueue=Kueue(installed=False), checked_at=clock.now())
    )
    world.cluster.save()
    with pytest.raises(Invalid, match="not found"):
        ask(world)
    assert baseline_look.preview(world.cluster).problem
    assert Pool.objects.filter(cluster=world.cluster).exists()


@pytest.mark.requirement("change-requests-3.4")
def test_a_large_clusters_baseline_is_requested_by_a_worker_and_followed(
    world: World, deputy: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page answers at once, shows that it is worked out, and goes on to the request in the person's name."""
    monkeypatch.setattr(baseline_asking, "LARGE", 3)
    world.granted("finance", 10)
    applied()
    use_kueue(world)
    look_at_baselines()
    client = client_for(world.company.admin)
    url = f"/quotas/baselines/{world.cluster.uid}/"
    monkeypatch.setattr(baseline_look, "preview", lambda cluster: pytest.fail("a page renders a large cluster"))
    page = client.get(url).content.decode()
    assert "as last looked at" in page
    assert 'name="reason"' in page
    assert client.post(url, {"reason": "no"}).status_code == 400
    answer = client.post(url, {"reason": REASON})
    assert (answer.status_code, answer.headers["Location"]) == (303, url)
    assert not ChangeRequest.objects.exists()
    page = client.get(url).content.decode()
    assert "Being worked out" in page
    assert 'hx-trigger="every 2s"' in page
    assert 'name="reason"' not in page
    assert client.post(url, {"reason": REASON}).status_code == 409
    follow = {"HX-Request": "true", "HX-Target": "baseline-asked"}
    assert "HX-Redirect" not in client.get(url, headers=follow).headers
    assert request_baselines.run() == 1
    assert request_baselines.run() == 0
    change = ChangeRequest.objects.get()
    assert (change.requester, change.reason) == (world.company.admin, REASON)
    assert client.get(url, headers=follow).headers["HX-Redirect"] == f"/quotas/changes/{change.uid}/"


@pytest.mark.requirement("change-requests-3.4")
def test_why_a_large_clusters_baseline_could_not_be_requested_is_told(
    world: World, deputy: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the worker finds out stands on the page, and can be asked for again."""
    monkeypatch.setattr(baseline_asking, "LARGE", 3)
    with pytest.raises(NotAllowed):
        baseline_asking.request(world.cluster.pk, REASON, actor=Actor.of(world["lead_finance"]))
    actor = Actor.of(world.company.admin)
    world.granted("finance", 10)
    applied()
    use_kueue(world)
    assert baseline_asking.request(world.cluster.pk, REASON, actor=actor) is None
    with pytest.raises(Conflict, match="worked out already"):
        baseline_asking.request(world.cluster.pk, REASON, actor=actor)
    Cluster.objects.filter(pk=world.cluster.pk).update(archived_at=clock.now())
    assert request_baselines.run() == 1
    assert not ChangeRequest.objects.exists()
    follow = {"HX-Request": "true", "HX-Target": "baseline-asked"}
    client, url = client_for(world.company.admin), f"/quotas/baselines/{world.cluster.uid}/"
    assert client.get(url, headers=follow).headers["HX-Refresh"] == "true"
    assert "is archived" in client.get(url).content.decode()
    Cluster.objects.filter(pk=world.cluster.pk).update(archived_at=None)
    assert baseline_asking.request(world.cluster.pk, REASON, actor=actor) is None
    assert request_baselines.run() == 1
    assert ChangeRequest.objects.count() == 1
