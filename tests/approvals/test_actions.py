"""Submitting, deciding, withdrawing, waiting: on the database, as the application's own role."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, transaction

from apps.accounts.models import User
from apps.approvals import actions, engine, ports, selectors
from apps.approvals.models import ApprovalRequest, Decision, Grant, PolicyVersion
from apps.approvals.tasks import lapse_overdue, retry_waiting
from apps.audit.selectors import events_for
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.teams.choices import Role
from apps.teams.models import RoleGrant
from tests.approvals.conftest import ONE_STAGE, TWO_STAGES
from tests.approvals.subjects import facts_provided
from tests.factories import grant, make_member, make_user

pytestmark = pytest.mark.django_db


# ---------------------------------------------------------------- submission


@pytest.mark.requirement("approvals-2.1", "approvals-5.1")
def test_a_submission_pins_digest_facts_and_version_and_mails_the_unit_owner(office, events_of):
    request = office.submit()
    assert (request.status, request.policy_version.number) == ("in_review", 1)
    assert request.subject_digest == actions.digest(office.subject.canonical(request.subject_uid))
    pinned = engine.load_facts(request.facts)  # beside the subject's own: what rooms above add of the team
    assert {key: pinned[key] for key in pinned if key.startswith("request.")} == {
        ports.MONTHLY_COST: Decimal("1405.25")
    }
    stage = request.stages.get()
    assert (stage.unit, stage.role, stage.opened_at) == (office.company.unit, "unit_owner", request.submitted_at)
    assert "asked for every request" in stage.rule
    assert events_of(request) == [("approvals.request.submitted", [office.company.vp.pk])]


@pytest.mark.requirement("approvals-2.6")
def test_a_second_open_request_for_the_same_subject_is_refused(office):
    request = office.submit()
    with pytest.raises(Conflict, match="already open"):
        office.submit(office.subject.things[request.subject_uid])
    assert ApprovalRequest.objects.count() == 1


@pytest.mark.requirement("approvals-2.6", "approvals-3.3")
def test_a_correction_closes_the_earlier_request_and_counts_none_of_its_decisions(office, company):
    office.publish({"stages": [{"name": "Both", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    second = make_user()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    first = office.submit()
    office.decide(first, company.vp)
    corrected = office.submit(office.subject.add(text="18 GPUs"), supersedes=first.pk)
    first.refresh_from_db()
    assert (first.status, corrected.supersedes_id) == ("superseded", first.pk)
    office.decide(corrected, second)
    corrected.refresh_from_db()
    assert corrected.status == "in_review"
    with pytest.raises(Conflict):
        office.decide(first, second)


@pytest.mark.requirement("approvals-2.1")
def test_a_policy_edit_changes_no_open_request(office, company):
    policy_edit_leaves_an_open_request_alone(office, company)


def policy_edit_leaves_an_open_request_alone(office, company):
    """P6, as a scene that a mutant reading the newest version must not survive."""
    request = office.submit()
    office.publish(
        {"stages": [{"name": "Board", "role": "platform_admin", "scope": "installation"}], "validity_days": 1}
    )
    office.decide(request, company.vp)
    request.refresh_from_db()
    assert request.status == "approved"
    assert request.grant.expires_at is None
    assert request.decisions.get().policy_digest == PolicyVersion.objects.get(number=1).digest


@pytest.mark.requirement("approvals-2.1")
def test_a_portal_that_read_policies_live_would_be_caught(office, company, monkeypatch):
    """The mutant: decisions are judged under the newest version instead of the pinned one."""
    from apps.approvals import deciders

    honest = deciders.case_of

    def live(request, stages, decisions, side):
        request.policy_version = PolicyVersion.objects.order_by("-number").first()
        return honest(request, stages, decisions, side)

    monkeypatch.setattr(deciders, "case_of", live)
    with pytest.raises(AssertionError):
        policy_edit_leaves_an_open_request_alone(office, company)


@pytest.mark.requirement("approvals-2.4", "approvals-3.1")
def test_what_the_owner_requests_goes_to_the_parent_unit(office, company, events_of):
    above, peer = make_user(), make_user()
    grant(above, Role.UNIT_OWNER, unit=company.root)
    grant(peer, Role.UNIT_OWNER, unit=company.unit)
    request = office.submit(by=company.vp)
    stage = request.stages.get()
    assert stage.unit == company.root
    assert "one level up" in stage.rule
    assert events_of(request)[0][1] == [above.pk]
    for person in (company.vp, peer):
        with pytest.raises(NotAllowed):
            office.decide(request, person)
    office.decide(request, above)


@pytest.mark.requirement("approvals-2.4")
def test_from_the_top_it_goes_to_the_platform_admins(office, company):
    top = make_user()
    grant(top, Role.UNIT_OWNER, unit=company.root)
    stage = office.submit(by=top).stages.get()
    assert (stage.role, stage.unit) == ("platform_admin", None)
    assert "cannot be held for the whole installation" in stage.rule


@pytest.mark.requirement("approvals-2.4")
def test_the_paying_owner_as_such_may_decide(office, company):
    """The unit pays for the team: that makes its owner an approver, not a beneficiary."""
    request = office.submit()
    office.decide(request, company.vp)
    assert Grant.objects.filter(request=request).exists()


@pytest.mark.requirement("approvals-2.5")
def test_nobody_to_decide_is_told_to_the_admins_and_heals_by_an_appointment(office, company, events_of):
    RoleGrant.objects.filter(user=company.vp).update(revoked_at=clock.now())
    request = office.submit()
    assert ("approvals.request.undecidable", [company.admin.pk]) in events_of(request)
    assert [stage.name for stage in selectors.starving(selectors.sight(request))] == ["Unit owner"]
    newcomer = make_user()
    grant(newcomer, Role.UNIT_OWNER, unit=company.unit)
    assert selectors.starving(selectors.sight(request)) == []
    office.decide(request, newcomer)


@pytest.mark.requirement("approvals-2.1")
def test_without_a_published_policy_nothing_can_be_submitted(office):
    with pytest.raises(Invalid, match="No policy is published"):
        actions.submit(
            "tests.thing", office.subject.add().uid, actor=Actor.of(office.company.lead_finance), policy_slug="other",
            team_id=office.company.finance_team.pk, unit_id=office.company.unit.pk,
        )  # fmt: skip


# ---------------------------------------------------------------- automatic approval


@pytest.fixture
def budget():
    """A fact of another room: 100 left, 3 GPUs approved by policy so far, in a test's hands."""
    values = {"team.budget_remaining": Decimal(100), "team.auto_approved_30d": 0}
    with facts_provided({name: lambda context, name=name: values.get(name) for name in values}):
        yield values


