"""Does it fit, from when on, and what is the limit: pure arithmetic over the pool ledger. No ORM, no clock, no words.

GPUs are exact fractions, time ranges half-open `[start, end)`, as in `ledger`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from apps.quotas.ledger import FOREVER, Profile, Step

#: A dated window `[start, end)`; `end` None: no end.
Window = tuple[datetime, datetime | None]


class Verdict(StrEnum):
    """What submitting it now would lead to, once approved."""

    FITS_NOW = "fits_now"
    FITS_BY_BORROWING = "fits_by_borrowing"
    IN_LINE = "in_line"
    FITS_FROM = "fits_from"
    NEVER = "never"


class LimitKind(StrEnum):
    """What stands in the way."""

    NONE = "none"
    PROMISES = "promises"
    CAPACITY = "capacity"
    ELASTIC = "elastic"
    FLAVOUR_UNITS = "flavour_units"
    LINE = "line"
    BORROWING = "borrowing"
    PERMISSION = "permission"
    RULE = "rule"


class Ground:
    """The pool as the ledger sees it: committable GPUs, everybody else's promises, what the workspace itself holds."""

    def __init__(self, capacity: Sequence[Step], others: Sequence[Step], own: Sequence[Step] = ()) -> None:
        self.capacity, self.others, self.own = capacity, others, own
        self._profiles = Profile.of(capacity), Profile.of(others), Profile.of(own)

    def committable(self, at: datetime) -> Fraction:
        """Return the committable GPUs at `at`."""
        return self._profiles[0].at(at)

    def promised(self, at: datetime) -> Fraction:
        """Return what others were promised at `at`."""
        return self._profiles[1].at(at)

    def reach(self, at: datetime) -> Fraction:
        """Return the most that the workspace may hold at `at`: what nobody else was promised, or what it holds."""
        return max(self.committable(at) - self.promised(at), self._profiles[2].at(at))

    def moments(self, start: datetime, end: datetime | None) -> list[datetime]:
        """Return the instants of a window at which anything may change, its start first."""
        return [start, *sorted({edge for profile in self._profiles for edge in profile.within(start, end)})]


@dataclass(frozen=True, slots=True)
class Ask:
    """So many units of a flavour (each `per_unit` GPUs) in every one of the windows, in order of time."""

    units: int
    per_unit: Fraction
    windows: tuple[Window, ...]

    @property
    def gpus(self) -> Fraction:
        """How many whole devices that is."""
        return self.units * self.per_unit

    @property
    def recurring(self) -> bool:
        """Whether it asks for more than one stretch of time."""
        return len(self.windows) > 1


@dataclass(frozen=True, slots=True)
class Borrowable:
    """What idles with others just now and may be lent: whole devices, and of how many that is a part."""

    idle: Fraction
    held: Fraction


@dataclass(frozen=True, slots=True)
class Found:
    """What the arithmetic says. Units are the flavour's; times lie in the asked windows, or after them for `fits_from`.

    `tightest_at`, `reach_at_tightest`: where least is left. `most_now`: the largest number that fits in all windows.
    `ends_by`: all of it fits if it ends by then (None: not even for a moment, or it fits). `starts_by`: as dated, but
    beginning later, it fits. `fits_from`: the first start from which on the whole window fits, its length kept; for
    recurring windows the first window from which on all that are left fit. `guaranteed`, `borrowed`: the two parts of
    `fits_by_borrowing`.
    """

    verdict: Verdict
    limit: LimitKind
    tightest_at: datetime
    reach_at_tightest: Fraction
    capacity_at_tightest: Fraction
    promised_at_tightest: Fraction
    most_now: int
    fits_from: datetime | None
    starts_by: datetime | None
    ends_by: datetime | None
    guaranteed: int
    borrowed: int


def bad_stretches(ground: Ground, need: Fraction, window: Window) -> list[tuple[datetime, datetime | None]]:
    """Return where in a window `need` GPUs do not fit, in order, neighbours joined; None: to no end."""
    start, end = window
    moments = ground.moments(start, end)
    edges: list[datetime | None] = [*moments[1:], end]
    found: list[tuple[datetime, datetime | None]] = []
    for low, high in zip(moments, edges, strict=True):
        if ground.reach(low) >= need:
            continue
        if found and found[-1][1] == low:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return found


def fits(ground: Ground, ask: Ask) -> bool:
    """Whether all windows have room: exactly when the ledger would let the promise be made."""
    return not any(bad_stretches(ground, ask.gpus, window) for window in ask.windows)


