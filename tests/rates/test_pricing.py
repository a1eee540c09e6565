"""Pricing is exact, splits at the second, and never takes an unknown price for zero."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import CurrencyMismatch, Money
from apps.rates.pricing import NoRate, allot, monthly, price, split_by_rate

AUGUST = datetime(2026, 8, 1, tzinfo=UTC)
SEPTEMBER = datetime(2026, 9, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Valid:
    lower: datetime | None
    upper: datetime | None


@dataclass(frozen=True)
class FakeRate:
    valid: Valid
    hourly: Money


def rate(low: datetime | None, high: datetime | None, amount: str, currency: str = "USD") -> FakeRate:
    return FakeRate(Valid(low, high), Money(Decimal(amount), currency))


def gpu_ms(gpus: int, start: datetime, end: datetime) -> int:
    return gpus * int((end - start) / timedelta(milliseconds=1))


@pytest.mark.requirement("rates-1.1")
def test_forty_gpus_over_a_month_with_a_change_on_the_fifteenth() -> None:
    change = datetime(2026, 8, 15, tzinfo=UTC)
    rates = [rate(None, change, "3.40"), rate(change, None, "2.95")]
    segments = split_by_rate(AUGUST, SEPTEMBER, rates)
    assert price(gpu_ms(40, AUGUST, SEPTEMBER), segments) == Money(Decimal("93840.00"), "USD")


@pytest.mark.requirement("rates-1.1")
def test_a_change_in_mid_hour_splits_at_the_second() -> None:
    start = datetime(2026, 8, 15, 10, tzinfo=UTC)
    change = start + timedelta(seconds=1801)
    end = start + timedelta(hours=1)
    segments = split_by_rate(start, end, [rate(change, None, "2"), rate(AUGUST, change, "1")])
    assert [(s, e, r.hourly.amount if r else None) for s, e, r in segments] == [
        (start, change, Decimal(1)),
        (change, end, Decimal(2)),
    ]
    # One GPU for the hour: 1,801 s at 1 and 1,799 s at 2.
    assert price(3_600_000, segments).amount * 3600 == 1801 + 2 * 1799


@pytest.mark.requirement("rates-1.3")
def test_a_gap_is_named_and_never_priced_at_zero() -> None:
    ends = AUGUST + timedelta(days=3)
    segments = split_by_rate(AUGUST, SEPTEMBER, [rate(AUGUST, ends, "3.40")])
    assert segments[1] == (ends, SEPTEMBER, None)
    with pytest.raises(NoRate) as refused:
        price(gpu_ms(1, AUGUST, SEPTEMBER), segments)
    assert (refused.value.start, refused.value.end) == (ends, SEPTEMBER)
    with pytest.raises(NoRate):
        price(0, segments[1:])


@pytest.mark.requirement("rates-1.4")
def test_overlapping_rates_and_two_currencies_are_refused() -> None:
    middle = AUGUST + timedelta(days=10)
    with pytest.raises(ValueError, match="two rates"):
        split_by_rate(AUGUST, SEPTEMBER, [rate(None, None, "1"), rate(middle, None, "2")])
    mixed = split_by_rate(AUGUST, SEPTEMBER, [rate(None, middle, "1"), rate(middle, None, "2", "EUR")])
    with pytest.raises(CurrencyMismatch):
        price(1000, mixed)
    with pytest.raises(ValueError, match="end after"):
        split_by_rate(AUGUST, AUGUST, [])


seconds = st.integers(min_value=1, max_value=400_000)


@pytest.mark.requirement("rates-1.2")
@given(cuts=st.lists(seconds, max_size=6, unique=True), length=seconds, quantity=st.integers(0, 10**15))
def test_parts_keep_the_quantity_and_the_pieces_join(cuts: list[int], length: int, quantity: int) -> None:
    end = AUGUST + timedelta(seconds=length)
    edges = [None, *(AUGUST + timedelta(seconds=cut) for cut in sorted(cuts)), None]
    rates = [rate(low, high, str(i + 1)) for i, (low, high) in enumerate(itertools.pairwise(edges))]
    segments = split_by_rate(AUGUST, end, rates)
    assert segments[0].start == AUGUST
    assert segments[-1].end == end
    assert all(a.end == b.start for a, b in itertools.pairwise(segments))
    assert all(segment.rate is not None for segment in segments)
    assert sum(allot(quantity, segments)) == quantity


@pytest.mark.requirement("rates-1.1")
@given(cut=st.integers(1, 86_399), gpus=st.integers(1, 1000), cents=st.integers(0, 100_000))
def test_a_constant_rate_prices_a_partition_like_the_whole(cut: int, gpus: int, cents: int) -> None:
    end, middle = AUGUST + timedelta(days=1), AUGUST + timedelta(seconds=cut)
    rates = [rate(None, None, str(Decimal(cents) / 100))]
    whole = price(gpu_ms(gpus, AUGUST, end), split_by_rate(AUGUST, end, rates))
    first = price(gpu_ms(gpus, AUGUST, middle), split_by_rate(AUGUST, middle, rates))
    second = price(gpu_ms(gpus, middle, end), split_by_rate(middle, end, rates))
    assert whole.quantized() == (first + second).quantized()


@pytest.mark.requirement("rates-4.1")
def test_a_month_has_730_hours() -> None:
    assert monthly(8, Money(Decimal("3.85"), "USD")) == Money(Decimal("22484.00"), "USD")
    assert monthly(-2, Money(Decimal("3.85"), "USD")) == Money(Decimal("-5621.00"), "USD")