@pytest.mark.requirement("approvals-2.3")
def test_a_small_change_is_approved_by_policy_which_the_trail_names(office, budget):
    office.publish(TWO_STAGES)
    request = office.submit(office.subject.add(facts={"request.gpus": 2}))
    assert (request.status, request.automatic, request.automatic_rule) == ("approved", True, "Small change")
    assert office.subject.granted == [request.subject_uid]
    assert not request.stages.exists()
    approved = events_for(request.uid).filter(action="approvals.request.approved").get()
    assert (approved.actor_type, approved.data["actor"]["id"]) == ("system", "approvals.policy")


@pytest.mark.requirement("approvals-2.3")
def test_beyond_the_limit_of_thirty_days_people_are_asked(office, budget):
    office.publish(TWO_STAGES)
    budget["team.auto_approved_30d"] = 3
    request = office.submit(office.subject.add(facts={"request.gpus": 2}))
    assert (request.status, request.automatic) == ("in_review", False)


@pytest.mark.requirement("approvals-2.2")
def test_a_missing_fact_makes_the_condition_false(office, budget):
    office.publish(TWO_STAGES)
    budget.pop("team.budget_remaining")
    request = office.submit(office.subject.add(facts={"request.gpus": 1}))
    assert not request.automatic
    assert [stage.name for stage in request.stages.all()] == ["Unit owner"]


@pytest.mark.requirement("approvals-2.3", "approvals-4.2")
def test_an_automatic_approval_waits_where_the_room_cannot_take_it(office, budget):
    office.publish(TWO_STAGES)
    office.subject.room = False
    request = office.submit(office.subject.add(facts={"request.gpus": 1}))
    assert (request.status, request.conclusion) == ("waiting_for_capacity", "The pool is full until 1 December.")
    office.subject.room = True
    assert retry_waiting() == 1
    request.refresh_from_db()
    assert request.status == "approved"


