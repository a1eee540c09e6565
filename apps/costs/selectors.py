"""What pages, the API, approvals and reports read of costs: drill-downs, budgets, the month report."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db import connection

from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs.choices import RESOURCES, ChargeKind
from apps.costs.models import Budget, Charge, DayCharge
from apps.costs.priced import PricedCharge, priced
from apps.costs.reporting import NO_RATE, DayCell, MonthReport, TeamLine, UnallocatedLine, month_report
from apps.costs.tally import Tally, fitted, round_to_total, total_of
from apps.metering import billing
from apps.metering.models import DayUsage, HourFact, ResourceFact
from apps.metering.selectors import Completeness, ProofView, completeness, proof_of
from apps.rates.models import Rate
from apps.teams.models import Team

__all__ = [
    "DayCell", "DayLine", "HourLine", "MonthReport", "TeamLine", "UnallocatedLine", "WorkloadLine", "budget_for",
    "clusters_of", "cost_of_month", "day_workloads", "fact_detail", "month_report", "month_to_date",
    "team_month_days", "visible_units", "workload_figure", "workload_hours",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DayLine:
    """A team's day: GPU time, and cost with resources. `used_gpu_ms` None: nothing was measured."""

    day: date
    allocated_gpu_ms: int
    used_gpu_ms: int | None
    idle_gpu_ms: int
    coverage_permille: int
    amount: Money | None
    unpriced_gpu_ms: int
    workloads: int
    #: The part of `amount` that is CPU, memory, storage and egress; None: none was charged, or it is unknown.
    resource_amount: Money | None = None


@dataclass(frozen=True, slots=True)
class WorkloadLine:
    """A workload's share of a team's day on one cluster; `resources`: the line of its CPU, memory, storage, egress."""

    cluster_id: int
    cluster: str
    cluster_slug: str
    namespace: str
    workload_name: str
    workload_kind: str
    flavour_name: str
    hours: int
    allocated_gpu_ms: int
    used_gpu_ms: int | None
    coverage_permille: int
    amount: Money | None
    unpriced_gpu_ms: int
    resources: bool = False

    @property
    def query(self) -> str:
        """The part of an address that names this workload."""
        return urlencode({"cluster": self.cluster_slug, "namespace": self.namespace, "name": self.workload_name})


@dataclass(frozen=True, slots=True)
class HourLine:
    """One hourly fact of a workload with what it cost."""

    fact: HourFact
    amount: Money | None
    unpriced_gpu_ms: int


def _ledger() -> str:
    return str(settings.COMMONS_CURRENCY)


def _used(total: int | None, measured: int) -> int | None:
    return None if not measured else int(total or 0)


def team_month_days(team: Team, month: date, user: Any, *, total: Money | None = None) -> list[DayLine]:
    """Return a team's days of a billing month, in order; amounts sum to `total` or to the month's rounded cost."""
    first, last = month.replace(day=1), billing.following(month.replace(day=1))
    tallies: dict[date, Tally] = {}
    charges = DayCharge.objects.visible_to(user).filter(
        team_id=team.pk, day__gte=first, day__lt=last, kind__in=[ChargeKind.ALLOCATED, *RESOURCES]
    )
    rates = _rates(charges.filter(rate_id__isnull=False).values_list("rate_id", flat=True).distinct())
    resources: dict[date, Tally] = {}
    for day, kind, rate_id, quantity, gpu in charges.values_list("day", "kind", "rate_id", "quantity_ms", "gpu_ms"):
        tally = tallies.setdefault(day, Tally(_ledger()))
        tally.add(quantity, gpu, *rates.get(rate_id, NO_RATE))
        if kind in RESOURCES:
            resources.setdefault(day, Tally(_ledger())).add(quantity, gpu, *rates.get(rate_id, NO_RATE))
    usage: dict[date, list[int]] = {}
    rows = DayUsage.objects.visible_to(user).filter(team_id=team.pk, day__gte=first, day__lt=last)
    columns = ("day", "allocated_gpu_ms", "used_gpu_ms", "measured_gpu_ms", "idle_gpu_ms", "workloads")
    for day, *numbers in rows.values_list(*columns):
        usage[day] = [a + b for a, b in zip(usage.get(day, [0] * 5), numbers, strict=True)]
    days = sorted(tallies.keys() | usage.keys())
    amounts = round_to_total([tallies[d].amount if d in tallies else None for d in days], total)
    result = []
    for day, amount in zip(days, amounts, strict=True):
        allocated, used, measured, idle, workloads = usage.get(day, [0] * 5)
        own = tallies.get(day)
        result.append(
            DayLine(
                day=day,
                allocated_gpu_ms=allocated,
                used_gpu_ms=_used(used, measured),
                idle_gpu_ms=idle,
                coverage_permille=measured * 1000 // allocated if allocated else 0,
                amount=amount,
                unpriced_gpu_ms=own.unpriced_gpu_ms if own is not None else 0,
                workloads=workloads,
                resource_amount=resources[day].amount if day in resources else None,
            )
        )
    return result


