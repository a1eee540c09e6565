"""The pool ledger: invariant 1 under any sequence, and the overlay of quotas on quotas."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.quotas.ledger import (
    Holding,
    Step,
    at_instant,
    breaches,
    gpus,
    in_force,
    overlay,
    overlay_all,
    room_over_time,
    room_over_windows,
)

ZERO = datetime(2026, 12, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return ZERO + timedelta(days=number)


def step(start: int, end: int | None, count: int | Fraction) -> Step:
    return Step(day(start), None if end is None else day(end), Fraction(count))


@pytest.mark.requirement("quotas-2.1")
def test_room_is_asked_for_over_the_whole_time_not_only_now() -> None:
    capacity = [step(0, 30, 50), step(30, None, 40)]
    others = [step(0, None, 30)]
    assert room_over_time(capacity, others, Fraction(20), day(0), day(30)).fits
    room = room_over_time(capacity, others, Fraction(20), day(0), None)
    assert not room.fits
    assert (room.worst_at, room.free_at_worst, room.first_fit_from) == (day(30), Fraction(10), None)


@pytest.mark.requirement("quotas-4.3")
def test_it_says_from_when_on_it_fits() -> None:
    room = room_over_time([step(0, None, 50)], [step(0, 7, 45), step(0, None, 5)], Fraction(20), day(0), None)
    assert not room.fits
    assert room.first_fit_from == day(7)
    assert room.free_at_worst == 0


@pytest.mark.requirement("quotas-2.3")
def test_keeping_and_reducing_are_never_refused_when_capacity_was_lost() -> None:
    capacity, own = [step(0, None, 10)], [step(0, 10, 20)]
    assert room_over_time(capacity, [], Fraction(20), day(0), day(10), own=own).fits
    assert room_over_time(capacity, [], Fraction(15), day(2), day(8), own=own).fits
    assert not room_over_time(capacity, [], Fraction(15), day(2), day(11), own=own).fits
    assert breaches(capacity, own, day(0)) == [(day(0), Fraction(10))]


@pytest.mark.requirement("quotas-2.1")
def test_shares_of_a_device_add_up_exactly() -> None:
    assert gpus(3, 1, 3) == 1
    third = gpus(1, 1, 3)
    assert room_over_time([step(0, None, 1)], [step(0, None, third * 2)], third, day(0), None).fits
    assert not room_over_time([step(0, None, 1)], [step(0, None, third * 2)], third * 2, day(0), None).fits
    with pytest.raises(ValueError, match="negative"):
        gpus(-1, 1, 1)


@pytest.mark.requirement("quotas-2.5")
def test_at_the_end_the_quota_below_shows_again() -> None:
    base = Holding(day(0), None, 10, key=1)
    after = overlay([base], Holding(day(5), day(9), 30, "limited", 4))
    assert [(h.start, h.end, h.guaranteed, h.key) for h in after] == [
        (day(0), day(5), 10, 1),
        (day(5), day(9), 30, None),
        (day(9), None, 10, None),
    ]
    assert in_force(after, day(4)) == Holding(day(0), day(5), 10, key=1)
    assert in_force(overlay([], Holding(day(1), day(2), 0)), day(3)) is None


moments = st.integers(min_value=0, max_value=40)
windows = st.tuples(moments, st.one_of(st.none(), st.integers(1, 20))).map(
    lambda pair: (pair[0], None if pair[1] is None else pair[0] + pair[1])
)


@pytest.mark.requirement("quotas-2.5")
@settings(max_examples=150)
@given(changes=st.lists(st.tuples(windows, st.integers(0, 9)), min_size=1, max_size=8))
def test_overlays_never_overlap_and_touch_nothing_outside_their_window(
    changes: list[tuple[tuple[int, int | None], int]],
) -> None:
    held: list[Holding] = []
    for (start, end), units in changes:
        new = Holding(day(start), None if end is None else day(end), units)
        after = overlay(held, new)
        for number in range(-1, 65):
            now, before = in_force(after, day(number)), in_force(held, day(number))
            if new.covers(day(number)):
                # 0 means 0: the new value counts, whatever lies below.
                assert now is not None
                assert now.guaranteed == units
            else:
                assert (now and (now.guaranteed, now.borrow_mode)) == (
                    before and (before.guaranteed, before.borrow_mode)
                )
        assert all(a.until <= b.start for a, b in itertools.pairwise(after))
        keys = [holding.key for holding in after if holding.key is not None]
        assert len(keys) == len(set(keys))
        held = [Holding(h.start, h.end, h.guaranteed, key=index) for index, h in enumerate(after)]


@pytest.mark.requirement("quotas-2.1")
@settings(max_examples=200)
@given(
    capacity=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    asks=st.lists(st.tuples(st.integers(0, 3), windows, st.integers(0, 10), st.sampled_from([1, 2, 3])), max_size=14),
)
def test_what_is_promised_never_exceeds_capacity_under_any_sequence(
    capacity: list[int], asks: list[tuple[int, tuple[int, int | None], int, int]]
) -> None:
    steps = [
        step(index * 10, None if index == len(capacity) - 1 else index * 10 + 10, count)
        for index, count in enumerate(capacity)
    ]
    held: dict[tuple[int, int], list[Holding]] = {}

    def promises(but: tuple[int, int] | None = None) -> list[Step]:
        return [
            Step(h.start, h.end, gpus(h.guaranteed, 1, key[1]))
            for key, items in held.items()
            if key != but
            for h in items
        ]

    for owner, (start, end), units, denominator in asks:
        key = (owner, denominator)
        own = [Step(h.start, h.end, gpus(h.guaranteed, 1, denominator)) for h in held.get(key, [])]
        until = None if end is None else day(end)
        change = gpus(units, 1, denominator)
        room = room_over_time(steps, promises(key), change, day(start), until, own=own)
        if room.first_fit_from is not None and not room.fits:
            later = room_over_time(steps, promises(key), change, room.first_fit_from, until, own=own)
            assert later.fits
        if room.fits:
            held[key] = overlay(held.get(key, []), Holding(day(start), until, units))
        assert not breaches(steps, promises(), day(0))
    assert all(at_instant(promises(), day(n)) <= at_instant(steps, day(n)) for n in range(70))


@pytest.mark.requirement("quota-time-1.3")
def test_room_over_windows_names_the_tightest_one_and_when_the_rest_fits() -> None:
    capacity, others = [step(0, None, 50)], [step(0, 3, 20), step(7, 8, 45)]
    weekly = [(day(0), day(1)), (day(7), day(8)), (day(14), day(15))]
    room = room_over_windows(capacity, others, Fraction(20), weekly)
    assert (room.fits, room.worst_at, room.free_at_worst) == (False, day(7), Fraction(5))
    assert room.first_fit_from == day(14)
    assert room_over_windows(capacity, others, Fraction(20), [weekly[0], weekly[2]]).fits
    # Between the windows the pool may be as full as it likes.
    assert room_over_windows(capacity, [step(1, 7, 50)], Fraction(50), weekly).fits
    for wrong in ([], [(day(1), day(1))]):
        with pytest.raises(ValueError, match="window"):
            room_over_windows(capacity, others, Fraction(1), wrong)


@pytest.mark.requirement("quota-time-1.4")
@settings(max_examples=150)
@given(
    base=st.lists(
        st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(1, 20)), st.integers(0, 9)), max_size=4
    ),
    starts=st.sets(st.integers(0, 40), min_size=1, max_size=6),
    units=st.integers(0, 9),
)
def test_laying_many_windows_over_at_once_is_laying_them_over_one_by_one(
    base: list[tuple[int, int | None, int]], starts: set[int], units: int
) -> None:
    held: list[Holding] = []
    for start, length, count in base:
        held = overlay(held, Holding(day(start), None if length is None else day(start + length), count))
    held = [Holding(h.start, h.end, h.guaranteed, key=index) for index, h in enumerate(held)]
    # Windows of half a day each never touch.
    news = [Holding(day(start), day(start) + timedelta(hours=12), units) for start in sorted(starts)]
    at_once = overlay_all(held, news)
    one_by_one = held
    for new in news:
        one_by_one = overlay(one_by_one, new)
    assert [(h.start, h.end, h.guaranteed) for h in at_once] == [(h.start, h.end, h.guaranteed) for h in one_by_one]
    kept = [h.key for h in at_once if h.key is not None]
    assert len(kept) == len(set(kept))


@pytest.mark.requirement("quota-time-1.5")
@settings(max_examples=150)
@given(
    capacity=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    asks=st.lists(
        st.tuples(st.integers(0, 3), st.sets(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 10)),
        max_size=12,
    ),
)
def test_repetitions_never_promise_more_than_there_is(
    capacity: list[int], asks: list[tuple[int, set[int], int]]
) -> None:
    steps = [
        step(index * 10, None if index == len(capacity) - 1 else index * 10 + 10, count)
        for index, count in enumerate(capacity)
    ]
    held: dict[int, list[Holding]] = {}

    def promises(but: int | None = None) -> list[Step]:
        return [
            Step(h.start, h.end, Fraction(h.guaranteed)) for key, items in held.items() if key != but for h in items
        ]

    for owner, starts, units in asks:
        windows = [(day(start), day(start) + timedelta(hours=12)) for start in sorted(starts)]
        own = [Step(h.start, h.end, Fraction(h.guaranteed)) for h in held.get(owner, [])]
        if room_over_windows(steps, promises(owner), Fraction(units), windows, own=own).fits:
            held[owner] = overlay_all(held.get(owner, []), [Holding(low, high, units) for low, high in windows])
        assert not breaches(steps, promises(), day(0))
