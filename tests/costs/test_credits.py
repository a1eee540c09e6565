"""Credits: reason, second person, never more than the statement holds, pairs that sum to zero."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.urls import reverse

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.costs import credits
from apps.costs.models import Credit, Statement
from tests.costs.frozen import Draft, freeze, open_month
from tests.factories import client_for, grant, make_member, make_user
from tests.metering.world import utc

AUGUST = date(2026, 8, 1)
NOW = utc(2026, 9, 3, 9)
WHY = "The maintenance took longer than announced"


@pytest.fixture
def statement(company: Any) -> Any:
    """Finance's statement of August, 100.00; and a second person of finance."""
    with clock.frozen(NOW):
        company.second = make_user("second-finance@example.com")
        grant(company.second, "finance")
        freeze(AUGUST, extra=[Draft("charge", "Use", Decimal("100.00"), company.finance_team.pk)])
        yield Statement.objects.get(team=company.finance_team)


def propose(company: Any, statement: Any, amount: str = "40.00", **extra: Any) -> Credit:
    return credits.propose_credit(statement.pk, Decimal(amount), WHY, actor=Actor.of(company.finance), **extra)


@pytest.mark.requirement("adjustments-2.1", "adjustments-2.3")
def test_a_credit_is_billed_in_the_open_month_once_approved(company: Any, statement: Any) -> None:
    credit = propose(company, statement)
    assert credit.period is None
    waiting = OutboxMessage.objects.get(event="costs.credit.proposed")
    assert waiting.recipient_ids == [company.second.pk]
    credits.approve_credit(credit.pk, actor=Actor.of(company.second))
    credit.refresh_from_db()
    assert (credit.status, f"{credit.period.month:%Y-%m}", credit.decided_by) == ("approved", "2026-09", company.second)
    assert company.lead_finance.pk in OutboxMessage.objects.get(event="costs.credit.approved").recipient_ids
    with pytest.raises(Conflict):
        credits.approve_credit(credit.pk, actor=Actor.of(company.second))


@pytest.mark.requirement("adjustments-2.1")
def test_the_second_person_finds_it_on_their_home_page(company: Any, statement: Any) -> None:
    propose(company, statement)
    assert "40.00 USD for" in client_for(company.second).get("/").content.decode()
    for other in (company.finance, company.auditor, company.lead_finance):
        assert "40.00 USD for" not in client_for(other).get("/").content.decode()


@pytest.mark.requirement("adjustments-2.1")
def test_never_more_than_the_statement_holds(company: Any, statement: Any) -> None:
    with pytest.raises(Invalid) as caught:
        propose(company, statement, "100.01")
    assert "holds no more than 100.00 USD" in caught.value.errors["amount"][0]
    credit = propose(company, statement, "60.00")
    with pytest.raises(Invalid) as caught:
        propose(company, statement, "40.01")
    assert "40.00 USD" in caught.value.errors["amount"][0]
    credits.reject_credit(credit.pk, "It was announced in time", actor=Actor.of(company.second))
    assert propose(company, statement, "100.00").pk


@pytest.mark.requirement("adjustments-2.1")
@pytest.mark.parametrize("amount", ["0", "-1.00", "1.005", "NaN"])
def test_amounts_that_are_none(company: Any, statement: Any, amount: str) -> None:
    with pytest.raises(Invalid) as caught:
        propose(company, statement, amount)
    assert "amount" in caught.value.errors


@pytest.mark.requirement("adjustments-2.1")
def test_a_reason_and_a_team_statement_are_needed(company: Any, statement: Any) -> None:
    with pytest.raises(Invalid) as caught:
        credits.propose_credit(statement.pk, Decimal("1.00"), " short ", actor=Actor.of(company.finance))
    assert "reason" in caught.value.errors
    with pytest.raises(NotAllowed):
        credits.propose_credit(statement.pk, Decimal("1.00"), WHY, actor=Actor.of(company.lead_finance))


