"""The way down for CPU, memory, storage and egress: a workload's day by hour and resource, an hour's facts, one fact.

Each level is rounded to the figure of the level above, so that its lines add up to it exactly.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection

from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs.choices import RESOURCES, ChargeKind
from apps.costs.models import Charge
from apps.costs.priced import PricedCharge, priced
from apps.costs.selectors import visible_units
from apps.costs.tally import Tally, fitted
from apps.metering import billing
from apps.metering.models import ResourceFact
from apps.metering.selectors import ProofView, proof_of
from apps.teams.models import Team

#: What a quantity counts, in words: milliseconds × units ÷ 3,600,000; a GiB of egress is 3,600,000.
UNITS: dict[str, str] = {
    ChargeKind.CPU: "core-hours",
    ChargeKind.MEMORY: "GiB-hours",
    ChargeKind.STORAGE: "GiB-hours",
    ChargeKind.EGRESS: "GiB",
}
_ORDER = {str(kind): at for at, kind in enumerate(RESOURCES)}


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload as the pages of a team's day name it."""

    cluster_id: int
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ResourceLine:
    """What a workload had of one resource in one hour: `facts` of it, and what they cost. `amount` None: unknown."""

    hour: datetime
    resource: str
    facts: int
    fact_uid: uuid.UUID
    quantity_ms: int
    amount: Money | None
    unpriced_ms: int
    coverage_permille: int
    node: str = ""

    @property
    def label(self) -> str:
        """The resource in words."""
        return str(ChargeKind(self.resource).label)

    @property
    def unit(self) -> str:
        """What the quantity counts."""
        return UNITS[self.resource]


def _lines(
    team: Team, bounds: tuple[datetime, datetime], user: Any, workload: Workload, *, resource: str = "",
    each: bool = False, total: Money | None, units: Sequence[int] | None,
) -> list[ResourceLine]:  # fmt: skip
    """Return the charged resources of a workload, by hour and resource, or (`each`) by fact: one query with `units`."""
    start, end = bounds
    seen = list(units) if units is not None else visible_units(team, start, end, user)
    by = ", 3" if each else ""
    key = "f.uid::text" if each else "min(f.uid::text)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT f.hour, f.resource, {key}, count(DISTINCT f.uid), sum(c.quantity_ms)::bigint,
              coalesce(sum(c.quantity_ms) FILTER (WHERE r.id IS NULL), 0)::bigint,
              coalesce(sum(c.quantity_ms * r.amount), 0), coalesce(max(r.currency), ''),
              count(DISTINCT r.currency), min(f.coverage_permille), min(f.node)
            FROM metering_resourcefact f
            JOIN costs_charge c ON c.hour = f.hour AND c.fact_uid = f.uid AND c.cluster_id = f.cluster_id
            LEFT JOIN rates_rate r ON r.id = c.rate_id
            WHERE f.team_id = %(team)s AND f.hour >= %(start)s AND f.hour < %(end)s AND f.unit_id = ANY(%(units)s)
              AND f.cluster_id = %(cluster)s AND f.namespace = %(namespace)s AND f.workload_name = %(name)s
              AND (%(resource)s = '' OR f.resource = %(resource)s) AND c.hour >= %(start)s AND c.hour < %(end)s
            GROUP BY 1, 2{by}
            """,  # noqa: S608 (own constants)
            {
                "team": team.pk, "start": start, "end": end, "units": seen,
                "cluster": workload.cluster_id, "namespace": workload.namespace, "name": workload.name,
                "resource": resource,
            },
        )  # fmt: skip
        rows = cursor.fetchall()
    rows.sort(key=lambda row: (row[0], _ORDER[row[1]], row[2]))
    ledger = str(settings.COMMONS_CURRENCY)
    tallies = []
    for row in rows:
        tally = Tally(ledger)
        tally.add_product(row[5], 0, Decimal(0), "")
        if row[4] - row[5]:
            tally.add_product(row[4] - row[5], 0, row[6], row[7] if row[8] == 1 else "mixed")
        tallies.append(tally)
    amounts = fitted([tally.amount for tally in tallies], total)
    return [
        ResourceLine(row[0], row[1], row[3], uuid.UUID(row[2]), row[4], amount, row[5], row[9], row[10])
        for row, amount in zip(rows, amounts, strict=True)
    ]


def resource_hours(
    team: Team, day: date, user: Any, workload: Workload, *, total: Money | None = None,
    units: Sequence[int] | None = None,
) -> list[ResourceLine]:  # fmt: skip
    """Return what a workload had of each resource in each hour of a billing day, in order: at most 100 lines.

    Amounts sum to `total`, or to their own rounded sum. Only what is charged for: a resource without a price on the
    cluster is no cost. `units`: those that the person sees on the day's facts, where they are known already.
    """
    return _lines(team, billing.day_bounds(day), user, workload, total=total, units=units)


def resource_facts(
    team: Team, hour: datetime, resource: str, user: Any, workload: Workload, *, total: Money | None = None,
    units: Sequence[int] | None = None,
) -> list[ResourceLine]:  # fmt: skip
    """Return the single facts of a workload's resource in an hour; amounts sum to `total` or their rounded sum."""
    bounds = (hour, hour + timedelta(hours=1))
    return _lines(team, bounds, user, workload, resource=resource, each=True, total=total, units=units)


@dataclass(frozen=True, slots=True)
class ResourceDetail:
    """A resource fact with its charges, their rates, and the source proof."""

    fact: ResourceFact
    charges: Sequence[PricedCharge]
    amount: Money | None
    unpriced_ms: int
    proof: ProofView | None

    @property
    def label(self) -> str:
        """The resource in words."""
        return str(ChargeKind(self.fact.resource).label)

    @property
    def unit(self) -> str:
        """What the quantities count."""
        return UNITS[self.fact.resource]


def resource_detail(hour: datetime, fact_uid: uuid.UUID, user: Any) -> ResourceDetail:
    """Return one fact with charges and proof. Raises NotVisible, whether it is missing or foreign."""
    fact = ResourceFact.objects.visible_to(user).filter(hour=hour, uid=fact_uid).first()
    if fact is None:
        raise NotVisible
    charges = priced(Charge.objects.filter(hour=hour, cluster_id=fact.cluster_id, fact_uid=fact.uid))
    tally = Tally(str(settings.COMMONS_CURRENCY))
    for one in charges:
        one.add_to(tally)
    return ResourceDetail(fact, charges, tally.amount if charges else None, tally.unpriced_ms, proof_of(fact))


__all__ = [
    "UNITS", "ResourceDetail", "ResourceLine", "Workload", "resource_detail", "resource_facts", "resource_hours",
]  # fmt: skip
