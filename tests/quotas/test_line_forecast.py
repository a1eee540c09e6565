"""The forecast of a line, against the ledger's own arithmetic asked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.quotas.feasibility import Ask, Ground, starts_by
from apps.quotas.ledger import Profile, Step
from apps.quotas.line_forecast import PoolLeft, Turn

BEGIN = datetime(2026, 11, 18, tzinfo=UTC)
times = st.integers(0, 12).map(lambda hours: BEGIN + timedelta(hours=hours))
counts = st.builds(Fraction, st.integers(0, 9), st.sampled_from([1, 2, 7]))


@st.composite
def steps(draw: st.DrawFn, most: int = 4) -> list[Step]:
    found = []
    for _ in range(draw(st.integers(0, most))):
        low, hours = draw(times), draw(st.none() | st.integers(1, 8))
        found.append(Step(low, None if hours is None else low + timedelta(hours=hours), draw(counts)))
    return found


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    low = draw(times)
    spans: list[tuple[datetime, datetime | None]] = []
    for _ in range(draw(st.integers(1, 3))):
        high = low + timedelta(hours=draw(st.integers(1, 5)))
        spans.append((low, high))
        low = high + timedelta(hours=draw(st.integers(0, 3)))
    if len(spans) == 1 and draw(st.booleans()):
        spans = [(spans[0][0], None)]
    # Only one of two keys holds anything, as a workspace that asks for more does.
    key = draw(st.sampled_from("abc"))
    return Turn(key, draw(counts), draw(counts), spans)


def expected(
    capacity: Sequence[Step], held: dict[str, list[Step]], kept: dict[str, list[Step]], line: Sequence[Turn]
) -> list[datetime | None]:
    """Ask the ledger anew for each, with everybody served before it."""
    laid: list[tuple[object, Step]] = []
    found: list[datetime | None] = []
    for turn in line:
        others = [step for key, rows in (*held.items(), *kept.items()) if key != turn.key for step in rows]
        others += [step for key, step in laid if key != turn.key]
        own = [*held[str(turn.key)], *(step for key, step in laid if key == turn.key)]
        start = starts_by(Ground(capacity, others, own), Ask(1, turn.need, tuple(turn.spans)))
        found.append(start)
        if start is not None:
            laid += [(turn.key, Step(max(low, start), high, turn.more))
                     for low, high in turn.spans if high is None or high > start]  # fmt: skip
    return found


@pytest.mark.requirement("feasibility-2.4")
@given(
    capacity=steps(),
    others=steps(6),
    own=st.fixed_dictionaries({key: steps(2) for key in "ab"}),
    kept=st.fixed_dictionaries({key: steps(1) for key in "ab"}),
    line=st.lists(turns(), max_size=5),
)
def test_one_sweep_says_what_the_ledger_says_when_it_is_asked_one_by_one(
    capacity: list[Step], others: list[Step], own: dict[str, list[Step]], kept: dict[str, list[Step]], line: list[Turn]
) -> None:
    held = {**own, "c": [], "others": others}
    taken = [step for rows in (*held.values(), *kept.values()) for step in rows]
    laid_out = [Profile.of(taken[::2]), Profile.of(taken[1::2])]
    pool = PoolLeft.of(Profile.of(capacity), laid_out, [amount for turn in line for amount in (turn.need, turn.more)])
    found = []
    for turn in line:
        asked = Turn(turn.key, turn.need, turn.more, turn.spans, held[str(turn.key)], kept.get(str(turn.key), ()))
        start = pool.start_of(asked)
        found.append(start)
        if start is not None:
            pool.lay(asked, start)
    assert found == expected(capacity, held, kept, line)
