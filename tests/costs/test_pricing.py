"""Charges: quantity and rate, split at the second, unknown where no rate is, exact sums."""

from __future__ import annotations

import itertools
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import Sum
from hypothesis import given
from hypothesis import strategies as st

from apps.core import clock
from apps.core.actor import Actor
from apps.core.money import Money
from apps.costs import actions, budget_figures, pricing, selectors
from apps.costs.models import Charge, DayCharge, PricedHour
from apps.costs.pricing import Cut, cuts_of_hour, split_quantity
from apps.costs.tally import Tally, round_to_total
from apps.metering import actions as metering
from apps.metering.models import CapacityLine, HourFact
from apps.quotas.models import Workspace
from tests.metering.world import FakeAdapter, World, add_rate, hold, make_world, utc

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
NOW = utc(2026, 11, 18, 9)
DAY = utc(2026, 11, 10)


def ingest(world: World, holdings: list[Any], start: Any = DAY, hours: int = 24) -> None:
    metering.ingest_hours(
        world.source.pk, start, start + hours * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings)
    )


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


# ---------------------------------------------------------------- pure


@pytest.mark.requirement("costs-1.2")
@given(
    st.lists(st.tuples(st.integers(0, 3599), st.integers(1, 1200), st.integers(1, 8)), min_size=1, max_size=5),
    st.lists(st.integers(1, 3599), unique=True, max_size=4),
    st.integers(1, 7),
)
def test_splitting_loses_no_millisecond(raw: list[tuple[int, int, int]], edges: list[int], share: int) -> None:
    spans: list[int] = []
    at = 0
    for start, length, units in sorted(raw):
        begin = max(at, start * 1000)
        end = min(HOUR_MS, begin + length * 1000)
        if begin < end:
            spans += [begin, end, units]
            at = end
    unit_ms = sum((e - s) * u for s, e, u in zip(spans[0::3], spans[1::3], spans[2::3], strict=True))
    gpu_ms = unit_ms * share // 7
    points = [0, *sorted(edge * 1000 for edge in edges), HOUR_MS]
    cuts = [Cut(a, b, i) for i, (a, b) in enumerate(itertools.pairwise(points))]
    parts = split_quantity(spans, unit_ms, gpu_ms, cuts)
    assert sum(quantity for _, quantity, _ in parts) == unit_ms
    assert sum(gpu for _, _, gpu in parts) == gpu_ms
    for rate_id, quantity, _ in parts:
        cut = cuts[rate_id or 0]
        exact = sum(
            max(0, min(e, cut.end) - max(s, cut.start)) * u
            for s, e, u in zip(spans[0::3], spans[1::3], spans[2::3], strict=True)
        )
        assert quantity == exact


@pytest.mark.requirement("costs-1.3")
def test_cuts_leave_holes_without_a_rate() -> None:
    base = 1_000 * HOUR_MS
    found = cuts_of_hour(base, [(base + 600_000, base + 900_000, 7), (base + 1_200_000, 1 << 60, 8)])
    assert found == [
        Cut(0, 600_000, None),
        Cut(600_000, 900_000, 7),
        Cut(900_000, 1_200_000, None),
        Cut(1_200_000, HOUR_MS, 8),
    ]


@pytest.mark.requirement("costs-1.5")
@given(st.lists(st.decimals(0, 10**9, places=9), min_size=1, max_size=40))
def test_rounded_lines_sum_to_the_rounded_total(values: list[Decimal]) -> None:
    lines = [Money(value, "USD") for value in values]
    total = sum(lines, Money.zero("USD")).quantized()
    rounded = round_to_total([*lines, None], total)
    assert rounded[-1] is None
    assert sum((line for line in rounded if line), Money.zero("USD")) == total
    for line, exact in zip(rounded, lines, strict=False):
        assert line is not None
        assert abs(line.amount - exact.amount) < Decimal("0.01")


def test_a_total_that_is_not_the_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="not the sum"):
        round_to_total([Money(Decimal("1.00"), "USD")], Money(Decimal("2.00"), "USD"))


@pytest.mark.requirement("costs-1.3")
def test_a_tally_knows_unknown_from_zero() -> None:
    nothing, unknown, free = Tally("USD"), Tally("USD"), Tally("USD")
    unknown.add(HOUR_MS, HOUR_MS, None, None)
    free.add(HOUR_MS, HOUR_MS, Decimal(0), "USD")
    assert unknown.amount is None
    assert free.amount == nothing.amount == Money.zero("USD")


# ---------------------------------------------------------------- in the books


@pytest.mark.requirement("costs-1.1")
def test_one_charge_per_fact_however_often_it_is_ingested(world: World) -> None:
    rows = [hold("a", "finance-prod", DAY, DAY + 5 * HOUR, 2), hold("b", "nobody", DAY, DAY + HOUR, 1)]
    for _ in range(3):
        ingest(world, rows)
    ingest(world, rows[:1])
    ingest(world, rows)
    facts = HourFact.objects.count()
    own = Charge.objects.filter(kind__in=["allocated", "unattributed"])
    assert own.count() == facts == 6
    assert own.aggregate(total=Sum("gpu_ms"))["total"] == 11 * HOUR_MS
    total = DayCharge.objects.aggregate(total=Sum("gpu_ms"))["total"]
    assert total == Charge.objects.aggregate(total=Sum("gpu_ms"))["total"] == 24 * 50 * HOUR_MS


