"""Walls of the money: finance of one unit, a sibling unit's owner, members of another team, guessed addresses."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import NotAllowed
from apps.costs import billing_modes, reopening
from apps.costs.models import (
    JournalAccount,
    Statement,
)  # fmt: skip
from apps.metering import waivers
from tests.costs.frozen import Draft, freeze, open_month
from tests.factories import client_for, grant, make_team, make_user
from tests.metering.test_fitness import checked
from tests.metering.world import make_world, utc

AUGUST, SEPTEMBER = date(2026, 8, 1), date(2026, 9, 1)
NOW = utc(2026, 9, 3, 9)
WHY = "The meter of a whole cluster was read wrongly"
FOREIGN = "Wealth Desk"


@pytest.fixture
def books(company: Any) -> Any:
    """August closed: statements of the bank's three teams, of one team of another unit, and of the platform."""
    with clock.frozen(NOW):
        company.foreign = make_team(FOREIGN, company.other_unit)
        company.unit_finance = make_user("unit-finance@example.com")
        grant(company.unit_finance, "finance", unit=company.unit)
        company.second = make_user("second-finance@example.com")
        grant(company.second, "finance")
        company.superuser = make_user("root-user@example.com", is_superuser=True)
        billing_modes.set_account("recovery", "800100", "CC-PLATFORM", actor=Actor.of(company.finance))
        company.period = freeze(
            AUGUST,
            extra=[
                Draft("charge", "Use", Decimal("100.00"), company.finance_team.pk),
                Draft("charge", "Use", Decimal("7654.32"), company.foreign.pk),
                Draft("charge", "Spare", Decimal("7.00"), None),
            ],
        )
        open_month(SEPTEMBER)
        yield company


def statement(company: Any, team: Any) -> Statement:
    return Statement.objects.get(period=company.period, team=team)


# ---------------------------------------------------------------- the installation's own decisions


@pytest.mark.requirement("adjustments-4.1")
@pytest.mark.parametrize("who", ["unit_finance", "superuser", "vp", "admin"])
def test_a_month_is_not_opened_again_by_finance_of_one_unit(books: Any, who: str) -> None:
    actor, client = Actor.of(books[who]), client_for(books[who])
    with pytest.raises(NotAllowed):
        reopening.request_reopening(books.period.pk, WHY, actor=actor)
    asked = client.post(reverse("costs:reopen-ask", kwargs={"month": "2026-08"}), {"reason": WHY})
    assert asked.status_code in (403, 404)
    request = reopening.request_reopening(books.period.pk, WHY, actor=Actor.of(books.finance))
    for decide in (reopening.approve_reopening, reopening.reject_reopening):
        with pytest.raises(NotAllowed):
            decide(request.pk, WHY, actor=actor)
    for name in ("approve", "reject", "withdraw"):
        url = reverse(f"costs:reopen-{name}", kwargs={"reopen_uid": request.uid})
        assert client.post(url, {"reason": WHY}).status_code in (403, 404)
    request.refresh_from_db()
    assert request.status == "proposed"


@pytest.mark.requirement("adjustments-5.2")
def test_the_journal_and_its_accounts_are_for_finance_of_everything(books: Any) -> None:
    client = client_for(books.unit_finance)
    page = client.get(reverse("costs:journal", kwargs={"month": "2026-08"}))
    assert page.status_code == 403
    assert FOREIGN not in page.content.decode()
    assert client.get(reverse("costs:journal-account-list")).status_code == 403
    url = reverse("costs:journal-account-set", kwargs={"purpose": "recovery"})
    assert client.post(url, {"account": "999", "cost_centre": "X", "version": "1"}).status_code == 403
    with pytest.raises(NotAllowed):
        billing_modes.set_account("recovery", "999", "X", actor=Actor.of(books.unit_finance))
    assert JournalAccount.objects.get(purpose="recovery").account == "800100"
    assert client_for(books.finance).get(reverse("costs:journal-account-list")).status_code == 200


@pytest.mark.requirement("metering-sources-3.1")
def test_a_source_is_not_waived_by_finance_of_one_unit(books: Any) -> None:
    world = make_world([books.finance_team])
    checked(world.source, ["retention"])
    until = clock.now() + timedelta(days=3)
    with pytest.raises(NotAllowed):
        waivers.waive(world.source.pk, ["retention"], "Thanos follows soon.", until, actor=Actor.of(books.unit_finance))
    given = waivers.waive(world.source.pk, ["retention"], "Thanos follows soon.", until, actor=Actor.of(books.finance))
    with pytest.raises(NotAllowed):
        waivers.revoke(given.pk, actor=Actor.of(books.unit_finance))
