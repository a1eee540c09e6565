"""What a pool can promise, has promised and is asked for over time: one sweep over sorted edges.

Reads bare columns: a pool of a thousand workspaces is read in a few milliseconds. The figures are the ledger's.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cached_property

from django.db.models import Q

from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.db_time import Micros, at_micros
from apps.quotas import book, recurrence, renewal
from apps.quotas.assess import number
from apps.quotas.choices import OPEN_STATUSES
from apps.quotas.ledger import FOREVER, Holding, Profile, Step, at_instant, gpus, instants
from apps.quotas.models import Quota, QuotaRequest

#: How far the calendar looks ahead.
CALENDAR_DAYS = 90
#: More rows than this nobody reads one by one: the table then has one row a day.
MOST_ROWS = 100
#: (workspace id, flavour id) → promises of that workspace, in units of the flavour.
_Units = dict[tuple[int, int], list[tuple[datetime, datetime | None, int]]]


@dataclass(frozen=True, slots=True)
class CalendarStep:
    """A stretch of time in a pool's calendar, in whole devices. `requested`: open requests, if all were granted."""

    start: datetime
    end: datetime
    committable: Fraction
    promised: Fraction
    requested: Fraction

    @property
    def free(self) -> Fraction:
        """What is left to promise; negative where capacity was lost."""
        return self.committable - self.promised

    def shown(self) -> dict[str, str]:
        """Return the figures for people."""
        return {
            "committable": number(self.committable), "promised": number(self.promised),
            "requested": number(self.requested), "free": number(self.free),
        }  # fmt: skip


