"""What is promised of each flavour beside what the pool's nodes are cut into, and other warnings about pools.

Nothing here refuses a promise: an administrator can cut GPUs anew before it begins (design invariant 1 is the pool's
ledger alone). Sums over all teams; nobody is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from django.db.models import Q

from apps.clusters import pool_inventory
from apps.clusters.capacity_view import FlavourCapacity
from apps.clusters.choices import DeviceClass, KueueMode, PoolKind
from apps.clusters.models import Flavour, Pool
from apps.clusters.pool_ports import PoolSettings
from apps.core import clock
from apps.core.formats import datetime_utc
from apps.quotas import pool_calendar
from apps.quotas.assess import number
from apps.quotas.choices import BorrowMode
from apps.quotas.ledger import Profile, Step
from apps.quotas.models import Quota


@dataclass(frozen=True, slots=True)
class FlavourPromise:
    """A flavour of a pool: the most units promised at any instant from now on, and what the nodes give of it.

    `limit` None: no layout limits it as far as is known.
    """

    flavour: Flavour
    promised: int
    capacity: FlavourCapacity
    limit: int | None

    @property
    def over(self) -> bool:
        """Whether more is promised than the nodes are cut into, even if the pool as a whole has room."""
        return self.limit is not None and self.promised > self.limit

    @property
    def ratio(self) -> str:
        """Promised units per unit there is, as a percentage; "–" where that means nothing."""
        if not self.limit:
            return "–"
        return f"{self.promised * 100 // self.limit}\N{NO-BREAK SPACE}%"


def flavour_promises(
    pool: Pool, time: pool_calendar.PoolTime | None = None, inventory: pool_inventory.PoolInventory | None = None
) -> list[FlavourPromise]:
    """Return the flavours of a pool by name, with promises and what the layout gives. At most six queries."""
    read = time or pool_calendar.read(pool, requests=False)
    most = read.most_units()
    found = inventory or pool_inventory.read(pool)
    return [
        FlavourPromise(entry.flavour, most.get(entry.flavour.pk, 0), entry.capacity, entry.limit)
        for entry in found.flavours
    ]


def _promised_to_others(
    pool: Pool, flavour: Flavour, workspace_id: int, windows: Sequence[tuple[datetime, datetime | None]]
) -> Fraction:
    """Return the most units of a flavour that others are promised at any instant of the windows."""
    time = pool_calendar.read(pool, windows[0][0], requests=False)
    others = [
        Step(low, high, Fraction(count))
        for (workspace, flavour_id), rows in time.units.items()
        if flavour_id == flavour.pk and workspace != workspace_id
        for low, high, count in rows
    ]
    profile = Profile.of(others)
    return max(profile.at(at) for start, end in windows for at in [start, *profile.within(start, end)])


def layout_left(
    pool: Pool, flavour: Flavour, workspace_id: int, windows: Sequence[tuple[datetime, datetime | None]]
) -> Fraction | None:
    """Return how many whole devices of a flavour the nodes are cut into that others are not promised, at the tightest
    instant of the windows; None: no layout sets a limit that is known. At most six queries.
    """
    limit = pool_inventory.flavour_limits(pool).get(flavour.pk)
    if limit is None or not windows:
        return None
    left = max(Fraction(0), limit - _promised_to_others(pool, flavour, workspace_id, windows))
    return left * Fraction(flavour.numerator, flavour.denominator)


def layout_warning(
    pool: Pool, flavour: Flavour, workspace_id: int, guaranteed: int, start: datetime, end: datetime | None
) -> str | None:
    """Return the warning that a request would promise more units of a flavour than the pool's nodes are cut into, at
    any instant of its window; None: no limit that is known is passed. At most six queries.
    """
    limit = pool_inventory.flavour_limits(pool).get(flavour.pk)
    if limit is None or not guaranteed:
        return None
    worst = _promised_to_others(pool, flavour, workspace_id, [(start, end)])
    if worst + guaranteed <= limit:
        return None
    unit = "cores" if flavour.device_class == DeviceClass.CPU else "units"
    return (
        f"{pool} is cut into {limit:,} {unit} of {flavour}; with this request {number(worst + guaranteed)} would be"
        " promised. Until an administrator cuts its GPUs anew, not all of them can run at once."
    )


@dataclass(frozen=True, slots=True)
class Outlasting:
    """Promises of a reserved pool beyond the end of its reservation: the most GPUs at any instant after it."""

    until: datetime
    gpus: Fraction
    unit: str

    @property
    def words(self) -> str:
        """The warning."""
        return (
            f"The reservation ends on {datetime_utc(self.until)}; up to {number(self.gpus)} {self.unit} are promised"
            " beyond it. Prolong the reservation, or tell the teams."
        )


def outlasting(pool: Pool, time: pool_calendar.PoolTime | None = None) -> Outlasting | None:
    """Return what a reserved pool has promised beyond its reservation's end; None: nothing, or no end is set."""
    if pool.kind != PoolKind.RESERVED or pool.reserved_until is None:
        return None
    read = time or pool_calendar.read(pool, requests=False)
    until = max(pool.reserved_until, read.begin)
    profile = read.promised
    most = max(profile.at(at) for at in [until, *profile.within(until, None)])
    return Outlasting(pool.reserved_until, most, pool.unit) if most else None


def check_pool(pool: Pool, wanted: PoolSettings) -> Mapping[str, str]:
    """Tell what holders of quota have against a change of a pool's settings (`clusters.pool_ports`)."""
    if not pool.best_effort or wanted.best_effort or pool.cluster.kueue_mode != KueueMode.OFF:
        return {}
    now = clock.now()
    borrowers = (
        Quota.objects.filter(workspace__cluster_id=pool.cluster_id, flavour__in=pool.flavours.all())
        .filter(Q(valid__endswith__gt=now) | Q(valid__upper_inf=True))
        .exclude(borrow_mode=BorrowMode.NONE)
        .values("workspace_id")
        .distinct()
        .count()
    )
    if not borrowers:
        return {}
    who = "One workspace" if borrowers == 1 else f"{borrowers:,} workspaces"
    return {
        "best_effort": f"{who} may borrow here, now or later, and nothing but best effort allows it on this cluster. "
        "End that borrowing first, or use Kueue there."
    }


__all__ = [
    "FlavourPromise",
    "Outlasting",
    "check_pool",
    "flavour_promises",
    "layout_left",
    "layout_warning",
    "outlasting",
]