# ---------------------------------------------------------------- decisions


@pytest.mark.requirement("approvals-3.7", "approvals-3.6", "approvals-5.1")
def test_the_last_approval_makes_the_grant_and_tells_the_requester(office, company, events_of):
    request = office.decide(office.submit(), company.vp)
    assert request.status == "approved"
    assert office.subject.granted == [request.subject_uid]
    assert engine.usable(request.grant, request.subject_digest, {"clusters": ["alpha"]}, clock.now())
    decision = request.decisions.get()
    assert decision.held == "Unit owner (VP) of Retail Bank"
    assert decision.subject_digest == request.subject_digest
    assert engine.load_facts(decision.facts)[ports.MONTHLY_COST] == Decimal("1405.25")
    assert events_of(request)[1:] == [
        ("approvals.decision.made", [company.lead_finance.pk]),
        ("approvals.request.approved", [company.lead_finance.pk]),
    ]
    assert [e.action for e in events_for(request.uid).order_by("occurred_at", "uid")].count(
        "approvals.decision.made"
    ) == 1


@pytest.mark.requirement("approvals-3.6")
def test_a_decision_stores_the_facts_as_of_then(office, company):
    thing = office.subject.add(facts={"request.gpus": 5})
    request = office.submit(thing)
    thing.facts["request.gpus"] = 6
    office.decide(request, company.vp)
    assert engine.load_facts(request.decisions.get().facts)["request.gpus"] == 6
    assert engine.load_facts(request.facts)["request.gpus"] == 5


