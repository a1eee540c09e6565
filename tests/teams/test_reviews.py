"""Access reviews: who is asked, what answers do, and that silence ends rights."""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.permissions import may
from apps.core.testing import assert_queries
from apps.teams import actions, review_selectors, reviewing, reviews
from apps.teams.choices import ReviewAnswer, ReviewStatus, Role
from apps.teams.models import AccessReview, Membership, ReviewItem, RoleGrant
from apps.teams.people_tasks import access_reviews
from apps.teams.reviewing import Place, Reviewers
from tests.factories import Company, client_for, forget_scopes, grant, make_member, make_team, make_unit, make_user

pytestmark = pytest.mark.django_db


def begin(company: Company, days: int = 30) -> AccessReview:
    return reviews.start_review("Test", clock.now() + timedelta(days=days), actor=Actor.of(company.compliance))


def item_of(review: AccessReview, user: Any, role: str = Role.TEAM_LEAD) -> ReviewItem:
    return review.items.get(user=user, role=role)


def answer(review: AccessReview, who: Any, items: list[ReviewItem], said: str = "keep", reason: str = "") -> Any:
    forget_scopes(who)
    return reviews.answer_items(review.pk, [item.uid for item in items], said, reason=reason, actor=Actor.of(who))


@pytest.mark.requirement("access-reviews-1.1")
def test_a_review_asks_about_everything_in_force_once(company: Company) -> None:
    gone = make_user("gone@example.com")
    grant(gone, Role.AUDITOR, expires_at=clock.now() - timedelta(days=1))
    grant(make_user("off@example.com", is_active=False), Role.AUDITOR)
    make_member(gone, company.finance_team, until=clock.now() - timedelta(hours=1))
    review = begin(company)
    grants = RoleGrant.objects.in_force().count()
    members = Membership.objects.current().count()
    assert review.items.count() == grants + members == 13
    assert not review.items.filter(user=gone).exists()


@pytest.mark.requirement("access-reviews-1.2")
def test_the_nearest_owner_is_asked_then_compliance_then_admins(company: Company) -> None:
    deep = make_unit("Cards", company.unit)
    team = make_team("Fraud", deep)
    owner, lead = make_user("owner@example.com"), make_user("fraud-lead@example.com")
    grant(owner, Role.UNIT_OWNER, unit=deep)
    grant(lead, Role.TEAM_LEAD, team=team)
    review = begin(company)
    who = reviews.reviewers()

    def asked(user: Any, role: str) -> set[int]:
        item = review.items.select_related("team__unit", "unit").get(user=user, role=role)
        return set(who.asked(item.user_id, reviews.place_of(item)))

    assert asked(lead, Role.TEAM_LEAD) == {owner.pk}
    assert asked(owner, Role.UNIT_OWNER) == {company.vp.pk}
    assert asked(company.vp, Role.UNIT_OWNER) == {company.admin.pk}, "nobody owns the unit above"
    assert asked(company.finance, Role.FINANCE) == {company.compliance.pk}
    assert asked(company.compliance, Role.COMPLIANCE) == {company.admin.pk}
    assert asked(company.admin, Role.PLATFORM_ADMIN) == {company.compliance.pk}
    told = OutboxMessage.objects.get(event="teams.review.started").recipient_ids
    assert told == sorted({owner.pk, company.vp.pk, company.compliance.pk, company.admin.pk})


_people = st.frozensets(st.integers(1, 6), max_size=3)


@pytest.mark.requirement("access-reviews-1.2", "access-reviews-1.3")
@hypothesis_settings(max_examples=200)
@given(
    owners=st.dictionaries(st.integers(1, 4), _people, max_size=4), compliance=_people, admins=_people,
    persons=st.dictionaries(st.integers(4, 6), st.integers(1, 3), max_size=2),
    user=st.integers(1, 6), path=st.lists(st.integers(1, 4), unique=True, max_size=4), is_unit=st.booleans(),
)  # fmt: skip
def test_nobody_is_asked_about_themselves_and_somebody_is_where_there_is_anybody(
    owners: Any, compliance: Any, admins: Any, persons: Any, user: int, path: list[int], is_unit: bool
) -> None:
    who = Reviewers(owners, compliance, admins, persons)
    found = who.asked(user, Place(tuple(path), is_unit))
    own = who.person(user)
    assert all(who.person(one) != own for one in found)
    others = {one for one in compliance | admins if who.person(one) != own}
    assert found or not others, "whoever is left is asked"
    if path and not is_unit and any(who.person(one) != own for one in owners.get(path[-1], ())):
        assert found <= owners[path[-1]], "the owner beside comes before one above"


