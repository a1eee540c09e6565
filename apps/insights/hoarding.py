"""When guaranteed quota lies idle, and how much of it could be given back. Pure: no rows, no clock.

All in units of the flavour and milliseconds; an hour that was not metered counts neither way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What is worth saying (settings COMMONS_HOARDING_*)."""

    days: int = 14
    min_held_days: int = 7
    margin_percent: int = 10
    min_units: int = 1
    min_percent: int = 20
    max_gap_permille: int = 50


@dataclass(frozen=True, slots=True)
class Held:
    """What a workspace was guaranteed over a time; `end` None: no end."""

    start: datetime
    end: datetime | None
    guaranteed: int


@dataclass(frozen=True, slots=True)
class Use:
    """What it held at once at most in an hour, and over the hour, in units of the flavour."""

    peak: int
    unit_ms: int


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the window, in UTC."""

    day: date
    guaranteed: int
    peak: int
    unit_ms: int
    unused_unit_ms: int
    hours: int


@dataclass(frozen=True, slots=True)
class Hoard:
    """What was seen and what could be returned."""

    guaranteed: int
    peak: int
    p95: int
    keep: int
    days_used: int
    days: list[Day]
    unused_unit_ms: int
    held_unit_ms: int
    hours_metered: int

    @property
    def give_back(self) -> int:
        """Units that nobody would miss."""
        return self.guaranteed - self.keep


def keep_of(peak: int, margin_percent: int, floor: int = 0) -> int:
    """Return what should stay: the peak and a margin, rounded up, and never less than `floor`."""
    return max(-(-peak * (100 + margin_percent) // 100), floor)


def held_ms(held: Sequence[Held], start: datetime, end: datetime) -> int:
    """Return guaranteed unit-milliseconds within `[start, end)`."""
    total = 0
    for one in held:
        low, high = max(one.start, start), min(one.end or end, end)
        if low < high:
            total += one.guaranteed * (high - low) // timedelta(milliseconds=1)
    return total


def held_since(held: Sequence[Held], at: datetime, guaranteed: int) -> datetime:
    """Return since when, without a gap of an hour or more up to `at`, at least `guaranteed` has been guaranteed.

    Use is known by the hour: what is renewed or imported minutes later was not given back in between.
    """
    since = at
    for one in sorted(held, key=lambda item: item.start, reverse=True):
        if one.start >= at and one.start != since:
            continue
        if one.end is not None and one.end + HOUR <= since:
            break
        if one.guaranteed < guaranteed:
            break
        since = min(since, one.start)
    return since


def assess(
    held: Sequence[Held],
    uses: Mapping[datetime, Use],
    metered: Collection[datetime],
    start: datetime,
    end: datetime,
    rules: Rules,
    *,
    guaranteed: int,
    floor: int = 0,
) -> Hoard | None:
    """Return what could be given back of `guaranteed` units held at `end`, None where nothing is worth saying.

    `uses`: by hour, absent hours of `metered` are zero; `floor`: what must stay in any case (kept for serving).
    The highest number ever held at once decides, so that no peak of the window would have failed.
    """
    if held_since(held, end, guaranteed) > end - timedelta(days=rules.min_held_days):
        return None
    expected = int((end - start) / HOUR)
    hours = sorted(hour for hour in metered if start <= hour < end)
    if not hours or (expected - len(hours)) * 1000 > rules.max_gap_permille * expected:
        return None
    seen = [(hour, uses.get(hour, Use(0, 0)), held_ms(held, hour, hour + HOUR)) for hour in hours]
    peaks = sorted(use.peak for _, use, _ in seen)
    keep = keep_of(peaks[-1], rules.margin_percent, floor)
    back = guaranteed - keep
    if back < max(1, rules.min_units) or back * 100 < rules.min_percent * guaranteed:
        return None
    days = _days(held, seen)
    return Hoard(
        guaranteed=guaranteed,
        peak=peaks[-1],
        p95=peaks[max(0, -(-95 * len(peaks) // 100) - 1)],
        keep=keep,
        days_used=sum(1 for day in days if day.unit_ms),
        days=days,
        unused_unit_ms=sum(day.unused_unit_ms for day in days),
        held_unit_ms=sum(owned for _, _, owned in seen),
        hours_metered=len(hours),
    )


def _days(held: Sequence[Held], seen: Sequence[tuple[datetime, Use, int]]) -> list[Day]:
    found: dict[date, list[tuple[datetime, Use, int]]] = {}
    for row in seen:
        found.setdefault(row[0].date(), []).append(row)
    return [
        Day(
            day=day,
            guaranteed=max(owned for _, _, owned in rows) // HOUR_MS,
            peak=max(use.peak for _, use, _ in rows),
            unit_ms=sum(use.unit_ms for _, use, _ in rows),
            unused_unit_ms=sum(max(0, owned - use.unit_ms) for _, use, owned in rows),
            hours=len(rows),
        )
        for day, rows in sorted(found.items())
    ]
