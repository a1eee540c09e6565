"""Pools as people see them: aggregates. No row tells one team from another (design invariant 10)."""

from __future__ import annotations

import math
import uuid
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

from django.db.models import Exists, OuterRef, Q, prefetch_related_objects

from apps.clusters.choices import DeviceClass
from apps.clusters.models import Flavour, Pool, PoolCapacity
from apps.core import clock
from apps.provisioning.quota_usage import Place, Used, used_units
from apps.quotas.assess import guaranteed_word, number
from apps.quotas.models import Quota, QuotaRequest
from apps.quotas.pool_calendar import CALENDAR_DAYS, CalendarStep, breaches_now, broken_promises, pool_calendar


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool now, in whole devices (of a CPU class: cores). `used`, `borrowed`, `free` None: nothing was observed."""

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

    @property
    def unit(self) -> str:
        """What the figures count: GPUs or cores."""
        return self.pool.unit

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


class _Held(NamedTuple):
    """A quota in force, in bare columns."""

    place: Place
    guaranteed: int
    borrow_limit: int


def visible_pools(user: Any) -> Any:
    """Return the pools whose aggregates a person may see: all for those who may view pools, else those in which a team
    in their scope has a quota or asked for one (design invariant 10)."""
    here = {"workspace__cluster_id": OuterRef("cluster_id"), "flavour__pools": OuterRef("pk")}
    held = Exists(Quota.objects.visible_to(user).filter(**here))
    asked = Exists(QuotaRequest.objects.visible_to(user).filter(**here))
    everything = Pool.objects.visible_to(user).order_by().values("pk")
    seen = Pool.objects.filter(Q(pk__in=everything) | held | asked)
    return seen.select_related("cluster").order_by("cluster__name", "gpu_model", "pk")


def pool_rows(
    user: Any = None,
    *,
    pools: Iterable[Pool] | None = None,
    at: datetime | None = None,
    totals: Mapping[int, Fraction] | None = None,
) -> list[PoolRow]:
    """Return the pools that a person may see (None: all, for the portal itself), with their aggregates.

    No row tells one team from another. About eight queries, however many pools there are. `totals`: what may be
    promised of each pool now (id → devices, its factor counted), where the caller has read it already.
    """
    now = at or clock.now()
    if pools is None:
        pools = visible_pools(user) if user is not None else Pool.objects.select_related("cluster").order_by("pk")
    chosen = list(pools)
    prefetch_related_objects(chosen, "flavours")
    flavours = {pool.pk: {flavour.pk: flavour for flavour in pool.flavours.all()} for pool in chosen}
    clusters = {pool.cluster_id for pool in chosen}
    offered = {flavour.pk: flavour for own in flavours.values() for flavour in own.values()}
    names = {flavour.resource_name for flavour in offered.values()}
    held: dict[tuple[int, int], list[_Held]] = defaultdict(list)
    models: dict[tuple[Place, str], str] = {}
    mixed: set[tuple[Place, str]] = set()
    columns = (
        "workspace__cluster_id", "workspace__namespace", "flavour_id", "flavour__resource_name", "flavour__gpu_model",
        "guaranteed", "borrow_limit",
    )  # fmt: skip
    quotas = Quota.objects.filter(workspace__cluster_id__in=clusters, flavour__resource_name__in=names).in_force(now)
    for cluster_id, namespace, flavour_id, resource, model, guaranteed, borrow_limit in quotas.values_list(*columns):
        place = (cluster_id, namespace)
        held[cluster_id, flavour_id].append(_Held(place, guaranteed, borrow_limit))
        if models.setdefault((place, resource), model) != model:
            mixed.add((place, resource))
    seen = used_units(clusters, names) if held else {}
    there = _committable(chosen, now) if totals is None else totals
    return [_pool_row(pool, flavours[pool.pk], held, seen, mixed, there.get(pool.pk, Fraction(0))) for pool in chosen]


def _committable(pools: Sequence[Pool], at: datetime) -> dict[int, Fraction]:
    known = {pool.pk: pool.__dict__["committable"] for pool in pools if "committable" in pool.__dict__}
    if len(known) < len(pools):  # else read with the pools (`clusters.pool_views.pools_now`)
        rows = PoolCapacity.objects.filter(pool__in=pools, valid__contains=at)
        known = dict(rows.values_list("pool_id", "committable_gpus"))
    return {pool.pk: known.get(pool.pk, 0) * Fraction(pool.commit_factor) for pool in pools}


def _pool_row(
    pool: Pool,
    flavours: Mapping[int, Flavour],
    held: Mapping[tuple[int, int], Sequence[_Held]],
    seen: Mapping[Place, Used],
    mixed: Container[tuple[Place, str]],
    total: Fraction,
) -> PoolRow:
    # Whole numbers of the smallest share that all flavours are made of: a thousand fractions are slow to add.
    whole = math.lcm(*(flavour.denominator for flavour in flavours.values()))
    parts = {pk: flavour.numerator * (whole // flavour.denominator) for pk, flavour in flavours.items()}
    own: dict[tuple[Place, str], int] = {}
    part_of: dict[tuple[Place, str], int] = {}
    guaranteed = borrowable = 0
    workspaces: set[Place] = set()
    for pk, flavour in flavours.items():
        part, resource = parts[pk], flavour.resource_name
        units = borrow = 0
        for place, holds, may_borrow in held.get((pool.cluster_id, pk), ()):
            units += holds
            borrow += may_borrow
            key = (place, resource)
            own[key] = own.get(key, 0) + holds * part
            part_of[key] = part
            workspaces.add(place)
        guaranteed += units * part
        borrowable += borrow * part
    used: int | Fraction = 0
    borrowed: int | Fraction = 0
    times, unseen = [], set()
    for (place, resource), mine in own.items():
        usage = seen.get(place)
        # A ResourceQuota counts a name: of two models under it, and of cores on whatever node, it cannot tell whose.
        if usage is None or pool.device_class == DeviceClass.CPU or (place, resource) in mixed:
            unseen.add(place)
            continue
        times.append(usage.at)
        seen_units = usage.units.get(resource)
        if seen_units:
            counted = seen_units.numerator if seen_units.denominator == 1 else seen_units
            taken = counted * part_of[place, resource]
            used += taken
            if taken > mine:
                borrowed += taken - mine
    known = bool(times) or not workspaces
    promised, in_use = Fraction(guaranteed, whole), Fraction(used) / whole
    return PoolRow(
        pool=pool,
        committable=total,
        observed=pool.observed_gpus,
        observed_at=pool.observed_at,
        guaranteed=promised,
        borrowable=Fraction(borrowable, whole),
        borrowed=Fraction(borrowed) / whole if known else None,
        used=in_use if known else None,
        used_at=min(times, default=None),
        unpromised=total - promised,
        free=max(Fraction(0), pool.observed_gpus - in_use) if known and pool.observed_gpus is not None else None,
        workspaces=len(workspaces),
        unseen=len(unseen),
        word=guaranteed_word(pool),
    )


__all__ = [
    "CALENDAR_DAYS",
    "CalendarStep",
    "PoolRow",
    "breaches_now",
    "broken_promises",
    "pool_calendar",
    "pool_rows",
    "visible_pools",
]
