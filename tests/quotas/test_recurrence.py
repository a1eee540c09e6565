"""Weekly windows: what is refused at which part, expansion that never overlaps, words."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apps.quotas import recurrence
from apps.quotas.recurrence import PRESETS, Recurrence, Unreadable, covers, next_window, parse, windows, words

#: A Monday.
ZERO = datetime(2026, 11, 30, tzinfo=UTC)
NIGHTS = PRESETS["nights"]


@pytest.mark.requirement("quota-time-1.1")
@pytest.mark.parametrize(
    ("value", "part", "says"),
    [
        ({"days": [], "start": "18:00", "minutes": 60}, "days", "at least one day"),
        ({"days": [7], "start": "18:00", "minutes": 60}, "days", "0 (Monday)"),
        ({"days": [True], "start": "18:00", "minutes": 60}, "days", "0 (Monday)"),
        ({"days": [1, 1], "start": "18:00", "minutes": 60}, "days", "once"),
        ({"days": [1], "start": "24:00", "minutes": 60}, "start", "HH:MM"),
        ({"days": [1], "start": "18:00", "minutes": 0}, "minutes", "between 1 minute"),
        ({"days": [1], "start": "18:00", "minutes": 10_081}, "minutes", "between 1 minute"),
        ({"days": [1], "start": "18:00", "minutes": 60.5}, "minutes", "between 1 minute"),
        ({"days": [0, 1], "start": "18:00", "minutes": 1441}, "minutes", "next window begins 24 h later"),
        ({"days": [6, 0], "start": "00:00", "minutes": 1500}, "minutes", "next window begins 24 h later"),
        ({"days": [3], "start": "00:00", "minutes": 10_080}, "minutes", "never pauses"),
        ({"days": list(range(7)), "start": "06:00", "minutes": 1440}, "minutes", "never pauses"),
        ({"days": [1], "start": "18:00", "minutes": 60, "zone": "CET"}, "days", "Unknown"),
        ("weekly", "days", "Send an object"),
    ],
)
def test_a_repetition_that_cannot_be_taken_says_why_at_its_part(value: Any, part: str, says: str) -> None:
    with pytest.raises(Unreadable) as refused:
        parse(value)
    assert says in refused.value.errors[part]


@pytest.mark.requirement("quota-time-1.2")
def test_it_is_said_in_words() -> None:
    assert words(NIGHTS) == "every weekday 18:00–06:00 UTC"
    assert words(PRESETS["weekends"]) == "every Saturday from 00:00 UTC for 48 h"
    assert words(Recurrence((1, 3), 90, 45)) == "every Tuesday and Thursday 01:30–02:15 UTC"
    assert words(Recurrence(tuple(range(7)), 0, 60)) == "every day 00:00–01:00 UTC"
    assert (NIGHTS.hours_per_month, PRESETS["weekends"].hours_per_month) == (261, 209)
    assert parse(NIGHTS.plain()) == NIGHTS
    assert parse(None) is None


@pytest.mark.requirement("quota-time-1.2")
def test_windows_go_past_midnight_and_are_clipped_to_the_span() -> None:
    found = windows(NIGHTS, ZERO + timedelta(hours=3), ZERO + timedelta(days=1, hours=20))
    # Monday 03:00 lies in no window: Sunday night has none.
    assert found == [
        (ZERO + timedelta(hours=18), ZERO + timedelta(hours=30)),
        (ZERO + timedelta(hours=42), ZERO + timedelta(hours=44)),
    ]
    tuesday = ZERO + timedelta(days=1, hours=3)
    assert windows(NIGHTS, tuesday, tuesday + timedelta(hours=4)) == [(tuesday, tuesday + timedelta(hours=3))]
    assert next_window(NIGHTS, ZERO, ZERO + timedelta(days=30)) == found[0]
    assert next_window(NIGHTS, ZERO, ZERO + timedelta(hours=17)) is None
    weekend = ZERO + timedelta(days=6, hours=5)
    assert next_window(PRESETS["weekends"], weekend, weekend + timedelta(days=9)) == (
        weekend,
        ZERO + timedelta(days=7),
    )
    with pytest.raises(ValueError, match="must end after"):
        windows(NIGHTS, ZERO, ZERO)


@st.composite
def repetitions(draw: st.DrawFn) -> Recurrence:
    days = draw(st.sets(st.integers(0, 6), min_size=1))
    sent = {
        "days": sorted(days),
        "start": f"{draw(st.integers(0, 23)):02d}:{draw(st.integers(0, 59)):02d}",
        "minutes": draw(st.integers(1, 10_080)),
    }
    try:
        found = parse(sent)
    except Unreadable:
        assume(False)
    assert found is not None
    return found


moments = st.integers(0, 60 * 24 * 40).map(lambda minutes: ZERO + timedelta(minutes=minutes))


@pytest.mark.requirement("quota-time-1.2")
@settings(max_examples=200)
@given(repetition=repetitions(), start=moments, length=st.integers(1, 60 * 24 * 30), cut=st.integers(1, 99))
def test_windows_never_overlap_lie_in_the_span_and_are_the_same_each_time(
    repetition: Recurrence, start: datetime, length: int, cut: int
) -> None:
    end = start + timedelta(minutes=length)
    found = windows(repetition, start, end)
    assert found == windows(repetition, start, end)
    assert all(start <= low < high <= end for low, high in found)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    # Cutting the span changes no instant.
    middle = start + timedelta(minutes=length * cut // 100)
    if start < middle < end:
        parts = windows(repetition, start, middle) + windows(repetition, middle, end)
        assert sum((high - low for low, high in parts), timedelta()) == sum(
            (high - low for low, high in found), timedelta()
        )
        assert all(any(low <= part < high for low, high in found) for part, _ in parts)


@pytest.mark.requirement("quota-time-1.2")
@settings(max_examples=150)
@given(repetition=repetitions(), at=moments)
def test_a_moment_lies_in_a_window_exactly_when_a_window_began_shortly_before(
    repetition: Recurrence, at: datetime
) -> None:
    """Validates the expansion against the definition, told from the other side."""
    age = [
        (at - (at.replace(hour=0, minute=0) - timedelta(days=back) + timedelta(minutes=repetition.start)))
        for back in range(9)
        if (at - timedelta(days=back)).weekday() in repetition.days
    ]
    expected = any(timedelta() <= one < timedelta(minutes=repetition.minutes) for one in age)
    assert covers(repetition, at) is expected


@pytest.mark.requirement("quota-time-1.1")
def test_a_year_of_any_repetition_stays_within_what_is_written_down() -> None:
    daily = Recurrence(tuple(range(7)), 0, 60)
    end = ZERO + timedelta(days=recurrence.MAX_DAYS_AHEAD)
    assert len(windows(daily, ZERO, end)) == recurrence.MAX_DAYS_AHEAD <= recurrence.MAX_WINDOWS
