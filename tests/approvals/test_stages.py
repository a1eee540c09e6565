"""Stages at the same time, waits, people who step in, and who is kept from deciding: through the actions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.approvals import actions, selectors, tasks
from apps.approvals.models import Stage
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed
from apps.teams.choices import Role
from apps.teams.models import RoleGrant
from tests.approvals.conftest import ONE_STAGE, Office
from tests.factories import forget_scopes, grant, make_user

pytestmark = pytest.mark.django_db
OWNER: dict[str, Any] = {"name": "Owner", "role": "unit_owner", "scope": "unit"}
COMPLIANCE: dict[str, Any] = {"name": "Compliance", "role": "compliance", "scope": "installation"}
ADMIN: dict[str, Any] = {"name": "Platform", "role": "platform_admin", "scope": "installation"}


def open_names(request: Any) -> list[str]:
    return [stage.name for stage in selectors.sight(request).open_stages]


@pytest.mark.requirement("approval-engine-2.1")
def test_stages_of_a_group_are_open_together_and_the_next_follows_all_of_them(
    deep: Office, company: Any, events_of: Any
) -> None:
    deep.publish(
        {"stages": [{**OWNER, "group": 1, "due_hours": 72}, {**COMPLIANCE, "group": 1, "due_hours": 24}, ADMIN]}
    )
    request = deep.submit()
    assert open_names(request) == ["Owner", "Compliance"]
    assert [to for name, to in events_of(request) if name.endswith("submitted")] == [
        [company.vp.pk], [company.compliance.pk],
    ]  # fmt: skip
    assert request.due_at == request.submitted_at + timedelta(hours=24)
    request = deep.decide(request, company.compliance)
    assert open_names(request) == ["Owner"]
    assert request.due_at == request.submitted_at + timedelta(hours=72)
    with pytest.raises(NotAllowed, match="not open"):
        deep.decide(request, company.admin, stage=2)
    request = deep.decide(request, company.vp)
    assert open_names(request) == ["Platform"]
    assert deep.decide(request, company.admin).status == "approved"


@pytest.mark.requirement("approval-engine-2.1")
def test_a_word_counts_in_the_stage_it_names(deep: Office, company: Any) -> None:
    deep.publish({"stages": [{**OWNER, "group": 1}, {**COMPLIANCE, "group": 1}]})
    grant(company.vp, Role.COMPLIANCE)
    request = deep.decide(deep.submit(), company.vp, stage=1)
    assert [d.stage.name for d in request.decisions.all()] == ["Compliance"]
    assert open_names(request) == ["Owner"]
    with pytest.raises(NotAllowed, match="One person fills one seat"):
        deep.decide(request, company.vp, stage=0)
    with pytest.raises(NotAllowed, match="no such stage"):
        deep.decide(request, company.compliance, stage=7)


@pytest.mark.requirement("approval-engine-2.1")
def test_a_group_lapses_with_its_first_due_stage(deep: Office, company: Any, frozen_clock: Any) -> None:
    deep.publish({"stages": [{**OWNER, "group": 1, "due_hours": 72}, {**COMPLIANCE, "group": 1, "due_hours": 24}]})
    request = deep.decide(deep.submit(), company.vp)
    clock.advance(timedelta(hours=24))
    with pytest.raises(Conflict, match="lapsed"):
        deep.decide(request, company.compliance)
    assert tasks.lapse_overdue() == 1
    request.refresh_from_db()
    assert request.conclusion == "Stage “Compliance” was not decided in time."


@pytest.mark.requirement("approval-engine-2.2")
def test_while_the_wait_lasts_only_a_rejection_counts(deep: Office, company: Any, frozen_clock: Any) -> None:
    deep.publish({"stages": [{**OWNER, "wait_hours": 24}]})
    first, second = deep.submit(), deep.submit()
    with pytest.raises(Conflict, match="Approvals count from"):
        deep.decide(first, company.vp)
    with pytest.raises(NotAllowed):
        deep.decide(first, company.compliance)
    forget_scopes(company.vp)
    seen = selectors.sight(first)
    assert (selectors.why_not(seen, company.vp), bool(seen.waits_until(seen.open_stages[0]))) == ("", True)
    assert {row.pk for row in selectors.waiting_for(company.vp)} == {first.pk, second.pk}
    assert deep.decide(second, company.vp, "reject", "Not in this quarter.").status == "rejected"
    clock.advance(timedelta(hours=24))
    assert deep.decide(first, company.vp).status == "approved"


@pytest.mark.requirement("approval-engine-2.3")
def test_a_late_stage_escalates_without_a_scheduler_and_tells_once(
    deep: Office, company: Any, frozen_clock: Any, events_of: Any
) -> None:
    deep.publish(
        {"stages": [{**COMPLIANCE, "due_hours": 72, "escalate_hours": 24, "escalate_to": {"role": "platform_admin", "scope": "installation"}}]}  # noqa: E501 (one line reads best)
    )  # fmt: skip
    request = deep.submit()
    assert tasks.escalate_overdue() == 0
    with pytest.raises(NotAllowed, match="Does not hold the role"):
        deep.decide(request, company.admin)
    assert not selectors.waiting_for(company.admin).exists()
    clock.advance(timedelta(hours=24))
    forget_scopes(company.admin)
    assert [row.pk for row in selectors.waiting_for(company.admin)] == [request.pk]
    assert (tasks.escalate_overdue(), tasks.escalate_overdue()) == (1, 0)
    assert events_of(request)[-1] == ("approvals.request.escalated", [company.admin.pk])
    assert Stage.objects.get(request=request).escalated_at == clock.now()
    request = deep.decide(request, company.admin)
    assert (request.status, request.decisions.get().held) == ("approved", "Platform admin of the whole installation")


@pytest.mark.requirement("approval-engine-2.3", "approval-engine-2.4")
def test_stepping_in_lifts_no_exclusion(deep: Office, company: Any, frozen_clock: Any) -> None:
    step_in = {"role": "platform_admin", "scope": "installation"}
    deep.publish({"stages": [{**COMPLIANCE, "escalate_hours": 1, "escalate_to": step_in, "fallback": step_in}]})
    request = deep.submit(deep.subject.add(side={company.admin.pk, company.compliance.pk}))
    clock.advance(timedelta(hours=2))
    for verdict in ("approve", "reject"):
        with pytest.raises(NotAllowed, match="requester's side"):
            deep.decide(request, company.admin, verdict)


@pytest.mark.requirement("approval-engine-2.4")
def test_the_fallback_decides_only_while_the_own_role_cannot(deep: Office, company: Any, events_of: Any) -> None:
    deep.publish({"stages": [{**OWNER, "fallback": {"role": "compliance", "scope": "installation"}}]})
    free = deep.submit()
    with pytest.raises(NotAllowed, match="Does not hold the role"):
        deep.decide(free, company.compliance)
    shut = deep.submit(deep.subject.add(producers={company.vp.pk}))
    assert events_of(shut)[0] == ("approvals.request.submitted", [company.compliance.pk])
    assert selectors.starving(selectors.sight(shut)) == []
    forget_scopes(company.compliance)
    assert [row.pk for row in selectors.waiting_for(company.compliance)] == [shut.pk]
    newcomer = make_user()
    owner = grant(newcomer, Role.UNIT_OWNER, unit=company.unit)
    with pytest.raises(NotAllowed, match="Does not hold the role"):
        deep.decide(shut, company.compliance)
    RoleGrant.objects.filter(pk=owner.pk).update(revoked_at=clock.now())
    assert deep.decide(shut, company.compliance).decisions.get().held == "Compliance of the whole installation"


@pytest.mark.requirement("approval-engine-2.5")
def test_authors_and_evidence_producers_are_kept_out_with_their_own_rule(deep: Office, company: Any) -> None:
    second, third = make_user(), make_user()
    for person in (second, third):
        grant(person, Role.UNIT_OWNER, unit=company.unit)
    thing = deep.subject.add(authors={company.vp.pk})
    request = deep.submit(thing)
    thing.authors.clear()
    thing.producers.add(second.pk)
    with pytest.raises(NotAllowed, match="requester's side"):
        deep.decide(request, company.vp)
    thing.authors.add(company.vp.pk)
    with pytest.raises(NotAllowed, match="Wrote a part of it"):
        deep.decide(request, company.vp)
    with pytest.raises(NotAllowed, match="Produced evidence for it"):
        deep.decide(request, second, "reject", "Looks wrong to me.")
    rules = {seat.user.pk: seat.rule for seat in selectors.explain(request)}
    assert (rules[company.vp.pk][:19], rules[second.pk][:17], rules[third.pk]) == (
        "Wrote a part of it:", "Produced evidence", "",
    )  # fmt: skip
    forget_scopes(second)
    assert not selectors.waiting_for(second).exists()
    assert deep.decide(request, third).status == "approved"


@pytest.mark.requirement("approval-engine-2.5")
def test_a_policy_may_let_evidence_producers_decide_but_never_authors(deep: Office, company: Any) -> None:
    deep.publish({**ONE_STAGE, "separation": {"evidence_producers": False}})
    request = deep.submit(deep.subject.add(producers={company.vp.pk}))
    assert deep.decide(request, company.vp).status == "approved"
    with pytest.raises(NotAllowed):
        deep.decide(deep.submit(deep.subject.add(authors={company.vp.pk})), company.vp)


@pytest.mark.requirement("approval-engine-2.6")
def test_a_decision_keeps_how_the_person_signed_in_and_the_checklist(deep: Office, company: Any) -> None:
    request = deep.submit()
    answered = deep.subject.checklist_digest(request.subject_uid)  # type: ignore[attr-defined]  # the deep subject's
    deep.decide(request, company.vp, auth={"session": "5a7c"})
    decision = request.decisions.get()
    assert decision.checklist_digest == answered
    assert decision.auth == {"channel": "web", "session": "5a7c"}


@pytest.mark.requirement("approval-engine-2.6")
@pytest.mark.parametrize(("minutes_ago", "fresh"), [(None, False), (16, False), (15, True), (0, True), (-5, False)])
def test_a_policy_may_want_the_password_again(
    deep: Office, company: Any, frozen_clock: Any, minutes_ago: int | None, fresh: bool
) -> None:
    deep.publish({**ONE_STAGE, "reauthenticate_minutes": 15})
    request = deep.submit()
    auth = {} if minutes_ago is None else {"password_at": (clock.now() - timedelta(minutes=minutes_ago)).isoformat()}
    if fresh:
        assert deep.decide(request, company.vp, auth=auth).status == "approved"
        return
    with pytest.raises(NotAllowed) as refused:
        deep.decide(request, company.vp, auth=auth)
    assert refused.value.rule == "reauthenticate"
    with pytest.raises(NotAllowed):
        deep.decide(request, company.vp, auth={"password_at": "yesterday"})
    assert not request.decisions.exists()


@pytest.mark.requirement("approval-engine-2.1")
def test_an_approval_that_stops_counting_opens_its_stage_again(deep: Office, company: Any) -> None:
    """Whoever comes to the requester's side is void with all they said; the row follows with the next word."""
    second = make_user()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    deep.publish({"stages": [OWNER, {**COMPLIANCE, "quorum": 2}]})
    thing = deep.subject.add()
    request = deep.decide(deep.submit(thing), company.vp)
    thing.producers.add(company.vp.pk)
    assert open_names(request) == ["Owner"]
    request = deep.decide(request, second)
    assert open_names(request) == ["Compliance"]
    assert actions.withdraw(request.pk, "Enough seen.", actor=Actor.of(company.lead_finance)).status == "withdrawn"
