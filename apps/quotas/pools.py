"""Pools as people see them: aggregates and a calendar. No row tells one team from another (design invariant 10)."""

from __future__ import annotations

import itertools
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from django.db.models import Q

from apps.clusters.models import Flavour, Pool, PoolCapacity
from apps.core import clock
from apps.quotas import book, cluster_side
from apps.quotas.assess import guaranteed_word, number
from apps.quotas.choices import OPEN_STATUSES
from apps.quotas.ledger import Step, at_instant, breaches, gpus, instants
from apps.quotas.models import Quota, QuotaRequest

#: How far the calendar looks ahead.
CALENDAR_DAYS = 90


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool now, in whole devices. `used`, `borrowed`, `free` None: nothing was observed."""

    pool: Pool
    committable: Fraction
    observed: int | None
    observed_at: datetime | None
    guaranteed: Fraction
    borrowable: Fraction
    borrowed: Fraction | None
    used: Fraction | None
    used_at: datetime | None
    unpromised: Fraction
    free: Fraction | None
    workspaces: int
    unseen: int
    word: str

    @property
    def over_promised(self) -> bool:
        """Whether capacity was lost after promises were made."""
        return self.unpromised < 0

    @property
    def uid(self) -> uuid.UUID:
        """The pool's uid, for links."""
        return self.pool.uid

    def shown(self) -> dict[str, str]:
        """Return the figures for people."""
        return {
            name: "–" if value is None else number(Fraction(value))
            for name, value in (
                ("committable", self.committable), ("observed", self.observed), ("guaranteed", self.guaranteed),
                ("borrowable", self.borrowable), ("borrowed", self.borrowed), ("used", self.used),
                ("unpromised", self.unpromised), ("free", self.free),
            )
        }  # fmt: skip


def visible_pools(user: Any) -> Any:
    """Return the pools whose aggregates a person may see: all for those who may view pools, else those in which a team
    in their scope has a quota or asked for one (design invariant 10)."""
    everything = Pool.objects.visible_to(user)
    held = Quota.objects.visible_to(user).values("workspace__cluster_id", "flavour_id")
    asked = QuotaRequest.objects.visible_to(user).values("workspace__cluster_id", "flavour_id")
    places = {(row["workspace__cluster_id"], row["flavour_id"]) for row in [*held.distinct(), *asked.distinct()]}
    own = Q(pk__in=[])
    by_cluster: dict[int, set[int]] = defaultdict(set)
    for cluster_id, flavour_id in places:
        by_cluster[cluster_id].add(flavour_id)
    for cluster_id, flavour_ids in by_cluster.items():
        own |= Q(cluster_id=cluster_id, flavours__in=flavour_ids)
    ids = set(everything.values_list("pk", flat=True)) | set(Pool.objects.filter(own).values_list("pk", flat=True))
    return Pool.objects.filter(pk__in=ids).select_related("cluster").order_by("cluster__name", "gpu_model", "pk")


def pool_rows(user: Any = None, *, pools: Iterable[Pool] | None = None, at: datetime | None = None) -> list[PoolRow]:
    """Return the pools that a person may see (None: all, for the portal itself), with their aggregates.

    No row tells one team from another. About eight queries, however many pools there are.
    """
    now = at or clock.now()
    if pools is None:
        pools = visible_pools(user) if user is not None else Pool.objects.select_related("cluster").order_by("pk")
    chosen = list(pools)
    flavours: dict[int, list[Flavour]] = defaultdict(list)
    through = Flavour.pools.through.objects.filter(pool__in=chosen).select_related("flavour")
    for link in through:
        flavours[link.pool_id].append(link.flavour)
    clusters = {pool.cluster_id for pool in chosen}
    quotas = list(
        Quota.objects.filter(workspace__cluster_id__in=clusters).in_force(now).select_related("workspace", "flavour")
    )
    seen = cluster_side.usage({row.workspace_id: row.workspace for row in quotas}.values())
    capacity = _committable(chosen, now)
    return [_pool_row(pool, flavours[pool.pk], quotas, seen, capacity.get(pool.pk, 0)) for pool in chosen]


def _committable(pools: Sequence[Pool], at: datetime) -> dict[int, int]:
    rows = PoolCapacity.objects.filter(pool__in=pools, valid__contains=at)
    return dict(rows.values_list("pool_id", "committable_gpus"))


