"""Showback, chargeback and the journal: inherited, never into closed months, balanced per document and in all."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.costs import billing_modes, journal, journal_books
from apps.costs.choices import LineSort
from apps.costs.models import JournalAccount, Period
from tests.costs.frozen import Draft, freeze, open_month
from tests.factories import client_for, make_unit
from tests.metering.world import utc

JULY, AUGUST, SEPTEMBER = date(2026, 7, 1), date(2026, 8, 1), date(2026, 9, 1)
NOW = utc(2026, 9, 3, 9)
ACCOUNTS = {"recovery": ("800100", "CC-PLATFORM"), "correction": ("800200", ""), "credit": ("800300", "CC-PLATFORM")}

amounts = st.dictionaries(
    st.sampled_from([str(sort) for sort in LineSort]),
    st.decimals(-(10**9), 10**9, places=2),
    max_size=6,
)


@pytest.mark.requirement("adjustments-5.2")
@given(st.lists(amounts, max_size=8), st.booleans())
def test_every_document_balances_to_zero(statements: list[dict[str, Decimal]], own_accounts: bool) -> None:
    posted = [
        journal.Posted(f"2026-08-T-{index:04d}", "Finance", "600100", "CC-1", "USD", by_sort)
        for index, by_sort in enumerate(statements)
    ]
    accounts = ACCOUNTS if own_accounts else {"recovery": ACCOUNTS["recovery"]}
    found = journal.entries(AUGUST, posted, accounts)
    for one in posted:
        own = [entry for entry in found if entry.number == one.number]
        assert sum(entry.debit for entry in own) == sum(entry.credit for entry in own)
        charged = sum(entry.debit - entry.credit for entry in own if entry.account == "600100")
        assert charged == sum(one.by_sort.values())
    assert sum(entry.debit - entry.credit for entry in found) == 0
    assert all(entry.debit >= 0 and entry.credit >= 0 for entry in found)
    assert all((entry.debit > 0) != (entry.credit > 0) for entry in found)


@pytest.mark.requirement("adjustments-5.3")
def test_everything_that_is_missing_is_named_at_once() -> None:
    posted = [
        journal.Posted("S-1", "Finance", "", "CC-1", "USD", {"charge": Decimal("1.00")}),
        journal.Posted("S-2", "Marketing", "600", "", "USD", {"charge": Decimal("1.00")}),
        journal.Posted("S-3", "Research", "", "", "USD", {}),
    ]
    with pytest.raises(journal.Incomplete) as caught:
        journal.entries(AUGUST, posted, {})
    assert len(caught.value.missing) == 3
    text = str(caught.value)
    assert "expense account of Finance" in text
    assert "cost centre of Marketing" in text
    assert "recovery" in text
    assert "Research" not in text


# ---------------------------------------------------------------- in the books


@pytest.mark.requirement("adjustments-5.1")
def test_a_mode_is_inherited_until_a_unit_has_its_own(company: Any) -> None:
    actor = Actor.of(company.finance)
    below = make_unit("Cards", company.unit)
    with clock.frozen(NOW):
        assert not billing_modes.mode_of(below, SEPTEMBER).charged
        billing_modes.set_mode(company.root.pk, SEPTEMBER, "chargeback", actor=actor, account="600100")
        billing_modes.set_mode(company.unit.pk, date(2026, 10, 1), "showback", actor=actor)
        assert billing_modes.mode_of(below, SEPTEMBER).account == "600100"
        assert not billing_modes.mode_of(below, AUGUST).charged
        assert not billing_modes.mode_of(below, date(2026, 10, 1)).charged
        assert billing_modes.mode_of(company.other_unit, date(2027, 1, 1)).charged


@pytest.mark.requirement("adjustments-5.1")
@pytest.mark.parametrize("status", ["closing", "closed"])
def test_a_mode_never_reaches_into_a_month_that_is_closing_or_closed(company: Any, status: str) -> None:
    actor = Actor.of(company.finance)
    open_month(AUGUST, status=status)
    with clock.frozen(NOW):
        for month in (JULY, AUGUST):
            with pytest.raises(Invalid) as caught:
                billing_modes.set_mode(company.unit.pk, month, "chargeback", actor=actor, account="600100")
            assert "August 2026" in caught.value.errors["month_from"][0]
        assert billing_modes.set_mode(company.unit.pk, SEPTEMBER, "chargeback", actor=actor, account="1").pk


@pytest.mark.requirement("adjustments-5.1")
def test_chargeback_takes_finance_and_an_account(company: Any) -> None:
    with clock.frozen(NOW):
        with pytest.raises(Invalid) as caught:
            billing_modes.set_mode(company.unit.pk, SEPTEMBER, "chargeback", actor=Actor.of(company.finance))
        assert "account" in caught.value.errors
        with pytest.raises(NotAllowed):
            billing_modes.set_mode(company.unit.pk, SEPTEMBER, "showback", actor=Actor.of(company.vp))


def closed_august(company: Any, *, mode: str = "chargeback") -> Period:
    start = utc(2026, 8, 1)
    extra = [
        Draft("charge", "Use", Decimal("100.00"), company.finance_team.pk, {"charge_start": start}),
        Draft("distributed", "Share", Decimal("10.00"), company.finance_team.pk),
        Draft("credit", "A bad night", Decimal("-5.00"), company.finance_team.pk),
        Draft("correction", "Late", Decimal("83.06"), company.marketing_team.pk),
        Draft("charge", "Spare", Decimal("7.00"), None),
    ]
    with clock.frozen(NOW):
        return freeze(AUGUST, extra=extra, mode=mode)


@pytest.mark.requirement("adjustments-5.2", "adjustments-5.3")
def test_the_journal_of_a_month_posts_chargeback_statements_only(company: Any) -> None:
    actor = Actor.of(company.finance)
    with clock.frozen(utc(2026, 8, 5)):
        billing_modes.set_mode(company.root.pk, AUGUST, "chargeback", actor=actor, account="600100")
    period = closed_august(company)
    with pytest.raises(journal.Incomplete):
        journal_books.entries_of(period)
    with clock.frozen(NOW):
        billing_modes.set_account("recovery", "800100", "CC-PLATFORM", actor=actor)
    found = journal_books.entries_of(period)
    charged = {
        number: sum(e.debit - e.credit for e in found if e.number == number and e.account == "600100")
        for number in {entry.number for entry in found}
    }
    assert sorted(charged.values()) == [Decimal("83.06"), Decimal("105.00")]
    rows = journal_books.rows_of(period)
    assert {row[1] for row in rows} == {date(2026, 8, 31)}
    assert len(rows[0]) == len(journal.HEADER)


@pytest.mark.requirement("adjustments-5.2")
def test_showback_is_not_posted(company: Any) -> None:
    assert journal_books.entries_of(closed_august(company, mode="showback")) == []


@pytest.mark.requirement("adjustments-5.3")
def test_the_pages_say_what_is_missing_and_show_the_entries(company: Any) -> None:
    closed_august(company)
    client = client_for(company.finance)
    url = reverse("costs:journal", kwargs={"month": "2026-08"})
    page = client.get(url).content.decode()
    assert "expense account of Finance" in page
    post = client.post(
        reverse("costs:journal-account-set", kwargs={"purpose": "recovery"}), {"account": "800100", "version": "0"}
    )
    assert post.status_code == 303, post.content
    assert JournalAccount.objects.get().account == "800100"
    with clock.frozen(NOW):
        answer = client.post(
            reverse("costs:billing-mode-set", kwargs={"unit_slug": company.unit.slug}),
            {"month_from": "2026-08", "mode": "chargeback", "account": "600100"},
        )
        assert answer.status_code == 400
        assert "choose a later month" in answer.content.decode()
        answer = client.post(
            reverse("costs:billing-mode-set", kwargs={"unit_slug": company.unit.slug}),
            {"month_from": "2026-09", "mode": "chargeback", "account": "600100"},
        )
        assert answer.status_code == 303
        assert "600100" in client.get(reverse("costs:billing-mode-list")).content.decode()
        assert "Chargeback (inherited)" not in client.get(reverse("costs:billing-mode-units")).content.decode()
    assert client_for(company.vp).get(url).status_code == 403
