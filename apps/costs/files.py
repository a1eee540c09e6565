"""Files of closed months and statements: asked for, queued, made by a worker, taken."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q

from apps import audit
from apps.accounts.models import User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may
from apps.core.sweeps import nudge
from apps.costs import adjusting_events as events
from apps.costs.choices import FileKind, FileStatus, PeriodStatus
from apps.costs.models import Period, Statement, StatementFile
from apps.costs.seconding import someone
from apps.teams import scope

VIEW = "costs.statement.view"
#: What a whole month, and what a single statement can be had as.
OF_PERIOD = (FileKind.CSV, FileKind.XLSX, FileKind.FOCUS, FileKind.JOURNAL)
OF_STATEMENT = (FileKind.CSV, FileKind.XLSX, FileKind.PDF)
#: A file whose worker said nothing for so long is made by another one; after so many beginnings it has failed.
SILENCE = timedelta(minutes=10)
MAX_ATTEMPTS = 3
_ENDINGS = {FileKind.XLSX: "xlsx", FileKind.PDF: "pdf"}
CONTENT_TYPES = {
    FileKind.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    FileKind.PDF: "application/pdf",
}
#: Kept compressed: a month as FOCUS has hundreds of bytes a row, most of them the same.
COMPRESSED = (FileKind.CSV, FileKind.FOCUS, FileKind.JOURNAL)


def _asker(actor: Actor) -> User:
    user = someone(actor)
    if user is None:
        raise NotAllowed("Files are asked for by people.", rule=VIEW)
    return user


def name_of(period: Period, statement: Statement | None, kind: str) -> str:
    """Return a file's name: the statement's number, or the month with what it is."""
    ending = _ENDINGS.get(FileKind(kind), "csv")
    if statement is not None:
        return f"statement-{statement.number}.{ending}"
    what = {FileKind.FOCUS: "focus-1.2", FileKind.JOURNAL: "journal"}.get(FileKind(kind), "statements")
    return f"{what}-{period.month:%Y-%m}.{ending}"


@transaction.atomic
def ask_for_file(period_id: int, kind: str, *, actor: Actor, statement_id: int | None = None) -> StatementFile:
    """Queue a file of a closed month, or of one of its statements; one that is there or under way is returned.

    Raises NotVisible for a statement out of scope, NotAllowed for a whole month without reading all statements,
    Conflict for a month that is not closed, Invalid for a kind that there is not.
    """
    user = _asker(actor)
    period = Period.objects.locked(period_id)
    statement = None
    if statement_id is not None:
        statement = Statement.objects.visible_to(user).filter(pk=statement_id, period=period).first()
        if statement is None:
            raise NotVisible
    elif not scope.of(user).everywhere(VIEW):
        raise NotAllowed("Files of a whole month are for those who read all statements.", rule=VIEW)
    if not may(user, VIEW, statement):
        raise NotAllowed(rule=VIEW)
    if kind not in (OF_STATEMENT if statement is not None else OF_PERIOD):
        raise Invalid({"kind": "There is no such file of this."})
    if statement is None and period.status != PeriodStatus.CLOSED:
        raise Conflict(
            f"{period.month:%B %Y} is {PeriodStatus(period.status).label.lower()}: files are made once it is closed.",
            current={"status": period.status},
        )
    # What was made before a month was opened again says what was true then; it is kept, and a new one is made.
    standing = StatementFile.objects.filter(period=period, statement=statement, kind=kind)
    if statement is None:
        standing = standing.filter(created_at__gte=period.closed_at or period.end)
    row = standing.defer("body").order_by("-pk").first()
    if row is not None and row.status != FileStatus.FAILED:
        return row
    if row is not None:
        return _again(row, actor)
    row = StatementFile.objects.create(
        period=period,
        statement=statement,
        kind=kind,
        name=name_of(period, statement, kind),
        requested_by=user,
        created_at=clock.now(),
    )
    record(events.FILE_ASKED, row, actor=actor)
    _nudge(row)
    return row


def _again(row: StatementFile, actor: Actor) -> StatementFile:
    row.status, row.error, row.attempts, row.done, row.total = FileStatus.QUEUED, "", 0, 0, 0
    row.requested_by_id = actor.user_id
    row.bump("status", "error", "attempts", "done", "total", "requested_by")
    record(events.FILE_ASKED, row, actor=actor)
    _nudge(row)
    return row


@transaction.atomic
def retry_file(file_id: int, *, actor: Actor, expected_version: int | None = None) -> StatementFile:
    """Make a failed file again. Raises NotVisible, Conflict where it has not failed."""
    user = _asker(actor)
    if not StatementFile.objects.visible_to(user).filter(pk=file_id).exists():
        raise NotVisible
    row = StatementFile.objects.defer("body").locked(file_id, expected_version=expected_version)
    if row.status != FileStatus.FAILED:
        raise Conflict(
            f"This file is {FileStatus(row.status).label.lower()}: only a failed one is made again.",
            current={"version": row.version, "status": row.status},
        )
    return _again(row, actor)


def due() -> list[int]:
    """Return the files that a worker should make: queued, or begun by one that went silent; oldest first."""
    waiting = Q(status=FileStatus.QUEUED) | Q(status=FileStatus.RUNNING, updated_at__lt=clock.now() - SILENCE)
    return list(StatementFile.objects.filter(waiting).order_by("pk").values_list("pk", flat=True)[:20])


def claim(file_id: int) -> StatementFile | None:
    """Take a file to make it; None where another worker has it or nothing is left to do.

    A file begun too often has killed its workers: it fails instead of doing so once more.
    """
    now = clock.now()
    free = Q(status=FileStatus.QUEUED) | Q(status=FileStatus.RUNNING, updated_at__lt=now - SILENCE)
    with transaction.atomic():
        row = StatementFile.objects.defer("body").select_for_update(skip_locked=True).filter(free, pk=file_id).first()
        if row is None:
            return None
        row.attempts += 1
        if row.attempts > MAX_ATTEMPTS:
            fail(row, f"The worker that made it was lost {MAX_ATTEMPTS} times. Ask the platform admins.")
            return None
        row.status, row.done, row.error = FileStatus.RUNNING, 0, ""
        row.bump("status", "attempts", "done", "error")
        return row


def fail(row: StatementFile, error: str) -> None:
    """Record that a file could not be made, and tell who asked for it. In the caller's transaction."""
    row.status, row.error, row.finished_at = FileStatus.FAILED, error, clock.now()
    row.bump("status", "error", "attempts", "finished_at")
    record(events.FILE_FAILED, row, actor=Actor.system("costs.files"), tell=True)


