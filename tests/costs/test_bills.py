"""Invoices: read strictly, compared by day with our pool's bill, their variance one amount per cluster."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.money import Money
from apps.costs import bills, bills_file
from apps.costs.models import Bill, BillLine, CrossCheck, DayCharge
from tests.costs.test_budget_steps import charge
from tests.metering.world import World, make_world, utc

NOW = utc(2026, 12, 4, 9)
NOVEMBER = date(2026, 11, 1)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


def parse(text: str) -> bills_file.Parsed:
    return bills_file.parse(text.encode(), NOVEMBER, "USD")


def imported(world: World, company: Any, text: str, **changes: Any) -> Bill:
    values: dict[str, Any] = {"vendor": "Colocation Ltd", "filename": "november.csv"}
    return bills.import_bill(
        world.cluster.pk, NOVEMBER, parse(text), **(values | changes), actor=Actor.of(company.finance)
    )


# ---------------------------------------------------------------- files


@pytest.mark.requirement("cross-checks-2.1")
def test_lines_are_read_exactly() -> None:
    found = parse('Date,Item,Amount,Currency\n2026-11-09,"Rack 4, row B",1234.567890,usd\n\n,Support,-0.01,USD\n')
    assert found.errors == []
    assert [(line.number, line.day, line.description, line.amount) for line in found.lines] == [
        (2, date(2026, 11, 9), "Rack 4, row B", Decimal("1234.567890")),
        (4, None, "Support", Decimal("-0.01")),
    ]
    assert found.total == Decimal("1234.557890")


@pytest.mark.requirement("cross-checks-2.1")
def test_every_wrong_line_is_named() -> None:
    found = parse(
        "day,amount,currency\n2026-11-09,12.5,USD\n2026-12-01,1,USD\n2026-11-31,1,USD\nyesterday,1,USD\n"
        '2026-11-09,1e9,USD\n2026-11-09,"1,234.00",USD\n2026-11-09,NaN,USD\n2026-11-09,1,EUR\n2026-11-09\n'
    )
    assert [number for number, _ in found.errors] == [3, 4, 5, 6, 7, 8, 9, 10]
    words = dict(found.errors)
    assert "lies outside 2026-11" in words[3]
    assert "is no day" in words[4]
    assert "is no day" in words[5]
    assert "is no amount" in words[6]
    assert "is no amount" in words[8]
    assert "“EUR”" in words[9]


@pytest.mark.requirement("cross-checks-2.1")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"amount\n1\n", "no column currency"),
        (b"amount,cost,currency\n", "twice"),
        (b"amount,currency\n", "no lines"),
        (b"\xff\xfe\x00", "no UTF-8"),
        (b"amount,currency\n1,USD\x00\n", "no text"),
        (b'amount,currency\n"1,USD\n', "no CSV"),
        (b"amount,currency\n" + b" " * bills_file.MAX_BYTES, "larger than"),
    ],
)
def test_what_is_no_invoice_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(bills_file.Unusable, match=words):
        bills_file.parse(content, NOVEMBER, "USD")


# ---------------------------------------------------------------- comparing


@pytest.mark.requirement("cross-checks-2.2", "cross-checks-2.1", "cross-checks-2.3")
def test_a_file_is_taken_once_and_whole(world: World, company: Any) -> None:
    text = "day,amount,currency\n2026-11-09,12.5,USD\n"
    with pytest.raises(Invalid) as refused:
        imported(world, company, text + "2026-11-10,x,USD\n")
    assert "Line 3" in refused.value.errors["file"][0]
    assert not Bill.objects.exists()
    with pytest.raises(NotAllowed):
        bills.import_bill(
            world.cluster.pk, NOVEMBER, parse(text), vendor="V", filename="f", actor=Actor.of(company.admin)
        )
    bill = imported(world, company, text)
    assert (bill.amount, bill.lines.count(), CrossCheck.objects.count()) == (Decimal("12.50"), 1, 30)
    with pytest.raises(Invalid) as refused:
        imported(world, company, text)
    assert "already" in refused.value.errors["file"][0]
    finance = Actor.of(company.finance)
    with pytest.raises(Invalid):
        bills.withdraw(bill.pk, "x", actor=finance)
    bill = bills.withdraw(bill.pk, "It was of another cluster.", actor=finance, expected_version=bill.version)
    assert bill.withdrawn_at == NOW
    assert (BillLine.objects.count(), CrossCheck.objects.count()) == (1, 0)
    assert bills.variance(NOVEMBER) == {}
    with pytest.raises(Conflict):
        bills.withdraw(bill.pk, "Once more.", actor=finance)
    assert imported(world, company, text).pk != bill.pk


@pytest.mark.requirement("cross-checks-2.4", "cross-checks-2.5")
def test_days_and_the_variance(world: World, company: Any) -> None:
    charge(world, company.finance_team, date(2026, 11, 9), 10)  # 38.50
    DayCharge.objects.create(
        day=date(2026, 11, 9), cluster_id=world.cluster.pk, kind="unsold", flavour_id=world.flavour.pk,
        rate=world.rate, quantity_ms=3_600_000, gpu_ms=3_600_000,
    )  # fmt: skip
    imported(world, company, "day,amount,currency\n2026-11-09,42.00,USD\n,100,USD\n")
    rows = {row.day: row for row in CrossCheck.objects.filter(kind="bill")}
    assert len(rows) == 30
    assert sum(row.theirs for row in rows.values()) == Decimal(142)
    ninth = rows[date(2026, 11, 9)]
    assert (ninth.ours, ninth.theirs) == (Decimal("42.35"), Decimal("45.333334"))
    assert ninth.state == "open"
    assert bills.variance(NOVEMBER) == {world.cluster.pk: Money(Decimal("99.65"), "USD")}
    assert bills.compare_due() == 0
    charge(world, company.finance_team, date(2026, 11, 10), 1)
    assert bills.compare_due() == 1
    assert CrossCheck.objects.get(day=date(2026, 11, 10)).ours == Decimal("3.85")
    charge(world, company.finance_team, date(2026, 11, 11), 1, priced=False)
    assert bills.variance(NOVEMBER) == {world.cluster.pk: None}
    assert bills.compare_due() == 1
    assert CrossCheck.objects.get(day=date(2026, 11, 11)).ours is None


@pytest.mark.requirement("cross-checks-2.4")
def test_days_to_come_are_not_compared(world: World, company: Any) -> None:
    with clock.frozen(utc(2026, 11, 10, 9)):
        imported(world, company, "day,amount,currency\n2026-11-09,42.00,USD\n")
        assert CrossCheck.objects.filter(kind="bill").count() == 9  # The tenth has not ended: nothing agrees yet.
        assert bills.compare_due() == 0
    with clock.frozen(utc(2026, 11, 11, 9)):
        assert bills.compare_due() == 1
        assert CrossCheck.objects.filter(kind="bill").count() == 10


@pytest.mark.requirement("cross-checks-2.4")
@pytest.mark.django_db
@given(amounts=st.lists(st.decimals(min_value=-(10**6), max_value=10**6, places=6), min_size=1, max_size=6))
def test_lines_without_a_day_are_spread_without_loss(amounts: list[Decimal]) -> None:
    """Whatever the amounts, the days add up to them, and differ by a millionth at most."""
    rows = [(None, amount) for amount in amounts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bills.BillLine.objects, "filter", lambda **where: _Rows(rows))
        found = bills.theirs_by_day(1, NOVEMBER)
    assert found is not None
    assert sum(found.values()) == sum(amounts)
    assert max(found.values()) - min(found.values()) <= Decimal("0.000001")
    assert sorted(found) == [NOVEMBER + timedelta(days=n) for n in range(30)]


class _Rows(list[Any]):
    def values_list(self, *names: str) -> list[Any]:
        assert names == ("day", "amount")
        return self
