"""Standard changes are lost after a failure, and come back with a reason; grants end, once."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.approvals import engine, granting, ports, recertifying, selectors, standing, tasks
from apps.approvals.models import Grant, StandardLoss
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.teams.choices import Role
from tests.approvals.conftest import ONE_STAGE, Office
from tests.approvals.world import START
from tests.factories import forget_scopes, grant

STANDARD: dict[str, Any] = {
    **ONE_STAGE,
    "automatic": [
        {"name": "Same model", "when": [["request.gpus", "le", 2]], "standard": True},
        {"name": "Nothing at all", "when": [["request.gpus", "eq", 0]]},
    ],
}


def small(office: Office, **kwargs: Any) -> Any:
    return office.submit(office.subject.add(facts={"request.gpus": kwargs.pop("gpus", 1)}), **kwargs)


def restore(loss: StandardLoss, by: Any, reason: str = "The cause is found and mended.") -> StandardLoss:
    forget_scopes(by)
    return standing.restore(loss.uid, reason, actor=Actor.of(by))


# ---------------------------------------------------------------- standard changes


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-5.1")
def test_a_failure_takes_the_standard_change_from_the_team_across_versions(
    deep: Office, company: Any, events_of: Any
) -> None:
    deep.publish(STANDARD)
    first = small(deep)
    assert (first.status, first.kind, first.grant.kind) == ("approved", "standard", "standard")
    loss = standing.report_failure(first.uid, "Rolled back: 5 % of the answers were errors.")
    assert loss is not None
    assert (loss.rule, loss.team) == ("Same model", company.finance_team)
    assert standing.report_failure(small(deep, gpus=0).uid, "Not a standard one.") is None
    assert standing.report_failure(first.uid, "And again.") == loss
    deep.publish({**STANDARD, "validity_days": 9})
    asked = small(deep)
    assert (asked.status, asked.kind) == ("in_review", "normal")
    other = small(deep, by=company.lead_marketing, team=company.marketing_team)
    assert other.status == "approved"
    event, told = events_of(loss)[-1]
    assert event == "approvals.standard.lost"
    assert {company.lead_finance.pk, company.compliance.pk, company.admin.pk} == set(told)
    preview = selectors.preview("things", {"request.gpus": 1}, team_id=company.finance_team.pk)
    assert (preview.automatic, preview.lost) == (None, ["Same model"])
    with pytest.raises(LookupError):
        standing.report_failure(uuid.uuid4(), "Unknown.")


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-5.2")
def test_it_comes_back_with_permission_and_a_reason_from_somebody_else(
    deep: Office, company: Any, events_of: Any
) -> None:
    deep.publish(STANDARD)
    loss = standing.report_failure(small(deep, by=company.admin).uid, "It failed to load.")
    assert loss is not None
    with pytest.raises(NotAllowed, match="failed"):
        restore(loss, company.admin)
    for person in (company.vp, company.lead_finance):
        with pytest.raises(NotAllowed):
            restore(loss, person)
    with pytest.raises(NotVisible):
        restore(loss, company.lead_marketing)
    with pytest.raises(Invalid):
        restore(loss, company.compliance, "Fine.")
    restored = restore(loss, company.compliance)
    assert restored.restored_by == company.compliance
    assert events_of(loss)[-1][0] == "approvals.standard.restored"
    with pytest.raises(Conflict):
        restore(loss, company.compliance)
    assert small(deep).status == "approved"


# ---------------------------------------------------------------- grants


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-6.1")
def test_scope_and_dates_come_from_the_subject_where_it_says_them(
    deep: Office, company: Any, frozen_clock: Any
) -> None:
    deep.publish({**ONE_STAGE, "validity_days": 30})
    now = clock.now()
    thing = deep.subject.add(
        scope={"environments": ["staging"], "clusters": ["beta"], "max_traffic": 20},
        not_before=now + timedelta(days=1), until=now + timedelta(days=10),
    )  # fmt: skip
    made = deep.decide(deep.submit(thing), company.vp).grant
    assert made.scope == {
        "subject_type": "tests.deep", "subject_uid": str(thing.uid), "clusters": ["beta"],
        "environments": ["staging"], "max_traffic": 20,
    }  # fmt: skip
    assert (made.not_before, made.expires_at) == (thing.not_before, thing.until)
    assert not engine.usable(made, made.subject_digest, {"max_traffic": 20}, now)
    later = now + timedelta(days=2)
    assert engine.usable(made, made.subject_digest, {"max_traffic": 20, "environments": ["staging"]}, later)
    assert not engine.usable(made, made.subject_digest, {"max_traffic": 21}, later)
    long = deep.decide(deep.submit(deep.subject.add(until=now + timedelta(days=400))), company.vp).grant
    assert long.expires_at == now + timedelta(days=30)


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-6.1")
def test_an_approval_that_would_leave_no_time_is_refused(deep: Office, company: Any, frozen_clock: Any) -> None:
    request = deep.submit(deep.subject.add(until=clock.now() + timedelta(hours=1)))
    clock.advance(timedelta(hours=1))
    with pytest.raises(Conflict, match="leaves no time at all"):
        deep.decide(request, company.vp)
    assert deep.decide(request, company.vp, "reject", "Too late for that.").status == "rejected"


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-6.2")
def test_compliance_or_an_admin_revokes_and_the_room_hears_of_it_at_once(
    deep: Office, company: Any, ended: list[Any], events_of: Any
) -> None:
    made = deep.decide(deep.submit(), company.vp).grant
    for person, refusal in (
        (company.vp, NotAllowed), (company.lead_finance, NotAllowed), (company.lead_marketing, NotVisible),
    ):  # fmt: skip
        forget_scopes(person)
        with pytest.raises(refusal):
            granting.revoke(made.uid, "I would rather not.", actor=Actor.of(person))
    with pytest.raises(Invalid):
        granting.revoke(made.uid, "No.", actor=Actor.of(company.compliance))
    forget_scopes(company.compliance)
    granting.revoke(made.uid, "A flaw was found in the weights.", actor=Actor.of(company.compliance))
    made.refresh_from_db()
    assert ended == [made.uid]
    assert not engine.usable(made, made.subject_digest, {}, clock.now())
    event, told = events_of(made)[-1]
    assert event == "approvals.grant.revoked"
    assert {company.lead_finance.pk, company.vp.pk, company.admin.pk} <= set(told)
    with pytest.raises(Conflict, match="ended already"):
        granting.revoke(made.uid, "Once more, please.", actor=Actor.of(company.compliance))
    assert (tasks.attend_grants(), ended) == (0, [made.uid])


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-6.2")
def test_what_no_room_would_act_on_is_not_revoked(office: Office, company: Any) -> None:
    made = office.decide(office.submit(), company.vp).grant
    with pytest.raises(Conflict, match="would change nothing"):
        granting.revoke(made.uid, "A flaw was found.", actor=Actor.of(company.compliance))


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-6.3")
def test_notices_before_the_end_and_the_end_once_each(
    deep: Office, company: Any, frozen_clock: Any, ended: list[Any], events_of: Any
) -> None:
    deep.publish({**ONE_STAGE, "validity_days": 60})
    made = deep.decide(deep.submit(), company.vp).grant
    people = sorted([company.lead_finance.pk, company.vp.pk])
    assert tasks.attend_grants() == 0
    clock.advance(timedelta(days=30))
    assert (tasks.attend_grants(), tasks.attend_grants()) == (1, 0)
    clock.advance(timedelta(days=23))
    assert (tasks.attend_grants(), tasks.attend_grants()) == (1, 0)
    assert events_of(made) == [("approvals.grant.ending", people)] * 2
    clock.advance(timedelta(days=7))
    assert not engine.usable(made, made.subject_digest, {}, clock.now())
    assert ended == []
    assert (tasks.attend_grants(), tasks.attend_grants()) == (1, 0)
    assert (ended, events_of(made)[-1]) == ([made.uid], ("approvals.grant.ended", people))


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-6.3")
def test_who_has_a_renewal_hears_nothing_but_the_room_does(
    deep: Office, company: Any, frozen_clock: Any, ended: list[Any], events_of: Any
) -> None:
    deep.publish({**ONE_STAGE, "validity_days": 60})
    thing = deep.subject.add()
    made = deep.decide(deep.submit(thing), company.vp).grant
    thing.renewed = True
    for days in (30, 23, 7):
        clock.advance(timedelta(days=days))
        assert tasks.attend_grants() == 1
    assert (events_of(made), ended) == ([], [made.uid])


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-6.3")
def test_a_room_that_fails_is_told_again_and_nothing_is_lost(deep: Office, company: Any, frozen_clock: Any) -> None:
    deep.publish({**ONE_STAGE, "validity_days": 1})
    made = deep.decide(deep.submit(), company.vp).grant
    clock.advance(timedelta(days=1))
    heard: list[Any] = []

    def failing(grant: Grant) -> None:
        heard.append(grant.uid)
        if len(heard) == 1:
            raise RuntimeError("the room cannot")

    ports.forget_grant_ended("tests.deep")
    ports.on_grant_ended("tests.deep", failing)
    with pytest.raises(RuntimeError):
        recertifying.attend(made.pk, actor=Actor.system("test"))
    made.refresh_from_db()
    assert made.end_handled_at is None
    assert tasks.attend_grants() == 1
    assert heard == [made.uid] * 2


@pytest.mark.requirement("approval-engine-6.3")
@given(st.integers(1, 24 * 90), st.lists(st.integers(1, 24 * 100), min_size=1, max_size=12))
def test_any_sweeps_at_any_times_send_each_notice_at_most_once_and_the_nearest(hours: int, at: list[int]) -> None:
    end, noticed, sent = START + timedelta(hours=hours), None, []
    for hour in sorted(at):
        now = START + timedelta(hours=hour)
        due = recertifying.due_notice(START, end, noticed, now)
        if due is not None:
            noticed = due
            sent.append(due)
            assert end - timedelta(days=due) <= now < end
            assert due == 7 or now < end - timedelta(days=7)
    assert sent == sorted(set(sent), reverse=True)
    assert all(hours > days * 24 for days in sent)


@pytest.mark.django_db
@pytest.mark.requirement("approval-engine-2.5", "approval-engine-5.2")
def test_a_compliance_officer_of_another_unit_neither_sees_nor_restores(deep: Office, company: Any) -> None:
    deep.publish(STANDARD)
    loss = standing.report_failure(small(deep).uid, "It failed to load.")
    assert loss is not None
    grant(company.vp_other, Role.COMPLIANCE, unit=company.other_unit)
    with pytest.raises(NotVisible):
        restore(loss, company.vp_other)
