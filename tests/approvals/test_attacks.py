"""Attacks on the engine through its actions: roundabout self-approval, stretched delegations, worn-out emergencies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import Error, transaction

from apps.approvals import actions, delegating, emergencies, granting, selectors
from apps.approvals.models import ApprovalRequest, Decision, EmergencyReview, Grant
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed, NotVisible
from apps.teams.choices import Role
from tests.approvals.conftest import Office
from tests.factories import client_for, forget_scopes, grant, make_member, make_user

pytestmark = pytest.mark.django_db
WHY = "The fraud model answers nothing since 02:10."
TWO: dict[str, Any] = {
    "stages": [
        {"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72},
        {"name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 1, "due_hours": 72},
    ],
    "separation": {"evidence_producers": True},
    "emergency": {"role": "platform_admin", "hours": 4, "review_hours": 72, "review_role": "compliance"},
}


@pytest.fixture
def two(deep: Office) -> Office:
    deep.publish(TWO)
    return deep


def stand_in(giver: Any, to: Any, role: str) -> Any:
    return delegating.create(
        giver.pk, to.pk, role, actor=Actor.of(giver), end=clock.now() + timedelta(days=2), reason="On leave."
    )


def test_a_role_given_to_oneself_after_asking_does_not_help(two: Office, company: Any) -> None:
    company.admin.is_superuser = True
    company.admin.save()
    request = two.submit(by=company.admin)
    grant(company.admin, Role.UNIT_OWNER, unit=company.unit)
    grant(company.admin, Role.COMPLIANCE)
    with pytest.raises(NotAllowed, match="nobody decides on what they requested"):
        two.decide(request, company.admin)


def test_an_author_who_joins_after_submission_loses_the_word_already_spoken(two: Office, company: Any) -> None:
    """Approves first, edits or proves afterwards: the word counts no more, and the request goes on without it."""
    thing = two.subject.add()
    request = two.submit(thing)
    two.decide(request, company.vp)
    thing.producers.add(company.vp.pk)
    with pytest.raises(NotAllowed):
        two.decide(ApprovalRequest.objects.get(pk=request.pk), company.compliance)
    assert not Grant.objects.exists()


def test_the_requesters_delegate_speaks_for_nobody_against_the_rule(two: Office, company: Any) -> None:
    lead = company.lead_finance
    grant(lead, Role.UNIT_OWNER, unit=company.unit)
    forget_scopes(lead)
    friend = make_user("friend")
    stand_in(lead, friend, "unit_owner")
    stand_in(company.vp, lead, "unit_owner")
    request = two.submit(by=lead)
    for person, giver in ((friend, lead), (lead, company.vp)):
        with pytest.raises((NotAllowed, NotVisible)):
            two.decide(request, person, on_behalf_of=giver.pk)
    # No chain: what the vice president gave to the lead, the lead's friend does not have.
    with pytest.raises((NotAllowed, NotVisible)):
        two.decide(request, friend, on_behalf_of=company.vp.pk)
    assert not Decision.objects.exists()


def test_one_person_with_two_roles_and_a_delegation_fills_one_seat(two: Office, company: Any) -> None:
    grant(company.vp, Role.COMPLIANCE)
    stand_in(company.compliance, company.vp, "compliance")
    request = two.submit()
    two.decide(request, company.vp)
    for giver in (None, company.compliance.pk):
        with pytest.raises(NotAllowed, match=r"One person fills one seat|already said so"):
            two.decide(ApprovalRequest.objects.get(pk=request.pk), company.vp, on_behalf_of=giver)


def test_a_giver_who_left_the_company_lends_no_voice(two: Office, company: Any) -> None:
    friend = make_user("friend")
    stand_in(company.vp, friend, "unit_owner")
    request = two.submit()
    company.vp.is_active = False
    company.vp.save()
    with pytest.raises((NotAllowed, NotVisible)):
        two.decide(request, friend, on_behalf_of=company.vp.pk)


def test_changing_sides_between_submission_and_decision_shuts_out_both_ways(two: Office, company: Any) -> None:
    joiner = make_user("joiner")
    grant(joiner, Role.UNIT_OWNER, unit=company.unit)
    thing = two.subject.add()
    request = two.submit(thing)
    thing.side.add(joiner.pk)
    with pytest.raises(NotAllowed, match="own benefit"):
        two.decide(request, joiner)
    thing.side.clear()
    thing.side.add(company.vp.pk)
    other = two.submit(two.subject.add(side={company.vp.pk}))
    with pytest.raises(NotAllowed):
        two.decide(other, company.vp)


def test_bytes_that_changed_and_came_back_under_another_request_carry_no_decision(two: Office, company: Any) -> None:
    thing = two.subject.add()
    first = two.submit(thing)
    two.decide(first, company.vp)
    actions.withdraw(first.pk, "Wrong size.", actor=Actor.of(company.lead_finance))
    second = two.submit(thing)
    with pytest.raises(NotAllowed):
        two.decide(second, company.compliance)
    assert second.decisions.count() == 0


def test_what_waits_is_not_granted_on_bytes_that_changed_meanwhile(two: Office, company: Any) -> None:
    thing = two.subject.add()
    request = two.submit(thing)
    two.subject.room = False
    two.decide(request, company.vp)
    two.decide(ApprovalRequest.objects.get(pk=request.pk), company.compliance)
    request.refresh_from_db()
    assert request.status == "waiting_for_capacity"
    thing.text, two.subject.room = "200 GPUs", True
    actions.retry_waiting(request.pk, actor=Actor.system("tests"))
    assert not Grant.objects.exists()


def test_an_emergency_is_spent_once_and_its_review_never_closed_holds_up_for_ever(
    two: Office, company: Any, frozen_clock: Any
) -> None:
    thing = two.subject.add()
    urgent = two.submit(thing, kind="emergency", reason=WHY)
    two.decide(urgent, company.admin)
    with pytest.raises(Conflict, match="no longer"):
        two.decide(urgent, company.admin)
    assert Grant.objects.count() == 1
    clock.advance(timedelta(days=400))
    with pytest.raises(Conflict, match="not been reviewed"):
        two.submit()
    review = EmergencyReview.objects.get()
    with pytest.raises(NotAllowed):
        emergencies.close_review(review.uid, "justified", "We looked at it ourselves.", actor=Actor.of(company.admin))
    given = Grant.objects.get()
    assert given.expires_at is not None
    assert given.expires_at < clock.now()
    with pytest.raises(Conflict):
        granting.revoke(given.uid, "It has ended long ago.", actor=Actor.of(company.compliance))


@pytest.mark.requirement("approvals-3.1")
def test_a_correction_by_somebody_else_frees_none_of_those_who_asked_before(two: Office, company: Any) -> None:
    first = two.submit(by=company.vp)  # holds the role that decides
    second = two.submit(two.subject.add(text="18 GPUs"), by=company.lead_finance, supersedes=first.pk)
    third = two.submit(two.subject.add(text="16 GPUs"), by=company.lead_finance, supersedes=second.pk)
    for request in (second, third):
        assert company.vp.pk in request.requester_side
    with pytest.raises(NotAllowed):
        two.decide(third, company.vp)


def test_no_statement_rewrites_grants_decisions_or_policies(two: Office, company: Any) -> None:
    request = two.submit()
    two.decide(request, company.vp)
    two.decide(ApprovalRequest.objects.get(pk=request.pk), company.compliance)
    given = Grant.objects.filter(request=request)
    for attack in (
        lambda: given.update(scope={}),
        lambda: given.update(not_before=clock.now() - timedelta(days=1)),
        given.delete,
        lambda: Decision.objects.filter(request=request).update(verdict="reject"),
        Decision.objects.filter(request=request).delete,
    ):
        with pytest.raises(Error), transaction.atomic():
            attack()


def test_a_decision_that_fails_leaves_neither_row_nor_event(two: Office, company: Any, monkeypatch: Any) -> None:
    request = two.submit()
    before = AuditEvent.objects.filter(action="approvals.decision.made").count()
    monkeypatch.setattr(actions, "_follow", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        two.decide(request, company.vp)
    assert not Decision.objects.exists()
    assert AuditEvent.objects.filter(action="approvals.decision.made").count() == before


def test_what_is_hashed_names_nobody_and_quotes_no_reason(two: Office, company: Any) -> None:
    reason = "Because Erika from accounting asked me to do so."
    request = two.submit()
    two.decide(request, company.vp, reason=reason)
    for event in AuditEvent.objects.filter(object_id=request.uid):
        hashed = bytes(event.canonical).decode()
        assert reason not in hashed
        assert str(company.vp) not in hashed
        assert company.vp.email not in hashed


def test_foreign_requests_are_not_there_nor_counted(two: Office, company: Any) -> None:
    request = two.submit()
    stranger = company.lead_marketing
    client = client_for(stranger)
    for page in (f"/approvals/requests/{request.uid}/", f"/api/v1/approval-requests/{request.uid}"):
        answer = client.get(page)
        assert answer.status_code == 404, page
        assert request.title.encode() not in answer.content
    for page in ("/approvals/", "/approvals/requests/", "/api/v1/approval-requests", "/"):
        answer = client.get(page)
        assert request.title.encode() not in answer.content, page
    with pytest.raises(NotVisible):
        two.decide(request, stranger)
    with pytest.raises(NotVisible):
        actions.withdraw(request.pk, "Not ours.", actor=Actor.of(stranger))
    assert selectors.waiting_for(stranger).count() == 0


def test_an_outsider_made_member_of_the_receiving_team_decides_nothing(two: Office, company: Any) -> None:
    person = make_user("guest")
    grant(person, Role.UNIT_OWNER, unit=company.unit)
    thing = two.subject.add()
    make_member(person, company.finance_team)
    thing.side |= {person.pk}
    request = two.submit(thing)
    assert person.pk in request.requester_side
    with pytest.raises(NotAllowed):
        two.decide(request, person)


def test_one_stage_is_not_decided_by_a_stage_that_is_named_from_outside(deep: Office, company: Any) -> None:
    request = deep.submit()
    for stage in (-1, 1, 10**6):
        with pytest.raises(NotAllowed, match="no such stage"):
            deep.decide(request, company.vp, stage=stage)
