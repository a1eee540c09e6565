"""Break-glass: two people, some hours, loudly, and the review that follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.approvals import actions, emergencies, engine, ports, tasks
from apps.approvals.models import ApprovalRequest, EmergencyReview, Grant
from apps.audit.selectors import events_for
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.teams.choices import Role
from tests.approvals.conftest import ONE_STAGE, Office
from tests.approvals.subjects import ThingSubject
from tests.factories import forget_scopes, grant, make_user

pytestmark = pytest.mark.django_db
WHY = "The fraud model answers nothing since 02:10."
FOUND = "The node had failed; the runbook is corrected."
BODY: dict[str, Any] = {
    **ONE_STAGE,
    "automatic": [{"name": "Everything", "when": [["request.gpus", "ge", 0]]}],
    "emergency": {"role": "platform_admin", "hours": 4, "review_hours": 72, "review_role": "compliance"},
}


@pytest.fixture
def night(deep: Office) -> Office:
    deep.publish(BODY)
    return deep


def urgent(office: Office, thing: Any = None, *, by: Any = None, **kwargs: Any) -> ApprovalRequest:
    return office.submit(thing, by=by, kind="emergency", reason=kwargs.pop("reason", WHY), **kwargs)


def close(review: EmergencyReview, by: Any, outcome: str = "justified", findings: str = FOUND) -> EmergencyReview:
    forget_scopes(by)
    return emergencies.close_review(review.uid, outcome, findings, actor=Actor.of(by))


@pytest.mark.requirement("approval-engine-4.1")
def test_an_emergency_replaces_stages_and_automatic_rules_and_is_loud(
    night: Office, company: Any, events_of: Any
) -> None:
    request = urgent(night, night.subject.add(facts={"request.gpus": 1}))
    assert (request.status, request.kind, request.reason) == ("in_review", "emergency", WHY)
    stage = request.stages.get()
    assert (stage.name, stage.role, stage.due_hours) == ("Emergency", "platform_admin", 4)
    assert "because it is an emergency" in stage.rule
    loud = dict(events_of(request))["approvals.emergency.requested"]
    assert loud == sorted([company.compliance.pk, company.admin.pk])
    assert events_for(request.uid).filter(action="approvals.emergency.requested").exists()


@pytest.mark.requirement("approval-engine-4.1")
def test_who_may_not_why_not_and_where_no_policy_knows_it(night: Office, company: Any) -> None:
    for person in (company.member_finance, company.vp, company.compliance, company.lead_marketing):
        with pytest.raises(NotAllowed):
            urgent(night, by=person)
    with pytest.raises(Invalid) as refused:
        urgent(night, reason="Hurry.")
    assert list(refused.value.errors) == ["reason"]
    with pytest.raises(Invalid, match="the policy says"):
        night.submit(kind="standard")
    night.publish(ONE_STAGE)
    with pytest.raises(Invalid, match="knows no emergencies"):
        urgent(night)
    assert not ApprovalRequest.objects.exists()


@pytest.mark.requirement("approval-engine-4.2")
def test_two_people_some_hours_and_a_review_in_one_transaction(
    night: Office, company: Any, frozen_clock: Any, events_of: Any
) -> None:
    request = urgent(night, by=company.admin)
    with pytest.raises(NotAllowed, match="nobody decides on what they requested"):
        night.decide(request, company.admin)
    second = make_user()
    grant(second, Role.PLATFORM_ADMIN)
    request = night.decide(request, second)
    made = Grant.objects.get(request=request)
    assert (made.kind, made.expires_at) == ("emergency", clock.now() + timedelta(hours=4))
    review = EmergencyReview.objects.get(request=request)
    assert (review.due_at, review.closed_at) == (clock.now() + timedelta(hours=72), None)
    loud = dict(events_of(request))["approvals.emergency.granted"]
    assert set(loud) >= {company.compliance.pk, company.admin.pk, second.pk}
    clock.advance(timedelta(hours=4))
    assert not engine.usable(made, request.subject_digest, {}, clock.now())


@pytest.mark.requirement("approval-engine-4.2")
def test_the_subjects_earlier_end_wins_over_the_hours(night: Office, company: Any, frozen_clock: Any) -> None:
    soon = clock.now() + timedelta(hours=2)
    request = night.decide(urgent(night, night.subject.add(until=soon)), company.admin)
    assert request.grant.expires_at == soon


@pytest.mark.requirement("approval-engine-4.3")
def test_the_open_review_refuses_the_teams_next_normal_request_and_no_other(night: Office, company: Any) -> None:
    night.decide(urgent(night), company.admin)
    review = EmergencyReview.objects.get()
    with pytest.raises(Conflict, match="has not been reviewed") as refused:
        night.submit()
    assert refused.value.current == {"review": str(review.uid)}
    assert night.submit(by=company.lead_marketing, team=company.marketing_team).status == "in_review"
    assert urgent(night).status == "in_review"
    close(review, company.compliance)
    assert night.submit().status == "in_review"


@pytest.mark.requirement("approval-engine-4.3")
def test_the_open_review_refuses_a_normal_request_about_anything_else_too(night: Office, company: Any) -> None:
    other = ThingSubject()
    other.subject_type = "tests.other"
    ports.register_subject(other)
    try:
        actions.publish_policy("others", "Others", "tests.other", ONE_STAGE, actor=Actor.of(company.admin))
        night.decide(urgent(night), company.admin)

        def ask() -> ApprovalRequest:
            return actions.submit(
                "tests.other", other.add().uid, actor=Actor.of(company.lead_finance), policy_slug="others",
                team_id=company.finance_team.pk, unit_id=company.finance_team.unit_id,
            )  # fmt: skip

        with pytest.raises(Conflict, match="has not been reviewed"):
            ask()
        close(EmergencyReview.objects.get(), company.compliance)
        assert ask().status == "in_review"
    finally:
        ports.unregister_subject("tests.other")


@pytest.mark.requirement("approval-engine-4.3")
def test_a_second_emergency_about_the_same_waits_for_the_first_ones_review(
    night: Office, company: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(night.subject), "matter", lambda self, uid: "fraud in production", raising=False)
    first, other = urgent(night), urgent(night)  # both asked before either is granted
    night.decide(first, company.admin)
    review = EmergencyReview.objects.get()
    with pytest.raises(Conflict, match="then ask again") as refused:
        urgent(night)
    assert refused.value.current == {"review": str(review.uid)}
    with pytest.raises(Conflict, match="not been reviewed yet"):
        night.decide(other, company.admin)
    assert Grant.objects.count() == 1
    close(review, company.compliance)
    assert night.decide(other, company.admin).status == "approved"
    assert urgent(night, by=company.lead_marketing, team=company.marketing_team).status == "in_review"


@pytest.mark.requirement("approval-engine-4.4")
def test_only_who_took_no_part_and_holds_the_role_closes_it(night: Office, company: Any, events_of: Any) -> None:
    for person in (company.admin, company.lead_finance):
        grant(person, Role.COMPLIANCE)
    prover = make_user()
    grant(prover, Role.COMPLIANCE)
    night.decide(urgent(night, night.subject.add(producers={prover.pk})), company.admin)
    review = EmergencyReview.objects.get()
    for person in (company.admin, company.lead_finance, prover):
        with pytest.raises(NotAllowed, match="Took part"):
            close(review, person)
    with pytest.raises(NotAllowed):
        close(review, company.vp)
    with pytest.raises(NotVisible):
        close(review, company.lead_marketing)
    for outcome, findings, field in (("", FOUND, "outcome"), ("justified", "Fine.", "findings")):
        with pytest.raises(Invalid) as refused:
            close(review, company.compliance, outcome, findings)
        assert list(refused.value.errors) == [field]
    closed = close(review, company.compliance, "not_justified")
    assert (closed.outcome, closed.closed_by, closed.findings) == ("not_justified", company.compliance, FOUND)
    event, told = events_of(closed)[-1]
    assert event == "approvals.review.closed"
    assert {company.admin.pk, company.lead_finance.pk} <= set(told)
    with pytest.raises(Conflict, match="closed already"):
        close(review, company.compliance)


@pytest.mark.requirement("approval-engine-4.4")
def test_a_review_by_a_delegate_who_spoke_is_refused(night: Office, company: Any) -> None:
    from apps.approvals import delegating

    deputy = make_user()
    grant(deputy, Role.COMPLIANCE)
    delegating.create(
        company.admin.pk, deputy.pk, "platform_admin", actor=Actor.of(company.admin), reason="On call.",
        end=clock.now() + timedelta(days=1),
    )  # fmt: skip
    night.decide(urgent(night), deputy, on_behalf_of=company.admin.pk)
    with pytest.raises(NotAllowed, match="Took part"):
        close(EmergencyReview.objects.get(), deputy)


@pytest.mark.requirement("approval-engine-4.4")
def test_an_overdue_review_is_reminded_of_once(night: Office, company: Any, frozen_clock: Any, events_of: Any) -> None:
    night.decide(urgent(night), company.admin)
    assert tasks.remind_reviews() == 0
    clock.advance(timedelta(hours=72))
    assert (tasks.remind_reviews(), tasks.remind_reviews()) == (1, 0)
    assert events_of(EmergencyReview.objects.get()) == [
        ("approvals.review.overdue", sorted([company.compliance.pk, company.admin.pk]))
    ]


@pytest.mark.requirement("approval-engine-4.2")
def test_a_rejected_emergency_leaves_no_review_behind(night: Office, company: Any) -> None:
    night.decide(urgent(night), company.admin, "reject", "This can wait until morning.")
    assert not EmergencyReview.objects.exists()
    assert night.submit().status == "in_review"


@pytest.mark.requirement("approval-engine-4.2")
def test_an_emergency_that_nobody_decides_lapses(night: Office, company: Any, frozen_clock: Any) -> None:
    request = urgent(night)
    clock.advance(timedelta(hours=4))
    with pytest.raises(Conflict, match="lapsed"):
        night.decide(request, company.admin)
    actions.lapse(request.pk, actor=Actor.system("test"))
    request.refresh_from_db()
    assert request.status == "lapsed"