@pytest.mark.requirement("access-reviews-1.3")
def test_nobody_answers_for_themselves_or_what_asks_others(company: Company) -> None:
    other = make_user("second-vp@example.com")
    grant(other, Role.UNIT_OWNER, unit=company.unit)
    review = begin(company)
    lead, own = item_of(review, company.lead_finance), item_of(review, company.vp, Role.UNIT_OWNER)
    for who, item in ((company.vp, own), (company.admin, lead), (company.compliance, lead)):
        with pytest.raises(NotAllowed) as refused:
            answer(review, who, [item])
        assert refused.value.rule == "review_asks_others"
    with pytest.raises(NotVisible):
        answer(review, company.vp_other, [lead])
    with pytest.raises(NotAllowed):
        answer(review, company.lead_finance, [lead])
    behalf = Actor(user_id=company.vp.pk, channel=Actor.of(company.vp).channel, request_id="r", on_behalf_of=other.pk)
    with pytest.raises(NotAllowed) as refused:
        reviews.answer_items(review.pk, [lead.uid], "keep", actor=behalf)
    assert refused.value.rule == "in_own_name"
    program = make_user("program@example.com", kind="service")
    grant(program, Role.UNIT_OWNER, unit=company.unit)
    assert program.pk not in reviews.asked_by(review)


@pytest.mark.requirement("access-reviews-1.4")
def test_a_quarter_begins_its_review_once(company: Company, frozen_clock: datetime, settings: Any) -> None:
    settings.COMMONS_ACCESS_REVIEWS = "quarterly"
    assert access_reviews() == 0, "roles given this quarter are asked about in the next"
    RoleGrant.objects.filter(user=company.vp).update(created_at=frozen_clock - timedelta(days=100))
    settings.COMMONS_ACCESS_REVIEWS = "by_hand"
    assert access_reviews() == 0
    settings.COMMONS_ACCESS_REVIEWS = "quarterly"
    assert access_reviews() == 1
    review = AccessReview.objects.get()
    assert (review.quarter, review.due_at) == ("2026-Q4", frozen_clock + timedelta(days=30))
    assert access_reviews() == 0
    with pytest.raises(Conflict):
        reviews.start_review("Again", clock.now() + timedelta(days=30), quarter="2026-Q4", actor=Actor.system("t"))
    AccessReview.objects.update(status=ReviewStatus.CLOSED)
    with pytest.raises(Conflict, match="begun already"):
        reviews.start_review("Again", clock.now() + timedelta(days=30), quarter="2026-Q4", actor=Actor.system("t"))
    assert reviewing.quarter_of(datetime.fromisoformat("2027-01-01T00:00:00+00:00"))[0] == "2027-Q1"


@pytest.mark.requirement("access-reviews-1.5")
def test_a_review_by_hand_takes_a_name_and_an_end_and_waits_for_the_open_one(company: Company) -> None:
    actor = Actor.of(company.compliance)
    for days, name in ((0, "x"), (91, "x"), (30, " ")):
        with pytest.raises(Invalid):
            reviews.start_review(name, clock.now() + timedelta(days=days), actor=actor)
    with pytest.raises(NotAllowed):
        reviews.start_review("x", clock.now() + timedelta(days=30), actor=Actor.of(company.vp))
    begin(company)
    with pytest.raises(Conflict, match="“Test” is open"):
        reviews.start_review("Second", clock.now() + timedelta(days=30), actor=actor)


@pytest.mark.requirement("access-reviews-2.1", "access-reviews-2.4")
def test_what_is_still_needed_stays_and_can_be_removed_later_but_not_brought_back(company: Company) -> None:
    review = begin(company)
    lead = item_of(review, company.lead_finance)
    (kept,) = answer(review, company.vp, [lead], reason="leads the team")
    assert (kept.answer, kept.answered_by, kept.reason) == (ReviewAnswer.KEEP, company.vp, "leads the team")
    forget_scopes(company.lead_finance)
    assert may(company.lead_finance, "quotas.request.create", company.finance_team)
    answer(review, company.vp, [lead], "remove", "moved on")
    with pytest.raises(Conflict):
        answer(review, company.vp, [lead], "keep")
    forget_scopes(company.lead_finance)
    assert not may(company.lead_finance, "quotas.request.create", company.finance_team)


@pytest.mark.requirement("access-reviews-2.2")
def test_a_removal_needs_a_reason_acts_at_once_and_tells_the_person(company: Company) -> None:
    review = begin(company)
    member = item_of(review, company.member_finance, Role.MEMBER)
    with pytest.raises(Invalid) as refused:
        answer(review, company.vp, [member], "remove")
    assert "reason" in refused.value.errors
    answer(review, company.vp, [member], "remove", "changed teams")
    assert not Membership.objects.current().filter(user=company.member_finance).exists()
    assert OutboxMessage.objects.filter(
        event="teams.member.removed", recipient_ids=[company.member_finance.pk]
    ).exists()  # fmt: skip


