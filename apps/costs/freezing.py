"""The freeze: one transaction writes all statements and closes the month, or nothing at all.

The row lock of the period is what makes it happen once and against standing books: every writer of a month's rows takes
a share lock on it (the database's triggers), so the freeze waits for those under way, and those that come wait for it.
A worker that dies leaves the month closing with its freeze queued or running; the sweep takes it up again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db import InterfaceError, OperationalError, transaction

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.costs import period_books, ports
from apps.costs import period_events as events
from apps.costs.checklist import CheckItem, blockers, checklist
from apps.costs.choices import UNDER_WAY, BillingMode, FileStatus, OwnerKind, PeriodStatus
from apps.costs.models import Period, Statement, StatementLine
from apps.costs.running_marks import compared
from apps.costs.statement_digests import digest_of_period
from apps.costs.statement_rows import Preview, preview
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import RoleGrant

logger = logging.getLogger(__name__)
_BATCH = 2000


class _Blocked(Exception):
    """The checklist blocks again: what changed since the close was confirmed."""

    def __init__(self, items: Sequence[CheckItem]) -> None:
        super().__init__("; ".join(f"{item.title}: {item.detail}" for item in items))


def freeze_due() -> int:
    """Freeze every month whose close is confirmed, earliest first; returns how many were closed or refused."""
    due = Period.objects.filter(status=PeriodStatus.CLOSING, freeze_state__in=UNDER_WAY)
    return sum(freeze(pk) for pk in due.order_by("month").values_list("pk", flat=True))


def freeze(period_id: int) -> int:
    """Freeze one month. Returns 1 where it was closed or its checklist blocked, 0 where another worker is at it."""
    with transaction.atomic():
        period = _claimed(period_id)
        if period is None:
            return 0
        if period.freeze_state != FileStatus.RUNNING:
            period.freeze_state = FileStatus.RUNNING
            period.save(update_fields=["freeze_state", "updated_at"])
    try:
        with transaction.atomic():
            period = _claimed(period_id)
            if period is None:
                return 0
            _freeze(period)
    except _Blocked as blocked:
        _refuse(period_id, str(blocked))
    except (InterfaceError, OperationalError, MemoryError):
        # The connection, a lock, the worker: nothing is wrong with the month, and the sweep takes it up again.
        raise
    except Exception as error:
        logger.exception("the freeze of a month broke", extra={"month": str(period)})
        _refuse(
            period_id,
            f"The freeze broke ({type(error).__name__}) and nothing was frozen. Ask the platform admins: their log says"
            " more. Afterwards close the month again, or open it.",
        )
    return 1


def _claimed(period_id: int) -> Period | None:
    rows = Period.objects.select_for_update(of=("self",), skip_locked=True)
    return rows.filter(pk=period_id, status=PeriodStatus.CLOSING, freeze_state__in=UNDER_WAY).first()


def _freeze(period: Period) -> None:
    items = checklist(period)
    if blocking := blockers(items):
        raise _Blocked(blocking)
    found = preview(period)
    items += compared(period, found)
    _store(found)
    hours = period_books.digest_of_hours(period)
    digests = [(sheet.statement.number, sheet.statement.digest) for sheet in found.sheets]
    period.distribution, period.bill = found.policy, found.bill.amount
    period.checklist = [*(item.plain() for item in items), {"code": "books", "title": "Hours", "digest": hours}]
    period.digest = digest_of_period(digests, period.month, hours)
    period.status, period.closed_at = PeriodStatus.CLOSED, clock.now()
    period.freeze_state, period.freeze_error = FileStatus.DONE, ""
    period.bump(
        "distribution", "bill", "checklist", "digest", "status", "closed_at", "freeze_state", "freeze_error"
    )  # fmt: skip
    payload = events.PeriodEvent(
        period.uid, str(period), f"{found.bill.quantized().amount:,}", period.currency, len(found.sheets),
        period.digest, found.policy.number if found.policy else 0, period.waivers.count(),
    )  # fmt: skip
    actor = Actor.system("costs.freeze_due")
    audit.record(
        events.CLOSED, payload, actor=actor, subject_type="costs.period", subject_uid=period.uid,
        after_digest=period.digest,
    )  # fmt: skip
    readers = {*scope.holders("costs.period.manage"), *scope.holders_of_role(Role.AUDITOR)}
    if readers:
        outbox.publish(events.CLOSED, payload, recipients=readers, subject_uid=period.uid)
    _tell_owners(period, found)
    ports.tell(ports.Closed(period.pk, period.month))


def _store(found: Preview) -> None:
    """Write all statements, then all lines."""
    Statement.objects.bulk_create([sheet.statement for sheet in found.sheets], batch_size=_BATCH)
    lines: list[StatementLine] = []
    for sheet in found.sheets:
        for line in sheet.lines:
            line.statement = sheet.statement
            lines.append(line)
    StatementLine.objects.bulk_create(lines, batch_size=_BATCH)


def _tell_owners(period: Period, found: Preview) -> None:
    """Tell team leads and unit owners of their statements; three queries for everybody's roles, then the outbox."""
    leads: dict[tuple[str, int], set[int]] = {}
    grants = RoleGrant.objects.in_force().filter(role__in=[Role.TEAM_LEAD, Role.UNIT_OWNER])
    for role, user_id, team_id, unit_id in grants.values_list("role", "user_id", "team_id", "unit_id"):
        if role == Role.TEAM_LEAD and team_id is not None:
            leads.setdefault((OwnerKind.TEAM, team_id), set()).add(user_id)
        elif role == Role.UNIT_OWNER and unit_id is not None:
            leads.setdefault((OwnerKind.UNIT, unit_id), set()).add(user_id)
    for sheet in found.sheets:
        row = sheet.statement
        key = row.team_id if row.owner_kind == OwnerKind.TEAM else row.unit_id
        people = leads.get((row.owner_kind, key or 0))
        if people:
            payload = events.StatementIssued(
                row.uid, row.number, str(period), row.team_name or row.unit_name, f"{row.total.quantized().amount:,}",
                row.currency, str(BillingMode(row.mode).label),
            )  # fmt: skip
            outbox.publish(events.STATEMENT_ISSUED, payload, recipients=people, subject_uid=row.uid)


@transaction.atomic
def _refuse(period_id: int, text: str) -> None:
    """Keep why a confirmed close was not carried out, and tell who confirmed it."""
    period = _claimed(period_id)
    if period is None:
        return
    logger.warning("the close of a month is blocked again", extra={"month": str(period), "why": text})
    period.freeze_state, period.freeze_error = FileStatus.FAILED, text
    period.bump("freeze_state", "freeze_error")
    payload = events.PeriodEvent(period.uid, str(period))
    audit.record(
        events.BLOCKED, payload, actor=Actor.system("costs.freeze_due"), subject_type="costs.period",
        subject_uid=period.uid,
    )  # fmt: skip
    if period.closed_by_id is not None:
        outbox.publish(events.BLOCKED, payload, recipients=[period.closed_by_id], subject_uid=period.uid)


__all__ = ["freeze", "freeze_due"]