def most_units(ground: Ground, ask: Ask) -> int:
    """Return the largest number of units, at most as many as asked for, that fits in all windows."""
    reach = min(ground.reach(at) for start, end in ask.windows for at in ground.moments(start, end))
    return max(0, min(ask.units, int(reach // ask.per_unit)))


def tightest(ground: Ground, ask: Ask) -> datetime:
    """Return the instant at which the workspace could hold least; the first of several."""
    moments = [at for start, end in ask.windows for at in ground.moments(start, end)]
    return min(moments, key=lambda at: (ground.reach(at), at))


def earliest(ground: Ground, ask: Ask) -> datetime | None:
    """Return the first start from which on it fits whole; None: no start does.

    One window keeps its length and moves; recurring windows stay where they are, and the first ones are left out.
    """
    if ask.recurring:
        found: datetime | None = None
        for window in reversed(ask.windows):
            if bad_stretches(ground, ask.gpus, window):
                return found
            found = window[0]
        return found
    start, end = ask.windows[0]
    length = end - start if end is not None else None
    for low, high in bad_stretches(ground, ask.gpus, (start, None)):
        if length is not None and low - start >= length:
            return start
        if high is None:
            return None
        start = high
    # What would run past the end of time has no end to move.
    return start if length is None or FOREVER - start > length else None


def starts_by(ground: Ground, ask: Ask) -> datetime | None:
    """Return the first start within the asked time from which on it fits until the asked end; None: there is none."""
    if ask.recurring:
        return earliest(ground, ask)
    start, end = ask.windows[0]
    bad = bad_stretches(ground, ask.gpus, (start, end))
    if not bad:
        return start
    return bad[-1][1] if bad[-1][1] != end else None


def ends_by(ground: Ground, ask: Ask) -> datetime | None:
    """Return until when it fits from the asked start on; None: not even at the start."""
    for start, end in ask.windows:
        for low, _ in bad_stretches(ground, ask.gpus, (start, end)):
            return low if low > ask.windows[0][0] else None
    return ask.windows[-1][1]


def _limit(ground: Ground, need: Fraction, at: datetime, elastic_max: Fraction | None) -> LimitKind:
    if elastic_max is not None and need > elastic_max:
        return LimitKind.ELASTIC
    return LimitKind.CAPACITY if need > ground.committable(at) else LimitKind.PROMISES


def judge(
    ground: Ground,
    ask: Ask,
    *,
    ahead: int = 0,
    borrowable: Borrowable | None = None,
    elastic_max: Fraction | None = None,
    units_on_nodes: int | None = None,
) -> Found:
    """Say whether an ask fits now, by borrowing, from when on, or never, and what the limit is.

    `ahead`: how many approved requests wait in the pool's line for the same time. `borrowable`: what idles with others
    where the cluster lends and takes back; None: nothing can be borrowed there. `elastic_max`: how far an elastic pool
    can grow. `units_on_nodes`: how many units of the flavour the nodes carry at all; None: unknown. Raises ValueError
    without a window.
    """
    if not ask.windows:
        raise ValueError("at least one window is needed")
    at = tightest(ground, ask)
    most, first = most_units(ground, ask), earliest(ground, ask)
    now_fits = fits(ground, ask)
    guaranteed = borrowed = 0
    limit = LimitKind.NONE if now_fits else _limit(ground, ask.gpus, at, elastic_max)
    holds = max((step.gpus for step in ground.own), default=Fraction(0))
    if units_on_nodes is not None and ask.units > units_on_nodes and ask.gpus > holds:
        verdict, limit, first = Verdict.NEVER, LimitKind.FLAVOUR_UNITS, None
        most = min(most, units_on_nodes)
    elif now_fits:
        verdict = Verdict.IN_LINE if ahead else Verdict.FITS_NOW
        limit = LimitKind.LINE if ahead else limit
    elif not ahead and borrowable is not None and (ask.units - most) * ask.per_unit <= borrowable.idle:
        verdict, guaranteed, borrowed = Verdict.FITS_BY_BORROWING, most, ask.units - most
    else:
        verdict = Verdict.NEVER if first is None else Verdict.FITS_FROM
    return Found(
        verdict=verdict,
        limit=limit,
        tightest_at=at,
        reach_at_tightest=ground.reach(at),
        capacity_at_tightest=ground.committable(at),
        promised_at_tightest=ground.promised(at),
        most_now=most,
        fits_from=first,
        starts_by=None if now_fits else starts_by(ground, ask),
        ends_by=None if now_fits else ends_by(ground, ask),
        guaranteed=guaranteed,
        borrowed=borrowed,
    )


__all__ = [
    "Ask",
    "Borrowable",
    "Found",
    "Ground",
    "LimitKind",
    "Verdict",
    "Window",
    "bad_stretches",
    "earliest",
    "ends_by",
    "fits",
    "judge",
    "most_units",
    "starts_by",
    "tightest",
]