@pytest.mark.requirement("access-reviews-2.3")
def test_many_answers_are_taken_all_or_none(company: Company) -> None:
    review = begin(company)
    mine = [item_of(review, getattr(company, f"lead_{team}")) for team in company.teams]
    with pytest.raises(NotAllowed):
        answer(review, company.vp, [*mine, item_of(review, company.vp, Role.UNIT_OWNER)], "remove", "reorganised")
    assert RoleGrant.objects.in_force().filter(role=Role.TEAM_LEAD).count() == 3
    assert len(answer(review, company.vp, mine, "remove", "reorganised")) == 3
    assert not RoleGrant.objects.in_force().filter(role=Role.TEAM_LEAD).exists()


@pytest.mark.requirement("access-reviews-2.5")
def test_an_answer_never_takes_the_last_admin(company: Company) -> None:
    review = begin(company)
    own = item_of(review, company.admin, Role.PLATFORM_ADMIN)
    with pytest.raises(Blocked, match="last platform admin"):
        answer(review, company.compliance, [own], "remove", "too many rights")
    assert may(company.admin, "teams.grant.manage")


@pytest.mark.requirement("access-reviews-2.6")
def test_a_closed_review_and_an_older_state_take_no_answer(company: Company) -> None:
    review = begin(company, days=2)
    lead = item_of(review, company.lead_finance)
    with pytest.raises(Conflict):
        reviews.answer_items(
            review.pk, [lead.uid], "keep", actor=Actor.of(company.vp), versions={lead.uid: lead.version + 1}
        )
    with clock.frozen(review.due_at), pytest.raises(Conflict, match="closed"):
        answer(review, company.vp, [lead])


@pytest.mark.requirement("access-reviews-2.7")
def test_the_last_answer_closes_the_review(company: Company) -> None:
    review = begin(company)
    for who in (company.vp, company.compliance, company.admin):
        keys = review_selectors.asks_me(who, review)
        answer(review, who, list(ReviewItem.objects.filter(pk__in=keys)))
    review.refresh_from_db()
    assert review.status == ReviewStatus.CLOSED
    event = AuditEvent.objects.get(action="teams.review.closed")
    assert event.data["changes"]["kept"] == 13


@pytest.mark.requirement("access-reviews-3.1")
def test_reminders_come_once_each_and_only_the_nearest_after_an_outage(
    company: Company, frozen_clock: datetime
) -> None:
    review = begin(company)
    sent = []
    for day in (1, 16, 16, 17, 28, 29):
        with clock.frozen(frozen_clock + timedelta(days=day)):
            access_reviews()
        found = OutboxMessage.objects.filter(event="teams.review.reminded").order_by("pk")
        sent.append([message.payload["days"] for message in found])
    assert sent == [[], [14], [14], [14], [14, 3], [14, 3, 1]]
    assert company.vp.pk in OutboxMessage.objects.filter(event="teams.review.reminded")[0].recipient_ids
    late = frozen_clock + timedelta(days=29, hours=1)
    assert reviewing.due_reminder(review.opened_at, review.due_at, None, late) == 1


@pytest.mark.requirement("access-reviews-3.2", "access-reviews-3.3", "access-reviews-3.4")
def test_silence_ends_rights_except_the_last_admins(company: Company, frozen_clock: datetime) -> None:
    review = begin(company)
    answer(review, company.vp, [item_of(review, company.lead_finance)])
    revoked = RoleGrant.objects.get(user=company.auditor)
    actions.revoke_role(revoked.pk, actor=Actor.of(company.admin), reason="left")
    with clock.frozen(review.due_at):
        assert access_reviews() == 1
        left = set(RoleGrant.objects.in_force().values_list("user_id", flat=True))
        assert left == {company.lead_finance.pk, company.admin.pk}
        assert not Membership.objects.current().exists()
        assert access_reviews() == 0
    assert item_of(review, company.auditor, Role.AUDITOR).answer == ReviewAnswer.GONE
    assert item_of(review, company.admin, Role.PLATFORM_ADMIN).answer == ReviewAnswer.HELD
    assert item_of(review, company.vp, Role.UNIT_OWNER).answer == ReviewAnswer.LAPSED
    alarm = OutboxMessage.objects.get(event="teams.review.alarm")
    assert company.admin.pk in alarm.recipient_ids
    assert OutboxMessage.objects.filter(event="teams.role.revoked", recipient_ids=[company.vp.pk]).exists()


