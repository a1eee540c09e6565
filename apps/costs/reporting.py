"""The month report: per team allocated, used, idle, cost, share, change; unallocated capacity; by day."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection

from apps.core.money import Money
from apps.costs.choices import UNALLOCATED, ChargeKind
from apps.costs.report_figures import OWN, Figures, ItemReader, Reach, TeamRow, reach_of, read
from apps.costs.report_types import DayCell, DaySum, MonthReport, TeamLine, UnallocatedLine
from apps.costs.tally import Tally, amount_of, exact_integer, part_of_product, round_products, share, total_of
from apps.metering import billing
from apps.metering.selectors import completeness
from apps.teams.models import Unit

__all__ = [
    "FOREIGN",
    "NOBODY",
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
#: How addresses name the owners outside the scope, and no owner; no slug has this sign.
FOREIGN, NOBODY = "~others", "~nobody"
NO_RATE: tuple[Decimal | None, str | None] = (None, None)
#: How far back daily sums are read: what a forecast's weekdays stand on.
BEFORE = timedelta(days=62)


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
    _by_day(report, reach)
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
    total = report.total.amount if report.total is not None else Decimal(0)
    for row, amount in zip(known, amounts, strict=True):
        part: Decimal | None = None
        if amount is not None and total:
            part = amount.amount / total
        elif not total:
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
                idle_amount=_idle(row, report.currency) if amount is not None else None,
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


def _idle(row: TeamRow, currency: str) -> Money | None:
    """Return what idle GPU time cost: its part of the allocated time, of what GPU time cost."""
    # Integers until the end: an enterprise has thousands of teams.
    exact = exact_integer(row.product)
    if row.resource_priced_ms:
        exact -= exact_integer(row.resource_product)
    if not exact or not row.allocated_gpu_ms:
        return None
    return part_of_product(exact, row.idle_gpu_ms, row.allocated_gpu_ms, currency)


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
    slugs = {row.team_id: row.slug for row in owners}
    report.unallocated = [
        UnallocatedLine(kind, owner, team_id, gpu_ms, amount, unpriced, _address(kind, foreign, slugs.get(team_id, "")))
        for ((kind, foreign, owner, team_id), _, gpu_ms, unpriced), amount in zip(lines, amounts, strict=True)
    ]


def _address(kind: str, foreign: bool, slug: str) -> str:
    """Return how addresses name the owner of an unallocated line."""
    if kind != ChargeKind.RESERVED_UNUSED:
        return ""
    return FOREIGN if foreign else slug or NOBODY


# Whole units are read from their daily sums; where a person sees single teams only, from the daily charges.
_PRICED = """
  m.day, {team}, coalesce(r.currency, ''), sum(m.quantity_ms)::bigint, sum(m.gpu_ms)::bigint,
    coalesce(sum(m.quantity_ms * r.amount), 0)
  FROM costs_daycharge m LEFT JOIN rates_rate r ON r.id = m.rate_id
"""
_SUMMED = """
  m.day, NULL::bigint, m.currency, sum(m.quantity_ms)::bigint, sum(m.gpu_ms)::bigint, sum(m.product)
  FROM costs_daytotal m
"""


def _days(reach: Reach, month: date, top: list[int]) -> list[tuple[date, int | None, str, int, int, Decimal]]:
    """Return (day, team or None for everything, currency, quantity, GPU time, Σ quantity × price): one query."""
    whole = _PRICED.format(team="NULL::bigint") if reach.teams and not reach.everything else _SUMMED
    named = _PRICED.format(team="m.team_id")
    mine = f"m.day < %(until)s AND m.kind = ANY(%(own)s) AND {reach.condition}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {named} WHERE m.team_id = ANY(%(top)s) AND m.day >= %(month)s AND {mine}"
            f" GROUP BY 1, 2, 3 UNION ALL SELECT {whole} WHERE m.day >= %(since)s AND {mine} GROUP BY 1, 2, 3",
            {"month": month, "since": month - BEFORE, "until": billing.following(month), "own": OWN, "top": top,
             "units": reach.units, "teams": reach.teams},
        )  # fmt: skip
        rows: list[tuple[date, int | None, str, int, int, Decimal]] = cursor.fetchall()
    return rows


def _by_day(report: MonthReport, reach: Reach) -> None:
    """Read the days of the largest teams, and of everything."""
    largest = sorted(report.lines, key=lambda line: -line.allocated_gpu_ms)[:TOP]
    top = sorted(line.team_id for line in largest if line.team_id is not None)
    teams: dict[tuple[date, int], Tally] = {}
    days: dict[date, Tally] = {}
    for day, team_id, code, quantity, gpu, amount in _days(reach, report.month, top):
        tally = teams.setdefault((day, team_id), Tally(report.currency)) if team_id is not None else None
        if tally is None:
            tally = days.setdefault(day, Tally(report.currency))
        tally.add_product(quantity, gpu, amount, code)
    report.days = [
        DaySum(day, tally.gpu_ms, None if tally.unpriced_ms else tally.amount) for day, tally in sorted(days.items())
    ]
    cells: dict[tuple[date, int | None], Tally] = {}
    for day, everybody in sorted(days.items()):
        if day < report.month:
            continue
        rest = everybody
        for team in top:
            if (own := teams.get((day, team))) is not None:
                cells[day, team] = own
                rest = rest.less(own)
        if not rest.empty:
            cells[day, None] = rest
    products = [_priced(tally.product, tally.priced_ms, tally.unpriced_ms) for tally in cells.values()]
    amounts = round_products(products, report.currency, total=report.total)
    report.by_day = [
        DayCell(day, team_id, tally.gpu_ms, amount)
        for ((day, team_id), tally), amount in zip(cells.items(), amounts, strict=True)
    ]
