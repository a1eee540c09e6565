"""Disputes: who may open, comment and settle, what becomes of them, and what they hold up."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.costs import disputes
from apps.costs.models import Dispute, Statement
from tests.costs.frozen import Draft, freeze, open_month
from tests.factories import client_for, grant, make_member, make_user
from tests.metering.world import utc

NOW = utc(2026, 9, 3, 9)
TEXT = "These hours were billed twice, see the other line"


@pytest.fixture
def statement(company: Any) -> Any:
    with clock.frozen(NOW):
        company.second = make_user("second-finance@example.com")
        grant(company.second, "finance")
        freeze(date(2026, 8, 1), extra=[Draft("charge", "Use", Decimal("100.00"), company.finance_team.pk)])
        yield Statement.objects.get(team=company.finance_team)


def opened(company: Any, statement: Any, **extra: Any) -> Dispute:
    return disputes.open_dispute(statement.pk, TEXT, actor=Actor.of(company.lead_finance), **extra)


@pytest.mark.requirement("adjustments-3.1")
def test_leads_and_owners_object_and_finance_is_told(company: Any, statement: Any) -> None:
    dispute = opened(company, statement, line_ordinal=1)
    told = OutboxMessage.objects.get(event="costs.dispute.opened")
    assert set(told.recipient_ids) == {company.finance.pk, company.second.pk}
    with pytest.raises(Conflict):
        disputes.open_dispute(statement.pk, TEXT, actor=Actor.of(company.vp), line_ordinal=1)
    assert disputes.open_dispute(statement.pk, TEXT, actor=Actor.of(company.vp)).line_ordinal is None
    assert dispute.status == "open"


@pytest.mark.requirement("adjustments-3.1")
def test_others_may_not_object(company: Any, statement: Any) -> None:
    for person in (company.lead_marketing, company.vp_other):
        with pytest.raises(NotVisible):
            disputes.open_dispute(statement.pk, TEXT, actor=Actor.of(person))
    for person in (company.finance, company.compliance, company.auditor):
        with pytest.raises(NotAllowed):
            disputes.open_dispute(statement.pk, TEXT, actor=Actor.of(person))
    with pytest.raises(Invalid):
        opened(company, statement, line_ordinal=99)


@pytest.mark.requirement("adjustments-3.2")
def test_comments_reach_the_other_side(company: Any, statement: Any) -> None:
    dispute = opened(company, statement)
    disputes.comment(dispute.pk, "Which hours?", actor=Actor.of(company.finance))
    disputes.comment(dispute.pk, "The night of the 3rd.", actor=Actor.of(company.lead_finance))
    first, second = OutboxMessage.objects.filter(event="costs.dispute.commented").order_by("pk")
    assert company.lead_finance.pk in first.recipient_ids
    assert company.finance.pk not in first.recipient_ids
    assert set(second.recipient_ids) == {company.finance.pk, company.second.pk}
    with pytest.raises(NotAllowed):
        disputes.comment(dispute.pk, "Hm", actor=Actor.of(company.auditor))
    first_row = dispute.comments.order_by("pk")[0]
    assert (first_row.author, first_row.text) == (company.finance, "Which hours?")


@pytest.mark.requirement("adjustments-3.3")
def test_accepted_proposes_the_credit(company: Any, statement: Any) -> None:
    dispute = opened(company, statement, line_ordinal=1)
    with pytest.raises(Invalid):
        disputes.settle_dispute(
            dispute.pk, accepted=True, outcome="Right, billed twice", actor=Actor.of(company.finance)
        )
    disputes.settle_dispute(
        dispute.pk,
        accepted=True,
        outcome="Right, billed twice",
        amount=Decimal("25.00"),
        actor=Actor.of(company.finance),
    )
    dispute.refresh_from_db()
    assert (dispute.status, dispute.settled_by) == ("accepted", company.finance)
    assert dispute.credit is not None
    assert (dispute.credit.amount, dispute.credit.status) == (Decimal("25.00"), "proposed")
    assert company.lead_finance.pk in OutboxMessage.objects.get(event="costs.dispute.settled").recipient_ids
    with pytest.raises(Conflict):
        disputes.comment(dispute.pk, "One more thing", actor=Actor.of(company.lead_finance))


@pytest.mark.requirement("adjustments-3.3")
def test_rejected_says_why_and_nobody_settles_their_own(company: Any, statement: Any) -> None:
    dispute = opened(company, statement)
    settle: Any = lambda who, **extra: disputes.settle_dispute(  # noqa: E731 (one line per case below)
        dispute.pk, actor=Actor.of(who), **{"accepted": False, "outcome": "The hours are right", **extra}
    )
    with pytest.raises(Invalid):
        settle(company.finance, outcome="no")
    with pytest.raises(Invalid):
        settle(company.finance, amount=Decimal("1.00"))
    make_member(company.second, company.finance_team)
    for person in (company.second, company.lead_finance):
        with pytest.raises(NotAllowed):
            settle(person)
    assert settle(company.finance).status == "rejected"


@pytest.mark.requirement("adjustments-3.4")
def test_disputes_of_earlier_months_hold_up_a_close(company: Any, statement: Any) -> None:
    dispute = opened(company, statement)
    before = statement.amount
    months = {number: open_month(date(2026, number, 1)) for number in (9, 10)}
    assert list(disputes.blocking(months[9])) == [dispute]
    assert list(disputes.blocking(months[10])) == [dispute]
    assert not disputes.blocking(open_month(date(2026, 7, 1))).exists()
    disputes.withdraw_dispute(dispute.pk, actor=Actor.of(company.vp))
    assert not disputes.blocking(months[9]).exists()
    statement.refresh_from_db()
    assert statement.amount == before
    assert statement.period.status == "closed"


@pytest.mark.requirement("adjustments-3.1", "adjustments-3.2", "adjustments-3.3")
def test_pages(company: Any, statement: Any) -> None:
    lead, finance = client_for(company.lead_finance), client_for(company.finance)
    url = reverse("costs:dispute-open", kwargs={"statement_uid": statement.uid})
    assert "Line 1: Use" in lead.get(url).content.decode()
    answer = lead.post(url, {"line_ordinal": "1", "text": TEXT})
    assert answer.status_code == 303, answer.content
    dispute = Dispute.objects.get()
    page = answer["Location"]
    assert finance.post(f"{page}comment/", {"text": "Which hours?"}).status_code == 303
    assert "Which hours?" in lead.get(page).content.decode()
    assert "Settle" in finance.get(page).content.decode()
    assert "/settle/" not in lead.get(page).content.decode()
    form = {"accepted": "yes", "outcome": "Right, billed twice", "amount": "1000", "version": str(dispute.version)}
    refused = finance.post(f"{page}settle/", form)
    assert refused.status_code == 400
    assert "holds no more than" in refused.content.decode()
    assert finance.post(f"{page}settle/", {**form, "amount": "10.00"}).status_code == 303
    assert "Accepted" in lead.get(page).content.decode()
    assert client_for(company.lead_marketing).get(page).status_code == 404
    listed = lead.get(reverse("costs:dispute-list") + "?status=accepted&export=csv")
    assert statement.number.encode() in listed.getvalue()
