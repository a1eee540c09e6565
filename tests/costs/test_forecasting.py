"""Where a month will end: properties of the pure forecast, and worked cases."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.costs.forecasting import EXACT, RUN_RATE, WEEKDAYS, forecast

amounts = st.decimals(min_value=0, max_value=10**7, places=4) | st.integers(min_value=0, max_value=10**9)
days = st.none() | amounts
NOVEMBER = date(2026, 11, 1)


@pytest.mark.requirement("budgets-1.1", "budgets-1.4")
@given(
    daily=st.lists(days, max_size=31),
    history=st.lists(days, max_size=70),
    more=st.integers(min_value=0, max_value=5),
    running=amounts,
)
def test_a_forecast_is_ordered_and_never_below_what_is_spent(
    daily: list[Decimal | int | None], history: list[Decimal | int | None], more: int, running: Decimal | int
) -> None:
    length = max(28, len(daily) + more)
    found = forecast(daily, length, history, running=running)
    known = [value for value in daily if value is not None]
    if len(known) < 3:
        assert found is None
        return
    assert found is not None
    spent = sum(known, Decimal(0)) + running
    assert spent <= found.low <= found.mid <= found.high
    assert (found.method == EXACT) == (len(known) == length)
    if found.method == EXACT:
        assert found.low == found.high == spent


@pytest.mark.requirement("budgets-1.2", "budgets-1.5")
def test_weekdays_are_followed_exactly_where_history_repeats_itself() -> None:
    """100 on workdays, 20 at weekends, for eight weeks: the month's end is known, and the range has no width."""
    week = [100, 100, 100, 100, 100, 20, 20]
    history = week * 8
    daily = [week[i % 7] for i in range(18)]
    found = forecast(daily, 30, history, month=NOVEMBER)
    assert found is not None
    whole = sum(week[i % 7] for i in range(30))
    assert (found.low, found.mid, found.high) == (whole, whole, whole)
    assert found.method == WEEKDAYS
    assert found.basis == "18 days of November and the weekdays of 8 weeks before"


@pytest.mark.requirement("budgets-1.2")
def test_a_new_level_carries_on() -> None:
    """Twice as much for the last fourteen days is expected to stay twice as much."""
    history = [70, 70, 70, 70, 70, 14, 14] * 8
    daily = [140, 140, 140, 140, 140, 28, 28] * 2
    found = forecast(daily, 28, history)
    assert found is not None
    assert found.mid == sum(daily) * 2


@pytest.mark.requirement("budgets-1.2")
def test_the_range_is_what_history_was_off() -> None:
    """A history that swings between 90 and 110 a week: a day is off by ten, a week by fifty in four of five cases."""
    history = [value for week in range(8) for value in [90 if week % 2 else 110] * 7]
    found = forecast([100] * 29, 30, history)
    assert found is not None
    assert (found.low, found.mid, found.high) == (2990, 3000, 3010)
    wider = forecast([100] * 23, 30, history)
    assert wider is not None
    assert (wider.low, wider.high) == (3000 - 50, 3000 + 50)


@pytest.mark.requirement("budgets-1.3", "budgets-1.5")
def test_without_history_the_mean_goes_on_with_a_wide_range() -> None:
    found = forecast([10, 20, 30], 30, [5] * 20, month=NOVEMBER)
    assert found is not None
    assert found.method == RUN_RATE
    assert found.mid == 60 + 27 * 20
    assert found.low == 60 + 27 * 10
    assert found.high == 60 + 27 * 30
    assert found.basis.startswith("the mean of 3 days of November")
    flat = forecast([20, 20, 20], 30, [])
    assert flat is not None
    assert (flat.low, flat.high) == (60 + 27 * 15, 60 + 27 * 25)


@pytest.mark.requirement("budgets-1.1")
def test_two_days_are_too_little_and_too_many_days_a_mistake() -> None:
    assert forecast([10, None, 20], 30, [10] * 56) is None
    with pytest.raises(ValueError, match="31 days"):
        forecast([1] * 31, 30, [])


@pytest.mark.requirement("budgets-1.1")
def test_an_unknown_day_is_forecast_not_zero() -> None:
    found = forecast([50, 50, None, 50], 28, [50] * 56)
    assert found is not None
    assert found.mid == 28 * 50
