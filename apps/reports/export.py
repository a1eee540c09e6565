"""The monthly report as CSV: the figures of the page, exact."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django.http import StreamingHttpResponse

from apps.core.exports import csv_rows
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.explaining import Effects
from apps.costs.reporting import MonthReport
from apps.teams.models import Unit

HEADER = (
    "month", "zone", "unit", "line", "team", "allocated_gpu_hours", "used_gpu_hours", "idle_gpu_hours", "cost",
    "currency", "share_percent", "previous_month_cost", "change", "without_price_gpu_hours", "coverage_percent",
    "of_it_other_resources", "idle_cost", "effect_price", "effect_quantity", "effect_mix", "statement",
    "statement_cost", "share_of_common_cost",
)  # fmt: skip


def gpu_hours(gpu_ms: int | None) -> Decimal | None:
    """Return GPU-milliseconds as GPU-hours to six places; None stays unknown."""
    return None if gpu_ms is None else (Decimal(gpu_ms) / MILLISECONDS_PER_HOUR).quantize(Decimal("0.000001"))


def _amount(money: Money | None) -> Decimal | None:
    return None if money is None else money.amount


def _effects(found: Effects | None) -> list[Decimal | None]:
    """Return price, quantity and mix; empty cells where one of the months is unknown."""
    return [None] * 3 if found is None else [found.price.amount, found.quantity.amount, found.mix.amount]


def rows(unit: Unit, report: MonthReport) -> Iterator[list[Any]]:
    """Yield the lines: teams, their total, unallocated capacity, its total. Unknown figures are empty cells."""
    lead = [f"{report.month:%Y-%m}", report.zone, unit.name]
    for line in report.lines:
        share = None if line.share is None else (line.share * 100).quantize(Decimal("0.1"))
        yield [
            *lead, "team", line.name, gpu_hours(line.allocated_gpu_ms), gpu_hours(line.used_gpu_ms),
            gpu_hours(line.idle_gpu_ms), _amount(line.amount), report.currency, share, _amount(line.previous),
            _amount(line.change), gpu_hours(line.unpriced_gpu_ms), Decimal(line.coverage_permille) / 10,
            _amount(line.resource_amount), _amount(line.idle_amount), *_effects(report.effects_of(line)),
            line.statement, _amount(line.frozen), _amount(line.shared),
        ]  # fmt: skip
    yield [
        *lead, "total", "", gpu_hours(report.allocated_gpu_ms), gpu_hours(report.used_gpu_ms),
        gpu_hours(report.idle_gpu_ms), _amount(report.total), report.currency, None, _amount(report.previous_total),
        _amount(report.change), gpu_hours(report.unpriced_gpu_ms), Decimal(report.coverage_permille) / 10,
        _amount(report.resource_total), _amount(report.idle_amount), *_effects(report.effects()),
        report.statement, _amount(report.frozen_total), _amount(report.shared_total),
    ]  # fmt: skip
    for spare in report.unallocated:
        yield [
            *lead, spare.kind, spare.owner, gpu_hours(spare.gpu_ms), None, None, _amount(spare.amount),
            report.currency, None, None, None, gpu_hours(spare.unpriced_gpu_ms), None,
            *[None] * 8,
        ]  # fmt: skip
    yield [
        *lead, "unallocated_total", "", gpu_hours(report.unallocated_gpu_ms), None, None,
        _amount(report.unallocated_total), report.currency, None, None, None, None, None,
        *[None] * 8,
    ]  # fmt: skip


def csv_response(unit: Unit, report: MonthReport) -> StreamingHttpResponse:
    """Return the report as a download."""
    lines = list(csv_rows(HEADER, rows(unit, report)))
    response = StreamingHttpResponse(["\ufeff", *lines], content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{unit.slug}-{report.month:%Y-%m}.csv"'
    return response