@dataclass(frozen=True)
class PoolTime:
    """A pool's time from `begin` on: capacity, promises per workspace and flavour, open requests."""

    pool: Pool
    begin: datetime
    capacity: list[Step]
    units: _Units
    flavours: Mapping[int, Flavour]
    requests: Sequence[Step] = field(default_factory=tuple)

    @cached_property
    def promised(self) -> Profile:
        """The sum of all promises over time, in whole devices."""
        scale = math.lcm(*(flavour.denominator for flavour in self.flavours.values()))
        parts = {pk: flavour.numerator * scale // flavour.denominator for pk, flavour in self.flavours.items()}
        return _swept(
            (
                (low, high, count * parts[flavour_id])
                for (_, flavour_id), rows in self.units.items()
                for low, high, count in rows
            ),
            scale,
        )

    def book(self) -> book.PoolBook:
        """Return the same as the ledger's book, without what borrowing and lending say. One query (renewals)."""
        holdings = {
            key: sorted((Holding(low, high, count) for low, high, count in rows), key=lambda one: one.start)
            for key, rows in self.units.items()
        }
        return book.PoolBook(
            self.pool, self.capacity, holdings, self.flavours, renewal.holds(self.pool, self.flavours, self.begin)
        )

    def calendar(self, days: int = CALENDAR_DAYS) -> list[CalendarStep]:
        """Return capacity, promises and requests over the coming days, cut wherever any of them changes."""
        return _calendar(profile_of(self.capacity), self.promised, profile_of(self.requests), self.begin, days)

    def breaches(self) -> list[tuple[datetime, Fraction]]:
        """Return when promises exceed capacity, and by how many GPUs (the figures of `ledger.breaches`)."""
        there, taken = profile_of(self.capacity), self.promised
        moments = sorted({self.begin, *there.within(self.begin, None), *taken.within(self.begin, None)})
        # Compared in whole parts: a thousand differences of fractions are slow.
        scale, (taken_parts, there_parts) = _parts(taken, there)
        found = []
        for at in moments:
            over = _part_at(taken, taken_parts, at) - _part_at(there, there_parts, at)
            if over > 0:
                found.append((at, Fraction(over, scale)))
        return found

    def most_units(self) -> dict[int, int]:
        """Return per flavour the most units that are promised at any instant from `begin` on."""
        rows: dict[int, list[tuple[datetime, datetime | None, int]]] = {pk: [] for pk in self.flavours}
        for (_, flavour_id), held in self.units.items():
            rows[flavour_id] += held
        return {pk: max(_sums(held)[1], default=0) for pk, held in rows.items()}


def _swept(rows: Iterable[tuple[datetime, datetime | None, int]], scale: int) -> Profile:
    """Return the sum of (from, until, parts) rows over time, in parts of 1/scale: whole numbers are added, each sum
    becomes a fraction once. Every edge stays, even where nothing changes at it."""
    edges, sums = _sums(rows)
    fractions = {total: Fraction(total, scale) for total in set(sums)}
    return Profile(edges, [fractions[total] for total in sums])


def _sums(rows: Iterable[tuple[datetime, datetime | None, int]]) -> tuple[list[datetime], list[int]]:
    """Return the edges of (from, until, count) rows in order, and the sum from each on."""
    changes: dict[datetime, int] = {}
    for low, high, count in rows:
        until = high or FOREVER
        changes[low] = changes.get(low, 0) + count
        changes[until] = changes.get(until, 0) - count
    edges = sorted(changes)
    return edges, list(itertools.accumulate(changes[edge] for edge in edges))


def _parts(*profiles: Profile) -> tuple[int, list[list[int]]]:
    """Return a common denominator of the profiles' sums, and the sums in parts of it."""
    scale = math.lcm(*{one.denominator for profile in profiles for one in profile.sums})
    return scale, [[one.numerator * (scale // one.denominator) for one in profile.sums] for profile in profiles]


def _part_at(profile: Profile, parts: Sequence[int], moment: datetime) -> int:
    """Return the sum in force at a moment, in parts."""
    index = bisect.bisect_right(profile.edges, moment)
    return parts[index - 1] if index else 0


def profile_of(steps: Sequence[Step]) -> Profile:
    """Return the sum of steps over time, every edge kept (see `_swept`)."""
    scale = math.lcm(*{step.gpus.denominator for step in steps})
    return _swept(((s.start, s.end, s.gpus.numerator * scale // s.gpus.denominator) for s in steps), scale)


def calendar_of(
    capacity: Sequence[Step], promises: Sequence[Step], requests: Sequence[Step], begin: datetime, days: int
) -> list[CalendarStep]:
    """Return the calendar of `days` from `begin` on, cut at every edge: sort once, add up once (n log n)."""
    return _calendar(profile_of(capacity), profile_of(promises), profile_of(requests), begin, days)


def _calendar(there: Profile, taken: Profile, asked: Profile, begin: datetime, days: int) -> list[CalendarStep]:
    end = begin + timedelta(days=days)
    edges = {edge for profile in (there, taken, asked) for edge in profile.within(begin, end)}
    return [
        CalendarStep(low, high, there.at(low), taken.at(low), asked.at(low))
        for low, high in itertools.pairwise([begin, *sorted(edges), end])
    ]


def by_day(steps: Sequence[CalendarStep]) -> list[CalendarStep]:
    """Fold a calendar to one row a day (UTC) as it is at the day's tightest moment: where least is left to promise,
    counting what open requests would add."""
    found: list[CalendarStep] = []
    left = Fraction(0)  # what the last row has left
    for step in steps:
        low = step.start
        remains = step.committable - step.promised - step.requested
        while low < step.end:
            midnight = low.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
            high = min(step.end, midnight)
            if found and found[-1].end == low and found[-1].start.date() == low.date():
                tight = found[-1]
                if remains < left:
                    tight, left = step, remains
                found[-1] = CalendarStep(found[-1].start, high, tight.committable, tight.promised, tight.requested)
            else:
                left = remains
                found.append(CalendarStep(low, high, step.committable, step.promised, step.requested))
            low = high
    return found


def read(pool: Pool, begin: datetime | None = None, *, requests: bool = True) -> PoolTime:
    """Read a pool's time from `begin` (default: now) on. Four queries."""
    start = begin or clock.now().replace(microsecond=0)
    flavours = {flavour.pk: flavour for flavour in pool.flavours.all()}
    units: _Units = {}
    rows = Quota.objects.filter(
        workspace__cluster_id=pool.cluster_id, flavour_id__in=flavours, valid__overlap=(start, None)
    ).order_by()
    rows = rows.annotate(low=Micros("valid__startswith"), high=Micros("valid__endswith"))
    columns = ("workspace_id", "flavour_id", "guaranteed", "low", "high")
    for workspace_id, flavour_id, guaranteed, since, until in rows.values_list(*columns).iterator(chunk_size=5000):
        low, high = at_micros(since), None if until is None else at_micros(until)
        units.setdefault((workspace_id, flavour_id), []).append((low, high, guaranteed))
    made = PoolTime(pool, start, book.capacity(pool, start, None), units, flavours)
    if not requests:
        return made
    return PoolTime(pool, start, made.capacity, units, flavours, tuple(_asked(made)))


def _asked(time: PoolTime) -> Iterable[Step]:
    """Yield open requests as what they would add to the promises of a pool, window by window."""
    columns = ("workspace_id", "flavour_id", "guaranteed", "valid_from", "valid_until", "recurrence")
    rows = QuotaRequest.objects.filter(
        Q(valid_until__isnull=True) | Q(valid_until__gt=time.begin),
        status__in=OPEN_STATUSES,
        workspace__cluster_id=time.pool.cluster_id,
        flavour_id__in=time.flavours,
    ).order_by()
    for workspace_id, flavour_id, guaranteed, valid_from, until, repeats in rows.values_list(*columns):
        flavour = time.flavours[flavour_id]
        wanted = gpus(guaranteed, flavour.numerator, flavour.denominator)
        own = [
            Step(low, high, gpus(count, flavour.numerator, flavour.denominator))
            for low, high, count in time.units.get((workspace_id, flavour_id), ())
        ]
        for start, end in renewal.windows_of(max(valid_from, time.begin), until, recurrence.parse(repeats)):
            yield from _more(wanted, own, start, end)


def _more(wanted: Fraction, own: Sequence[Step], start: datetime, end: datetime | None) -> Iterable[Step]:
    """Yield where, within a window, `wanted` is more than what is held."""
    edges = [*instants(start, end, own), end]
    for low, high in itertools.pairwise(edges):
        if low is not None and (more := wanted - at_instant(own, low)) > 0:
            yield Step(low, high, more)


def pool_calendar(pool: Pool, start: datetime | None = None, *, days: int = CALENDAR_DAYS) -> list[CalendarStep]:
    """Return a pool's capacity, promises and open requests over the coming days, cut wherever any of them changes."""
    return read(pool, start).calendar(days)


def broken_promises(pool: Pool) -> list[tuple[datetime, Fraction]]:
    """Return when, from now on, a pool's promises exceed its capacity, and by how many GPUs: a finding, no error."""
    return read(pool, requests=False).breaches()


@dataclass(frozen=True, slots=True)
class Breach:
    """A pool that has promised more than it can give: from when on, and the most GPUs (or cores) too many."""

    pool: Pool
    since: datetime
    gpus: Fraction


def breaches_now(at: datetime | None = None) -> list[Breach]:
    """Return every pool whose promises exceed its capacity now or later: capacity was lost (design invariant 1).

    Three queries a pool. Elastic pools count like others: empty at rest is no loss, a lowered committable step is.
    """
    begin = (at or clock.now()).replace(microsecond=0)
    found = []
    for pool in Pool.objects.select_related("cluster").order_by("pk"):
        over = read(pool, begin, requests=False).breaches()
        if over:
            found.append(Breach(pool, over[0][0], max(count for _, count in over)))
    return found


__all__ = [
    "CALENDAR_DAYS",
    "MOST_ROWS",
    "Breach",
    "CalendarStep",
    "PoolTime",
    "breaches_now",
    "broken_promises",
    "by_day",
    "calendar_of",
    "pool_calendar",
    "read",
]
