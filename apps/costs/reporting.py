"""The month report: per team allocated, used, idle, cost, share, change; unallocated capacity; by day."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import BigIntegerField, DecimalField, F, Q, Sum, Value
from django.db.models.functions import Coalesce

from apps.core.money import Money
from apps.costs.choices import UNALLOCATED, ChargeKind
from apps.costs.models import DayCharge, DayTotal
from apps.costs.report_figures import OWN, Figures, ItemReader, TeamRow, reach_of, read
from apps.costs.report_types import DayCell, DaySum, MonthReport, TeamLine, UnallocatedLine
from apps.costs.tally import Tally, amount_of, hours_of, round_products, round_to_total, share, total_of
from apps.metering import billing
from apps.metering.selectors import completeness
from apps.teams.models import Unit

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
NO_RATE: tuple[Decimal | None, str | None] = (None, None)
#: How far back daily sums are read: what a forecast's weekdays stand on.
BEFORE = timedelta(days=62)
_EXACT = DecimalField(max_digits=60, decimal_places=8)


def month_report(unit: Unit | None, month: date, user: Any) -> MonthReport:
    """Return the report of a billing month for `unit` and below, or (None) for everything the person may see.

    Rows are chosen by the team and unit on them, as of that hour. Raises NotVisible for a unit outside the scope.
    Three queries (and the person's subtree, read once a request), whatever the number of teams; what lines' changes
    are made of is read when asked for.
    """
    first = month.replace(day=1)
    start, end = billing.month_bounds(first)
    currency = str(settings.COMMONS_CURRENCY)
    reach = reach_of(unit, user)
    figures = read(reach, first, currency)
    report = MonthReport(first, start, end, billing.zone_name(), currency, unit)
    report.read_items = ItemReader(reach, first)
    _lines(report, figures)
    _unallocated(report, figures)
    inside = Q(unit_id__in=reach.units) if unit is not None else Q()
    _by_day(report, user, inside, reach.everything)
    report.completeness = completeness(None if reach.everything else sorted(figures.clusters), start, end)
    return report


def _lines(report: MonthReport, figures: Figures) -> None:
    known = sorted(
        (row for row in figures.teams if row.charged),
        key=lambda row: (row.team_id is None, row.name, row.team_id or 0),
    )
    past = [row for row in figures.teams if row.charged_before]
    amounts = round_products([_priced(row.product, row.priced_ms, row.unpriced_ms) for row in known], report.currency)
    before = dict(
        zip(
            (row.team_id for row in past),
            round_products(
                [_priced(row.past_product, row.past_priced_ms, row.past_unpriced_ms) for row in past], report.currency
            ),
            strict=True,
        )
    )
    whole = sum(row.gpu_ms for row in known)
    report.total, report.previous_total = total_of(amounts), total_of(before.values())
    report.previous_unpriced = any(row.past_unpriced_ms for row in figures.teams)
    report.whole = figures.whole
    for row, amount in zip(known, amounts, strict=True):
        part: Decimal | None = None
        if amount is not None and report.total:
            part = amount.amount / report.total.amount
        elif not report.total:
            part = share(row.gpu_ms, whole)
        resources = _resources(row, report.currency)
        report.lines.append(
            TeamLine(
                team_id=row.team_id,
                team_uid=row.uid,
                slug=row.slug,
                name=row.name or "No owner known",
                unit_name=row.unit_name,
                colour=row.colour,
                allocated_gpu_ms=row.gpu_ms,
                used_gpu_ms=row.used_gpu_ms if row.measured_gpu_ms else None,
                idle_gpu_ms=row.idle_gpu_ms,
                coverage_permille=row.measured_gpu_ms * 1000 // row.allocated_gpu_ms if row.allocated_gpu_ms else 0,
                amount=amount,
                unpriced_gpu_ms=row.unpriced_gpu_ms,
                share=part,
                previous=before.get(row.team_id),
                idle_amount=_idle(row, resources, report.currency) if amount is not None else None,
                resource_amount=resources.quantized() if resources else None,
                resources_unpriced=bool(row.resource_unpriced_ms),
            )
        )


def _priced(product: Decimal, priced_ms: int, unpriced_ms: int) -> Decimal | None:
    """Return a product; None (unknown) where there is a quantity and none of it has a rate."""
    return None if unpriced_ms and not priced_ms else product


def _resources(row: TeamRow, currency: str) -> Money | None:
    """Return what resources cost, exact; None where there were none, or none of them has a price."""
    return amount_of(row.resource_product, currency) if row.resource_priced_ms else None


def _idle(row: TeamRow, resources: Money | None, currency: str) -> Money | None:
    """Return what idle GPU time cost: its part of the allocated time, of what GPU time cost."""
    # Bare decimals until the end: an enterprise has thousands of teams.
    exact = hours_of(row.product)
    if resources is not None:
        exact -= resources.amount
    if not exact or not row.allocated_gpu_ms:
        return None
    return Money(exact * (Decimal(row.idle_gpu_ms) / Decimal(row.allocated_gpu_ms)), currency).quantized()


def _unallocated(report: MonthReport, figures: Figures) -> None:
    """Add up unallocated capacity: reserved but unused by owner (owners outside the scope under one name), the rest."""
    owners = [row for row in figures.teams if row.spared]
    lines = [
        (
            (str(ChargeKind.RESERVED_UNUSED), False, row.name if row.team_id else "", row.team_id),
            _priced(row.spare_product, row.spare_priced_ms, row.spare_unpriced_ms),
            row.spare_gpu_ms,
            row.spare_unpriced_gpu_ms,
        )
        for row in owners
    ]
    tallies: dict[tuple[str, bool], Tally] = {}
    for kind, foreign, currency, quantity, gpu_ms, product in figures.spare:
        tallies.setdefault((kind, foreign), Tally(report.currency)).add_product(quantity, gpu_ms, product, currency)
    lines += [
        (
            (kind, foreign, OTHERS if foreign else "", None),
            _priced(tally.product, tally.priced_ms, tally.unpriced_ms),
            tally.gpu_ms,
            tally.unpriced_gpu_ms,
        )
        for (kind, foreign), tally in tallies.items()
    ]
    order = {str(kind): at for at, kind in enumerate(UNALLOCATED)}
    lines.sort(key=lambda one: (order[one[0][0]], one[0][1], "" if one[0][1] else one[0][2], one[0][3] or 0))
    amounts = round_products([product for _, product, _, _ in lines], report.currency)
    report.unallocated_total = total_of(amounts)
    report.unallocated = [
        UnallocatedLine(kind, owner, team_id, gpu_ms, amount, unpriced)
        for ((kind, _, owner, team_id), _, gpu_ms, unpriced), amount in zip(lines, amounts, strict=True)
    ]


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