@pytest.mark.requirement("approvals-3.6")
def test_the_database_lets_nobody_change_or_remove_a_decision_or_a_published_version(office, company):
    request = office.submit()
    office.decide(request, company.vp)
    for attempt in (
        lambda: Decision.objects.update(verdict="reject"),
        lambda: Decision.objects.all().delete(),
        lambda: PolicyVersion.objects.update(body={}),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            attempt()
    assert Decision.objects.get().verdict == "approve"


@pytest.mark.requirement("approvals-2.1", "approvals-3.3")
def test_two_stages_one_after_the_other_with_different_people(office, company, events_of):
    office.publish(TWO_STAGES)
    grant(company.vp, Role.COMPLIANCE)
    request = office.submit(office.subject.add(facts={"request.environment": "production"}))
    assert [s.name for s in request.stages.all()] == ["Unit owner", "Compliance"]
    with pytest.raises(NotAllowed):
        office.decide(request, company.compliance)
    office.decide(request, company.vp)
    assert events_of(request)[-1] == ("approvals.request.submitted", [company.compliance.pk])
    with pytest.raises(NotAllowed, match="already said so"):
        office.decide(request, company.vp)
    office.decide(request, company.compliance)
    request.refresh_from_db()
    assert request.status == "approved"
    assert request.grant.expires_at == request.grant.not_before + timedelta(days=365)


@pytest.mark.requirement("approvals-3.1")
def test_requester_superuser_and_team_member_are_refused(office, company):
    lead = company.lead_finance
    grant(lead, Role.UNIT_OWNER, unit=company.root)
    lead.is_superuser = True
    lead.save()
    owner_and_member = make_user()
    grant(owner_and_member, Role.UNIT_OWNER, unit=company.root)
    thing = office.subject.add(side={owner_and_member.pk})
    request = office.submit(thing, by=company.member_finance)
    thing.side.add(lead.pk)
    for person in (company.member_finance, lead, owner_and_member):
        for verdict in ("approve", "reject"):
            with pytest.raises(NotAllowed):
                office.decide(request, person, verdict)
    assert not request.decisions.exists()


@pytest.mark.requirement("approvals-3.1")
def test_a_superuser_who_requested_it_is_the_requester(office, company):
    chief = make_user(is_superuser=True)
    grant(chief, Role.PLATFORM_ADMIN)
    office.publish({"stages": [{"name": "Platform", "role": "platform_admin", "scope": "installation"}]})
    request = office.submit(by=chief)
    with pytest.raises(NotAllowed, match="nobody decides on what they requested"):
        office.decide(request, chief)
    office.decide(request, company.admin)


@pytest.mark.requirement("approvals-3.1")
def test_leaving_the_team_after_submission_does_not_help(office, company):
    thing = office.subject.add(side={company.vp.pk})
    request = office.submit(thing)
    thing.side.clear()
    with pytest.raises(NotAllowed, match="requester's side"):
        office.decide(request, company.vp)


@pytest.mark.requirement("approvals-3.1")
def test_nobody_speaks_for_another_without_a_delegation(office, company):
    request = office.submit()
    with pytest.raises(NotAllowed, match="No delegation"):
        office.decide(request, company.compliance, on_behalf_of=company.vp.pk)


@pytest.mark.requirement("approvals-3.2")
def test_wrong_role_other_unit_and_expired_grant_are_refused(office, company):
    request = office.submit()
    with pytest.raises(NotAllowed, match="Does not hold the role"):
        office.decide(request, company.compliance)
    with pytest.raises(NotVisible):
        office.decide(request, company.vp_other)
    RoleGrant.objects.filter(user=company.vp).update(expires_at=clock.now())
    with pytest.raises(NotVisible):
        office.decide(request, company.vp)
    grant(company.vp, Role.COMPLIANCE)
    for verdict in ("approve", "reject"):
        with pytest.raises(NotAllowed, match="Does not hold the role"):
            office.decide(request, company.vp, verdict)


@pytest.mark.requirement("approvals-3.4")
def test_stale_digest_stale_version_and_edited_bytes_are_conflicts(office, company):
    request = office.submit()
    with pytest.raises(Conflict) as stale:
        office.decide(request, company.vp, expected_digest="0" * 64)
    assert stale.value.current["digest"] == request.subject_digest
    with pytest.raises(Conflict):
        office.decide(request, company.vp, expected_version=request.version - 1)
    office.subject.things[request.subject_uid].text = "200 GPUs"
    with pytest.raises(Conflict, match="edited"):
        office.decide(request, company.vp)
    assert not request.decisions.exists()


@pytest.mark.requirement("approvals-3.5")
@pytest.mark.parametrize(
    ("verdict", "reason", "field"),
    [
        ("approve", "  ", "reason"),
        ("reject", "too dear", "reason"),
        ("reject", "", "reason"),
        ("maybe", "why not", "verdict"),
    ],
)
def test_a_decision_needs_a_reason(office, company, verdict, reason, field):
    request = office.submit()
    with pytest.raises(Invalid) as refused:
        office.decide(request, company.vp, verdict, reason)
    assert list(refused.value.errors) == [field]


@pytest.mark.requirement("approvals-3.8", "approvals-5.1")
def test_a_rejection_ends_it_with_the_reason(office, company, events_of):
    request = office.decide(office.submit(), company.vp, "reject", "The pool is needed for the year-end run.")
    assert (request.status, request.conclusion) == ("rejected", "The pool is needed for the year-end run.")
    assert office.subject.concluded == [(request.subject_uid, "rejected", request.conclusion)]
    assert events_of(request)[-1] == ("approvals.request.rejected", [company.lead_finance.pk])
    with pytest.raises(Conflict):
        office.decide(request, company.vp)
    assert not Grant.objects.exists()


@pytest.mark.requirement("approvals-3.7")
def test_blockers_stop_an_approval_but_no_rejection(office, company):
    thing = office.subject.add(blocked=["The plan is not made yet."])
    request = office.submit(thing)
    with pytest.raises(Conflict, match="plan is not made"):
        office.decide(request, company.vp)
    assert office.decide(request, company.vp, "reject", "Not this year any more.").status == "rejected"


@pytest.mark.requirement("approvals-3.3", "approvals-3.6")
def test_replaying_the_log_gives_the_stored_state(office, company):
    office.publish({"stages": [{"name": "Both", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    second = make_user()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    request = office.submit()
    office.decide(request, company.vp)
    seen = selectors.sight(request)
    assert (seen.state.standing, seen.state.stage) == ("in_review", request.current_stage)
    office.decide(request, second)
    request.refresh_from_db()
    seen = selectors.sight(request)
    assert (str(seen.state.standing), seen.state.completed) == (request.status, (request.stages.get().completed_at,))


@pytest.mark.requirement("approvals-3.3")
def test_changing_ones_mind_before_the_end(office, company):
    office.publish({"stages": [{"name": "Both", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    request = office.submit()
    office.decide(request, company.vp)
    request = office.decide(request, company.vp, "reject", "I had misread the amount.")
    assert request.status == "rejected"
    assert [d.verdict for d in request.decisions.all()] == ["approve", "reject"]


# ---------------------------------------------------------------- time, capacity, withdrawal


@pytest.mark.requirement("approvals-4.1", "approvals-5.1")
def test_past_the_due_time_nothing_is_decided_with_every_scheduler_stopped(office, company, events_of, frozen_clock):
    request = office.submit()
    clock.advance(timedelta(hours=72) - timedelta(seconds=1))
    assert lapse_overdue() == 0
    clock.advance(timedelta(seconds=1))
    with pytest.raises(Conflict, match="lapsed"):
        office.decide(request, company.vp)
    assert not selectors.waiting_for(company.vp).exists()
    assert lapse_overdue() == 1
    assert lapse_overdue() == 0
    request.refresh_from_db()
    assert request.status == "lapsed"
    assert office.subject.concluded[0][1] == "lapsed"
    assert events_of(request)[-1] == ("approvals.request.lapsed", [company.lead_finance.pk])


@pytest.mark.requirement("approvals-4.2")
def test_a_full_pool_keeps_the_decisions_and_makes_no_grant(office, company, events_of):
    office.subject.room = False
    request = office.decide(office.submit(), company.vp)
    assert (request.status, request.conclusion) == ("waiting_for_capacity", "The pool is full until 1 December.")
    assert not Grant.objects.exists()
    assert request.decisions.count() == 1
    assert events_of(request)[-1] == ("approvals.request.waiting", sorted([company.lead_finance.pk, company.vp.pk]))
    assert retry_waiting() == 0
    office.subject.room = True
    assert retry_waiting() == 1
    request.refresh_from_db()
    assert (request.status, office.subject.granted) == ("approved", [request.subject_uid])


@pytest.mark.requirement("approvals-4.2")
def test_nobody_jumps_the_line(office, company):
    office.subject.room = False
    first, second = (office.submit(office.subject.add(line="pool-a")) for _ in range(2))
    for request in (first, second):
        office.decide(request, company.vp)
    office.subject.room = True
    third = office.decide(office.submit(office.subject.add(line="pool-a")), company.vp)
    elsewhere = office.decide(office.submit(office.subject.add(line="pool-b")), company.vp)
    assert (third.status, elsewhere.status) == ("waiting_for_capacity", "approved")
    assert "2 earlier requests" in third.conclusion
    assert actions.retry_waiting(second.pk, actor=Actor.system("test")).status == "waiting_for_capacity"
    assert retry_waiting() == 3
    assert office.subject.granted[1:] == [first.subject_uid, second.subject_uid, third.subject_uid]


@pytest.mark.requirement("approvals-4.2")
def test_one_that_nothing_can_serve_holds_up_nobody(office, company):
    office.subject.room = False
    thing = office.subject.add(line="pool-a")
    first = office.decide(office.submit(thing), company.vp)
    second = office.decide(office.submit(office.subject.add(line="pool-a")), company.vp)
    office.subject.room = True
    thing.blocked.append("Its time has passed.")
    assert retry_waiting() == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == ("waiting_for_capacity", "approved")
    assert first.conclusion == "Its time has passed."


@pytest.mark.requirement("approvals-4.4", "approvals-3.8", "approvals-5.1")
def test_withdrawing(office, company, events_of):
    request = office.submit(by=company.member_finance)
    with pytest.raises(Invalid):
        actions.withdraw(request.pk, " ", actor=Actor.of(company.member_finance))
    for stranger, error in ((company.lead_marketing, NotVisible), (company.compliance, NotAllowed)):
        with pytest.raises(error):
            actions.withdraw(request.pk, "Not needed.", actor=Actor.of(stranger))
    withdrawn = actions.withdraw(request.pk, "Not needed.", actor=Actor.of(company.lead_finance))
    assert withdrawn.status == "withdrawn"
    assert events_of(request)[-1] == (
        "approvals.request.withdrawn",
        sorted([company.member_finance.pk, company.vp.pk]),
    )
    with pytest.raises(Conflict):
        actions.withdraw(request.pk, "Again.", actor=Actor.of(company.lead_finance))
    with pytest.raises(Conflict):
        office.decide(request, company.vp)


# ---------------------------------------------------------------- policies


@pytest.mark.requirement("approvals-1.1")
def test_publishing_makes_numbered_versions_and_refuses_one_without_change(office):
    again = {"stages": [{**ONE_STAGE["stages"][0], "due_hours": 24}]}
    assert office.publish(again).number == 2
    with pytest.raises(Invalid, match="nothing has changed"):
        office.publish(again)
    newest = selectors.newest("things")
    assert (newest.number, newest.policy.versions.count()) == (2, 2)
    assert newest.digest != newest.policy.versions.get(number=1).digest


@pytest.mark.requirement("approvals-1.1")
def test_only_platform_admins_publish(office, company):
    for person in (company.vp, company.compliance, company.auditor):
        with pytest.raises(NotAllowed):
            actions.publish_policy("things", "Things", "tests.thing", ONE_STAGE, actor=Actor.of(person))


# ---------------------------------------------------------------- who could decide


@pytest.mark.requirement("approvals-5.3")
def test_explain_lists_everybody_with_the_role_and_their_rule(office, company):
    above, member = make_user(), make_user()
    grant(above, Role.UNIT_OWNER, unit=company.root)
    grant(member, Role.UNIT_OWNER, unit=company.unit)
    request = office.submit(office.subject.add(side={member.pk}))
    seats = {seat.user.pk: seat for seat in selectors.explain(request)}
    assert set(seats) == {above.pk, member.pk, company.vp.pk}
    assert (seats[company.vp.pk].may, seats[above.pk].may, seats[member.pk].may) == (True, True, False)
    assert "requester's side" in seats[member.pk].rule


@pytest.mark.requirement("approvals-5.2")
def test_waiting_for_says_what_the_engine_says(office, company):
    office.publish(TWO_STAGES)
    joined = make_user()
    grant(joined, Role.UNIT_OWNER, unit=company.unit)
    thing = office.subject.add(facts={"request.environment": "production"})
    requests = [office.submit(thing), office.submit(), office.submit(by=company.vp)]
    make_member(joined, company.finance_team)
    thing.side.add(joined.pk)
    everybody = [company[name] for name in ("lead_finance", "vp", "vp_other", "compliance", "admin", "auditor")] + [
        joined
    ]

    def compare():
        for loaded in everybody:
            person = User.objects.get(pk=loaded.pk)  # as each request loads them: what is open is read once in it
            listed = set(selectors.waiting_for(person).values_list("pk", flat=True))
            able = set()
            for request in ApprovalRequest.objects.filter(status="in_review"):
                seen = selectors.sight(request)
                fresh = person.pk not in seen.state.seats
                if fresh and not selectors.why_not(seen, person):
                    able.add(request.pk)
            assert listed == able, person

    compare()
    assert {r.pk for r in selectors.waiting_for(company.vp)} == {requests[0].pk, requests[1].pk}
    office.decide(requests[0], company.vp)
    compare()
    assert [r.pk for r in selectors.waiting_for(company.compliance)] == [requests[0].pk]


@pytest.mark.requirement("approvals-1.3")
def test_preview_names_the_rule_or_the_people(office, company):
    office.publish(TWO_STAGES)
    small = {"request.gpus": 1, "team.budget_remaining": Decimal(5), "team.auto_approved_30d": 0}
    assert selectors.preview("things", small).automatic == "Small change"
    found = selectors.preview("things", {"request.environment": "production"}, unit_id=company.unit.pk)
    assert [(s.name, s.approvers) for s in found.stages] == [
        ("Unit owner", [str(company.vp)]),
        ("Compliance", [str(company.compliance)]),
    ]
    assert "team.budget_remaining" in found.missing_facts
