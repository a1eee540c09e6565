"""The month report: per team allocated, used, idle, cost, share, change; unallocated capacity; by day."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import BooleanField as Flag
from django.db.models import Case, F, Q, Sum, Value, When

from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs.choices import UNALLOCATED, ChargeKind
from apps.costs.models import DayCharge
from apps.costs.tally import Tally, round_to_total, share
from apps.metering import billing
from apps.metering.models import DayUsage
from apps.metering.selectors import Completeness, completeness
from apps.rates.models import Rate
from apps.teams import scope
from apps.teams.models import Team, Unit

#: Teams drawn by name in the chart; the others are one band.
TOP = 10
OTHERS = "Other owners"
NO_RATE: tuple[Decimal | None, str | None] = (None, None)


@dataclass(frozen=True, slots=True)
class TeamLine:
    """One team's month. `amount` None: nothing of it has a rate; `unpriced_gpu_ms` > 0: part of the cost is unknown.

    `used_gpu_ms` None: nothing was measured; it stands on `coverage_permille` of the allocated time.
    """

    team_id: int | None
    team_uid: uuid.UUID | None
    slug: str
    name: str
    unit_name: str
    colour: int
    allocated_gpu_ms: int
    used_gpu_ms: int | None
    idle_gpu_ms: int
    coverage_permille: int
    amount: Money | None
    unpriced_gpu_ms: int
    share: Decimal | None
    previous: Money | None
    idle_amount: Money | None

    @property
    def change(self) -> Money | None:
        """Cost against the month before; None where either is unknown."""
        return None if self.amount is None or self.previous is None else self.amount - self.previous

    @property
    def idle_share(self) -> Decimal | None:
        """Idle of allocated, as a ratio."""
        return share(self.idle_gpu_ms, self.allocated_gpu_ms)


@dataclass(frozen=True, slots=True)
class UnallocatedLine:
    """Capacity that nobody had allocated: reserved but unused by owner, unsold, stranded, maintenance."""

    kind: str
    owner: str
    team_id: int | None
    gpu_ms: int
    amount: Money | None
    unpriced_gpu_ms: int

    @property
    def label(self) -> str:
        """The line in words."""
        text = str(ChargeKind(self.kind).label)
        return f"{text}: {self.owner}" if self.owner else text


@dataclass(frozen=True, slots=True)
class DayCell:
    """A team's day in the chart; `team_id` None: all other teams together."""

    day: date
    team_id: int | None
    gpu_ms: int
    amount: Money | None


@dataclass(slots=True)
class MonthReport:
    """A billing month of the teams a person may see."""

    month: date
    start: datetime
    end: datetime
    zone: str
    currency: str
    unit: Unit | None
    lines: list[TeamLine] = field(default_factory=list)
    unallocated: list[UnallocatedLine] = field(default_factory=list)
    by_day: list[DayCell] = field(default_factory=list)
    completeness: Completeness = field(default_factory=Completeness)
    total: Money | None = None
    previous_total: Money | None = None
    unallocated_total: Money | None = None

    @property
    def allocated_gpu_ms(self) -> int:
        """Σ allocated."""
        return sum(line.allocated_gpu_ms for line in self.lines)

    @property
    def used_gpu_ms(self) -> int | None:
        """Σ used, where measured."""
        known = [line.used_gpu_ms for line in self.lines if line.used_gpu_ms is not None]
        return sum(known) if known else None

    @property
    def idle_gpu_ms(self) -> int:
        """Σ idle."""
        return sum(line.idle_gpu_ms for line in self.lines)

    @property
    def unallocated_gpu_ms(self) -> int:
        """Σ of capacity that nobody had allocated."""
        return sum(line.gpu_ms for line in self.unallocated)

    @property
    def unpriced_gpu_ms(self) -> int:
        """Allocated GPU time without a rate: its cost is unknown."""
        return sum(line.unpriced_gpu_ms for line in self.lines)

    @property
    def change(self) -> Money | None:
        """Total against the month before."""
        return None if self.total is None or self.previous_total is None else self.total - self.previous_total

    @property
    def empty(self) -> bool:
        """Whether nothing at all was metered."""
        return not self.lines and not self.unallocated


