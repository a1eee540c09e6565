"""The month report: per team allocated, used, idle, cost, share, change; unallocated capacity; by day."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import BooleanField as Flag
from django.db.models import Case, F, Max, Q, Sum, Value, When

from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs.choices import HELD, PAID, RESOURCES, UNALLOCATED, ChargeKind
from apps.costs.models import DayCharge
from apps.costs.tally import Tally, round_to_total, share, total_of
from apps.metering import billing
from apps.metering.models import DayUsage
from apps.metering.selectors import Completeness, completeness
from apps.teams import scope
from apps.teams.models import Team, Unit

#: Teams drawn by name in the chart; the others are one band.
TOP = 10
OTHERS = "Other owners"
#: What a team is charged for: GPU time and resources.
OWN = [str(kind) for kind in PAID]
#: Resources of a team in one row.
RESOURCE = "resource"
NO_RATE: tuple[Decimal | None, str | None] = (None, None)


@dataclass(frozen=True, slots=True)
class TeamLine:
    """One team's month. `amount` None: nothing of it has a rate; `unpriced_gpu_ms` > 0: part of the cost is unknown.

    `amount`, `share`, `previous` and `change` are what the team pays: GPU time and resources. Idle is GPU time alone.

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
    #: The part of `amount` that is CPU, memory, storage and egress; None: none charged, or unknown.
    resource_amount: Money | None = None
    #: Part of the resources has no price.
    resources_unpriced: bool = False

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
    def resource_total(self) -> Money | None:
        """The part of the total that is CPU, memory, storage and egress; None: none was charged."""
        return total_of(line.resource_amount for line in self.lines)

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


def month_report(unit: Unit | None, month: date, user: Any) -> MonthReport:
    """Return the report of a billing month for `unit` and below, or (None) for everything the person may see.

    Rows are chosen by the team and unit on them, as of that hour. Raises NotVisible for a unit outside the scope.
    Five queries (and the person's subtree, read once a request), whatever the number of teams.
    """
    first = month.replace(day=1)
    start, end = billing.month_bounds(first)
    currency = str(settings.COMMONS_CURRENCY)
    report = MonthReport(first, start, end, billing.zone_name(), currency, unit)
    inside = Q()
    if unit is not None:
        if not scope.of(user).holds("costs.charge.view", unit):
            raise NotVisible
        below = [one.pk for one in scope.of(user).units_with("costs.charge.view") if unit.pk in one.path]
        inside = Q(unit_id__in=below)
    everything = unit is None and scope.of(user).everywhere("costs.charge.view")
    now: dict[int | None, Tally] = {}
    resources: dict[int | None, Tally] = {}
    past: dict[int | None, Tally] = {}
    spare: list[_Sum] = []
    clusters: set[int] = set()
    for row in _charged(user, inside, first):
        if row.kind in UNALLOCATED:
            spare.append(row)
            continue
        if row.current:
            clusters.add(row.cluster_id)
        tally = (now if row.current else past).setdefault(row.team_id, Tally(currency))
        tally.add(row.quantity_ms, row.gpu_ms, row.hourly, row.currency)
        if row.current and row.kind == RESOURCE:
            own = resources.setdefault(row.team_id, Tally(currency))
            own.add(row.quantity_ms, row.gpu_ms, row.hourly, row.currency)
    # Pool aggregates are open to everyone with a quota in the pool (design invariant 10), and to nobody else.
    spare = [row for row in spare if everything or row.cluster_id in clusters]
    owners = {row.team_id for row in spare if row.owned_here}
    teams = _teams(now.keys() | past.keys() | owners)
    _lines(report, user, inside, now, past, teams, resources)
    _unallocated(report, spare, teams)
    _by_day(report, user, inside)
    report.completeness = completeness(None if everything else sorted(clusters), start, end)
    return report


