"""The month report: per team allocated, used, idle, cost, share, change; unallocated capacity; by day."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import BigIntegerField, Case, DecimalField, F, Q, Sum, Value, When
from django.db.models import BooleanField as Flag
from django.db.models.functions import Coalesce

from apps.core.errors import NotVisible
from apps.core.money import Money
from apps.costs.choices import HELD, PAID, UNALLOCATED, ChargeKind
from apps.costs.explaining import Item, ItemKey
from apps.costs.models import DayCharge, DayTotal, MonthTotal
from apps.costs.report_types import DayCell, DaySum, MonthReport, TeamLine, UnallocatedLine
from apps.costs.rollup_models import USAGE
from apps.costs.tally import Tally, round_to_total, share, total_of
from apps.metering import billing
from apps.metering.selectors import completeness
from apps.teams import scope
from apps.teams.models import Team, Unit

__all__ = [
    "NO_RATE",
    "OTHERS",
    "OWN",
    "TOP",
    "DayCell",
    "DaySum",
    "MonthReport",
    "TeamLine",
    "UnallocatedLine",
    "month_report",
]  # fmt: skip

#: Teams drawn by name in the chart; the others are one band.
TOP = 10
OTHERS = "Other owners"
#: What a team is charged for: GPU time and resources.
OWN = [str(kind) for kind in PAID]
NO_RATE: tuple[Decimal | None, str | None] = (None, None)
#: How far back daily sums are read: what a forecast's weekdays stand on.
BEFORE = timedelta(days=62)
_EXACT = DecimalField(max_digits=60, decimal_places=8)


def month_report(unit: Unit | None, month: date, user: Any) -> MonthReport:
    """Return the report of a billing month for `unit` and below, or (None) for everything the person may see.

    Rows are chosen by the team and unit on them, as of that hour. Raises NotVisible for a unit outside the scope.
    Four queries (and the person's subtree, read once a request), whatever the number of teams.
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
    books = _Books(currency)
    for row in _figures(user, inside, first):
        books.add(row, first)
    # Pool aggregates are open to everyone with a quota in the pool (design invariant 10), and to nobody else.
    spare = [row for row in books.spare if everything or row.cluster_id in books.clusters]
    owners = {row.team_id for row in spare if row.owned_here}
    teams = _teams(books.teams.keys() | owners)
    _lines(report, books, teams)
    _unallocated(report, spare, teams)
    _by_day(report, user, inside, everything)
    report.completeness = completeness(None if everything else sorted(books.clusters), start, end)
    return report


@dataclass(frozen=True, slots=True)
class _Sum:
    """A sum of the month's figures of one team (none: nobody's) and cluster."""

    month: date
    kind: str
    mine: bool
    team_id: int | None
    cluster_id: int
    item: tuple[Any, ...]
    currency: str
    quantity_ms: int
    gpu_ms: int
    product: Decimal
    used_gpu_ms: int
    measured_gpu_ms: int
    idle_gpu_ms: int

    @property
    def owned_here(self) -> bool:
        """Whether it is capacity reserved by an owner whom the person may see."""
        return self.mine and self.kind == ChargeKind.RESERVED_UNUSED


def _figures(user: Any, inside: Q, month: date) -> Iterator[_Sum]:
    """Yield what teams in scope used and were charged in this month and before, and this month's unallocated capacity.

    Unallocated capacity comes for every cluster; owners outside the person's scope are marked as not `mine`.
    """
    # A unit in scope lies in it with everything below: asking each row for both would say the same twice.
    visible = inside or scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id")
    charged = visible & Q(kind__in=OWN)
    wanted = charged | (visible & Q(kind=USAGE, month=month)) | Q(kind__in=list(UNALLOCATED), month=month)
    mine: Any = Value(True)
    if visible:
        mine = Case(When(visible, then=Value(True)), default=Value(False), output_field=Flag())
    item = Case(
        When(kind__in=list(UNALLOCATED), then=Value(None)), default=F("flavour_id"), output_field=BigIntegerField()
    )
    place = Case(When(kind=USAGE, then=Value(0)), default=F("cluster_id"), output_field=BigIntegerField())
    by = ("month", "kind", "mine", "team_id", "place", "item", "capacity_type", "service_class", "currency")
    rows = (
        MonthTotal.objects.filter(wanted, month__in=[month, billing.previous(month)])
        .annotate(mine=mine, place=place, item=item)
        .values_list(*by)
        .annotate(
            Sum("quantity_ms"), Sum("gpu_ms"), Sum("product"), Sum("used_gpu_ms"), Sum("measured_gpu_ms"),
            Sum("idle_gpu_ms"),
        )
        .order_by()
    )  # fmt: skip
    for at, kind, ours, team_id, cluster_id, flavour, capacity, service, code, *sums in rows:
        quantity, gpu, product, used, measured, idle = sums
        key = (cluster_id, flavour, capacity, service)
        yield _Sum(
            at, kind, ours, team_id, cluster_id, key, code, int(quantity), int(gpu), product, int(used), int(measured),
            int(idle),
        )  # fmt: skip


@dataclass(slots=True)
class _TeamBooks:
    """One team's two months."""

    now: Tally
    past: Tally
    resources: Tally
    usage: tuple[int, int, int, int] = (0, 0, 0, 0)
    items: tuple[dict[ItemKey, Item], dict[ItemKey, Item]] = field(default_factory=lambda: ({}, {}))


@dataclass(slots=True)
class _Books:
    """Both months, sorted by owner."""

    currency: str
    teams: dict[int | None, _TeamBooks] = field(default_factory=dict)
    spare: list[_Sum] = field(default_factory=list)
    clusters: set[int] = field(default_factory=set)

    def add(self, row: _Sum, month: date) -> None:
        """Put a sum where it belongs."""
        if row.kind in UNALLOCATED:
            self.spare.append(row)
            return
        team = self.teams.get(row.team_id)
        if team is None:
            team = self.teams[row.team_id] = _TeamBooks(
                Tally(self.currency), Tally(self.currency), Tally(self.currency)
            )
        if row.kind == USAGE:
            team.usage = (row.gpu_ms, row.used_gpu_ms, row.measured_gpu_ms, row.idle_gpu_ms)
            return
        current = row.month == month
        tally = team.now if current else team.past
        tally.add_product(row.quantity_ms, row.gpu_ms, row.product, row.currency)
        if current:
            self.clusters.add(row.cluster_id)
            if row.kind not in HELD:
                team.resources.add_product(row.quantity_ms, 0, row.product, row.currency)
        if row.currency:
            # GPUs of different flavours are compared by physical GPU time; each other resource by its own quantity.
            measure, quantity = ("gpu", row.gpu_ms) if row.kind in HELD else (row.kind, row.quantity_ms)
            item = team.items[current].setdefault((measure, row.item), Item())
            item.add(quantity, row.product)


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


def _rounded(tallies: dict[int | None, Tally]) -> dict[int | None, Money | None]:
    """Round each team's sum such that they add up to the rounded total."""
    return dict(zip(tallies, round_to_total([tally.amount for tally in tallies.values()], None), strict=True))


def _lines(report: MonthReport, books: _Books, teams: dict[int, _Team]) -> None:
    known = {key: one for key, one in books.teams.items() if not one.now.empty}
    ids = sorted(known, key=lambda key: (key is None, teams[key].name if key in teams else "", key or 0))
    amounts = _rounded({key: known[key].now for key in ids})
    before = _rounded({key: one.past for key, one in books.teams.items() if not one.past.empty})
    whole = sum(one.now.gpu_ms for one in known.values())
    report.total, report.previous_total = total_of(amounts.values()), total_of(before.values())
    report.previous_unpriced = any(one.past.unpriced_ms for one in books.teams.values())
    report.items = {key: one.items for key, one in books.teams.items()}
    for key in ids:
        one, amount = known[key], amounts.get(key)
        team = teams.get(key) if key is not None else None
        allocated, used, measured, idle = one.usage
        part: Decimal | None = None
        if amount is not None and report.total:
            part = amount.amount / report.total.amount
        elif not report.total:
            part = share(one.now.gpu_ms, whole)
        exact = one.now.amount
        resources = None if one.resources.empty else one.resources.amount
        if exact is not None and resources is not None:
            exact -= resources
        report.lines.append(
            TeamLine(
                team_id=key,
                team_uid=team.uid if team else None,
                slug=team.slug if team else "",
                name=team.name if team else "No owner known",
                unit_name=team.unit_name if team else "",
                colour=team.colour if team else 0,
                allocated_gpu_ms=one.now.gpu_ms,
                used_gpu_ms=used if measured else None,
                idle_gpu_ms=idle,
                coverage_permille=measured * 1000 // allocated if allocated else 0,
                amount=amount,
                unpriced_gpu_ms=one.now.unpriced_gpu_ms,
                share=part,
                previous=before.get(key),
                idle_amount=(exact * (Decimal(idle) / Decimal(allocated))).quantized() if exact and allocated else None,
                resource_amount=resources.quantized() if resources else None,
                resources_unpriced=bool(one.resources.unpriced_ms),
            )
        )


def _unallocated(report: MonthReport, rows: list[_Sum], teams: dict[int, _Team]) -> None:
    """Add up unallocated capacity: reserved but unused by owner (owners outside the scope under one name), the rest."""
    tallies: dict[tuple[str, int | None, bool], Tally] = {}
    for row in rows:
        foreign = row.kind == ChargeKind.RESERVED_UNUSED and not row.mine
        key = (row.kind, row.team_id if row.owned_here else None, foreign)
        tally = tallies.setdefault(key, Tally(report.currency))
        tally.add_product(row.quantity_ms, row.gpu_ms, row.product, row.currency)
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


def _by_day(report: MonthReport, user: Any, inside: Q, everything: bool) -> None:
    """Read the days of the largest teams, and of everything: one query.

    Whole units are read from their daily sums; where a person sees single teams only, from the daily charges.
    """
    largest = sorted(report.lines, key=lambda line: -line.allocated_gpu_ms)[:TOP]
    top = [line.team_id for line in largest if line.team_id is not None]
    until = billing.following(report.month)
    since = report.month - BEFORE
    product = Coalesce(
        Sum(F("quantity_ms") * F("rate__amount"), output_field=_EXACT), Value(Decimal(0)), output_field=_EXACT
    )
    nobody = Value(0, output_field=BigIntegerField())
    charges: Any = DayCharge.objects.visible_to(user).filter(inside, day__lt=until, kind__in=OWN)
    charges = charges.annotate(code=Coalesce(F("rate__currency"), Value("")), nobody=nobody)
    sums = {"quantity": Sum("quantity_ms"), "gpu": Sum("gpu_ms")}
    named = charges.filter(team_id__in=top, day__gte=report.month).values_list("day", "team_id", "code")
    if report.unit is not None or everything:
        totals: Any = DayTotal.objects.filter(inside, day__gte=since, day__lt=until, kind__in=OWN)
        whole = (
            totals.annotate(nobody=nobody)
            .values_list("day", "nobody", "currency")
            .annotate(**sums, amounts=Sum("product"))
        )
    else:
        whole = charges.filter(day__gte=since).values_list("day", "nobody", "code").annotate(**sums, amounts=product)
    teams: dict[tuple[date, int], Tally] = {}
    days: dict[date, Tally] = {}
    for day, team_id, code, quantity, gpu, amount in named.annotate(**sums, amounts=product).union(whole, all=True):
        tally = teams.setdefault((day, team_id), Tally(report.currency)) if team_id else None
        if tally is None:
            tally = days.setdefault(day, Tally(report.currency))
        tally.add_product(int(quantity), int(gpu), amount, code)
    report.days = [
        DaySum(day, tally.gpu_ms, None if tally.unpriced_ms else tally.amount) for day, tally in sorted(days.items())
    ]
    cells: dict[tuple[date, int | None], Tally] = {}
    for day, everybody in sorted(days.items()):
        if day < report.month:
            continue
        rest = everybody
        for team in sorted(top):
            if (own := teams.get((day, team))) is not None:
                cells[day, team] = own
                rest = rest.less(own)
        if not rest.empty:
            cells[day, None] = rest
    amounts = round_to_total([tally.amount for tally in cells.values()], report.total)
    report.by_day = [
        DayCell(day, team_id, tally.gpu_ms, amount)
        for ((day, team_id), tally), amount in zip(cells.items(), amounts, strict=True)
    ]