Rates = dict[int | None, tuple[Decimal | None, str | None]]


def month_report(unit: Unit | None, month: date, user: Any) -> MonthReport:
    """Return the report of a billing month for `unit` and below, or (None) for everything the person may see.

    Rows are chosen by the team and unit on them, as of that hour. Raises NotVisible for a unit outside the scope.
    """
    first = month.replace(day=1)
    start, end = billing.month_bounds(first)
    currency = str(settings.COMMONS_CURRENCY)
    report = MonthReport(first, start, end, billing.zone_name(), currency, unit)
    inside = Q()
    if unit is not None:
        if not scope.of(user).holds("costs.charge.view", unit):
            raise NotVisible
        inside = Q(unit_id__in=list(Unit.objects.filter(path__contains=[unit.pk]).values_list("pk", flat=True)))
    before = billing.previous(first)
    own = DayCharge.objects.visible_to(user).filter(
        inside,
        day__gte=before,
        day__lt=billing.following(first),
        kind__in=[ChargeKind.ALLOCATED, ChargeKind.UNATTRIBUTED],
    )
    current = Case(When(day__gte=first, then=Value(True)), default=Value(False), output_field=Flag())
    grouped = list(
        own.annotate(current=current)
        .values_list("current", "team_id", "cluster_id", "rate_id")
        .annotate(Sum("quantity_ms"), Sum("gpu_ms"))
        .order_by("team_id", "cluster_id", "rate_id")
    )
    clusters = sorted({row[2] for row in grouped if row[0]})
    everything = unit is None and scope.of(user).everywhere("costs.charge.view")
    spare = _unallocated_rows(user, inside, first, clusters, everything=everything)
    rates: Rates = {
        pk: (amount, code)
        for pk, amount, code in Rate.objects.filter(
            pk__in={row[3] for row in grouped} | {row[3] for row in spare}
        ).values_list("pk", "amount", "currency")
    }
    now: dict[int | None, Tally] = {}
    past: dict[int | None, Tally] = {}
    for is_current, team_id, _, rate_id, quantity, gpu in grouped:
        tally = (now if is_current else past).setdefault(team_id, Tally(currency))
        tally.add(int(quantity), int(gpu), *rates.get(rate_id, NO_RATE))
    _lines(report, user, inside, now, past)
    _unallocated(report, spare, rates)
    _by_day(report, own.filter(day__gte=first), rates)
    report.completeness = completeness(None if everything else clusters, start, end)
    return report


def _lines(
    report: MonthReport, user: Any, inside: Q, now: dict[int | None, Tally], past: dict[int | None, Tally]
) -> None:
    usage = {
        row[0]: row[1:]
        for row in DayUsage.objects.visible_to(user)
        .filter(inside, day__gte=report.month, day__lt=billing.following(report.month))
        .values_list("team_id")
        .annotate(Sum("allocated_gpu_ms"), Sum("used_gpu_ms"), Sum("measured_gpu_ms"), Sum("idle_gpu_ms"))
        .order_by("team_id")
    }
    teams = {team.pk: team for team in Team.objects.filter(pk__in=[t for t in now | past if t]).select_related("unit")}
    ids = sorted(now, key=lambda key: (key is None, teams[key].name if key in teams else "", key or 0))
    amounts = round_to_total([now[key].amount for key in ids], None)
    before = dict(zip(past, round_to_total([tally.amount for tally in past.values()], None), strict=True))
    whole = sum(tally.gpu_ms for tally in now.values())
    cost = [amount for amount in amounts if amount is not None]
    report.total = sum(cost, Money.zero(report.currency)) if cost else None
    known = [amount for amount in before.values() if amount is not None]
    report.previous_total = sum(known, Money.zero(report.currency)) if known else None
    for key, amount in zip(ids, amounts, strict=True):
        team = teams.get(key) if key is not None else None
        allocated, used, measured, idle = (int(value or 0) for value in usage.get(key, (0, 0, 0, 0))[:4])
        part: Decimal | None = None
        if amount is not None and report.total:
            part = amount.amount / report.total.amount
        elif not report.total:
            part = share(now[key].gpu_ms, whole)
        exact = now[key].amount
        report.lines.append(
            TeamLine(
                team_id=key,
                team_uid=team.uid if team else None,
                slug=team.slug if team else "",
                name=team.name if team else "No owner known",
                unit_name=team.unit.name if team else "",
                colour=team.colour if team else 0,
                allocated_gpu_ms=now[key].gpu_ms,
                used_gpu_ms=used if measured else None,
                idle_gpu_ms=idle,
                coverage_permille=measured * 1000 // allocated if allocated else 0,
                amount=amount,
                unpriced_gpu_ms=now[key].unpriced_ms,
                share=part,
                previous=before.get(key) if past else None,
                idle_amount=(exact * (Decimal(idle) / Decimal(allocated))).quantized() if exact and allocated else None,
            )
        )