@dataclass(frozen=True, slots=True)
class _Sum:
    """Charges of one team, cluster and price; `kind` "" or "resource": its own; else this month's unallocated."""

    current: bool
    kind: str
    mine: bool
    team_id: int | None
    cluster_id: int
    hourly: Decimal | None
    currency: str | None
    quantity_ms: int
    gpu_ms: int

    @property
    def owned_here(self) -> bool:
        """Whether it is capacity reserved by an owner whom the person may see."""
        return self.mine and self.kind == ChargeKind.RESERVED_UNUSED


def _charged(user: Any, inside: Q, month: date) -> Iterator[_Sum]:
    """Yield what teams in scope were charged in this month and the one before, and this month's unallocated capacity.

    Unallocated capacity comes for every cluster; owners outside the person's scope are marked as not `mine`.
    """
    # A unit in scope lies in it with everything below: asking each row for both would say the same twice.
    visible = inside or scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id")
    own = visible & Q(kind__in=OWN)
    unallocated = Q(kind__in=list(UNALLOCATED), day__gte=month)
    mine: Any = Value(True)
    if visible:
        mine = Case(When(visible, then=Value(True)), default=Value(False), output_field=Flag())
    rows = (
        DayCharge.objects.filter(own | unallocated, day__gte=billing.previous(month), day__lt=billing.following(month))
        .annotate(
            current=Case(When(day__gte=month, then=Value(True)), default=Value(False), output_field=Flag()),
            spare=Case(
                When(kind__in=HELD, then=Value("")), When(kind__in=RESOURCES, then=Value(RESOURCE)), default=F("kind")
            ),
            mine=mine,
        )
        .values_list("current", "spare", "mine", "team_id", "cluster_id", "rate__amount", "rate__currency")
        .annotate(Sum("quantity_ms"), Sum("gpu_ms"))
        .order_by("spare", "team_id", "cluster_id", "rate__amount", "rate__currency")
    )
    for current, spare, ours, team_id, cluster_id, hourly, currency, quantity_ms, gpu_ms in rows:
        yield _Sum(current, spare, ours, team_id, cluster_id, hourly, currency, int(quantity_ms), int(gpu_ms))


@dataclass(frozen=True, slots=True)
class _Team:
    """What the report says of a team."""

    uid: uuid.UUID
    slug: str
    name: str
    colour: int
    unit_name: str


def _teams(ids: Iterable[int | None]) -> dict[int, _Team]:
    found = Team.objects.filter(pk__in=[pk for pk in ids if pk])
    columns = ("uid", "slug", "name", "colour", "unit__name")
    return {pk: _Team(*row) for pk, *row in found.values_list("pk", *columns)}


def _lines(
    report: MonthReport,
    user: Any,
    inside: Q,
    now: dict[int | None, Tally],
    past: dict[int | None, Tally],
    teams: dict[int, _Team],
    resources: dict[int | None, Tally],
) -> None:
    usage = {
        row[0]: row[1:]
        for row in DayUsage.objects.visible_to(user)
        .filter(inside, day__gte=report.month, day__lt=billing.following(report.month))
        .values_list("team_id")
        .annotate(Sum("allocated_gpu_ms"), Sum("used_gpu_ms"), Sum("measured_gpu_ms"), Sum("idle_gpu_ms"))
        .order_by("team_id")
    }
    ids = sorted(now, key=lambda key: (key is None, teams[key].name if key in teams else "", key or 0))
    exact = {key: now[key].amount for key in ids}
    amounts = round_to_total(list(exact.values()), None)
    before = dict(zip(past, round_to_total([tally.amount for tally in past.values()], None), strict=True))
    whole = sum(tally.gpu_ms for tally in now.values())
    report.total = total_of(amounts)
    report.previous_total = total_of(before.values())
    for key, amount in zip(ids, amounts, strict=True):
        team = teams.get(key) if key is not None else None
        allocated, used, measured, idle = (int(value or 0) for value in usage.get(key, (0, 0, 0, 0))[:4])
        part: Decimal | None = None
        if amount is not None and report.total:
            part = amount.amount / report.total.amount
        elif not report.total:
            part = share(now[key].gpu_ms, whole)
        whole_cost, others = exact[key], resources.get(key)
        gpu_cost = whole_cost
        if whole_cost is not None and others is not None and others.amount is not None:
            gpu_cost = whole_cost - others.amount
        report.lines.append(
            TeamLine(
                team_id=key,
                team_uid=team.uid if team else None,
                slug=team.slug if team else "",
                name=team.name if team else "No owner known",
                unit_name=team.unit_name if team else "",
                colour=team.colour if team else 0,
                allocated_gpu_ms=now[key].gpu_ms,
                used_gpu_ms=used if measured else None,
                idle_gpu_ms=idle,
                coverage_permille=measured * 1000 // allocated if allocated else 0,
                amount=amount,
                unpriced_gpu_ms=now[key].unpriced_gpu_ms,
                share=part,
                previous=before.get(key) if past else None,
                idle_amount=(gpu_cost * (Decimal(idle) / Decimal(allocated))).quantized()
                if gpu_cost and allocated
                else None,
                resource_amount=others.amount.quantized() if others is not None and others.amount else None,
                resources_unpriced=bool(others is not None and others.unpriced_ms),
            )
        )


