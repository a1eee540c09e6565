"""P17: a canary's share never exceeds its grant, only grows on the way up, and is held for its hours. Pure."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments import intervals, ladder
from apps.deployments.spec import Rung

START = datetime(2026, 11, 1, tzinfo=UTC)


@st.composite
def ladders(draw: Any) -> tuple[Rung, ...]:
    """Ladders as a spec may have them."""
    return tuple(Rung(one, draw(st.integers(0, 48))) for one in sorted(draw(st.sets(st.integers(1, 99), max_size=6))))


@pytest.mark.requirement("rollouts-2.7")
@given(ladders(), st.integers(0, 100), st.lists(st.integers(0, 40), max_size=30), st.booleans())
def test_p17_whatever_the_clock_does(rungs: tuple[Rung, ...], max_traffic: int, waits: list[int], binds: bool) -> None:
    """Walk up as the sweep and impatient people do, at random times."""
    at, traffic, rung, since = START, 0, -1, START
    history = [0]
    for hours in waits:
        at += timedelta(hours=hours)
        move = ladder.first(rungs, since) if rung < 0 else ladder.following(rungs, rung, since)
        held = move.not_before if binds and move.not_before > at else None
        if ladder.refusal(move, at=at, traffic=traffic, max_traffic=max_traffic, held_until=held) is not None:
            continue
        if binds and rung >= 0:
            assert at - since >= timedelta(hours=rungs[rung].hours)
        traffic, rung, since = move.traffic, rung if move.rung is None else move.rung, at
        history.append(traffic)
        # The other release takes the rest: together they take everything.
        assert (
            sum(intervals.switch({}, {1: 100 - traffic, 2: traffic} if traffic < 100 else {2: 100}).open.values())
            == 100
        )
        if move.rung is None:
            break
    assert history == sorted(set(history))
    assert max(history) <= max_traffic or max(history) == 0


@given(ladders())
def test_promotion_comes_after_all_hours(rungs: tuple[Rung, ...]) -> None:
    if not rungs:
        assert ladder.first(rungs, START) == ladder.Move(None, 100, START)
        return
    assert ladder.earliest_promotion(rungs, 0, START) == START + timedelta(hours=sum(one.hours for one in rungs))


@pytest.mark.requirement("rollouts-2.8")
@given(
    st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 100))), max_size=30)
)
def test_intervals_of_a_release_never_meet_and_shares_sum_to_all(changes: list[Any]) -> None:
    """Replay changes of shares as `serving.set_shares` writes them."""
    running: dict[int, int] = {}
    rows: list[list[int | None]] = []  # release, start, end, traffic
    for now, change in enumerate(changes):
        if change is None:
            wanted: dict[int, int] = {}
        else:
            one, other, share = change
            wanted = {one: 100} if one == other else {one: 100 - share, other: share}
        found = intervals.switch(running, wanted)
        for row in rows:
            if row[2] is None and row[0] in found.close:
                row[2] = now
        rows += [[release, now, None, share] for release, share in found.open.items()]
        running = wanted
        open_now = {row[0]: row[3] for row in rows if row[2] is None}
        assert open_now == wanted
        assert len(open_now) == sum(1 for row in rows if row[2] is None)
        assert not wanted or sum(wanted.values()) == 100
    for release in {row[0] for row in rows}:
        spans = sorted((row[1], row[2] if row[2] is not None else 10**6) for row in rows if row[0] == release)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_shares_that_do_not_sum_are_refused() -> None:
    with pytest.raises(ValueError, match="not to 100"):
        intervals.switch({}, {1: 50, 2: 40})
    with pytest.raises(ValueError, match="outside"):
        intervals.switch({}, {1: 150, 2: -50})


@pytest.mark.requirement("releases-2.5")
def test_a_ladder_is_held_against_grant_and_policy() -> None:
    rungs = (Rung(10, 12), Rung(50, 6))
    assert ladder.problems(rungs, max_traffic=100, hours_min=12, hours_max=48) == []
    assert "at least 24 h" in ladder.problems(rungs, max_traffic=100, hours_min=24)[0]
    assert "at most 12 h" in ladder.problems(rungs, max_traffic=100, hours_max=12)[0]
    assert "never be promoted" in ladder.problems(rungs, max_traffic=50)[0]
