"""The pool ledger: pure arithmetic on promises over time (design invariant 1). No ORM, no clock.

GPUs are exact fractions: a flavour's unit holds numerator/denominator of a device, so thirds of a GPU add up.
Time ranges are half-open `[start, end)`; `end` None: no end.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
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
    lend_mode: str = "all"
    lend_limit: int = 0
    serving: int = 0

    @property
    def numbers(self) -> tuple[int, str, int, str, int, int]:
        """Everything but the time: two holdings with the same numbers mean the same on the cluster."""
        return (
            self.guaranteed, self.borrow_mode, self.borrow_limit, self.lend_mode, self.lend_limit, self.serving,
        )  # fmt: skip

    @property
    def until(self) -> datetime:
        """The end as a comparable time."""
        return self.end or FOREVER

    def covers(self, at: datetime) -> bool:
        """Whether `at` lies in it."""
        return self.start <= at < self.until


@dataclass(frozen=True, slots=True)
class Profile:
    """The sum of many steps over time, for asking often: edges in order, and the sum from each edge on."""

    edges: list[datetime] = field(default_factory=list)
    sums: list[Fraction] = field(default_factory=list)

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Profile:
        """Add the steps up once."""
        changes: dict[datetime, Fraction] = {}
        for step in steps:
            if step.gpus:
                changes[step.start] = changes.get(step.start, Fraction(0)) + step.gpus
                changes[step.until] = changes.get(step.until, Fraction(0)) - step.gpus
        edges = sorted(changes)
        return cls(edges, list(itertools.accumulate(changes[edge] for edge in edges)))

    def at(self, moment: datetime) -> Fraction:
        """Return the sum in force at a moment."""
        index = bisect.bisect_right(self.edges, moment)
        return self.sums[index - 1] if index else Fraction(0)

    def within(self, start: datetime, end: datetime | None) -> list[datetime]:
        """Return the edges that lie inside the window, its borders left out."""
        low = bisect.bisect_right(self.edges, start)
        return self.edges[low : bisect.bisect_left(self.edges, end or FOREVER)]


@functools.lru_cache(maxsize=16_384)
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
    return room_over_windows(capacity, others, change, [(start, end)], own=own)


def room_over_windows(
    capacity: Sequence[Step],
    others: Sequence[Step],
    change: Fraction,
    windows: Sequence[tuple[datetime, datetime | None]],
    *,
    own: Sequence[Step] = (),
) -> Room:
    """Tell the same over several windows in order, as of a recurring quota: it fits where it fits in every one.

    `worst_at` lies in the tightest window. Raises ValueError for no window, or one that ends before it starts.
    """
    if not windows:
        raise ValueError("there is no window")
    if any(end is not None and end <= start for start, end in windows):
        raise ValueError("the window must end after it starts")
    there, taken, mine = Profile.of(capacity), Profile.of(others), Profile.of(own)
    moments: list[datetime] = []
    for start, end in windows:
        inside = {edge for profile in (there, taken, mine) for edge in profile.within(start, end)}
        moments += [start, *sorted(inside)]
    free = [there.at(at) - taken.at(at) for at in moments]
    asked = [change > mine.at(at) for at in moments]
    bad = [index for index in range(len(moments)) if asked[index] and free[index] < change]
    counted = [index for index in range(len(moments)) if asked[index]] or list(range(len(moments)))
    worst = min(counted, key=lambda index: (free[index], moments[index]))
    # After the last instant that does not fit, everything fits; at the last one itself: never as asked.
    first: datetime | None = windows[0][0]
    if bad:
        first = moments[bad[-1] + 1] if bad[-1] + 1 < len(moments) else None
    return Room(not bad, moments[worst], free[worst], first)


def breaches(capacity: Sequence[Step], promises: Sequence[Step], start: datetime) -> list[tuple[datetime, Fraction]]:
    """Return where, from `start` on, promises exceed capacity: (instant, GPUs too many). Lost capacity shows here."""
    found = []
    there, taken = Profile.of(capacity), Profile.of(promises)
    for at in sorted({start, *there.within(start, None), *taken.within(start, None)}):
        over = taken.at(at) - there.at(at)
        if over > 0:
            found.append((at, over))
    return found


def most(steps: Sequence[Step], start: datetime, end: datetime | None) -> Fraction:
    """Return the largest sum in force at any instant of the window."""
    profile = Profile.of(steps)
    return max(profile.at(at) for at in [start, *profile.within(start, end)])


def beyond(wanted: Sequence[Sequence[Step]], own: Sequence[Step]) -> list[Step]:
    """Return by how much, and when, the largest of several series exceeds `own`: never below zero.

    Each of `wanted` is one reading of the same GPUs (the open requests of one workspace and flavour), so that they do
    not add up.
    """
    series, mine = [Profile.of(one) for one in wanted], Profile.of(own)
    edges = sorted({edge for profile in (*series, mine) for edge in profile.edges})
    found = []
    for low, high in itertools.pairwise(edges):
        more = max((profile.at(low) for profile in series), default=Fraction(0)) - mine.at(low)
        if more > 0:
            found.append(Step(low, None if high == FOREVER else high, more))
    return found


def in_force(holdings: Iterable[Holding], at: datetime) -> Holding | None:
    """Return the holding in force at `at`; None: nothing is held, which is zero."""
    return next((holding for holding in holdings if holding.covers(at)), None)


def overlay(holdings: Iterable[Holding], new: Holding) -> list[Holding]:
    """Lay `new` over the holdings of one workspace and flavour: it alone counts in its window (see `overlay_all`)."""
    return overlay_all(holdings, [new])


def overlay_all(holdings: Iterable[Holding], news: Sequence[Holding]) -> list[Holding]:
    """Lay windows that do not overlap each other over the holdings of one workspace and flavour.

    Outside the windows everything stays, so at the end of each the quota below shows again. A holding that reaches
    over the edges of windows is split: its first remaining part keeps the stored row (`key`), others become rows of
    their own. Returns all holdings in order. Raises ValueError for an empty window, or for overlaps to begin with.
    """
    if any(new.until <= new.start for new in news):
        raise ValueError("the window must end after it starts")
    ordered, laid = sorted(holdings, key=_start), sorted(news, key=_start)
    for rows in (ordered, laid):
        if any(before.until > after.start for before, after in itertools.pairwise(rows)):
            raise ValueError("holdings overlap")
    result = list(laid)
    ends = [new.until for new in laid]
    for holding in ordered:
        low: datetime = holding.start
        key = holding.key
        # Windows that end at or before the start of the holding do not touch it.
        for new in laid[bisect.bisect_right(ends, holding.start) :]:
            if new.start >= holding.until:
                break
            if low < new.start:
                result.append(replace(holding, start=low, end=new.start, key=key))
                key = None
            low = new.until
        if low < holding.until:
            result.append(replace(holding, start=low, key=key))
    return sorted(result, key=_start)


def _start(holding: Holding) -> datetime:
    return holding.start
