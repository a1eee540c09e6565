"""Comments, delegations, emergency reviews, lost standard changes, integrity figures: their pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.approvals import actions, commenting, emergencies, standing
from apps.approvals.blocking import open_reviews
from apps.approvals.models import ApprovalRequest, Comment, Delegation, EmergencyReview, StandardLoss
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.teams.choices import Role
from tests.approvals.conftest import ONE_STAGE
from tests.factories import client_for, grant, make_user

pytestmark = pytest.mark.django_db
EMERGENCY: dict[str, Any] = {
    **ONE_STAGE,
    "emergency": {"role": "compliance", "hours": 4, "review_hours": 72, "review_role": "compliance"},
}
STANDARD: dict[str, Any] = {
    **ONE_STAGE,
    "automatic": [{"name": "Known change", "standard": True, "when": [["request.gpus", "le", 2]]}],
}
REASON = "The model in production answers nothing at all."


def url(request: ApprovalRequest, tail: str = "") -> str:
    return f"/approvals/requests/{request.uid}/{tail}"


def local(at: Any) -> str:
    return f"{at:%Y-%m-%dT%H:%M}"


# ---------------------------------------------------------------- comments


@pytest.mark.requirement("compliance-inbox-4.1", "compliance-inbox-4.2")
def test_a_comment_keeps_its_anchor_and_the_bytes_it_was_made_on(office, company):
    request = office.submit()
    client = client_for(company.vp)
    page = client.get(url(request)).content.decode()
    assert "The whole request" in page
    assert "Change: alpha: spec.hard" in page
    sent = {"anchor": "leaf:alpha: spec.hard", "body": "Why twenty?"}
    answer = client.post(url(request, "comment/"), sent)
    assert (answer.status_code, answer["Location"]) == (303, f"{url(request)}#comments")
    row = Comment.objects.get()
    assert (row.anchor, row.subject_digest, row.author) == (sent["anchor"], request.subject_digest, company.vp)
    told = OutboxMessage.objects.get(event="approvals.comment.made")
    assert told.recipient_ids == [company.lead_finance.pk]
    event = AuditEvent.objects.get(action="approvals.comment.made")
    assert "Why twenty?" not in event.canonical_text
    text = client_for(company.lead_finance).get(url(request)).content.decode()
    assert "Why twenty?" in text
    assert "on Change: alpha: spec.hard" in text
    assert "made on other bytes" not in text
    # Corrected: the remark stays with the request that takes its place, marked.
    other = office.submit(office.subject.add(text="15 GPUs"), supersedes=request.pk)
    later = client_for(company.vp).get(url(other)).content.decode()
    assert "Why twenty?" in later
    assert "on the earlier request" in later
    assert "made on other bytes" in later


@pytest.mark.requirement("compliance-inbox-4.3")
def test_who_resolves_a_comment(office, company):
    request = office.submit()
    row = commenting.comment(request.uid, "", "Please name the owner.", actor=Actor.of(company.vp))
    asked = client_for(company.lead_finance)
    assert asked.get(f"/approvals/comments/{row.uid}/resolve/").status_code == 403
    client = client_for(company.vp)
    assert "Please name the owner." in client.get(f"/approvals/comments/{row.uid}/resolve/").content.decode()
    assert client.post(f"/approvals/comments/{row.uid}/resolve/", {"version": "1"}).status_code == 303
    row.refresh_from_db()
    assert row.resolved_by == company.vp
    assert client.post(f"/approvals/comments/{row.uid}/resolve/").status_code == 409
    assert "Resolved" in client.get(url(request)).content.decode()


@pytest.mark.requirement("compliance-inbox-4.1")
def test_comments_are_refused_to_who_only_reads_and_after_the_end(office, company):
    request = office.submit()
    with pytest.raises(NotAllowed):
        commenting.comment(request.uid, "", "I only read.", actor=Actor.of(company.auditor))
    with pytest.raises(NotVisible):
        commenting.comment(request.uid, "", "I see nothing.", actor=Actor.of(company.lead_marketing))
    with pytest.raises(Invalid) as refused:
        commenting.comment(request.uid, "control:NONE", " ", actor=Actor.of(company.vp))
    assert set(refused.value.errors) == {"anchor", "body"}
    assert "Comment</button>" not in client_for(company.auditor).get(url(request)).content.decode()
    actions.withdraw(request.pk, "Not needed.", actor=Actor.of(company.lead_finance))
    with pytest.raises(Conflict):
        commenting.comment(request.uid, "", "Too late.", actor=Actor.of(company.vp))


@pytest.mark.requirement("compliance-inbox-4.1")
def test_a_subject_names_its_own_anchors(office, company, monkeypatch):
    monkeypatch.setattr(
        type(office.subject), "anchors", lambda self, uid: [("control:X-1", "Control X-1: Access")], raising=False
    )
    request = office.submit()
    commenting.comment(request.uid, "control:X-1", "Where is it?", actor=Actor.of(company.vp))
    assert "on Control X-1: Access" in client_for(company.vp).get(url(request)).content.decode()


# ---------------------------------------------------------------- delegations


@pytest.mark.requirement("compliance-inbox-5.1")
def test_naming_and_ending_a_stand_in_on_the_pages(office, company):
    client = client_for(company.vp)
    page = client.get("/approvals/new-delegation/")
    assert page.status_code == 200
    assert "giver" not in page.context["form"].fields
    until = clock.now() + timedelta(days=3)
    sent = {"delegate": company.lead_marketing.email, "role": "unit_owner", "end": local(until), "reason": "Leave."}
    wrong = client.post("/approvals/new-delegation/", {**sent, "delegate": "nobody@example.com"})
    assert wrong.status_code == 400
    assert "No active person has this e-mail address" in wrong.content.decode()
    past = client.post("/approvals/new-delegation/", {**sent, "end": "2020-01-01T00:00"})
    assert "Choose an end in the future" in past.content.decode()
    assert client.post("/approvals/new-delegation/", sent).status_code == 303
    row = Delegation.objects.get()
    assert (row.giver, row.delegate, row.role) == (company.vp, company.lead_marketing, "unit_owner")
    for person in (company.vp, company.lead_marketing, company.auditor):
        text = client_for(person).get("/approvals/delegations/").content.decode()
        assert "In force" in text, person
    assert "Leave." not in client_for(company.lead_finance).get("/approvals/delegations/").content.decode()
    end = f"/approvals/delegations/{row.uid}/end/"
    assert client_for(company.lead_finance).get(end).status_code == 404
    assert client_for(company.auditor).get(end).status_code == 403
    assert client_for(company.lead_marketing).post(end, {"version": str(row.version)}).status_code == 303
    row.refresh_from_db()
    assert row.revoked_by == company.lead_marketing
    assert client.get(end).status_code == 409
    for state, count in (("over", 1), ("in_force", 0), ("planned", 0)):
        assert client.get(f"/approvals/delegations/?state={state}").context["table"].page.paginator.count == count


@pytest.mark.requirement("compliance-inbox-5.1")
def test_admins_name_a_stand_in_for_others_and_nobody_else_does(office, company):
    sent = {
        "giver": company.compliance.email, "delegate": company.finance.email, "role": "compliance",
        "end": local(clock.now() + timedelta(days=1)), "reason": "Ill.",
    }  # fmt: skip
    assert client_for(company.lead_finance).get("/approvals/new-delegation/").status_code == 403
    # A giver that is not asked for is not taken from the form either.
    client_for(company.vp).post("/approvals/new-delegation/", sent)
    assert not Delegation.objects.exists()
    assert client_for(company.admin).post("/approvals/new-delegation/", sent).status_code == 303
    assert Delegation.objects.get().giver == company.compliance


# ---------------------------------------------------------------- emergencies


@pytest.fixture
def review(office, company):
    """An emergency of the finance team that compliance approved."""
    office.publish(EMERGENCY)
    request = office.submit(kind="emergency", reason=REASON)
    office.decide(request, company.compliance, reason="It cannot wait.")
    return EmergencyReview.objects.get()


@pytest.mark.requirement("compliance-inbox-5.2")
def test_a_review_is_closed_with_findings_by_who_took_no_part(office, company, review):
    second = make_user(display_name="Second compliance officer")
    grant(second, Role.COMPLIANCE)
    assert "To be reviewed" in client_for(company.auditor).get("/approvals/reviews/?state=open").content.decode()
    here = f"/approvals/reviews/{review.uid}/"
    text = client_for(company.compliance).get(here).content.decode()
    assert "You cannot close this review" in text
    assert REASON in text
    assert client_for(company.compliance).get(f"{here}close/").status_code == 403
    client = client_for(second)
    assert "Close the review" in client.get(here).content.decode()
    sent = {"outcome": "justified", "findings": "Short.", "version": str(review.version)}
    short = client.post(f"{here}close/", sent)
    assert short.status_code == 400
    assert "at least 20 characters" in short.content.decode()
    sent["findings"] = "The index was lost; the usual way would have taken two days."
    assert client.post(f"{here}close/", sent).status_code == 303
    assert client.post(f"{here}close/", sent).status_code == 409
    for path in (here, url(review.request)):
        assert "the usual way would have taken two days" in client.get(path).content.decode()
    assert client.get("/approvals/reviews/?state=closed").context["table"].page.paginator.count == 1


@pytest.mark.requirement("compliance-inbox-5.3")
def test_the_team_reads_what_holds_up_its_next_request(office, company, review):
    text = client_for(company.lead_finance).get(f"/teams/{company.finance_team.slug}/").content.decode()
    assert "What holds up the next request" in text
    assert f"/approvals/reviews/{review.uid}/" in text
    other = client_for(company.lead_marketing).get(f"/teams/{company.marketing_team.slug}/").content.decode()
    assert "What holds up the next request" not in other
    request = client_for(company.lead_finance).get(url(review.request)).content.decode()
    assert "This emergency has to be reviewed" in request
    assert REASON in request


@pytest.mark.requirement("compliance-inbox-5.3")
def test_open_reviews_are_told_where_a_request_is_made(office, company, review):
    assert open_reviews(company.lead_finance) == [review]
    assert open_reviews(company.lead_marketing) == []


# ---------------------------------------------------------------- standard changes


@pytest.mark.requirement("compliance-inbox-5.4")
def test_a_lost_standard_change_is_restored_with_a_reason(office, company):
    office.publish(STANDARD)
    request = office.submit(office.subject.add(facts={"request.gpus": 1}))
    standing.report_failure(request.uid, "It was rolled back.")
    row = StandardLoss.objects.get()
    listed = client_for(company.compliance).get("/approvals/standard-changes/?state=lost").content.decode()
    assert "It was rolled back." in listed
    here = f"/approvals/standard-changes/{row.uid}/restore/"
    assert here in listed
    assert here not in client_for(company.lead_finance).get("/approvals/standard-changes/").content.decode()
    assert client_for(company.lead_finance).get(here).status_code == 403
    team = client_for(company.lead_finance).get(f"/teams/{company.finance_team.slug}/").content.decode()
    assert "Standard change lost" in team
    client = client_for(company.compliance)
    assert client.post(here, {"reason": "fine"}).status_code == 400
    assert client.post(here, {"reason": "The test now covers it.", "version": str(row.version)}).status_code == 303
    assert client.post(here, {"reason": "The test now covers it."}).status_code == 409
    assert "Restored" in client.get("/approvals/standard-changes/").content.decode()


# ---------------------------------------------------------------- figures


@pytest.mark.requirement("compliance-inbox-6.1")
def test_figures_say_how_long_stages_had_been_open(office, company, frozen_clock):
    for minutes in (0, 30, 90):
        request = office.submit()
        clock.advance(timedelta(minutes=minutes))
        office.decide(request, company.vp)
    page = client_for(company.auditor).get("/approvals/integrity/")
    (row,) = [one.record for one in page.context["table"].page.object_list]
    assert (row["decisions"], row["approvals"], row["quick"]) == (3, 3, 1)
    assert row["median"] == timedelta(minutes=30)
    text = page.content.decode()
    assert "does not record what somebody read" in text
    assert "33.3" in text
    for name in ("vp", "lead_finance", "admin"):
        assert client_for(company[name]).get("/approvals/integrity/").status_code == 403, name
    clock.advance(timedelta(days=31))
    assert "Nothing was decided" in client_for(company.compliance).get("/approvals/integrity/?days=30").content.decode()


@pytest.mark.requirement("compliance-inbox-1.5")
def test_the_lists_keep_to_twenty_queries(office, company, review, query_limit):
    for number in range(8):
        commenting.comment(office.submit(team=company.marketing_team, by=company.lead_marketing).uid, "",
                           f"Remark {number}", actor=Actor.of(company.vp))  # fmt: skip
    client = client_for(company.compliance)
    for path in ("reviews", "standard-changes", "delegations", "integrity"):
        client.get(f"/approvals/{path}/")
        with query_limit(20):
            assert client.get(f"/approvals/{path}/").status_code == 200, path
    assert emergencies.blocking(company.finance_team.pk) == review
