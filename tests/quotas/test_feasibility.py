"""Feasibility: the arithmetic agrees with the ledger that decides, and says the first date and the right limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.approvals.ports import meet
from apps.quotas.feasibility import Ask, Borrowable, Ground, LimitKind, Verdict, judge
from apps.quotas.ledger import Step, instants, room_over_time

ZERO = datetime(2026, 12, 1, tzinfo=UTC)
ONE = Fraction(1)


def day(number: int) -> datetime:
    return ZERO + timedelta(days=number)


def step(start: int, end: int | None, count: int | Fraction) -> Step:
    return Step(day(start), None if end is None else day(end), Fraction(count))


def ask(units: int, *windows: tuple[int, int | None], per_unit: Fraction = ONE) -> Ask:
    return Ask(units, per_unit, tuple((day(low), None if high is None else day(high)) for low, high in windows))


@pytest.mark.requirement("feasibility-1.3", "feasibility-1.4")
def test_it_fits_when_a_promise_ends_and_says_what_fits_before() -> None:
    ground = Ground([step(0, None, 20)], [step(0, 7, 16), step(0, None, 2)])
    found = judge(ground, ask(8, (0, 30)))
    assert (found.verdict, found.limit, found.fits_from) == (Verdict.FITS_FROM, LimitKind.PROMISES, day(7))
    assert (found.most_now, found.tightest_at, found.reach_at_tightest) == (2, day(0), Fraction(2))
    assert (found.starts_by, found.ends_by) == (day(7), None)


@pytest.mark.requirement("feasibility-1.3")
def test_a_gap_that_is_too_short_for_the_whole_time_is_no_start() -> None:
    ground = Ground([step(0, None, 10)], [step(0, 2, 8), step(5, 9, 8)])
    found = judge(ground, ask(4, (0, 4)))
    assert found.fits_from == day(9)
    assert found.starts_by == day(2)
    late = judge(ground, ask(4, (2, 8)))
    assert (late.ends_by, late.starts_by, late.fits_from) == (day(5), None, day(9))
    assert judge(ground, ask(4, (0, 3))).fits_from == day(2)


@pytest.mark.requirement("feasibility-1.4")
def test_never_names_what_stands_in_the_way() -> None:
    full = Ground([step(0, None, 10)], [step(0, None, 8)])
    assert (judge(full, ask(4, (0, None))).verdict, judge(full, ask(4, (0, None))).limit) == (
        Verdict.NEVER,
        LimitKind.PROMISES,
    )
    assert judge(full, ask(11, (0, None))).limit == LimitKind.CAPACITY
    assert judge(full, ask(11, (0, None)), elastic_max=Fraction(10)).limit == LimitKind.ELASTIC
    few = judge(full, ask(2, (0, None)), units_on_nodes=1)
    assert (few.verdict, few.limit, few.most_now, few.fits_from) == (Verdict.NEVER, LimitKind.FLAVOUR_UNITS, 1, None)


@pytest.mark.requirement("feasibility-1.5")
def test_what_idles_with_others_can_be_borrowed_for_the_missing_part() -> None:
    full = Ground([step(0, None, 10)], [step(0, None, 8)])
    found = judge(full, ask(6, (0, None)), borrowable=Borrowable(Fraction(5), Fraction(8)))
    assert (found.verdict, found.guaranteed, found.borrowed) == (Verdict.FITS_BY_BORROWING, 2, 4)
    assert judge(full, ask(8, (0, None)), borrowable=Borrowable(Fraction(5), Fraction(8))).verdict == Verdict.NEVER


@pytest.mark.requirement("feasibility-1.1", "feasibility-2.1")
def test_whoever_is_ahead_in_the_line_is_served_first() -> None:
    found = judge(Ground([step(0, None, 10)], []), ask(4, (0, None)), ahead=2)
    assert (found.verdict, found.limit) == (Verdict.IN_LINE, LimitKind.LINE)


@pytest.mark.requirement("feasibility-1.2")
def test_recurring_windows_all_count() -> None:
    """Five Mondays; on the third somebody else has the GPUs."""
    windows = tuple((7 * week, 7 * week + 1) for week in range(5))
    ground = Ground([step(0, None, 8)], [step(14, 15, 4)])
    assert judge(ground, ask(4, *windows)).verdict == Verdict.FITS_NOW
    found = judge(ground, ask(6, *windows))
    assert (found.verdict, found.fits_from, found.tightest_at) == (Verdict.FITS_FROM, day(21), day(14))
    # What is taken between two windows does not matter.
    assert judge(Ground([step(0, None, 8)], [step(15, 16, 8)]), ask(8, *windows)).verdict == Verdict.FITS_NOW
    with pytest.raises(ValueError, match="window"):
        judge(ground, ask(1))


@pytest.mark.requirement("feasibility-2.1")
def test_times_that_only_touch_do_not_compete() -> None:
    assert not meet([(day(0), day(5))], [(day(5), None)])
    assert meet([(day(0), None)], [(day(50), day(51))])
    assert not meet([(day(0), day(1)), (day(7), day(8))], [(day(1), day(7))])


moments = st.integers(min_value=0, max_value=30)
spans = st.tuples(moments, st.one_of(st.none(), st.integers(1, 15))).map(
    lambda pair: (pair[0], None if pair[1] is None else pair[0] + pair[1])
)
promises = st.lists(st.tuples(spans, st.integers(0, 6)), max_size=6).map(
    lambda items: [step(low, high, count) for (low, high), count in items]
)
grounds = st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=4), promises, spans, st.integers(0, 6)).map(
    lambda made: Ground(
        [step(i * 10, None if i == len(made[0]) - 1 else i * 10 + 10, count) for i, count in enumerate(made[0])],
        made[1],
        [step(*made[2], made[3])],
    )
)


@pytest.mark.requirement("feasibility-1.2", "feasibility-1.3", "feasibility-1.4")
@settings(max_examples=300, deadline=None)
@given(ground=grounds, units=st.integers(1, 12), span=spans, share=st.sampled_from([1, 2, 3]))
def test_it_says_what_the_ledger_would_say(
    ground: Ground, units: int, span: tuple[int, int | None], share: int
) -> None:
    """`fits_now` is the ledger's word, `fits_from` the first instant of which the ledger says so, `never` none."""
    per_unit = Fraction(1, share)

    def granted(count: int, start: datetime, end: datetime | None) -> bool:
        return room_over_time(ground.capacity, ground.others, count * per_unit, start, end, own=ground.own).fits

    asked = ask(units, span, per_unit=per_unit)
    start, end = asked.windows[0]
    found = judge(ground, asked)
    assert (found.verdict == Verdict.FITS_NOW) == granted(units, start, end)
    length = None if end is None else end - start
    edges = instants(start, None, ground.capacity, ground.others, ground.own)
    # A window that must not reach into a bad stretch can begin only where it is asked, or where such a stretch ends.
    works = [at for at in edges if granted(units, at, None if length is None else at + length)]
    assert found.fits_from == (works[0] if works else None)
    if found.verdict == Verdict.NEVER:
        hours = [start + timedelta(hours=12 * number) for number in range(200)]
        assert not any(granted(units, at, None if length is None else at + length) for at in hours)
    assert found.most_now == max(n for n in range(units + 1) if n == 0 or granted(n, start, end))
    if not granted(units, start, end):
        later = [at for at in edges if (end is None or at < end) and granted(units, at, end)]
        assert found.starts_by == (later[0] if later else None)
        if found.ends_by is None:
            assert not granted(units, start, start + timedelta(minutes=1))
        else:
            assert granted(units, start, found.ends_by)
            assert not granted(units, start, found.ends_by + timedelta(minutes=1))
