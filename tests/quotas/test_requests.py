"""Requesting quota: what is refused at which field, what is frozen, what withdrawing and correcting do."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from apps.approvals.models import ApprovalRequest
from apps.approvals.selectors import waiting_for
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.quotas import actions
from apps.quotas.models import QuotaRequest, Workspace
from apps.quotas.subjects import QuotaRequestSubject
from apps.teams.models import RoleGrant
from tests.factories import forget_scopes
from tests.quotas.conftest import REASON, World
from tests.rates.factories import make_cluster, make_flavour, make_pool

pytestmark = pytest.mark.django_db


@pytest.mark.requirement("quotas-1.1")
def test_a_workspace_is_a_row_with_a_namespace_and_nothing_on_the_cluster(world: World) -> None:
    workspace = world.workspaces["finance"]
    assert workspace.namespace == "finance-development"
    assert not workspace.cluster.declarations.exists()
    assert AuditEvent.objects.filter(object_id=workspace.uid, action="quotas.workspace.created").exists()
    with pytest.raises(Invalid) as refused:
        world_create(world, "development")
    assert "already has" in refused.value.errors["environment"][0]
    assert Workspace.objects.filter(team=world.company.finance_team).count() == 1


def world_create(world: World, environment: str, classes: tuple[str, ...] = (), by: str = "admin") -> Workspace:
    team = world.company.finance_team
    return actions.create_workspace(team.pk, world.cluster.pk, environment, classes, actor=Actor.of(world[by]))


@pytest.mark.requirement("quotas-1.1")
def test_workspaces_are_made_by_platform_admins_with_known_words(world: World) -> None:
    for person in ("lead_finance", "vp", "auditor", "finance"):
        with pytest.raises(NotAllowed):
            world_create(world, "staging", by=person)
    with pytest.raises(Invalid) as refused:
        world_create(world, "test", ("secret",))
    assert set(refused.value.errors) == {"environment", "data_classes"}
    with pytest.raises(NotVisible):
        actions.create_workspace(987654321, world.cluster.pk, "staging", [], actor=Actor.of(world["admin"]))
    world.company.finance_team.slug = "kube"
    world.company.finance_team.save()
    with pytest.raises(Invalid) as refused:
        world_create(world, "staging")
    assert "team" in refused.value.errors


def soon(days: int) -> Any:
    return clock.now() + timedelta(days=days)


@pytest.mark.requirement("quotas-1.2")
@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"guaranteed": -1}, "guaranteed", "negative"),
        ({"guaranteed": 1.5}, "guaranteed", "whole number"),
        ({"guaranteed": True}, "guaranteed", "whole number"),
        ({"guaranteed": 51}, "guaranteed", "more than the pool has"),
        ({"guaranteed": 10**9}, "guaranteed", "at most"),
        ({"valid_from": 5, "valid_until": 4}, "valid_until", "after the start"),
        ({"valid_until": -1}, "valid_until", "past"),
        ({"valid_from": -2}, "valid_from", "past"),
        ({"borrow_mode": "limited", "borrow_limit": 5}, "borrow_mode", "best-effort"),
        ({"borrow_mode": "everything"}, "borrow_mode", "Choose"),
        ({"borrow_limit": 3}, "borrow_limit", "goes only with"),
        ({"reason": "because"}, "reason", "sentence"),
        ({"guaranteed": 0}, "", "nothing would change"),
        ({"flavour_id": 987654321}, "flavour", "Choose a flavour"),
    ],
)
def test_wrong_input_has_its_message_at_its_field(world: World, changes: dict[str, Any], field: str, says: str) -> None:
    for name in ("valid_from", "valid_until"):
        if name in changes:
            changes = changes | {name: soon(changes[name])}
    with pytest.raises(Invalid) as refused:
        world.ask(**changes)
    assert list(refused.value.errors) == [field]
    assert says in refused.value.errors[field][0]
    assert not QuotaRequest.objects.exists()
    assert not ApprovalRequest.objects.exists()


@pytest.mark.requirement("quotas-1.2")
def test_a_flavour_of_another_cluster_is_refused(world: World) -> None:
    elsewhere = make_flavour("h100", gpu_model="NVIDIA-H100-80GB-HBM3")
    make_pool(make_cluster("borealis"), elsewhere)
    with pytest.raises(Invalid) as refused:
        world.ask(flavour_id=elsewhere.pk)
    assert "does not offer" in refused.value.errors["flavour"][0]


@pytest.mark.requirement("quotas-1.3")
def test_models_that_the_cluster_counts_alike_do_not_share_a_workspace(world: World) -> None:
    other = make_flavour("h100", gpu_model="NVIDIA-H100-80GB-HBM3")
    make_pool(world.cluster, other)
    world.granted(guaranteed=2)
    with pytest.raises(Invalid) as refused:
        world.ask(flavour_id=other.pk, guaranteed=1)
    assert "counts under the same name" in refused.value.errors["flavour"][0]


@pytest.mark.requirement("quotas-1.4")
def test_borrowing_needs_a_best_effort_pool_and_unlimited_a_permission(world: World) -> None:
    world.pool.best_effort = True
    world.pool.save()
    with pytest.raises(Invalid) as refused:
        world.ask(borrow_mode="unlimited")
    assert "permission" in refused.value.errors["borrow_mode"][0]
    with pytest.raises(Invalid) as refused:
        world.ask(borrow_mode="limited", borrow_limit=0)
    assert "borrow_limit" in refused.value.errors
    with pytest.raises(Invalid) as refused:
        world.ask(guaranteed=40, borrow_mode="limited", borrow_limit=20)
    assert "borrow_limit" in refused.value.errors
    assert world.ask(borrow_mode="limited", borrow_limit=10).maximum == 20
    assert world.ask("marketing", by=world["vp"], borrow_mode="unlimited").maximum is None


@pytest.mark.requirement("quotas-6.5")
def test_who_may_ask(world: World) -> None:
    with pytest.raises(NotVisible):
        world.ask(by=world["lead_marketing"])
    for person in ("member_finance", "compliance", "auditor", "finance", "admin"):
        with pytest.raises(NotAllowed):
            world.ask(by=world[person])
    assert world.ask(by=world["vp"]).requester == world["vp"]


@pytest.mark.requirement("quotas-1.6")
def test_the_change_the_estimate_and_its_rate_are_frozen_and_any_byte_counts(world: World) -> None:
    request = world.ask(guaranteed=8, valid_until=soon(30))
    assert request.estimate["amount"] == "22484.00"
    assert request.estimate["rate_uid"]
    assert "730 h" in request.estimate["basis"]
    subject = QuotaRequestSubject()
    data = subject.canonical(request.uid)
    assert digest(data) == request.digest == request.approval.subject_digest  # type: ignore[union-attr]  # submitted, so it exists
    paths = [leaf["path"] for leaf in json.loads(data)["change"]["leaves"]]
    # A new workspace's six objects, the limit at its start, and what happens at its end.
    assert len(paths) == 8
    assert sum("requests.nvidia.com~1gpu@" in path for path in paths) == 2
    for change in ({"guaranteed": 9}, {"valid_until": soon(31)}, {"estimate": request.estimate | {"amount": "1.00"}}):
        was = {name: getattr(request, name) for name in change}
        QuotaRequest.objects.filter(pk=request.pk).update(**change)
        assert digest(subject.canonical(request.uid)) != request.digest
        QuotaRequest.objects.filter(pk=request.pk).update(**was)
    assert digest(subject.canonical(request.uid)) == request.digest


@pytest.mark.requirement("quotas-1.7")
def test_one_open_request_per_workspace_and_flavour(world: World) -> None:
    first = world.ask()
    with pytest.raises(Conflict) as refused:
        world.ask(guaranteed=12)
    assert refused.value.current["request"] == str(first.uid)
    assert world.ask("marketing").status == "in_review"


@pytest.mark.requirement("quotas-1.8")
def test_withdrawing(world: World) -> None:
    request = world.ask()
    with pytest.raises(NotVisible):
        actions.withdraw_request(request.pk, actor=Actor.of(world["lead_marketing"]))
    with pytest.raises(NotAllowed):
        actions.withdraw_request(request.pk, actor=Actor.of(world["member_finance"]))
    with pytest.raises(Conflict):
        actions.withdraw_request(
            request.pk, actor=Actor.of(world["lead_finance"]), expected_version=request.version + 1
        )
    done = actions.withdraw_request(request.pk, actor=Actor.of(world["lead_finance"]), expected_version=request.version)
    assert done.status == "withdrawn"
    assert done.approval is not None
    assert done.approval.status == "withdrawn"
    with pytest.raises(Conflict):
        actions.withdraw_request(request.pk, actor=Actor.of(world["lead_finance"]))
    actions_seen = set(AuditEvent.objects.filter(object_id=request.uid).values_list("action", flat=True))
    assert {"quotas.request.submitted", "quotas.request.withdrawn"} <= actions_seen


@pytest.mark.requirement("quotas-1.8")
def test_a_correction_voids_what_was_approved_before(world: World) -> None:
    old = world.ask(guaranteed=10)
    approval = old.approval
    assert approval is not None
    values: dict[str, Any] = {
        "flavour_id": world.flavour.pk,
        "guaranteed": 12,
        "borrow_mode": "none",
        "borrow_limit": 0,
        "valid_from": None,
        "valid_until": None,
        "reason": REASON,
    }
    actor = Actor.of(world["lead_finance"])
    with pytest.raises(Invalid):
        actions.correct_request(old.pk, **(values | {"guaranteed": 10}), actor=actor)
    new = actions.correct_request(old.pk, **values, actor=actor, expected_version=old.version)
    old.refresh_from_db()
    approval.refresh_from_db()
    assert (old.status, approval.status, new.status) == ("superseded", "superseded", "in_review")
    assert new.supersedes == old
    assert new.approval is not None
    assert new.approval.supersedes == approval
    assert new.digest != old.digest
    with pytest.raises(Conflict):
        world.approve(old)
    with pytest.raises(Conflict):
        actions.correct_request(old.pk, **values, actor=actor)


@pytest.mark.requirement("quotas-1.6")
def test_an_unknown_price_is_unknown_and_no_zero(world: World) -> None:
    cheap = make_flavour("l4", gpu_model="NVIDIA-L4", resource_name="nvidia.com/l4")
    make_pool(world.cluster, cheap)
    request = world.ask(flavour_id=cheap.pk)
    assert request.estimate["amount"] is None
    assert "no rate" in request.estimate["unknown_reason"]
    assert "monthly_cost_change" not in QuotaRequestSubject().facts(request.uid)


@pytest.mark.requirement("approvals-5.2")
def test_whoever_joined_the_team_since_is_not_asked_and_no_request_is_read_for_that(
    world: World, query_limit: Any
) -> None:
    """The list, and the deciding itself, leave out who is on the requester's side by now."""
    owner = world["vp"]
    of_finance, of_research = world.ask("finance", 10), world.ask("research", 10)
    assert {row.subject_uid for row in waiting_for(owner)} == {of_finance.uid, of_research.uid}
    RoleGrant.objects.create(
        user=owner, role="team_lead", team=world.company.finance_team, granted_by=world.company.admin
    )
    forget_scopes(owner)
    with query_limit(3):  # the person's roles, who lets them speak, and the list
        assert [row.subject_uid for row in waiting_for(owner)] == [of_research.uid]
    with pytest.raises(NotAllowed):
        world.approve(of_finance)
