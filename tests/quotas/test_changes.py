"""Change requests: frozen, approved, proposed again, declared, applied; what moved meanwhile is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.provisioning.choices import PlanStatus, Removal
from apps.provisioning.models import Declaration, DeclaredObject, Plan
from apps.quotas import change_granting, change_records, change_subject, changes
from apps.quotas.change_diff import Side, changes_of, grouped, leaves
from apps.quotas.choices import RequestStatus
from apps.quotas.models import ChangeRequest
from tests.quotas.change_kinds import CHANGE_POLICY, PodsHandler
from tests.quotas.conftest import World

REASON = "Many small evaluation jobs at once."


@pytest.fixture
def handler() -> Iterator[PodsHandler]:
    held = changes._handlers.pop("limits", None)
    made = PodsHandler()
    changes.register_change(made)
    yield made
    changes.unregister_change("limits")
    if held is not None:
        changes.register_change(held)


@pytest.fixture
def changing(world: World, handler: PodsHandler) -> World:
    """Finance holds quota, and the policy for changes is published."""
    approvals.publish_policy("change", "Changes", "quotas.change", CHANGE_POLICY, actor=Actor.of(world.company.admin))
    world.granted("finance", 10)
    return world


def ask(world: World, pods: int = 300, *, by: Any = None, team: str = "finance", **values: Any) -> ChangeRequest:
    return changes.request_change(
        "limits",
        cluster_id=world.cluster.pk,
        workspace_id=world.workspaces[team].pk,
        values={"pods": pods, **values},
        reason=REASON,
        actor=Actor.of(by or world[f"lead_{team}"]),
    )


def approve(world: World, change: ChangeRequest, *, by: Any = None) -> ChangeRequest:
    change.refresh_from_db()
    assert change.approval is not None
    approvals.decide(
        change.approval.pk,
        "approve",
        "Fits the plan of the quarter.",
        actor=Actor.of(by or world.company.vp),
        expected_digest=change.approval.subject_digest,
    )
    change.refresh_from_db()
    return change


def quota_of(world: World, team: str = "finance") -> dict[str, str]:
    import json

    row = DeclaredObject.objects.get(declaration__owner_uid=world.workspaces[team].uid, kind="ResourceQuota")
    hard: dict[str, str] = json.loads(bytes(row.body))["spec"]["hard"]
    return hard


@pytest.mark.requirement("change-requests-1.1")
@pytest.mark.requirement("change-requests-2.1")
def test_a_change_is_frozen_planned_approved_and_declared(changing: World, handler: PodsHandler) -> None:
    change = ask(changing)
    assert change.status == RequestStatus.IN_REVIEW
    assert [leaf["path"].split("#")[1] for leaf in change.change["leaves"]] == ["/spec/hard/pods"]
    assert change.plan is not None
    assert change.plan.status == PlanStatus.PENDING
    assert quota_of(changing)["pods"] == "200"
    approve(changing, change)
    assert change.status == RequestStatus.APPLYING
    assert handler.granted == [change.title]
    assert quota_of(changing)["pods"] == "300"
    declaration = Declaration.objects.get(owner_uid=changing.workspaces["finance"].uid)
    assert change.generations == {str(declaration.uid): declaration.generation}


@pytest.mark.requirement("change-requests-2.5")
def test_applied_once_every_generation_is_on_the_cluster(changing: World) -> None:
    change = approve(changing, ask(changing))
    declaration = Declaration.objects.get(owner_uid=changing.workspaces["finance"].uid)
    change_granting.on_applied(declaration)
    change.refresh_from_db()
    assert change.status == RequestStatus.APPLYING
    declaration.observed_generation = declaration.generation
    declaration.save(update_fields=["observed_generation"])
    change_granting.on_applied(declaration)
    change.refresh_from_db()
    assert change.status == RequestStatus.ACTIVE
    message = OutboxMessage.objects.get(event="quotas.change.applied")
    assert changing["lead_finance"].pk in message.recipient_ids


@pytest.mark.requirement("change-requests-2.3")
def test_a_quota_that_lands_in_between_voids_nothing(changing: World) -> None:
    change = ask(changing)
    changing.granted("finance", 12)
    approve(changing, change)
    hard = quota_of(changing)
    assert (hard["pods"], hard["requests.nvidia.com/gpu"]) == ("300", "12")


@pytest.mark.requirement("change-requests-2.4")
def test_what_moved_meanwhile_is_refused_and_says_so(changing: World, handler: PodsHandler) -> None:
    change = ask(changing, drop=["NetworkPolicy"])
    DeclaredObject.objects.filter(kind="NetworkPolicy").delete()
    Plan.objects.update(status=PlanStatus.READY)
    change.refresh_from_db()
    with pytest.raises(Conflict, match="moved"):
        approve(changing, change)
    change_records.replan(ChangeRequest.objects.select_related("cluster", "workspace").get(pk=change.pk))
    assert change_subject.ChangeRequestSubject().blockers(change.uid, change.created_at) == [change_granting.MOVED]
    assert handler.granted == []


@pytest.mark.requirement("change-requests-2.2")
def test_a_removal_waits_for_the_plan_that_names_it(changing: World) -> None:
    change = ask(changing, drop=["NetworkPolicy"])
    subject = change_subject.ChangeRequestSubject()
    assert "not ready" in subject.blockers(change.uid, change.created_at)[0]
    assert change.plan is not None
    entry = {"kind": "NetworkPolicy", "namespace": "finance-development", "name": "gpu-commons-default-deny",
             "operation": "remove", "conflicts": [], "changes": [], "warnings": []}  # fmt: skip
    Plan.objects.filter(pk=change.plan.pk).update(status=PlanStatus.READY, entries=[entry])
    assert subject.blockers(change.uid, change.created_at) == []
    approve(changing, change)
    assert DeclaredObject.objects.get(kind="NetworkPolicy").removal == Removal.PLANNED


@pytest.mark.requirement("change-requests-2.2")
def test_fields_of_somebody_else_block_the_approval(changing: World) -> None:
    change = ask(changing)
    conflict = {"manager": "kubectl", "field": ".spec.hard.pods", "message": "x"}
    Plan.objects.filter(subject_uid=change.uid).update(
        status=PlanStatus.READY, entries=[{"kind": "ResourceQuota", "conflicts": [conflict]}]
    )
    with pytest.raises(Conflict, match="kubectl"):
        approve(changing, change)


@pytest.mark.requirement("change-requests-1.4")
def test_nobody_of_the_receiving_team_and_not_who_asked_decides(changing: World) -> None:
    change = ask(changing)
    side = change_subject.ChangeRequestSubject().requester_side(change.uid)
    assert changing["lead_finance"].pk in side
    assert changing["member_finance"].pk in side
    with pytest.raises(NotAllowed):
        approve(changing, change, by=changing["lead_finance"])


@pytest.mark.requirement("change-requests-1.2")
def test_what_would_change_nothing_or_is_wrong_is_not_taken(changing: World) -> None:
    with pytest.raises(Invalid, match="nothing would change"):
        ask(changing, 200)
    with pytest.raises(Invalid) as wrong:
        ask(changing, pods="many")  # type: ignore[arg-type]  # what a form might send
    assert "pods" in wrong.value.errors
    with pytest.raises(NotVisible):
        ask(changing, by=changing["lead_marketing"])
    ask(changing)
    with pytest.raises(Conflict, match="already open"):
        ask(changing, 400)


@pytest.mark.requirement("change-requests-1.3")
def test_without_a_policy_it_says_who_has_to_publish_one(world: World, handler: PodsHandler) -> None:
    world.granted("finance", 10)
    with pytest.raises(Invalid, match="No policy for changes"):
        ask(world)
    assert not ChangeRequest.objects.exists()


@pytest.mark.requirement("change-requests-1.6")
def test_withdrawn_by_who_may_ask(changing: World, handler: PodsHandler) -> None:
    change = ask(changing)
    with pytest.raises(NotVisible):
        changes.withdraw_change(change.pk, "", actor=Actor.of(changing["lead_marketing"]))
    changes.withdraw_change(change.pk, "Not needed any more.", actor=Actor.of(changing["lead_finance"]))
    change.refresh_from_db()
    assert change.status == RequestStatus.WITHDRAWN
    assert handler.concluded == ["withdrawn"]
    assert not Plan.objects.filter(subject_uid=change.uid, closed_at__isnull=True).exists()
    with pytest.raises(Conflict):
        changes.withdraw_change(change.pk, "", actor=Actor.of(changing["lead_finance"]))


@pytest.mark.requirement("change-requests-1.5")
def test_the_bytes_cover_values_settings_and_leaves(changing: World) -> None:
    change = ask(changing)
    subject = change_subject.ChangeRequestSubject()
    assert digest(subject.canonical(change.uid)) == change.digest
    for name, value in (("values", {"pods": 301, "drop": []}), ("change", {**change.change, "leaves": []})):
        before = getattr(change, name)
        ChangeRequest.objects.filter(pk=change.pk).update(**{name: value})
        assert digest(subject.canonical(change.uid)) != change.digest
        ChangeRequest.objects.filter(pk=change.pk).update(**{name: before})
    facts = subject.facts(change.uid)
    assert (facts["change_kind"], facts["objects_changed"], facts["of_cluster"]) == ("limits", 1, "no")


@pytest.mark.requirement("change-requests-2.6")
def test_when_one_lands_the_others_are_planned_anew(changing: World) -> None:
    quota = changing.ask("finance", 20)
    change = ask(changing)
    first = Plan.objects.get(subject_uid=quota.uid, closed_at__isnull=True)
    approve(changing, change)
    assert Plan.objects.get(subject_uid=quota.uid, closed_at__isnull=True).pk != first.pk
    other = ask(changing, 400)
    planned = other.plan_id
    changing.approve(quota)
    other.refresh_from_db()
    assert other.plan_id != planned


@pytest.mark.requirement("change-requests-3.1")
def test_the_platform_asks_for_a_cluster_and_another_admin_decides(changing: World, handler: PodsHandler) -> None:
    with pytest.raises(NotAllowed):
        changes.request_change(
            "limits", cluster_id=changing.cluster.pk, values={"pods": 1}, reason=REASON,
            actor=Actor.of(changing["lead_finance"]),
        )  # fmt: skip
    change = changes.request_change(
        "limits", cluster_id=changing.cluster.pk, values={"pods": 1}, reason=REASON,
        actor=Actor.of(changing.company.admin),
    )  # fmt: skip
    approval = ApprovalRequest.objects.get(subject_uid=change.uid)
    assert approval.team is None
    assert change_subject.ChangeRequestSubject().requester_side(change.uid) == {changing.company.admin.pk}
    with pytest.raises(NotAllowed):
        approve(changing, change, by=changing.company.admin)


# -- pure ------------------------------------------------------------------------------------------------------------


def _queue(name: str, nominal: str, flavours: tuple[str, ...] = ("a100",)) -> dict[str, Any]:
    group = {
        "coveredResources": ["nvidia.com/gpu"],
        "flavors": [{"name": f, "resources": [{"name": "nvidia.com/gpu", "nominalQuota": nominal}]} for f in flavours],
    }
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ClusterQueue",
        "metadata": {"name": name},
        "spec": {"resourceGroups": [group]},
    }


def _side(before: list[dict[str, Any]], after: list[dict[str, Any]], number: int = 1) -> Side:
    import uuid

    return Side("workspace", uuid.UUID(int=number), f"team-{number}", before, after)


@pytest.mark.requirement("change-requests-2.3")
def test_gpu_numbers_inside_something_new_do_not_count_but_a_change_of_them_does() -> None:
    new = [leaves("c", changes_of(_side([], [_queue("q", n)]))) for n in ("4", "8")]
    assert new[0] == new[1]
    wider = [leaves("c", changes_of(_side([_queue("q", n)], [_queue("q", n, ("a100", "h100"))]))) for n in ("4", "8")]
    assert wider[0] == wider[1] != []
    moved = [leaves("c", changes_of(_side([_queue("q", "4")], [_queue("q", n)]))) for n in ("6", "8")]
    assert moved[0] != moved[1]
    assert not changes_of(_side([_queue("q", "4")], [_queue("q", "4")]))


@pytest.mark.requirement("change-requests-2.1")
def test_each_changed_field_has_a_leaf_and_a_removed_one_too() -> None:
    before = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"a/b": "1", "c": "2"}}}
    after = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"a/b": "3", "d": "4"}}}
    found = {(c.pointer, c.operation) for c in changes_of(_side([before], [after]))}
    assert found == {
        ("/metadata/labels/a~1b", "set"),
        ("/metadata/labels/c", "drop"),
        ("/metadata/labels/d", "add"),
    }
    gone = changes_of(_side([before, _queue("q", "1")], []))
    assert {(c.path.split("/")[-3], c.operation) for c in gone} == {("Namespace", "retain"), ("ClusterQueue", "remove")}


@pytest.mark.requirement("change-requests-3.2")
def test_the_same_change_in_many_workspaces_is_one_line() -> None:
    sides = [_side([], [_queue(f"team-{n}", str(n))], n) for n in range(1, 213)]
    lines = grouped(sides, {side.owner: changes_of(side) for side in sides})
    assert [(line["object"], line["count"], len(line["names"])) for line in lines] == [("ClusterQueue", 212, 5)]
    assert "the same change in 212 workspaces" in change_subject.where_words(lines[0])


@pytest.mark.requirement("change-requests-1.8", "change-requests-2.1")
def test_a_changed_list_is_told_field_by_field_and_approved_whole() -> None:
    """Kueue's groups are one list for the server: one leaf; people read which number of which resource changes."""

    def queue(pods: str, *more: dict[str, str]) -> dict[str, Any]:
        resources = [{"name": "cpu", "nominalQuota": "64"}, {"name": "pods", "nominalQuota": pods}, *more]
        group = {"coveredResources": ["cpu", "pods"], "flavors": [{"name": "any-node", "resources": resources}]}
        meta = {"name": "finance-development"}
        return {
            "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": meta,
            "spec": {"resourceGroups": [group]},
        }  # fmt: skip

    owner = uuid.uuid4()
    side = Side("workspace", owner, "finance-development", [queue("200")], [queue("300")])
    found = changes_of(side)
    assert [change.leaf_path.split("#")[1] for change in found] == ["/spec/resourceGroups"]
    (line,) = grouped([side], {owner: found})
    place = "/spec/resourceGroups[0].flavors[name=any-node].resources[name=pods].nominalQuota"
    assert (line["path"], line["operation"], line["before"], line["after"]) == (place, "set", "200", "300")
    more = Side("workspace", owner, "x", [queue("200")], [queue("200", {"name": "gpu", "nominalQuota": "1"})])
    (line,) = grouped([more], {owner: changes_of(more)})
    assert (line["operation"], line["before"]) == ("add", "")
    assert line["path"].endswith(".resources[name=gpu]")
    assert '"nominalQuota": "1"' in line["after"]
