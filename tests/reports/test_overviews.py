"""Home by role, the team page and the unit page."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.approvals import selectors as approving
from apps.core import clock
from apps.core.actor import Actor
from apps.costs.models import Budget
from apps.quotas import actions as quotas
from apps.quotas.models import QuotaRequest
from apps.teams.models import Team
from tests.factories import grant, make_member, make_user
from tests.metering.world import hold
from tests.quotas.conftest import POLICY
from tests.reports.conftest import HOUR, NOW, Books, browser, page_of, read

TO_DECIDE, PLATFORM, TEAMS = "For you to decide", "Platform", "November 2026 so far"
QUOTA = "Quota now"


@pytest.fixture
def asked(empty_books: Books) -> QuotaRequest:
    """The Finance team lead asked for eight GPUs five hours ago."""
    lead = Actor.of(empty_books.company.lead_finance)
    with clock.frozen(NOW - 5 * HOUR):
        approvals.publish_policy("quota", "Quota", "quotas.request", POLICY, actor=Actor.of(empty_books.company.admin))
        return quotas.request_quota(
            empty_books.first.workspaces["finance"].pk, empty_books.first.flavour.pk, 8, "none", 0, None, None,
            "Nightly fraud training for the quarter end.", actor=lead,
        )  # fmt: skip


@pytest.mark.requirement("reports-1.1")
@pytest.mark.parametrize(
    ("person", "sections"),
    [
        ("member_finance", {QUOTA, "Your team"}),
        ("lead_finance", {QUOTA, "Your team"}),
        ("vp", {TO_DECIDE, "Teams"}),
        ("compliance", {TO_DECIDE}),
        ("finance", {TO_DECIDE}),
        ("admin", {TO_DECIDE, PLATFORM}),
        ("auditor", set()),
    ],
)
def test_home_has_the_sections_of_each_role_and_no_others(empty_books: Books, person: str, sections: set[str]) -> None:
    response = browser(empty_books.company[person]).get("/")
    shown = page_of(response)
    main = shown.partition("<main")[2]
    assert set(re.findall(r"<h2[^>]*>([^<]+)</h2>", main)) == sections
    assert ("Nothing is asked of you" in shown) is (not sections)
    assert "Nothing is shared with you yet" not in shown  # the auditor reads everything
    if person == "auditor":
        assert reverse("reports:monthly-unit", kwargs={"unit_slug": empty_books.company.root.slug}) in main


@pytest.mark.requirement("reports-1.1")
def test_who_has_two_roles_has_the_sections_of_both(empty_books: Books) -> None:
    person = make_user("stands-in@example.com")
    make_member(person, empty_books.company.finance_team)
    grant(person, "unit_owner", unit=empty_books.company.other_unit)
    shown = page_of(browser(person).get("/"))
    assert f">{TO_DECIDE}</h2>" in shown
    assert ">Finance</a>" in shown
    assert ">Other Unit</a>" in shown
    assert "Marketing" not in shown
    assert "Member" in shown
    assert "Unit owner (VP)" in shown


@pytest.mark.requirement("reports-1.1")
def test_who_has_no_role_is_told_whom_to_ask(db: None) -> None:
    shown = page_of(browser(make_user("new@example.com")).get("/"))
    assert "You hold no role yet." in shown
    assert "Ask your team lead" in shown


@pytest.mark.requirement("reports-1.2")
def test_what_waits_stands_there_with_cost_and_age(empty_books: Books, asked: QuotaRequest) -> None:
    request = asked.approval
    assert request is not None
    shown = page_of(browser(empty_books.company.vp).get("/"))
    assert reverse("approvals:request-detail", kwargs={"request_uid": request.uid}) in shown
    assert "22,484.00" in shown  # 8 × 730 h × 3.85
    assert "5 hours ago" in shown or "5 h ago" in shown
    for other in ("vp_other", "compliance", "admin"):
        assert str(request.uid) not in page_of(browser(empty_books.company[other]).get("/")), other
    approvals.decide(
        request.pk, "approve", "Within the plan.", actor=Actor.of(empty_books.company.vp),
        expected_digest=request.subject_digest,
    )  # fmt: skip
    assert not approving.waiting_for(empty_books.company.vp).exists()
    assert "No request waits for you" in page_of(browser(empty_books.company.vp).get("/"))


@pytest.mark.requirement("reports-1.3")
@pytest.mark.parametrize("person", ["member_finance", "lead_finance"])
def test_the_team_page(empty_books: Books, asked: QuotaRequest, person: str) -> None:
    books = empty_books
    begin = NOW - 6 * HOUR
    read(books.first, begin, 6, [hold("fraud-model", "finance-prod", begin, NOW, 4, used=0.5)])
    from tests.metering.world import guarantee

    guarantee(books.first, "finance", 20)
    shown = page_of(browser(books.company[person]).get("/teams/finance/"))
    assert "finance-prod" in shown
    assert "A100 80 GB" in shown
    assert "not seen yet" in shown  # the age of what is in use: no observer has been there
    assert "77.00 USD" in shown  # 4 GPUs × 5 hours metered × 3.85; the sixth has not ended long enough
    assert "fraud-model" in shown
    assert reverse("quotas:request-detail", kwargs={"request_uid": asked.uid}) in shown
    assert ("Request quota</a>" in shown) is (person == "lead_finance")


@pytest.mark.requirement("reports-1.4")
def test_foreign_teams_and_units_do_not_exist(empty_books: Books) -> None:
    company = empty_books.company
    outside = {"lead_marketing": "finance", "vp_other": "finance"}
    for person, slug in outside.items():
        client = browser(company[person])
        foreign, missing = client.get(f"/teams/{slug}/"), client.get("/teams/no-such-team/")
        assert (foreign.status_code, missing.status_code) == (404, 404), person
        assert "Finance" not in foreign.content.decode()
    for path in (
        "/units/retail-bank/overview/",
        "/reports/monthly/retail-bank/2026-10/",
        "/reports/monthly/retail-bank/",
    ):
        for person in ("vp_other", "lead_finance"):
            response = browser(company[person]).get(path)
            assert response.status_code in ((404,) if person == "vp_other" else (403, 404)), (path, person)
            assert "Retail Bank" not in response.content.decode(), (path, person)
    assert browser(company.vp).get("/units/example-group/overview/").status_code == 404  # above theirs


@pytest.mark.requirement("reports-1.5")
def test_the_unit_page_has_each_team_with_month_to_date_and_budget(empty_books: Books) -> None:
    books = empty_books
    company = books.company
    today = NOW - timedelta(hours=8)
    read(books.first, today, 4, [hold("ad-ranking", "marketing-prod", today, today + 4 * HOUR, 2)])
    budget = {"month_from": NOW.date().replace(month=10, day=1), "currency": "USD"}
    Budget.objects.create(team=company.finance_team, amount=Decimal(26_000), **budget)
    Budget.objects.create(team=company.marketing_team, amount=Decimal(25), **budget)
    Team.objects.filter(slug="research").update(archived_at=NOW)
    shown = page_of(browser(company.vp).get("/units/retail-bank/overview/"))
    rows = {part.split("</a>")[0].split(">")[-1]: part for part in shown.split("<tr>") if "/teams/" in part}
    assert set(rows) == {"Finance", "Marketing"}
    assert "0.00 USD" in rows["Finance"]
    assert "26,000.00 USD" in rows["Finance"]
    assert "over budget" not in rows["Finance"]
    assert "30.80 USD" in rows["Marketing"]
    assert "−5.80 USD" in rows["Marketing"] or "-5.80 USD" in rows["Marketing"]
    assert "over budget" in rows["Marketing"]