@pytest.mark.requirement("access-reviews-4.1")
def test_pages_show_what_lies_in_ones_scope(company: Company, query_limit: Any) -> None:
    for number in range(30):
        grant(make_user(f"lead-{number}@example.com"), Role.TEAM_LEAD, team=company.finance_team)
    review = begin(company)
    url = f"/access-reviews/{review.uid}/"
    for who in (company.vp, company.compliance):
        client = client_for(who)
        with assert_queries(20):
            page = client.get(url)
        assert page.status_code == 200
    text = client_for(company.vp).get(url).content.decode()
    assert "Lead finance" in text
    assert "Vp other" not in text
    mine = review_selectors.asks_me(company.vp, review)
    assert 0 < len(mine) < ReviewItem.objects.visible_to(company.vp).filter(review=review).count()
    assert text.count('name="items"') == len(mine), "a box stands where the answer is theirs, and nowhere else"
    assert client_for(company.lead_finance).get(url).status_code == 404
    home = client_for(company.vp).get("/").content.decode()
    assert "wait for your answer" in home
    assert "wait for your answer" not in client_for(company.vp_other).get("/").content.decode()


@pytest.mark.requirement("access-reviews-2.3", "access-reviews-4.1")
def test_the_answer_sheet_answers_the_chosen_ones(company: Company) -> None:
    review = begin(company)
    lead = item_of(review, company.lead_finance)
    client = client_for(company.vp)
    url = f"/access-reviews/{review.uid}/answer/"
    sheet = client.get(url, {"items": [str(lead.uid)]}).content.decode()
    assert "Lead finance: Team lead, Finance" in sheet
    assert "Lead marketing" not in sheet
    sheet = client.get(url, {"items": str(lead.uid)}).content.decode()
    assert str(lead.uid) in sheet
    assert sheet.count('name="answer"') == 2
    assert not re.search(r'<input[^>]*name="answer"[^>]*checked', sheet), "nobody keeps a right by pressing a button"
    assert "Choose an answer" in client.post(url, {"items": [str(lead.uid)]}).content.decode()
    refused = client.post(url, {"items": [str(lead.uid)], "answer": "remove"})
    assert refused.status_code == 400
    assert "Say why" in refused.content.decode()
    done = client.post(url, {"items": [str(lead.uid)], "answer": "remove", "reason": "moved"})
    assert done.status_code == 303
    lead.refresh_from_db()
    assert lead.answer == ReviewAnswer.REMOVE


@pytest.mark.requirement("access-reviews-4.2")
def test_evidence_is_a_file_and_its_export_is_recorded(
    company: Company, django_capture_on_commit_callbacks: Any
) -> None:
    review = begin(company)
    answer(review, company.vp, [item_of(review, company.lead_finance)], reason="=leads")
    response = client_for(company.auditor).get(f"/access-reviews/{review.uid}/?export=csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode("utf-8-sig"))))
    assert len(rows) == 13
    (row,) = [row for row in rows if row["Person"] == "Lead finance" and row["Role"] == "Team lead"]
    assert (row["Where"], row["Answered by"], row["Reason"]) == ("Finance", "Vp", "'=leads")
    assert AuditEvent.objects.filter(action="teams.review.exported").count() == 1


@pytest.mark.requirement("access-reviews-4.3")
def test_api_gives_the_same(company: Company) -> None:
    review = begin(company)
    lead = item_of(review, company.lead_finance)
    vp: Client = client_for(company.vp)
    listed = vp.get(f"/api/v1/access-review-items?review_uid={review.uid}&role=team_lead").json()["results"]
    assert {one["user_name"] for one in listed} == {"Lead finance", "Lead marketing", "Lead research"}
    body = {"items": [str(lead.uid)], "answer": "keep", "reason": "leads"}
    said = vp.post(f"/api/v1/access-reviews/{review.uid}/answer", body, content_type="application/json")
    assert (said.status_code, said.json()[0]["answer"]) == (200, "keep")
    auditor = client_for(company.auditor)
    refused = auditor.post(f"/api/v1/access-reviews/{review.uid}/answer", body, content_type="application/json")
    assert refused.status_code == 403
    assert len(auditor.get("/api/v1/access-reviews").json()["results"]) == 1


@pytest.mark.requirement("access-reviews-4.4")
def test_the_trail_holds_every_answer_without_names_or_reasons(company: Company) -> None:
    review = begin(company)
    answer(review, company.vp, [item_of(review, company.lead_finance)], "remove", "secret words")
    names = set(AuditEvent.objects.filter(object_id=review.uid).values_list("action", flat=True))
    assert names == {"teams.review.started", "teams.review.answered"}
    said = AuditEvent.objects.get(action="teams.review.answered")
    assert said.data["changes"]["scope"] == "team:finance"
    assert "secret words" not in said.canonical_text
    assert "Lead finance" not in said.canonical_text
