"""Running statements: made by a worker for months that are not closed, read by pages together with their age.

A statement's shares and rounding stand on everybody's charges, so that no page can make one owner's alone; making all
of them takes seconds for a thousand teams.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from apps.core import clock
from apps.costs.choices import LineSort, OwnerKind, PeriodStatus
from apps.costs.models import Period, RunningMonth, RunningStatement, StatementLine
from apps.costs.statement_rows import Sheet, preview
from apps.metering import billing

#: The months in which usage still arrives are made anew this often; those long over, where late data is rare, less.
FRESH, OLD = timedelta(minutes=15), timedelta(days=1)
_RANKS = {OwnerKind.PLATFORM: 0, OwnerKind.UNIT: 1, OwnerKind.TEAM: 2, OwnerKind.COST_CENTRE: 3}
_COPIED = (
    "number", "owner_kind", "team_id", "unit_id", "cost_centre", "team_name", "unit_name", "own_amount", "amount",
    "currency", "gpu_ms", "unpriced_ms", "line_count",
)  # fmt: skip
_LINE = (
    "ordinal", "sort", "kind", "description", "cluster_id", "cluster_name", "flavour_id", "flavour_name", "gpu_model",
    "rate_id", "quantity_ms", "gpu_ms", "method", "ratio_ppm",
)  # fmt: skip
_EXACT, _TIMES = ("hourly", "exact", "amount"), ("charge_start", "charge_end")
_BATCH = 500


def make_due() -> int:
    """Make the running statements that are older than they may be; forget those of closed months. Returns how many."""
    RunningMonth.objects.filter(period__status=PeriodStatus.CLOSED).delete()
    RunningStatement.objects.filter(period__status=PeriodStatus.CLOSED).delete()
    now = clock.now()
    recent = billing.previous(billing.month_of(now))
    due = Q(running=None) | Q(running__made_at__lte=now - OLD)
    due |= Q(month__gte=recent, running__made_at__lte=now - FRESH)
    periods = Period.objects.exclude(status=PeriodStatus.CLOSED).filter(due)
    return sum(make(pk) for pk in periods.order_by("-month").values_list("pk", flat=True))


@transaction.atomic
def make(period_id: int) -> int:
    """Replace a month's running statements. Returns 0 where the month is closed or another worker is at it."""
    RunningMonth.objects.get_or_create(period_id=period_id, defaults={"made_at": clock.now()})
    mark = RunningMonth.objects.select_for_update(skip_locked=True).filter(period_id=period_id).first()
    period = Period.objects.exclude(status=PeriodStatus.CLOSED).filter(pk=period_id).first()
    if mark is None or period is None:
        return 0
    mark.made_at = clock.now()
    found = preview(period)
    RunningStatement.objects.filter(period=period).delete()
    RunningStatement.objects.bulk_create(rows(found.sheets, mark.made_at), batch_size=_BATCH)
    mark.save(update_fields=["made_at"])
    return 1


def rows(sheets: Iterable[Sheet], made_at: datetime) -> Iterable[RunningStatement]:
    """Yield sheets as rows, not stored."""
    for sheet in sheets:
        one = sheet.statement
        yield RunningStatement(
            period=one.period, made_at=made_at, rank=_RANKS[OwnerKind(one.owner_kind)],
            lines=[_plain(line) for line in sheet.lines], **{name: getattr(one, name) for name in _COPIED},
        )  # fmt: skip


def _plain(line: StatementLine) -> dict[str, Any]:
    values = {name: getattr(line, name) for name in _LINE}
    for name in _EXACT:
        value = getattr(line, name)
        values[name] = None if value is None else str(value)
    for name in _TIMES:
        values[name] = getattr(line, name).isoformat()
    # What a team's line refers to is a statement that will never be stored.
    kept = line.reference is not None and line.sort != LineSort.TEAM
    values["reference"] = str(line.reference) if kept else None
    return values


def lines_of(row: RunningStatement) -> list[StatementLine]:
    """Return the lines of a running statement as rows that are not stored."""
    return [_line(values) for values in row.lines]


def _line(values: dict[str, Any]) -> StatementLine:
    exact = {name: None if values[name] is None else Decimal(values[name]) for name in _EXACT}
    times = {name: datetime.fromisoformat(values[name]) for name in _TIMES}
    reference = UUID(values["reference"]) if values["reference"] else None
    return StatementLine(**{name: values[name] for name in _LINE}, **exact, **times, reference=reference)


def made_at(month: date) -> datetime | None:
    """Return when a month's running statements were made; None: not yet."""
    rows = RunningMonth.objects.filter(period__month=month)
    return rows.values_list("made_at", flat=True).first()


def in_order(queryset: Any) -> Any:
    """Return running statements in the order of the page: the platform's, units', teams'; without their lines."""
    return queryset.exclude(owner_kind=OwnerKind.COST_CENTRE).order_by("rank", "number").defer("lines")


__all__ = ["FRESH", "OLD", "in_order", "lines_of", "made_at", "make", "make_due", "rows"]
