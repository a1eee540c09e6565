"""The guard's judgement, against an independent one and by its properties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments import guard
from apps.deployments.choices import LoadState
from apps.deployments.guard import MIN_REQUESTS, MIN_SAMPLES, Status, verdict

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Sample:
    at: datetime
    requests: int | None = None
    errors: int | None = None
    latency_p95_ms: int | None = None


@dataclass(frozen=True)
class Guard:
    error_rate: Decimal | None = None
    latency_p95_ms: int | None = None
    window_minutes: int = 10


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    rows = []
    for minute in range(draw(st.integers(0, 14))):
        requests = draw(st.none() | st.integers(0, 200))
        errors = draw(st.none() | st.integers(0, requests or 0))
        latency = draw(st.none() | st.integers(0, 3000))
        rows.append(Sample(NOON - timedelta(minutes=minute), requests, errors, latency))
    return draw(st.permutations(rows))


guards = st.builds(
    Guard, st.none() | st.decimals(Decimal("0.001"), Decimal("0.9"), places=3), st.none() | st.integers(1, 3000),
    st.integers(1, 20),
)  # fmt: skip


def judged(rows: list[Sample], asked: Guard) -> Status:
    """The same in other words: a threshold by itself, then the worst of the two."""
    held = [row for row in rows if row.at > NOON - timedelta(minutes=asked.window_minutes)] if rows else []
    answers = []
    if asked.error_rate is not None:
        both = [row for row in held if None not in (row.requests, row.errors)]
        total = sum(row.requests or 0 for row in both)
        allowed = asked.error_rate * total
        if total < MIN_REQUESTS:
            answers.append(Status.UNKNOWN)
        else:
            answers.append(Status.BAD if sum(row.errors or 0 for row in both) > allowed else Status.OK)
    if asked.latency_p95_ms is not None:
        told = sorted(row.latency_p95_ms for row in held if row.latency_p95_ms is not None)
        if len(told) < MIN_SAMPLES:
            answers.append(Status.UNKNOWN)
        else:
            # More than half exceed it exactly where the lower median does.
            answers.append(Status.BAD if told[(len(told) - 1) // 2] > asked.latency_p95_ms else Status.OK)
    for status in (Status.BAD, Status.UNKNOWN):
        if status in answers:
            return status
    return Status.OK


@pytest.mark.requirement("serving-watch-3.1", "serving-watch-3.2")
@given(samples(), guards)
def test_the_verdict_is_that_of_an_independent_judge(rows: list[Sample], asked: Guard) -> None:
    assert verdict(rows, asked, LoadState.LOADED, at=NOON).status is judged(rows, asked)


@pytest.mark.requirement("serving-watch-3.1")
@given(samples(), guards)
def test_a_failed_load_is_bad_whatever_was_measured(rows: list[Sample], asked: Guard) -> None:
    assert verdict(rows, asked, LoadState.FAILED, at=NOON).bad


@pytest.mark.requirement("serving-watch-3.2")
@given(samples(), guards)
def test_samples_without_figures_change_nothing(rows: list[Sample], asked: Guard) -> None:
    """What was not measured is unknown: neither good nor bad follows from it."""
    empty = [Sample(NOON - timedelta(seconds=seconds)) for seconds in range(0, 600, 60)]
    plain = verdict(rows, asked, LoadState.LOADED, at=NOON)
    assert verdict([*rows, *empty], asked, LoadState.LOADED, at=NOON).status is plain.status


@pytest.mark.requirement("serving-watch-3.1")
@given(samples(), guards, st.integers(1, 50))
def test_more_errors_never_make_it_better(rows: list[Sample], asked: Guard, more: int) -> None:
    worse = [
        replace(row, errors=min(row.requests, row.errors + more))
        if row.errors is not None and row.requests is not None
        else row
        for row in rows
    ]
    if verdict(rows, asked, LoadState.LOADED, at=NOON).bad:
        assert verdict(worse, asked, LoadState.LOADED, at=NOON).bad


@pytest.mark.requirement("serving-watch-3.1")
@given(samples(), guards)
def test_only_the_window_counts(rows: list[Sample], asked: Guard) -> None:
    old = [Sample(NOON - timedelta(minutes=asked.window_minutes + n), 10_000, 10_000, 99_999) for n in range(5)]
    later = [Sample(NOON + timedelta(seconds=1), 10_000, 10_000, 99_999)]
    plain = verdict(rows, asked, LoadState.LOADED, at=NOON)
    assert verdict([*old, *rows, *later], asked, LoadState.LOADED, at=NOON) == plain


@pytest.mark.requirement("serving-watch-3.2")
def test_without_thresholds_loading_decides() -> None:
    assert verdict([], Guard(), LoadState.LOADED).status is Status.OK
    assert verdict([], Guard(), LoadState.LOADING).status is Status.UNKNOWN


@pytest.mark.requirement("serving-watch-3.1")
def test_what_is_just_allowed_is_not_exceeded() -> None:
    rows = [Sample(NOON, 1000, 10, 500) for _ in range(3)]
    assert verdict(rows, Guard(Decimal("0.01"), 500), LoadState.LOADED).status is Status.OK
    assert verdict(rows, Guard(Decimal("0.009999"), 500), LoadState.LOADED).bad
    found = verdict(rows, Guard(None, 499), LoadState.LOADED)
    assert found.bad
    assert found.reason == "3 of 3 samples exceeded 499 ms at the 95th percentile (most: 500 ms)."
    assert (found.figures["requests"], found.figures["latency_p95_ms_allowed"]) == (3000, 499)


@pytest.mark.requirement("serving-watch-3.2")
def test_figures_are_plain_json() -> None:
    import json

    rows = [Sample(NOON, 60, 1, None)]
    found = verdict(rows, Guard(Decimal("0.5"), 100), LoadState.LOADED)
    assert found.status is Status.UNKNOWN
    assert json.loads(json.dumps(dict(found.figures)))["errors"] == 1
    assert guard.within([], 5) == []