def _rates(ids: Iterable[int | None]) -> dict[int | None, tuple[Any, str | None]]:
    return {
        pk: (amount, code)
        for pk, amount, code in Rate.objects.filter(pk__in=[pk for pk in ids if pk is not None]).values_list(
            "pk", "amount", "currency"
        )
    }


def visible_units(team: Team, start: datetime, end: datetime, user: Any) -> list[int]:
    """Return the units on a team's facts of [start, end) that the person may see; with the team they decide."""
    units: set[int | None] = set()
    for rows in (HourFact.objects.visible_to(user), ResourceFact.objects.visible_to(user)):
        inside = rows.filter(team_id=team.pk, hour__gte=start, hour__lt=end)
        units.update(inside.order_by("unit_id").values_list("unit_id", flat=True).distinct())
    return sorted(unit for unit in units if unit is not None)


def day_workloads(team: Team, day: date, user: Any, *, total: Money | None = None) -> list[WorkloadLine]:
    """Return what a team ran on a billing day, most first; amounts sum to `total` or the day's rounded cost."""
    start, end = billing.day_bounds(day)
    units = visible_units(team, start, end, user)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH fact AS (
              SELECT hour, uid, cluster_id, namespace, workload_name, workload_kind, flavour_name, false AS resource,
                allocated_gpu_ms, used_gpu_ms, coverage_permille
              FROM metering_hourfact
              WHERE team_id = %(team)s AND hour >= %(start)s AND hour < %(end)s AND unit_id = ANY(%(units)s)
              UNION ALL
              SELECT f.hour, f.uid, f.cluster_id, f.namespace, f.workload_name, f.workload_kind, '', true, 0, NULL, 0
              FROM metering_resourcefact f
              WHERE f.team_id = %(team)s AND f.hour >= %(start)s AND f.hour < %(end)s AND f.unit_id = ANY(%(units)s)
                AND EXISTS (SELECT FROM costs_charge c WHERE c.hour = f.hour AND c.fact_uid = f.uid)
            ), used AS (
              SELECT cluster_id, namespace, workload_name, max(workload_kind) AS kind, flavour_name,
                count(DISTINCT hour) AS hours, sum(allocated_gpu_ms) AS allocated, sum(used_gpu_ms) AS used,
                coalesce(sum(allocated_gpu_ms * coverage_permille) FILTER (WHERE used_gpu_ms IS NOT NULL), 0)
                  AS measured, resource
              FROM fact GROUP BY cluster_id, namespace, workload_name, flavour_name, resource
            ), priced AS (
              SELECT f.cluster_id, f.namespace, f.workload_name, f.flavour_name, f.resource, c.rate_id,
                sum(c.quantity_ms) AS quantity, sum(c.gpu_ms) AS gpu
              FROM fact f JOIN costs_charge c ON c.hour = f.hour AND c.fact_uid = f.uid AND c.cluster_id = f.cluster_id
              WHERE c.hour >= %(start)s AND c.hour < %(end)s
              GROUP BY f.cluster_id, f.namespace, f.workload_name, f.flavour_name, f.resource, c.rate_id
            )
            SELECT u.cluster_id, u.namespace, u.workload_name, u.kind, u.flavour_name, u.hours, u.allocated, u.used,
              u.measured, k.name, p.rate_id, p.quantity, p.gpu, r.amount, r.currency, k.slug, u.resource
            FROM used u JOIN clusters_cluster k ON k.id = u.cluster_id
            LEFT JOIN priced p USING (cluster_id, namespace, workload_name, flavour_name, resource)
            LEFT JOIN rates_rate r ON r.id = p.rate_id
            ORDER BY u.cluster_id, u.namespace, u.workload_name, u.flavour_name, u.resource, p.rate_id
            """,
            {"team": team.pk, "start": start, "end": end, "units": units},
        )
        rows = cursor.fetchall()
    found: dict[tuple[Any, ...], tuple[Any, Tally]] = {}
    for row in rows:
        key = (row[0], row[1], row[2], row[4], row[16])
        _, tally = found.setdefault(key, (row, Tally(_ledger())))
        if row[11] is not None:
            tally.add(int(row[11]), int(row[12]), row[13], row[14])
    ordered = sorted(
        found.values(), key=lambda item: (-int(item[0][6]), item[0][2], item[0][1], item[0][0], item[0][4], item[0][16])
    )
    amounts = fitted([tally.amount if tally.priced_ms or tally.unpriced_ms else None for _, tally in ordered], total)
    return [
        WorkloadLine(
            cluster_id=row[0],
            cluster=row[9],
            cluster_slug=row[15],
            namespace=row[1],
            workload_name=row[2],
            workload_kind=row[3],
            flavour_name=row[4],
            hours=row[5],
            allocated_gpu_ms=int(row[6]),
            used_gpu_ms=None if row[7] is None else int(row[7]),
            coverage_permille=int(row[8]) // int(row[6]) if row[6] else 0,
            amount=amount,
            unpriced_gpu_ms=tally.unpriced_gpu_ms,
            resources=row[16],
        )
        for (row, tally), amount in zip(ordered, amounts, strict=True)
    ]


def workload_hours(
    team: Team, day: date, user: Any, *, workload_name: str, cluster_id: int, namespace: str, total: Money | None = None
) -> list[HourLine]:
    """Return the hourly facts of one workload on a billing day with what each cost, in order.

    Amounts sum to `total`, the workload's figure of the day, or to their own rounded sum.
    """
    start, end = billing.day_bounds(day)
    facts = list(
        HourFact.objects.visible_to(user)
        .filter(
            team_id=team.pk,
            hour__gte=start,
            hour__lt=end,
            workload_name=workload_name,
            cluster_id=cluster_id,
            namespace=namespace,
        )
        .order_by("hour", "uid")
    )
    tallies = _charges_of(facts, start, end)
    amounts = fitted([tallies[fact.uid].amount if fact.uid in tallies else None for fact in facts], total)
    return [
        HourLine(
            fact=fact,
            amount=amount,
            unpriced_gpu_ms=tallies[fact.uid].unpriced_gpu_ms if fact.uid in tallies else fact.allocated_gpu_ms,
        )
        for fact, amount in zip(facts, amounts, strict=True)
    ]


def _charges_of(facts: list[HourFact], start: datetime, end: datetime) -> dict[uuid.UUID, Tally]:
    uids = [fact.uid for fact in facts]
    charges = Charge.objects.filter(hour__gte=start, hour__lt=end, fact_uid__in=uids)
    rows = list(charges.values_list("fact_uid", "rate_id", "quantity_ms", "gpu_ms"))
    rates = _rates({rate_id for _, rate_id, _, _ in rows if rate_id is not None})
    tallies: dict[uuid.UUID, Tally] = {}
    for uid, rate_id, quantity, gpu in rows:
        if uid is None:
            continue
        tally = tallies.setdefault(uid, Tally(_ledger()))
        tally.add(quantity, gpu, *rates.get(rate_id, NO_RATE))
    return tallies


@dataclass(frozen=True, slots=True)
class FactDetail:
    """A fact with its charges, their rates, and the source proof."""

    fact: HourFact
    charges: list[PricedCharge]
    amount: Money | None
    unpriced_ms: int
    proof: ProofView | None


def fact_detail(fact_uid: uuid.UUID | str, user: Any) -> FactDetail:
    """Return one fact with charges and proof. Raises NotVisible, whether it is missing or foreign."""
    fact = HourFact.objects.visible_to(user).filter(uid=fact_uid).first()
    if fact is None:
        raise NotVisible
    charges = priced(Charge.objects.filter(hour=fact.hour, cluster_id=fact.cluster_id, fact_uid=fact.uid))
    tally = Tally(_ledger())
    for one in charges:
        one.add_to(tally)
    amount = tally.amount if charges else None
    return FactDetail(fact, charges, amount.quantized() if amount else None, tally.unpriced_ms, proof_of(fact))


def workload_figure(
    team: Team, day: date, user: Any, *, workload_name: str, cluster_id: int, namespace: str, resources: bool = False
) -> Money | None:
    """Return what the page of a team's day shows for a workload's GPU time, or (`resources`) for its resources.

    Rounded as there: with the day's other lines, to the day's line of the month. None: nothing is priced.
    """
    line = next((one for one in team_month_days(team, day, user) if one.day == day), None)
    key = (cluster_id, namespace, workload_name, resources)
    rows = day_workloads(team, day, user, total=line.amount if line else None)
    return total_of(r.amount for r in rows if (r.cluster_id, r.namespace, r.workload_name, r.resources) == key)


def clusters_of(teams: Iterable[Team], month: date) -> list[int]:
    """Return the clusters that teams have charges on in a billing month."""
    first = month.replace(day=1)
    rows = DayCharge.objects.filter(
        team_id__in=[team.pk for team in teams], day__gte=first, day__lt=billing.following(first)
    )
    return sorted(rows.values_list("cluster_id", flat=True).distinct())


# ---------------------------------------------------------------- budgets


@dataclass(frozen=True, slots=True)
class MonthCost:
    """A team's cost in a billing month so far, resources included: exact amount of what is priced, and what is not.

    `gpu_ms` is GPU time alone; `unpriced_ms` > 0: something, GPU time or a resource, has no price.
    """

    amount: Money
    unpriced_ms: int
    gpu_ms: int
    resources: Money | None = None


def cost_of_month(team_id: int, month: date) -> MonthCost:
    """Return a team's cost in a billing month so far (one query); what has no rate is counted apart."""
    first = month.replace(day=1)
    tally = Tally(_ledger())
    others: Tally | None = None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.amount, r.currency, d.kind <> 'allocated', sum(d.quantity_ms), sum(d.gpu_ms)"
            " FROM costs_daycharge d LEFT JOIN rates_rate r ON r.id = d.rate_id"
            " WHERE d.team_id = %s AND d.day >= %s AND d.day < %s AND d.kind = ANY(%s) GROUP BY 1, 2, 3",
            [team_id, first, billing.following(first), [ChargeKind.ALLOCATED, *RESOURCES]],
        )
        for hourly, currency, resource, quantity, gpu in cursor.fetchall():
            tally.add(int(quantity), int(gpu), hourly, currency)
            if resource:
                others = others or Tally(_ledger())
                others.add(int(quantity), int(gpu), hourly, currency)
    return MonthCost(
        tally.amount or Money.zero(_ledger()), tally.unpriced_ms, tally.gpu_ms, others.amount if others else None
    )


def month_to_date(team: Team, *, at: datetime | None = None) -> Money:
    """Return what a team's GPU time and resources cost since the billing month began (priced part, unrounded)."""
    return cost_of_month(team.pk, billing.month_of(at or clock.now())).amount


def budget_for(team_id: int, month: date) -> Money | None:
    """Return the team's budget for the billing month: the latest one set for it or an earlier month; None: none set."""
    budget = (
        Budget.objects.filter(team_id=team_id, month_from__lte=month.replace(day=1)).order_by("-month_from").first()
    )
    return None if budget is None else budget.monthly


def month_completeness(month: date, cluster_ids: list[int] | None = None) -> Completeness:
    """Return the completeness of a billing month."""
    start, end = billing.month_bounds(month)
    return completeness(cluster_ids, start, end)
