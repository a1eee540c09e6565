"""Verification by night: every day once, against the copies outside, with an alarm when it did not run."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction

from apps.audit import checkpoints, verification
from apps.audit.actions import INSTALLATION, record
from apps.audit.events import TRAIL_ALARM, TRAIL_VERIFIED, TrailAlarm, TrailVerified
from apps.audit.models import AuditLink, VerificationRun
from apps.audit.verification import Outcome, Report
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.permissions import holders_of

logger = logging.getLogger(__name__)
#: A run is due when the last one is a day old; it is overdue when it is this old.
DUE, OVERDUE = timedelta(hours=24), timedelta(hours=26)
_LEASE, _LEASE_SECONDS = "audit.nightly", 3600


def verify_due() -> int:
    """Verify where no verification against the copies outside has finished within a day; 1 where one was made."""
    last = VerificationRun.objects.first()
    if last is not None and clock.now() - last.finished_at < DUE:
        return 0
    with leases.held(_LEASE, seconds=_LEASE_SECONDS) as token:
        if token is None:
            return 0
        verify(source="nightly", actor=Actor.system("audit.nightly"))
    return 1


def verify(*, source: str, actor: Actor, from_checkpoint: bool = False) -> Report:
    """Verify against the copies outside, keep the result, record it, and raise the alarm where it is not intact."""
    started = clock.now()
    copies, complaints = checkpoints.outside_copies()
    report = verification.verify_trail(copies, from_checkpoint=from_checkpoint)
    report.weaknesses += complaints
    if late := checkpoints.overdue(clock.now(), copies, report.head_seq):
        report.weaknesses.append(late)
    keep(report, started=started, source=source, actor=actor)
    return report


def keep(report: Report, *, started: datetime, source: str, actor: Actor) -> VerificationRun:
    """Store a verification's result, record it in the trail, and alarm auditors where the trail was tampered with."""
    outcome = report.outcome.name.lower()
    with transaction.atomic():
        run = VerificationRun.objects.create(
            started_at=started,
            finished_at=clock.now(),
            outcome=outcome,
            links=report.links,
            head_seq=report.head_seq,
            findings_total=report.findings_total,
            findings=[one.text for one in report.findings[:20]],
            weaknesses=report.weaknesses[:20],
            checkpoint_seq=report.checkpoint_seq,
            checkpoints=report.checkpoints,
            source=source,
        )
        record(
            TRAIL_VERIFIED,
            TrailVerified(
                links=report.links, head_seq=report.head_seq, outcome=outcome, findings=report.findings_total,
                checkpoints=report.checkpoints,
            ),
            actor=actor,
            subject_type="audit.trail",
            subject_uid=INSTALLATION,
        )  # fmt: skip
        if report.outcome is not Outcome.INTACT:
            first = report.findings[0].text if report.findings else "; ".join(report.weaknesses[:3])
            _alarm(f"The audit trail is {outcome}: {first}", actor)
    return run


def alarm_if_overdue() -> int:
    """Raise the alarm once a day where the nightly verification has not run; 1 where it was raised."""
    late = overdue()
    if not late:
        return 0
    # The lease is kept on purpose: it is what makes the alarm come once a day.
    if leases.claim("audit.alarm", seconds=DUE.total_seconds()) is None:
        return 0
    with transaction.atomic():
        _alarm(late, Actor.system("audit.nightly"))
    return 1


def overdue() -> str:
    """Return in a sentence that the verification is late, or ""."""
    last = VerificationRun.objects.first()
    if last is None:
        # Where no run ever came to its end there is none to count from but the trail's own beginning.
        first = AuditLink.objects.order_by("seq").first()
        if first is None or clock.now() - first.sealed_at <= OVERDUE:
            return ""
        return f"The audit trail, kept since {first.sealed_at:%Y-%m-%d %H:%M} UTC, was never verified to its end."
    if clock.now() - last.finished_at <= OVERDUE:
        return ""
    return (
        f"The audit trail was last verified at {last.finished_at:%Y-%m-%d %H:%M} UTC: the nightly run did not happen."
    )


def _alarm(text: str, actor: Actor) -> None:
    said = TrailAlarm(text=text[:300])
    record(TRAIL_ALARM, said, actor=actor, subject_type="audit.trail", subject_uid=INSTALLATION)
    outbox.publish(TRAIL_ALARM, said, recipients=holders_of("audit.event.view"), subject_uid=INSTALLATION)
    logger.error("audit trail alarm", extra={"text": text})
