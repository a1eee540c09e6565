"""What a pool can promise, has promised and is asked for over time: one sweep over sorted edges.

Reads bare columns: a pool of a thousand workspaces is read in a few milliseconds. The figures are the ledger's.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cached_property

from django.db.models import Q

from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.db_time import Micros, at_micros, micros_of
from apps.core.row_security import lifted
from apps.quotas import book, recurrence, renewal
from apps.quotas.assess import number
from apps.quotas.choices import OPEN_STATUSES
from apps.quotas.ledger import FOREVER, Profile, Step, gpus
from apps.quotas.models import Quota, QuotaRequest

#: How far the calendar looks ahead.
CALENDAR_DAYS = 90
#: More rows than this nobody reads one by one: the table then has one row a day.
MOST_ROWS = 100
#: A stretch of a calendar in whole parts of a GPU: start, end, committable, promised, requested.
_Cut = tuple[datetime, datetime, int, int, int]
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
    #: Whether an open request may renew; False: those that were read renew nothing.
    renewing: bool = True

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

    @cached_property
    def there(self) -> Profile:
        """The committable capacity over time."""
        return profile_of(self.capacity)

    @cached_property
    def kept(self) -> Mapping[tuple[int, int], Sequence[Step]]:
        """What open renewals keep from others beyond what is promised, by workspace and flavour. At most one query."""
        return renewal.kept(renewal.holds(self.pool, self.flavours, self.begin), self.own) if self.renewing else {}

    def own(self, workspace_id: int, flavour_id: int) -> list[Step]:
        """Return what one workspace holds of one flavour, in whole devices."""
        flavour = self.flavours[flavour_id]
        return [
            Step(low, high, gpus(count, flavour.numerator, flavour.denominator))
            for low, high, count in self.units.get((workspace_id, flavour_id), ())
        ]

    def calendar(self, days: int = CALENDAR_DAYS) -> list[CalendarStep]:
        """Return capacity, promises and requests over the coming days, cut wherever any of them changes."""
        return _steps_of(*self._cuts(days))

    def table(self, days: int = CALENDAR_DAYS) -> tuple[list[CalendarStep], bool]:
        """Return the calendar as a page shows it, and whether it has one row a day (beyond `MOST_ROWS`; `by_day`)."""
        scale, cuts = self._cuts(days)
        daily = len(cuts) > MOST_ROWS
        return _steps_of(scale, _tightest(cuts) if daily else cuts), daily

    def _cuts(self, days: int) -> tuple[int, list[_Cut]]:
        return _cut_up(self.there, self.promised, profile_of(self.requests), self.begin, days)

    def breaches(self) -> list[tuple[datetime, Fraction]]:
        """Return when promises exceed capacity, and by how many GPUs (the figures of `ledger.breaches`)."""
        there, taken = self.there, self.promised
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
    return _steps_of(*_cut_up(profile_of(capacity), profile_of(promises), profile_of(requests), begin, days))


def _cut_up(there: Profile, taken: Profile, asked: Profile, begin: datetime, days: int) -> tuple[int, list[_Cut]]:
    """Return a calendar in parts of 1/scale, cut at every edge, and the scale: one pass, in whole numbers."""
    end = begin + timedelta(days=days)
    profiles = (there, taken, asked)
    scale, parts = _parts(*profiles)
    changes: dict[datetime, list[int]] = {}
    for index, (profile, sums) in enumerate(zip(profiles, parts, strict=True)):
        low, high = bisect.bisect_right(profile.edges, begin), bisect.bisect_left(profile.edges, end)
        before = sums[low - 1] if low else 0
        changes.setdefault(begin, [0, 0, 0])[index] = before
        for edge, total in zip(profile.edges[low:high], sums[low:high], strict=True):
            changes.setdefault(edge, [0, 0, 0])[index] += total - before
            before = total
    cuts: list[_Cut] = []
    committable = promised = requested = 0
    for start, until in itertools.pairwise([*sorted(changes), end]):
        more = changes[start]
        committable, promised, requested = committable + more[0], promised + more[1], requested + more[2]
        cuts.append((start, until, committable, promised, requested))
    return scale, cuts


def _steps_of(scale: int, cuts: Iterable[_Cut]) -> list[CalendarStep]:
    """Return cuts as they are told: each distinct sum becomes a fraction once."""
    made: dict[int, Fraction] = {}

    def told(parts: int) -> Fraction:
        if parts not in made:
            made[parts] = Fraction(parts, scale)
        return made[parts]

    return [CalendarStep(low, high, told(there), told(taken), told(asked)) for low, high, there, taken, asked in cuts]


def by_day(steps: Sequence[CalendarStep]) -> list[CalendarStep]:
    """Fold a calendar to one row a day (UTC) as it is at the day's tightest moment: where least is left to promise,
    counting what open requests would add."""
    scale = math.lcm(*{n.denominator for one in steps for n in (one.committable, one.promised, one.requested)})

    def parts(value: Fraction) -> int:
        return value.numerator * (scale // value.denominator)

    cuts = [(one.start, one.end, parts(one.committable), parts(one.promised), parts(one.requested)) for one in steps]
    return _steps_of(scale, _tightest(cuts))


def _tightest(cuts: Iterable[_Cut]) -> list[_Cut]:
    """Fold a calendar without gaps as `by_day` says."""
    found: list[_Cut] = []
    day: _Cut | None = None  # the row of the day that is being read, as at its tightest
    left = 0  # what that row has left
    midnight = datetime.min.replace(tzinfo=UTC)  # where the day ends
    for low, end, committable, promised, requested in cuts:
        remains = committable - promised - requested
        while low < end:
            high = end
            if day is not None and low < midnight:
                high = min(end, midnight)
                if remains < left:
                    day, left = (day[0], high, committable, promised, requested), remains
                else:
                    day = (day[0], high, *day[2:])
            else:
                if day is not None:
                    found.append(day)
                midnight = low.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
                high = min(end, midnight)
                day, left = (low, high, committable, promised, requested), remains
            low = high
    return [*found, day] if day is not None else found


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
    # What began before counts from `start` on: fewer edges, and the same sums from there on.
    began = micros_of(start)
    for workspace_id, flavour_id, guaranteed, since, until in rows.values_list(*columns):
        low, high = start if since <= began else at_micros(since), None if until is None else at_micros(until)
        units.setdefault((workspace_id, flavour_id), []).append((low, high, guaranteed))
    made = PoolTime(pool, start, book.capacity(pool, start, None), units, flavours)
    if not requests:
        return made
    return PoolTime(pool, start, made.capacity, units, flavours, *_asked(made))


@lifted("what open requests would take of a pool is its aggregate")
def _asked(time: PoolTime) -> tuple[list[Step], bool]:
    """Return open requests as what they would add to the promises of a pool, window by window, and whether any of them
    renews what is held."""
    columns = (
        "workspace_id", "flavour_id", "guaranteed", "valid_from", "valid_until", "recurrence", "change__renews",
    )  # fmt: skip
    found: list[Step] = []
    renewing = False
    rows = QuotaRequest.objects.filter(
        Q(valid_until__isnull=True) | Q(valid_until__gt=time.begin),
        status__in=OPEN_STATUSES,
        workspace__cluster_id=time.pool.cluster_id,
        flavour_id__in=time.flavours,
    ).order_by()
    for workspace_id, flavour_id, guaranteed, valid_from, until, repeats, renews in rows.values_list(*columns):
        renewing = renewing or renews is not None
        flavour = time.flavours[flavour_id]
        own = time.units.get((workspace_id, flavour_id), ())
        for start, end in renewal.windows_of(max(valid_from, time.begin), until, recurrence.parse(repeats)):
            for low, high, more in _more(guaranteed, own, start, end):
                found.append(Step(low, high, gpus(more, flavour.numerator, flavour.denominator)))
    return found, renewing


def _more(
    wanted: int, own: Sequence[tuple[datetime, datetime | None, int]], start: datetime, end: datetime | None
) -> Iterable[tuple[datetime, datetime | None, int]]:
    """Yield where, within a window, `wanted` units are more than what is held, and by how many."""
    last = end or FOREVER
    edges = {start}
    for low, high, _ in own:
        edges.update(edge for edge in (low, high or FOREVER) if start < edge < last)
    ordered = sorted(edges)
    for at, until in zip(ordered, [*ordered[1:], end], strict=True):
        more = wanted - sum(count for low, high, count in own if low <= at and (high is None or at < high))
        if more > 0:
            yield at, until, more


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