@pytest.mark.requirement("adjustments-2.2")
def test_the_second_person_is_neither_the_first_nor_of_the_team(company: Any, statement: Any) -> None:
    credit = propose(company, statement)
    with pytest.raises(NotAllowed, match="second person"):
        credits.approve_credit(credit.pk, actor=Actor.of(company.finance))
    make_member(company.second, company.finance_team)
    with pytest.raises(NotAllowed, match="belong to Finance"):
        credits.approve_credit(credit.pk, actor=Actor.of(company.second))
    with pytest.raises(NotAllowed):
        credits.approve_credit(credit.pk, actor=Actor.of(company.vp))
    with pytest.raises(IntegrityError), transaction.atomic():
        Credit.objects.filter(pk=credit.pk).update(status="approved", decided_by=company.finance)


@pytest.mark.requirement("adjustments-2.3")
def test_a_withdrawn_credit_bills_nothing(company: Any, statement: Any) -> None:
    credit = propose(company, statement)
    with pytest.raises(NotAllowed):
        credits.withdraw_credit(credit.pk, actor=Actor.of(company.second))
    credits.withdraw_credit(credit.pk, actor=Actor.of(company.finance))
    credit.refresh_from_db()
    assert (credit.status, credit.period) == ("withdrawn", None)


@pytest.mark.requirement("adjustments-2.4")
def test_money_between_teams_sums_to_zero_and_is_one_decision(company: Any, statement: Any) -> None:
    credit = propose(company, statement, payer_id=company.marketing_team.pk)
    rows = Credit.objects.filter(pair=credit.pair)
    assert {row.team_id: row.amount for row in rows} == {
        company.finance_team.pk: Decimal("40.00"),
        company.marketing_team.pk: Decimal("-40.00"),
    }
    assert rows.aggregate(sum=Sum("amount"))["sum"] == 0
    payer = rows.get(team=company.marketing_team)
    credits.approve_credit(payer.pk, actor=Actor.of(company.second))
    assert set(rows.values_list("status", "period__month")) == {("approved", date(2026, 9, 1))}
    with pytest.raises(IntegrityError), transaction.atomic():
        Credit.objects.create(
            team=company.research_team, amount=Decimal("-1.00"), currency="USD", reason=WHY, proposed_by=company.finance
        )


@pytest.mark.requirement("adjustments-2.3")
def test_a_month_that_is_closing_takes_no_credit(company: Any, statement: Any) -> None:
    credit = propose(company, statement)
    open_month(date(2026, 9, 1), status="closing")
    credits.approve_credit(credit.pk, actor=Actor.of(company.second))
    credit.refresh_from_db()
    assert f"{credit.period.month:%Y-%m}" == "2026-10"


@pytest.mark.requirement("adjustments-2.1", "adjustments-2.2")
def test_pages(company: Any, statement: Any) -> None:
    client, second = client_for(company.finance), client_for(company.second)
    url = reverse("costs:credit-propose", kwargs={"statement_uid": statement.uid})
    assert "still holds 100.00 USD" in client.get(url).content.decode()
    assert client.post(url, {"amount": "500", "reason": WHY}).status_code == 400
    answer = client.post(url, {"amount": "12.50", "reason": WHY})
    assert answer.status_code == 303
    credit = Credit.objects.get()
    assert "A second person decides" in client.get(answer["Location"]).content.decode()
    approve = reverse("costs:credit-approve", kwargs={"credit_uid": credit.uid})
    assert client.post(approve, {"reason": ""}).status_code == 403
    assert approve in second.get(answer["Location"]).content.decode()
    assert second.post(approve, {"reason": "", "version": "9"}).status_code == 409
    assert second.post(approve, {"reason": "", "version": str(credit.version)}).status_code == 303
    assert "12.50" in client.get(reverse("costs:credit-list")).content.decode()
    assert "12.50" in client_for(company.lead_finance).get(reverse("costs:credit-list")).content.decode()
    assert "12.50" not in client_for(company.lead_marketing).get(reverse("costs:credit-list")).content.decode()