def _pool_row(
    pool: Pool,
    flavours: Sequence[Flavour],
    quotas: Sequence[Quota],
    seen: Mapping[int, cluster_side.Usage],
    committable: int,
) -> PoolRow:
    ids = {flavour.pk for flavour in flavours}
    held = [row for row in quotas if row.workspace.cluster_id == pool.cluster_id and row.flavour_id in ids]
    guaranteed, borrowable, borrowed, used = Fraction(0), Fraction(0), Fraction(0), Fraction(0)
    per_resource: dict[tuple[int, str], Fraction] = defaultdict(Fraction)
    shares: dict[tuple[int, str], Fraction] = {}
    for row in held:
        share = gpus(1, row.flavour.numerator, row.flavour.denominator)
        guaranteed += row.guaranteed * share
        borrowable += row.borrow_limit * share
        per_resource[row.workspace_id, row.flavour.resource_name] += row.guaranteed * share
        shares[row.workspace_id, row.flavour.resource_name] = share
    times = []
    for (workspace_id, resource), own in per_resource.items():
        usage = seen.get(workspace_id, cluster_side.UNSEEN)
        if usage.at is None:
            continue
        times.append(usage.at)
        mine = usage.used.get(resource, 0) * shares[workspace_id, resource]
        used += mine
        borrowed += max(Fraction(0), mine - own)
    workspaces = {row.workspace_id for row in held}
    unseen = sum(1 for pk in workspaces if seen.get(pk, cluster_side.UNSEEN).at is None)
    known = bool(times) or not workspaces
    total = committable * Fraction(pool.commit_factor)
    return PoolRow(
        pool=pool,
        committable=total,
        observed=pool.observed_gpus,
        observed_at=pool.observed_at,
        guaranteed=guaranteed,
        borrowable=borrowable,
        borrowed=borrowed if known else None,
        used=used if known else None,
        used_at=min(times, default=None),
        unpromised=total - guaranteed,
        free=max(Fraction(0), pool.observed_gpus - used) if known and pool.observed_gpus is not None else None,
        workspaces=len(workspaces),
        unseen=unseen,
        word=guaranteed_word(pool),
    )


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


def pool_calendar(pool: Pool, start: datetime | None = None, *, days: int = CALENDAR_DAYS) -> list[CalendarStep]:
    """Return a pool's capacity, promises and open requests over the coming days, cut wherever any of them changes."""
    begin = start or clock.now().replace(microsecond=0)
    end = begin + timedelta(days=days)
    view = book.load(pool, begin, end)
    promised = view.all_promises()
    asked = _asked_steps(view, begin)
    moments = [*instants(begin, end, view.capacity, promised, asked), end]
    return [
        CalendarStep(low, high, at_instant(view.capacity, low), at_instant(promised, low), at_instant(asked, low))
        for low, high in itertools.pairwise(moments)
    ]


def _asked_steps(view: book.PoolBook, begin: datetime) -> list[Step]:
    """Return open requests as what they would add to the promises of a pool."""
    requests = QuotaRequest.objects.filter(
        status__in=OPEN_STATUSES, workspace__cluster_id=view.pool.cluster_id, flavour_id__in=view.flavours
    )
    found: list[Step] = []
    for request in requests:
        flavour = view.flavours[request.flavour_id]
        start = max(request.valid_from, begin)
        if request.valid_until is not None and request.valid_until <= start:
            continue
        own = book.steps(view.own(request.workspace_id, request.flavour_id), flavour)
        wanted = gpus(request.guaranteed, flavour.numerator, flavour.denominator)
        edges = [*instants(start, request.valid_until, own), request.valid_until]
        for low, high in itertools.pairwise(edges):
            more = wanted - at_instant(own, low) if low is not None else Fraction(0)
            if low is not None and more > 0:
                found.append(Step(low, high, more))
    return found


def broken_promises(pool: Pool) -> list[tuple[datetime, Fraction]]:
    """Return when, from now on, a pool's promises exceed its capacity, and by how many GPUs: a finding, no error."""
    now = clock.now()
    view = book.load(pool, now)
    return breaches(view.capacity, view.all_promises(), now)
