"""The pool ledger: pure arithmetic on promises over time (design invariant 1). No ORM, no clock.

GPUs are exact fractions: a flavour's unit holds numerator/denominator of a device, so thirds of a GPU add up.
Time ranges are half-open `[start, end)`; `end` None: no end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction

#: Stands for "no end" in comparisons; never shown.
FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Step:
    """So many GPUs from `start` on until `end`: committable capacity, or a promise of guaranteed GPUs."""

    start: datetime
    end: datetime | None
    gpus: Fraction

    @property
    def until(self) -> datetime:
        """The end as a comparable time."""
        return self.end or FOREVER

    def covers(self, at: datetime) -> bool:
        """Whether `at` lies in it."""
        return self.start <= at < self.until


@dataclass(frozen=True, slots=True)
class Room:
    """Whether a change fits, where it is tightest, and from when on it would fit (None: never as asked)."""

    fits: bool
    worst_at: datetime | None
    free_at_worst: Fraction
    first_fit_from: datetime | None


@dataclass(frozen=True, slots=True)
class Holding:
    """What a workspace holds of a flavour over a time. `key` is the stored row; None: not stored yet."""

    start: datetime
    end: datetime | None
    guaranteed: int
    borrow_mode: str = "none"
    borrow_limit: int = 0
    key: int | None = None

    @property
    def until(self) -> datetime:
        """The end as a comparable time."""
        return self.end or FOREVER

    def covers(self, at: datetime) -> bool:
        """Whether `at` lies in it."""
        return self.start <= at < self.until


def gpus(units: int, numerator: int, denominator: int) -> Fraction:
    """Return how many whole devices `units` of a flavour hold, exactly. Raises ValueError for a negative count."""
    if units < 0:
        raise ValueError("units must not be negative")
    return Fraction(units * numerator, denominator)


def at_instant(steps: Iterable[Step], at: datetime) -> Fraction:
    """Return the sum of all steps in force at `at`."""
    return sum((step.gpus for step in steps if step.covers(at)), Fraction(0))


def instants(start: datetime, end: datetime | None, *series: Iterable[Step]) -> list[datetime]:
    """Return the moments in `[start, end)` at which anything may change: the start and every edge, in order."""
    last = end or FOREVER
    found = {start}
    for steps in series:
        for step in steps:
            found.update(edge for edge in (step.start, step.until) if start < edge < last)
    return sorted(found)


def room_over_time(
    capacity: Sequence[Step],
    others: Sequence[Step],
    change: Fraction,
    start: datetime,
    end: datetime | None,
    *,
    own: Sequence[Step] = (),
) -> Room:
    """Tell whether promising `change` GPUs over `[start, end)` keeps Σ guaranteed within capacity at every instant.

    `capacity`: dated committable GPUs × factor (a gap is zero); `others`: every other promise in the pool; `own`: what
    the same workspace holds of the same flavour so far, which `change` replaces. Only instants at which `change`
    exceeds `own` are a promise: keeping or reducing what one has is never refused, even in a pool that has since lost
    capacity. Raises ValueError for a window that ends before it starts.
    """
    if end is not None and end <= start:
        raise ValueError("the window must end after it starts")
    moments = instants(start, end, capacity, others, own)
    free = [at_instant(capacity, at) - at_instant(others, at) for at in moments]
    asked = [change > at_instant(own, at) for at in moments]
    bad = [index for index, at in enumerate(moments) if asked[index] and free[index] < change]
    counted = [index for index in range(len(moments)) if asked[index]] or list(range(len(moments)))
    worst = min(counted, key=lambda index: (free[index], moments[index]))
    # After the last instant that does not fit, everything fits; at the last one itself: never as asked.
    first: datetime | None = start
    if bad:
        first = moments[bad[-1] + 1] if bad[-1] + 1 < len(moments) else None
    return Room(not bad, moments[worst], free[worst], first)


def breaches(capacity: Sequence[Step], promises: Sequence[Step], start: datetime) -> list[tuple[datetime, Fraction]]:
    """Return where, from `start` on, promises exceed capacity: (instant, GPUs too many). Lost capacity shows here."""
    found = []
    for at in instants(start, None, capacity, promises):
        over = at_instant(promises, at) - at_instant(capacity, at)
        if over > 0:
            found.append((at, over))
    return found


def most(steps: Sequence[Step], start: datetime, end: datetime | None) -> Fraction:
    """Return the largest sum in force at any instant of the window."""
    return max(at_instant(steps, at) for at in instants(start, end, steps))


def in_force(holdings: Iterable[Holding], at: datetime) -> Holding | None:
    """Return the holding in force at `at`; None: nothing is held, which is zero."""
    return next((holding for holding in holdings if holding.covers(at)), None)


def overlay(holdings: Iterable[Holding], new: Holding) -> list[Holding]:
    """Lay `new` over the holdings of one workspace and flavour: it alone counts in its window.

    Outside the window everything stays, so at its end the quota below shows again. A holding that reaches over both
    edges is split: its first part keeps the stored row (`key`), its second becomes a row of its own. Returns all
    holdings in order. Raises ValueError for an empty window, or holdings that overlap to begin with.
    """
    if new.until <= new.start:
        raise ValueError("the window must end after it starts")
    result = [new]
    ordered = sorted(holdings, key=lambda holding: holding.start)
    for before, after in itertools.pairwise(ordered):
        if before.until > after.start:
            raise ValueError("holdings overlap")
    for holding in ordered:
        if holding.until <= new.start or holding.start >= new.until:
            result.append(holding)
            continue
        keeps_row = False
        if holding.start < new.start:
            result.append(replace(holding, end=new.start))
            keeps_row = True
        if holding.until > new.until:
            result.append(replace(holding, start=new.until, key=None if keeps_row else holding.key))
    return sorted(result, key=lambda holding: holding.start)
