"""Running statements: made by a worker for months that are not closed, read by pages together with their age.

A statement's shares and rounding stand on everybody's charges, so that no page can make one owner's alone; making all
of them takes seconds for a thousand teams. They are the preview of a close, too; the freeze takes nothing from them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q

from apps import audit
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotVisible
from apps.core.sweeps import nudge
from apps.costs import period_events as events
from apps.costs.choices import FileStatus, LineSort, OwnerKind, PeriodStatus
from apps.costs.models import Period, RunningMonth, RunningStatement, StatementLine
from apps.costs.running_marks import digest_of_sheets, marker
from apps.costs.seconding import person
from apps.costs.statement_rows import Sheet, preview
from apps.metering import billing

logger = logging.getLogger(__name__)
#: A worker that said nothing for so long is followed by another one.
SILENCE = timedelta(minutes=10)
#: Worked out, stored.
STEPS = 2
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
    """Make the running statements that are due; forget those of closed months. Returns of how many months.

    Due are those that somebody asked for, that a worker lost, and those that are older than they may be.
    """
    RunningMonth.objects.filter(period__status=PeriodStatus.CLOSED).delete()
    RunningStatement.objects.filter(period__status=PeriodStatus.CLOSED).delete()
    now = clock.now()
    recent = billing.previous(billing.month_of(now))
    due = Q(running=None) | Q(running__asked_at__isnull=False) | Q(running__state=FileStatus.RUNNING)
    # One that cannot be made is tried again, but not every minute.
    tried = Q(running__state=FileStatus.FAILED, running__alive_at__gt=now - FRESH)
    old = Q(running__made_at=None) | Q(running__made_at__lte=now - OLD)
    old |= Q(month__gte=recent, running__made_at__lte=now - FRESH)
    periods = Period.objects.exclude(status=PeriodStatus.CLOSED).filter(due | (old & ~tried))
    return sum(make(pk) for pk in periods.order_by("-month").values_list("pk", flat=True))


def make(period_id: int) -> int:
    """Replace a month's running statements. Returns 0 where the month is closed or another worker is at it."""
    mark = _claimed(period_id)
    if mark is None:
        return 0
    try:
        _make(mark)
    except (InterfaceError, OperationalError, MemoryError):
        # Nothing is wrong with the month: the sweep takes it up again.
        raise
    except Exception as error:
        logger.exception("running statements could not be made", extra={"month": str(mark.period)})
        text = f"It could not be made ({type(error).__name__}). Ask the platform admins: their log says more."
        RunningMonth.objects.filter(pk=mark.pk, alive_at=mark.alive_at).update(
            state=FileStatus.FAILED, error=text, asked_at=None
        )
        return 0
    return 1


def _claimed(period_id: int) -> RunningMonth | None:
    """Take a month; None where it is closed or another worker is at it."""
    if not Period.objects.exclude(status=PeriodStatus.CLOSED).filter(pk=period_id).exists():
        return None
    now = clock.now()
    RunningMonth.objects.get_or_create(period_id=period_id)
    with transaction.atomic():
        rows = RunningMonth.objects.select_related("period").select_for_update(of=("self",), skip_locked=True)
        mark = rows.filter(period_id=period_id).first()
        if mark is None or (mark.state == FileStatus.RUNNING and mark.alive_at and mark.alive_at > now - SILENCE):
            return None
        mark.state, mark.alive_at, mark.done, mark.total, mark.error = FileStatus.RUNNING, now, 0, STEPS, ""
        mark.save(update_fields=["state", "alive_at", "done", "total", "error"])
        return mark


def _make(mark: RunningMonth) -> None:
    """Work out and store. What changes while it is read makes the result stale: its mark is taken first."""
    period, began = mark.period, mark.alive_at or clock.now()
    made_from = marker(period)
    found = preview(period)
    RunningMonth.objects.filter(pk=mark.pk, alive_at=began).update(done=1)
    with transaction.atomic():
        # The month before its mark, as the close locks them: what is inserted below refers to the month, which locks it
        # on commit, too. After a freeze that was waited for there is nothing left to store.
        standing = Period.objects.select_for_update(no_key=True).exclude(status=PeriodStatus.CLOSED)
        if not standing.filter(pk=period.pk).exists():
            return
        if not RunningMonth.objects.select_for_update().filter(pk=mark.pk, alive_at=began).exists():
            return
        RunningStatement.objects.filter(period=period).delete()
        RunningStatement.objects.bulk_create(rows(found.sheets, began), batch_size=_BATCH)
        RunningMonth.objects.filter(pk=mark.pk).update(
            state=FileStatus.DONE, made_at=began, done=STEPS, marker=made_from, policy=found.policy,
            bill=found.bill.amount, unpriced_ms=found.unpriced_ms, statements=len(found.sheets),
            digest=digest_of_sheets(found.sheets),
        )  # fmt: skip
        # Who asked while it was being made wants it newer than that.
        RunningMonth.objects.filter(pk=mark.pk, asked_at__lte=began).update(asked_at=None)


@transaction.atomic
def ask(period_id: int, *, actor: Actor) -> RunningMonth:
    """Have a month's statements worked out anew. Raises NotVisible, NotAllowed, Conflict for a closed month."""
    period = Period.objects.filter(pk=period_id).first()
    if period is None:
        raise NotVisible
    person(actor, "costs.period.manage", period, "Previews are made anew by finance of the whole installation.")
    if period.status == PeriodStatus.CLOSED:
        raise Conflict("This month is closed: its statements stand.", current={"status": "closed"})
    mark, _ = RunningMonth.objects.get_or_create(period=period)
    mark.asked_at, mark.asked_by_id = clock.now(), actor.user_id
    mark.save(update_fields=["asked_at", "asked_by"])
    payload = events.PeriodEvent(period.uid, str(period), currency=period.currency)
    audit.record(
        events.PREVIEW_ASKED, payload, actor=actor, subject_type="costs.period", subject_uid=period.uid
    )  # fmt: skip
    from apps.costs import tasks

    nudge(tasks.make_running)
    return mark


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


__all__ = ["FRESH", "OLD", "ask", "in_order", "lines_of", "made_at", "make", "make_due", "rows"]