def _unallocated_rows(
    user: Any, inside: Q, month: date, clusters: list[int], *, everything: bool
) -> list[tuple[Any, ...]]:
    """Return (kind, mine, team, rate, quantity, GPU ms) of unallocated capacity of the pools that the teams shared.

    Pool aggregates are open to everyone with a quota in the pool (design invariant 10); owners outside the person's
    scope are added up under one name.
    """
    rows = DayCharge.objects.filter(day__gte=month, day__lt=billing.following(month), kind__in=list(UNALLOCATED))
    if not everything:
        rows = rows.filter(cluster_id__in=clusters)
    condition = scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id") & inside
    mine: Any = Value(True)
    if condition:
        mine = Case(When(condition, then=Value(True)), default=Value(False), output_field=Flag())
    return list(
        rows.annotate(mine=mine)
        .values_list("kind", "mine", "team_id", "rate_id")
        .annotate(Sum("quantity_ms"), Sum("gpu_ms"))
        .order_by("kind", "team_id", "rate_id")
    )


def _unallocated(report: MonthReport, rows: list[tuple[Any, ...]], rates: Rates) -> None:
    tallies: dict[tuple[str, int | None, bool], Tally] = {}
    for kind, mine, team_id, rate_id, quantity, gpu in rows:
        owned = kind == ChargeKind.RESERVED_UNUSED
        key = (kind, team_id if owned and mine else None, owned and not mine)
        tally = tallies.setdefault(key, Tally(report.currency))
        tally.add(int(quantity), int(gpu), *rates.get(rate_id, NO_RATE))
    names = dict(Team.objects.filter(pk__in=[key[1] for key in tallies if key[1]]).values_list("pk", "name"))
    order = [str(kind) for kind in UNALLOCATED]
    keys = sorted(tallies, key=lambda key: (order.index(key[0]), key[2], names.get(key[1] or 0, ""), key[1] or 0))
    amounts = round_to_total([tallies[key].amount for key in keys], None)
    known = [amount for amount in amounts if amount is not None]
    report.unallocated_total = sum(known, Money.zero(report.currency)) if known else None
    for key, amount in zip(keys, amounts, strict=True):
        kind, team_id, foreign = key
        owner = OTHERS if foreign else names.get(team_id or 0, "")
        tally = tallies[key]
        report.unallocated.append(UnallocatedLine(kind, owner, team_id, tally.gpu_ms, amount, tally.unpriced_ms))


def _by_day(report: MonthReport, charges: Any, rates: Rates) -> None:
    largest = sorted(report.lines, key=lambda line: -line.allocated_gpu_ms)[:TOP]
    top = [line.team_id for line in largest if line.team_id is not None]
    named = Case(When(team_id__in=top, then=F("team_id")), default=Value(None))
    tallies: dict[tuple[date, int | None], Tally] = {}
    rows = charges.annotate(named=named).values_list("day", "named", "rate_id")
    for day, team_id, rate_id, quantity, gpu in rows.annotate(Sum("quantity_ms"), Sum("gpu_ms")).order_by(
        "day", "named", "rate_id"
    ):
        tally = tallies.setdefault((day, team_id), Tally(report.currency))
        tally.add(int(quantity), int(gpu), *rates.get(rate_id, NO_RATE))
    amounts = round_to_total([tally.amount for tally in tallies.values()], report.total)
    report.by_day = [
        DayCell(day, team_id, tally.gpu_ms, amount)
        for ((day, team_id), tally), amount in zip(tallies.items(), amounts, strict=True)
    ]
