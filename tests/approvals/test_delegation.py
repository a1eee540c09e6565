"""Who lets whom speak: naming, deciding for somebody, ending; and what it cannot launder."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.approvals import delegating, selectors
from apps.approvals.models import ApprovalRequest, Delegation
from apps.audit.selectors import events_for
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.teams.choices import Role
from apps.teams.models import RoleGrant
from tests.approvals.conftest import Office
from tests.factories import forget_scopes, grant, make_member, make_user

pytestmark = pytest.mark.django_db
TWO_OWNERS: dict[str, Any] = {
    "stages": [{"name": "Owner", "role": "unit_owner", "scope": "unit", "quorum": 2}],
}


def name(
    giver: Any, to: Any, role: str = "unit_owner", *, by: Any = None, days: float = 7, **kwargs: Any
) -> Delegation:
    kwargs.setdefault("reason", "On leave until next week.")
    actor = Actor.of(by or giver)
    end = kwargs.pop("end", clock.now() + timedelta(days=days))
    return delegating.create(giver.pk, to.pk, role, actor=actor, end=end, **kwargs)


@pytest.mark.requirement("approval-engine-3.1")
def test_the_giver_or_a_platform_admin_names_a_delegate_and_both_hear_of_it(
    deep: Office, company: Any, events_of: Any
) -> None:
    deputy = make_user()
    row = name(company.vp, deputy)
    assert events_of(row) == [("approvals.delegation.created", [deputy.pk])]
    assert events_for(row.uid).get().action == "approvals.delegation.created"
    again = name(company.vp, deputy, by=company.admin, days=30)
    assert events_of(again)[0][1] == sorted([company.vp.pk, deputy.pk])
    for stranger in (company.compliance, company.lead_finance, deputy):
        with pytest.raises(NotAllowed):
            name(company.vp, deputy, by=stranger)
    assert Delegation.objects.count() == 2


@pytest.mark.requirement("approval-engine-3.1")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"role": "compliance"}, "role"),
        ({"role": "member"}, "role"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"days": -1}, "end"),
        ({"days": 184}, "end"),
        ({"start": timedelta(days=8)}, "end"),
        ({"start": timedelta(days=-1)}, "start"),
        ({"unit": "other"}, "role"),
        ({"unit": "none"}, "unit"),
        ({"to": "self"}, "delegate"),
        ({"to": "gone"}, "delegate"),
    ],
)
def test_everything_else_is_refused_by_field(
    deep: Office, company: Any, frozen_clock: Any, change: dict[str, Any], field: str
) -> None:
    change = dict(change)
    gone = make_user(is_active=False)
    to = {"self": company.vp, "gone": gone}.get(change.pop("to", ""), company.compliance)
    unit = {"other": company.other_unit.pk, "none": 0}.get(change.pop("unit", ""))
    if "start" in change:
        change["start"] = clock.now() + change["start"]
    with pytest.raises(Invalid) as refused:
        name(company.vp, to, unit_id=unit, **change)
    assert list(refused.value.errors) == [field]


@pytest.mark.requirement("approval-engine-3.1", "approval-engine-3.3")
def test_a_delegate_has_nothing_to_pass_on(deep: Office, company: Any) -> None:
    deputy, third = make_user(), make_user()
    name(company.vp, deputy)
    with pytest.raises(Invalid, match="grant of their own"):
        name(deputy, third)
    request = deep.submit()
    for giver in (deputy, company.vp):
        with pytest.raises((NotAllowed, NotVisible)):
            deep.decide(request, third, on_behalf_of=giver.pk)


@pytest.mark.requirement("approval-engine-3.2", "approval-engine-3.5")
def test_a_delegate_without_any_role_sees_is_told_and_decides(deep: Office, company: Any, events_of: Any) -> None:
    deputy = make_user()
    before = deep.submit()
    assert not ApprovalRequest.objects.visible_to(deputy).exists()
    name(company.vp, deputy)
    forget_scopes(deputy)
    assert set(ApprovalRequest.objects.visible_to(deputy)) == set(selectors.waiting_for(deputy)) == {before}
    request = deep.submit()
    assert events_of(request)[0] == ("approvals.request.submitted", sorted([company.vp.pk, deputy.pk]))
    with pytest.raises(NotAllowed, match="Does not hold the role"):
        deep.decide(request, deputy)
    seen = selectors.sight(request)
    assert [(voice.giver_id, voice.stages) for voice in selectors.voices(seen, deputy)] == [(company.vp.pk, (0,))]
    request = deep.decide(request, deputy, on_behalf_of=company.vp.pk)
    decision = request.decisions.get()
    assert (request.status, decision.actor, decision.on_behalf_of) == ("approved", deputy, company.vp)
    assert decision.held == "Unit owner (VP) of Retail Bank"
    told = [people for event, people in events_of(request) if event == "approvals.decision.made"]
    assert told == [sorted([company.lead_finance.pk, company.vp.pk])]


@pytest.mark.requirement("approval-engine-3.5")
def test_who_could_decide_names_delegates_and_their_rule(deep: Office, company: Any) -> None:
    deputy, member = make_user(), make_user()
    name(company.vp, deputy)
    name(company.vp, member)
    request = deep.submit(deep.subject.add(side={member.pk}))
    seats = {(seat.user.pk, seat.for_user.pk if seat.for_user else None): seat for seat in selectors.explain(request)}
    assert seats[(company.vp.pk, None)].may
    assert seats[(deputy.pk, company.vp.pk)].may
    assert "requester's side" in seats[(member.pk, company.vp.pk)].rule
    assert len(seats) == 3


@pytest.mark.requirement("approval-engine-3.2")
def test_both_people_are_tested_for_conflicts(deep: Office, company: Any) -> None:
    deputy, lead = make_user(), company.lead_finance
    name(company.vp, deputy)
    name(company.vp, lead)
    conflicted_giver = deep.submit(deep.subject.add(side={company.vp.pk}))
    conflicted_deputy = deep.submit(deep.subject.add(producers={deputy.pk}))
    own = deep.submit()
    for request, person, words in (
        (conflicted_giver, deputy, "requester's side"),
        (conflicted_deputy, deputy, "Produced evidence"),
        (own, lead, "Speaks for or with the requester"),
    ):
        for verdict in ("approve", "reject"):
            with pytest.raises(NotAllowed, match=words):
                deep.decide(request, person, verdict, on_behalf_of=company.vp.pk)
        forget_scopes(person)
        assert request not in selectors.waiting_for(person)
    joined = make_user()
    name(company.vp, joined)
    make_member(joined, company.finance_team)
    own_team = deep.submit(deep.subject.add(side={joined.pk}))
    with pytest.raises(NotAllowed):
        deep.decide(own_team, joined, on_behalf_of=company.vp.pk)


@pytest.mark.requirement("approval-engine-3.3")
def test_giver_and_delegate_fill_one_seat(deep: Office, company: Any) -> None:
    deep.publish(TWO_OWNERS)
    second, deputy = make_user(), make_user()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    name(company.vp, second)
    name(second, deputy)
    request = deep.decide(deep.submit(), second, on_behalf_of=company.vp.pk)
    for person, giver in ((second, None), (company.vp, None), (deputy, second)):
        with pytest.raises(NotAllowed):
            deep.decide(request, person, on_behalf_of=giver.pk if giver else None)
        forget_scopes(person)
        assert not selectors.waiting_for(person).exists()
    assert request.status == "in_review"


@pytest.mark.requirement("approval-engine-3.2")
def test_only_for_the_role_and_at_or_below_the_unit_it_names(deep: Office, company: Any) -> None:
    grant(company.vp, Role.COMPLIANCE)
    deputy, narrow = make_user(), make_user()
    name(company.vp, deputy, "compliance")
    grant(company.vp, Role.UNIT_OWNER, unit=company.other_unit)
    name(company.vp, narrow, unit_id=company.other_unit.pk)
    request = deep.submit()
    for person in (deputy, narrow):
        forget_scopes(person)
        with pytest.raises((NotAllowed, NotVisible)):
            deep.decide(request, person, on_behalf_of=company.vp.pk)
        assert not ApprovalRequest.objects.visible_to(person).exists()
        assert not selectors.waiting_for(person).exists()
    name(company.vp, narrow, unit_id=company.unit.pk)
    assert deep.decide(request, narrow, on_behalf_of=company.vp.pk).status == "approved"


@pytest.mark.requirement("approval-engine-3.4")
def test_it_ends_by_its_dates_by_revocation_and_with_the_givers_role(
    deep: Office, company: Any, frozen_clock: Any
) -> None:
    deputy = make_user()
    request = deep.submit()

    def shut() -> bool:
        forget_scopes(deputy)
        if selectors.waiting_for(deputy).exists() or ApprovalRequest.objects.visible_to(deputy).exists():
            return False
        with pytest.raises((NotAllowed, NotVisible)):
            deep.decide(request, deputy, on_behalf_of=company.vp.pk)
        return True

    later = name(company.vp, deputy, start=clock.now() + timedelta(hours=1), days=1)
    assert shut()
    clock.advance(timedelta(hours=1))
    assert not shut()
    clock.advance(timedelta(hours=23))
    assert shut()
    with pytest.raises(Conflict, match="ended already"):
        delegating.revoke(later.uid, actor=Actor.of(company.vp))
    row = name(company.vp, deputy)
    assert not shut()
    for stranger, refusal in ((company.lead_finance, NotVisible), (company.compliance, NotAllowed)):
        with pytest.raises(refusal):
            delegating.revoke(row.uid, actor=Actor.of(stranger))
    delegating.revoke(row.uid, actor=Actor.of(deputy))
    assert shut()
    name(company.vp, deputy)
    RoleGrant.objects.filter(user=company.vp).update(revoked_at=clock.now())
    assert shut()