def _unallocated(report: MonthReport, rows: list[_Sum], teams: dict[int, _Team]) -> None:
    """Add up unallocated capacity: reserved but unused by owner (owners outside the scope under one name), the rest."""
    tallies: dict[tuple[str, int | None, bool], Tally] = {}
    for row in rows:
        foreign = row.kind == ChargeKind.RESERVED_UNUSED and not row.mine
        key = (row.kind, row.team_id if row.owned_here else None, foreign)
        tally = tallies.setdefault(key, Tally(report.currency))
        tally.add(row.quantity_ms, row.gpu_ms, row.hourly, row.currency)
    names = {pk: team.name for pk, team in teams.items()}
    order = [str(kind) for kind in UNALLOCATED]
    keys = sorted(tallies, key=lambda key: (order.index(key[0]), key[2], names.get(key[1] or 0, ""), key[1] or 0))
    amounts = round_to_total([tallies[key].amount for key in keys], None)
    report.unallocated_total = total_of(amounts)
    for key, amount in zip(keys, amounts, strict=True):
        kind, team_id, foreign = key
        owner = OTHERS if foreign else names.get(team_id or 0, "")
        tally = tallies[key]
        report.unallocated.append(UnallocatedLine(kind, owner, team_id, tally.gpu_ms, amount, tally.unpriced_gpu_ms))


def _by_day(report: MonthReport, user: Any, inside: Q) -> None:
    largest = sorted(report.lines, key=lambda line: -line.allocated_gpu_ms)[:TOP]
    top = [line.team_id for line in largest if line.team_id is not None]
    named = Case(When(team_id__in=top, then=F("team_id")), default=Value(None))
    rows = (
        DayCharge.objects.visible_to(user)
        .filter(inside, day__gte=report.month, day__lt=billing.following(report.month), kind__in=OWN)
        .annotate(named=named)
        .values_list("day", "named", "rate_id")
        .annotate(Sum("quantity_ms"), Sum("gpu_ms"), Max("rate__amount"), Max("rate__currency"))
        .order_by("day", "named", "rate_id")
    )
    tallies: dict[tuple[date, int | None], Tally] = {}
    for day, team_id, _, quantity, gpu, hourly, code in rows:
        tally = tallies.setdefault((day, team_id), Tally(report.currency))
        tally.add(int(quantity), int(gpu), hourly, code)
    amounts = round_to_total([tally.amount for tally in tallies.values()], report.total)
    report.by_day = [
        DayCell(day, team_id, tally.gpu_ms, amount)
        for ((day, team_id), tally), amount in zip(tallies.items(), amounts, strict=True)
    ]
