"""Changes that came past the portal: rows of watched tables, changed by a transaction that recorded no event.

Triggers note every changed row with its transaction (`audit.change`); sealing an event notes the same on its link.
What has a change and no link was done by direct SQL, or by an action that forgot to record: both are found.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import connection, transaction

from apps.audit import watching
from apps.audit.actions import INSTALLATION, record
from apps.audit.events import TRAIL_ALARM, TrailAlarm
from apps.audit.keeping_events import CHANGES_UNEXPLAINED, ChangesUnexplained
from apps.audit.models import ReconciliationRun
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.permissions import holders_of

DUE = timedelta(hours=24)
KEPT, TOLD = 200, 20
_ACTOR = "audit.reconciliation"

#: What this run's snapshot shows and the one of the run before did not: neither judged twice, nor overlooked because it
#: committed late.
_LOOK = """
WITH looked AS MATERIALIZED (
  SELECT c.* FROM audit.change c
   WHERE pg_visible_in_snapshot(c.xid::text::xid8, %(now)s::pg_snapshot)
     AND (%(before)s::text IS NULL
          OR (c.xid >= pg_snapshot_xmin(%(before)s::pg_snapshot)::text::bigint
              AND NOT pg_visible_in_snapshot(c.xid::text::xid8, %(before)s::pg_snapshot)))
)
SELECT l.tbl, l.row_id, l.row_uid, l.op, l.xid, l.login, l.program, l.at,
       NOT EXISTS (SELECT FROM audit.link k WHERE k.xid = l.xid)
  FROM looked l
 ORDER BY l.id
"""


def reconcile_due() -> int:
    """Reconcile where that has not been done within a day; 1 where it was."""
    last = ReconciliationRun.objects.first()
    if last is not None and clock.now() - last.finished_at < DUE:
        return 0
    with leases.held("audit.reconciliation", seconds=1800) as token:
        if token is None:
            return 0
        reconcile()
    return 1


@transaction.atomic
def reconcile() -> ReconciliationRun:
    """Look at every change committed since the last run; record, and raise the alarm, where one has no event."""
    last = ReconciliationRun.objects.first()
    findings: list[dict[str, str]] = []
    looked_at = total = 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_snapshot()::text, pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        snapshot, end = cursor.fetchone()
        # After a restore from a dump the numbers begin anew: then everything is looked at once more.
        before = last.snapshot if last is not None and last.snapshot and last.upto_xid <= end else None
    with connection.chunked_cursor() as cursor:
        cursor.execute(_LOOK, {"before": before, "now": snapshot})
        while rows := cursor.fetchmany(2000):
            looked_at += len(rows)
            for *row, alone in rows:
                total += alone
                if alone and len(findings) < KEPT:
                    findings.append(_finding(tuple(row)))
    lost = watching.unwatched()
    run = ReconciliationRun.objects.create(
        finished_at=clock.now(), upto_xid=end, snapshot=snapshot, changes=looked_at, unexplained=total,
        findings=findings, unwatched=lost,
    )  # fmt: skip
    actor = Actor.system(_ACTOR)
    if total:
        record(
            CHANGES_UNEXPLAINED,
            # Logins are names of database roles; they stay on the run.
            ChangesUnexplained(
                changes=total,
                first=[{key: one[key] for key in ("table", "row", "change", "at")} for one in findings[:TOLD]],
            ),
            actor=actor,
            subject_type="audit.reconciliation",
            subject_uid=run.uid,
        )
    if total or lost:
        _alarm(run, actor)
    return run


def _finding(row: tuple[Any, ...]) -> dict[str, str]:
    table, row_id, row_uid, change, xid, login, program, at = row
    return {
        "table": table, "row": row_uid or row_id, "change": change, "transaction": str(xid), "login": login,
        "program": program, "at": at.isoformat(),
    }  # fmt: skip


def _alarm(run: ReconciliationRun, actor: Actor) -> None:
    parts = []
    if run.unexplained:
        parts.append(f"{run.unexplained} rows were changed without an event, the first in {run.findings[0]['table']}")
    if run.unwatched:
        parts.append(f"no longer watched: {', '.join(run.unwatched)}")
    said = TrailAlarm(text=("Past the audit trail: " + "; ".join(parts))[:300])
    record(TRAIL_ALARM, said, actor=actor, subject_type="audit.reconciliation", subject_uid=run.uid)
    outbox.publish(TRAIL_ALARM, said, recipients=holders_of("audit.event.view"), subject_uid=INSTALLATION)