def finish(row: StatementFile, body: bytes, sha256: str, size: int, report: dict[str, Any]) -> bool:
    """Store a file; False where another worker has begun it anew meanwhile."""
    with transaction.atomic():
        stored = StatementFile.objects.filter(
            pk=row.pk, status=FileStatus.RUNNING, attempts=row.attempts, version=row.version
        ).update(
            status=FileStatus.DONE, body=body, sha256=sha256, size=size, report=report, error="", done=row.total,
            finished_at=clock.now(), updated_at=clock.now(), version=F("version") + 1,
        )  # fmt: skip
        if not stored:
            return False
        row.sha256, row.size = sha256, size
        record(events.FILE_MADE, row, actor=Actor.system("costs.files"), tell=True)
        return True


def progress(row: StatementFile, done: int, total: int) -> None:
    """Say how far a file is; also the sign of life of its worker."""
    row.total = total
    StatementFile.objects.filter(pk=row.pk, attempts=row.attempts).update(
        done=done, total=total, updated_at=clock.now()
    )


@transaction.atomic
def record_taken(file_id: int, *, actor: Actor) -> None:
    """Record that somebody downloaded a file."""
    record(events.FILE_TAKEN, StatementFile.objects.defer("body").get(pk=file_id), actor=actor)


def record(event: EventType, row: StatementFile, *, actor: Actor, tell: bool = False) -> None:
    """Audit what happened to a file, and tell who asked for it. In the caller's transaction."""
    payload = events.FileEvent(
        file=str(row.uid),
        kind=row.kind,
        name=row.name,
        month=f"{row.period.month:%Y-%m}",
        sha256=row.sha256,
        size=row.size,
        error=row.error,
    )
    audit.record(event, payload, actor=actor, subject_type="costs.file", subject_uid=row.uid)
    if tell and row.requested_by_id is not None:
        outbox.publish(event, payload, recipients=[row.requested_by_id], subject_uid=row.uid)


def _nudge(row: StatementFile) -> None:
    from apps.costs import tasks

    nudge(tasks.make_file, row.pk)