@pytest.mark.requirement("costs-1.4")
def test_everything_physical_is_charged_on_exactly_one_line(world: World) -> None:
    ingest(world, [hold("a", "finance-prod", DAY, DAY + 5 * HOUR, 2)], hours=6)
    lines = CapacityLine.objects.exclude(kind="physical").exclude(kind__in=["attributed", "unattributed"])
    assert Charge.objects.exclude(kind="allocated").count() == lines.count()
    assert Charge.objects.filter(kind="unsold", rate_id=world.rate.pk).count() == 6


@pytest.mark.requirement("costs-1.2")
def test_a_rate_that_changes_inside_an_hour_splits_at_the_second(world: World, company: Any) -> None:
    change = DAY + timedelta(hours=2, minutes=20, seconds=1)
    world.rate.valid = type(world.rate.valid)(world.rate.valid.lower, change, "[)")
    world.rate.save()
    later = add_rate(world.card, world.flavour, "2.95", change)
    held = hold("a", "finance-prod", DAY + timedelta(hours=2, minutes=10), DAY + timedelta(hours=2, minutes=40), 4)
    ingest(world, [held])
    found = dict(Charge.objects.filter(kind="allocated").values_list("rate_id", "quantity_ms"))
    assert found == {world.rate.pk: 4 * 601_000, later.pk: 4 * 1_199_000}
    cost = selectors.cost_of_month(company.finance_team.pk, DAY.date())
    exact = (4 * 601_000 * Decimal("3.85") + 4 * 1_199_000 * Decimal("2.95")) / HOUR_MS
    assert cost.amount.amount == exact


@pytest.mark.requirement("costs-1.2")
def test_mid_month_change_worked_case(world: World, company: Any) -> None:
    """Forty GPUs through August, $3.40 → $2.95 on the 15th at 00:00: $93,840.00."""
    august, change = utc(2026, 8, 1), utc(2026, 8, 15)
    other = make_world([], slug="dc2", rate="")
    add_rate(other.card, other.flavour, "3.40", utc(2026, 1, 1), change)
    add_rate(other.card, other.flavour, "2.95", change)
    Workspace.objects.create(
        team=company.finance_team, cluster=other.cluster, environment="production", namespace="finance-prod"
    )
    ingest(other, [hold("all", "finance-prod", august, utc(2026, 9, 1), 40)], august, 31 * 24)
    report = selectors.month_report(None, august.date(), company.vp)
    assert report.total == Money(Decimal("93840.00"), "USD")


@pytest.mark.requirement("costs-1.3", "costs-1.6")
def test_no_rate_is_unknown_until_one_appears(world: World, company: Any) -> None:
    world = make_world([], slug="dc2", rate="")
    Workspace.objects.create(
        team=company.finance_team, cluster=world.cluster, environment="production", namespace="finance-prod"
    )
    ingest(world, [hold("a", "finance-prod", DAY, DAY + 2 * HOUR, 2)])
    report = selectors.month_report(None, DAY.date(), company.vp)
    assert [(line.amount, line.unpriced_gpu_ms) for line in report.lines] == [(None, 4 * HOUR_MS)]
    assert report.total is None
    assert budget_figures.remaining(company.finance_team.pk, NOW) is None
    assert actions.price_due() == 0
    clock.advance(timedelta(minutes=5))
    add_rate(world.card, world.flavour, "3.85", utc(2025, 1, 1))
    # The database stamps rates with its own clock, later than the test's frozen one.
    assert actions.price_due() == 24
    assert actions.price_due() == 0
    report = selectors.month_report(None, DAY.date(), company.vp)
    assert report.total == Money(Decimal("15.40"), "USD")


@pytest.mark.requirement("costs-1.6")
def test_the_sweep_prices_what_was_missed(world: World) -> None:
    ingest(world, [hold("a", "finance-prod", DAY, DAY + 2 * HOUR, 2)])
    Charge.objects.all().delete()
    PricedHour.objects.all().delete()
    assert actions.price_due(limit=10) == 10
    assert actions.price_due() == 14
    assert Charge.objects.filter(kind="allocated").count() == 2
    assert pricing.due_hours(100) == {}


def test_billing_zone_cuts_days_and_months(world: World, company: Any, settings: Any) -> None:
    settings.COMMONS_BILLING_TIMEZONE = "+05:00"
    # 19:00 UTC on 31 October is the first of November in the billing zone.
    last = utc(2026, 10, 31, 18)
    ingest(world, [hold("a", "finance-prod", last, last + 3 * HOUR, 1)], last, 3)
    november = selectors.month_report(None, utc(2026, 11, 1).date(), company.vp)
    october = selectors.month_report(None, utc(2026, 10, 1).date(), company.vp)
    assert (october.allocated_gpu_ms, november.allocated_gpu_ms) == (HOUR_MS, 2 * HOUR_MS)
    assert november.zone == "UTC+05:00"
    assert november.lines[0].previous == Money(Decimal("3.85"), "USD")
