"""What is worth saying about unused quota: pure arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.insights.hoarding import HOUR, HOUR_MS, Held, Hoard, Rules, Use, assess, held_since, keep_of

END = datetime(2026, 11, 18, tzinfo=UTC)
START = END - timedelta(days=14)
HOURS = [START + i * HOUR for i in range(14 * 24)]
LONG_AGO = END - timedelta(days=400)


def seen(
    uses: dict[datetime, Use], *, guaranteed: int = 16, floor: int = 0, rules: Rules | None = None
) -> Hoard | None:
    """Assess a quota held for ever."""
    held = [Held(LONG_AGO, None, guaranteed)]
    return assess(held, uses, HOURS, START, END, rules or Rules(), guaranteed=guaranteed, floor=floor)


@pytest.mark.requirement("insights-2.1")
def test_the_highest_use_decides_and_a_margin_stays() -> None:
    """4 of 16 at most, for one hour: 5 stay (4 and 10 %, rounded up), 11 could go."""
    hoard = seen({HOURS[5]: Use(4, 4 * HOUR_MS), HOURS[9]: Use(1, HOUR_MS)})
    assert hoard is not None
    assert (hoard.peak, hoard.keep, hoard.give_back, hoard.p95) == (4, 5, 11, 0)
    assert hoard.unused_unit_ms == (16 * len(HOURS) - 5) * HOUR_MS
    assert hoard.days_used == 1


@pytest.mark.requirement("insights-2.1")
def test_what_is_not_worth_saying() -> None:
    """Used to the full, nearly, kept for serving, held too shortly, or borrowing beyond it."""
    assert seen({HOURS[0]: Use(16, HOUR_MS)}) is None
    assert seen({HOURS[0]: Use(13, HOUR_MS)}) is None  # 15 stay: less than a fifth would go
    assert seen({}, floor=14) is None
    assert seen({HOURS[0]: Use(30, HOUR_MS)}) is None
    new = [Held(END - timedelta(days=6), None, 16)]
    assert assess(new, {}, HOURS, START, END, Rules(), guaranteed=16) is None
    raised = [Held(LONG_AGO, END - timedelta(days=2), 4), Held(END - timedelta(days=2), None, 16)]
    assert assess(raised, {}, HOURS, START, END, Rules(), guaranteed=16) is None


@pytest.mark.requirement("insights-2.2")
def test_unmetered_hours_claim_nothing() -> None:
    """Too many of them: no finding; few: they count neither way."""
    held = [Held(LONG_AGO, None, 10)]
    assert assess(held, {}, HOURS[:300], START, END, Rules(), guaranteed=10) is None
    some = assess(held, {}, HOURS[10:], START, END, Rules(), guaranteed=10)
    assert some is not None
    assert some.hours_metered == len(HOURS) - 10
    assert some.unused_unit_ms == 10 * (len(HOURS) - 10) * HOUR_MS
    assert assess(held, {}, [], START, END, Rules(), guaranteed=10) is None


def test_since_when_it_is_held() -> None:
    """Rows that follow each other without a gap count together, as long as they are as large."""
    a, b, c = END - timedelta(days=30), END - timedelta(days=20), END - timedelta(days=5)
    assert held_since([Held(a, b, 8), Held(b, c, 9), Held(c, None, 8)], END, 8) == a
    assert held_since([Held(a, b, 8), Held(c, None, 8)], END, 8) == c
    assert held_since([Held(a, b, 8), Held(b, c, 4), Held(c, None, 8)], END, 8) == c
    assert held_since([], END, 8) == END
    # Minutes between two quotas are no gap; an hour is one.
    soon, hour = c + timedelta(minutes=59), c + timedelta(hours=1)
    assert held_since([Held(a, c, 8), Held(soon, None, 8)], END, 8) == a
    assert held_since([Held(a, c, 8), Held(hour, None, 8)], END, 8) == hour


@given(
    guaranteed=st.integers(1, 200),
    peaks=st.lists(st.integers(0, 250), max_size=20),
    floor=st.integers(0, 50),
    margin=st.integers(0, 100),
)
@pytest.mark.requirement("insights-2.1")
def test_nothing_that_was_used_is_ever_proposed_away(
    guaranteed: int, peaks: list[int], floor: int, margin: int
) -> None:
    """What would stay covers every peak with its margin and what is kept for serving; what would go is worth it."""
    uses = {hour: Use(peak, peak * HOUR_MS) for hour, peak in zip(HOURS, peaks, strict=False)}
    rules = Rules(margin_percent=margin)
    hoard = assess(
        [Held(LONG_AGO, None, guaranteed)], uses, HOURS, START, END, rules, guaranteed=guaranteed, floor=floor
    )
    if hoard is None:
        return
    assert hoard.keep >= max(peaks, default=0)
    assert hoard.keep >= floor
    assert hoard.keep == keep_of(max(peaks, default=0), margin, floor)
    assert hoard.give_back >= 1
    assert hoard.give_back * 100 >= rules.min_percent * guaranteed
    assert sum(day.unused_unit_ms for day in hoard.days) == hoard.unused_unit_ms <= hoard.held_unit_ms
