"""Opening a closed month again: a request, a second person, and everything that was said before kept (cost.md E10)."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotVisible
from apps.core.events import EventType
from apps.costs import adjusting_events as events
from apps.costs.choices import PeriodStatus, Verdict
from apps.costs.models import Period, ReopenRequest, Statement
from apps.costs.seconding import checked_text, person, second_person
from apps.metering.models import HourStatus
from apps.teams import scope

MANAGE = "costs.period.manage"
APPROVE = "costs.period.approve"


@transaction.atomic
def request_reopening(period_id: int, reason: str, *, actor: Actor) -> ReopenRequest:
    """Ask to open a closed month again. Raises NotVisible, NotAllowed, Invalid, Conflict where it is not closed or
    somebody asked already."""
    period = Period.objects.locked(period_id)
    user = person(actor, MANAGE, None, "Months are opened again by finance.")
    if period.status != PeriodStatus.CLOSED:
        raise Conflict(
            f"{period.month:%B %Y} is {PeriodStatus(period.status).label.lower()}: there is nothing to open again.",
            current={"status": period.status},
        )
    text = checked_text(reason)
    if ReopenRequest.objects.filter(period=period, status=Verdict.PROPOSED).exists():
        raise Conflict("Somebody asked for this already; it waits for a second person.", current={"status": "proposed"})
    request = ReopenRequest.objects.create(period=period, reason=text, requested_by=user)
    recipients = [one for one in scope.holders(APPROVE) if one != user.pk]
    _record(events.REOPEN_REQUESTED, request, actor=actor, reason=text, recipients=recipients)
    return request


def _open_one(request_id: int, expected_version: int | None) -> tuple[ReopenRequest, Period]:
    found = ReopenRequest.objects.filter(pk=request_id).values_list("period_id", flat=True).first()
    if found is None:
        raise NotVisible
    # The period first, as everywhere: a close under way holds it.
    period = Period.objects.locked(found)
    request = ReopenRequest.objects.select_for_update(no_key=True).get(pk=request_id)
    if expected_version is not None and request.version != expected_version:
        raise Conflict(
            "Somebody changed this while you were looking at it. Here is how it stands now.",
            current={"version": request.version, "status": request.status},
        )
    if request.status != Verdict.PROPOSED:
        raise Conflict(
            f"This request is {Verdict(request.status).label.lower()}: nothing is left to decide.",
            current={"version": request.version, "status": request.status},
        )
    return request, period


@transaction.atomic
def approve_reopening(
    request_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> ReopenRequest:
    """Agree: the month goes back to closing, its statements are superseded, never removed.

    Late rows of its hours are read again, so that they can be charged in the month itself. Raises NotVisible,
    NotAllowed for who asked or without `costs.period.approve`, Conflict, Invalid.
    """
    request, period = _open_one(request_id, expected_version)
    user = person(actor, APPROVE, None, "Opening a month again is agreed to by finance.")
    second_person(user, request.requested_by_id, "Opening a month again")
    text = checked_text(reason)
    if period.status != PeriodStatus.CLOSED:
        raise Conflict(f"{period.month:%B %Y} is not closed any more.", current={"status": period.status})
    now = clock.now()
    request.status, request.decided_by, request.decided_at, request.decision_reason = Verdict.APPROVED, user, now, text
    request.bump("status", "decided_by", "decided_at", "decision_reason")
    bill, digest = str(period.bill or ""), period.digest
    superseded = Statement.objects.filter(period=period, superseded_at__isnull=True).update(superseded_at=now)
    period.status, period.closing_by, period.closing_at = PeriodStatus.CLOSING, user, now
    period.closed_by, period.closed_at, period.bill, period.digest = None, None, None, ""
    period.checklist, period.freeze_state, period.freeze_error = [], "", ""
    period.reopened += 1
    period.bump(
        "status", "closing_by", "closing_at", "closed_by", "closed_at", "bill", "digest", "checklist", "freeze_state",
        "freeze_error", "reopened",
    )  # fmt: skip
    HourStatus.objects.filter(hour__gte=period.start, hour__lt=period.end).exclude(late_hash="").update(
        requested_at=now
    )
    recipients = {*scope.holders(MANAGE), *scope.holders("audit.event.export"), request.requested_by_id}
    _record(
        events.REOPEN_APPROVED, request, actor=actor, reason=text, recipients=recipients, bill=bill, digest=digest,
        statements=superseded,
    )  # fmt: skip
    return request


@transaction.atomic
def reject_reopening(
    request_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> ReopenRequest:
    """Leave the month closed. Raises NotVisible, NotAllowed, Conflict, Invalid."""
    request, _ = _open_one(request_id, expected_version)
    user = person(actor, APPROVE, None, "Opening a month again is decided by finance.")
    second_person(user, request.requested_by_id, "Opening a month again")
    text = checked_text(reason)
    request.status, request.decided_by, request.decided_at = Verdict.REJECTED, user, clock.now()
    request.decision_reason = text
    request.bump("status", "decided_by", "decided_at", "decision_reason")
    _record(events.REOPEN_REJECTED, request, actor=actor, reason=text, recipients=[request.requested_by_id])
    return request


@transaction.atomic
def withdraw_reopening(request_id: int, *, actor: Actor, expected_version: int | None = None) -> ReopenRequest:
    """Withdraw one's own request. Raises NotVisible, NotAllowed, Conflict."""
    request, _ = _open_one(request_id, expected_version)
    user = person(actor, MANAGE, None, "Months are opened again by finance.")
    if user.pk != request.requested_by_id:
        raise Conflict("A request is withdrawn by who made it; others reject it.", current={"status": request.status})
    request.status, request.decided_at = Verdict.WITHDRAWN, clock.now()
    request.bump("status", "decided_at")
    _record(events.REOPEN_WITHDRAWN, request, actor=actor)
    return request


def consequences(period: Period) -> dict[str, int]:
    """Return what opening a month again touches: its statements, and what was billed elsewhere because of it."""
    from apps.costs.models import Correction, Credit

    return {
        "statements": Statement.objects.filter(period=period, superseded_at__isnull=True).count(),
        "corrections": Correction.objects.filter(corrects=period).count(),
        "credits": Credit.objects.filter(Q(statement__period=period), status=Verdict.APPROVED).count(),
    }


def _record(
    event: EventType,
    request: ReopenRequest,
    *,
    actor: Actor,
    reason: str = "",
    recipients: Iterable[int] = (),
    bill: str = "",
    digest: str = "",
    statements: int = 0,
) -> None:
    period = request.period
    payload = events.ReopenEvent(
        request=str(request.uid),
        month=f"{period.month:%Y-%m}",
        status=request.status,
        bill=f"{bill or period.bill} {period.currency}",
        digest=digest or period.digest,
        statements=statements,
        reason=reason,
    )
    audit.record(event, payload, actor=actor, subject_type="costs.period", subject_uid=period.uid, before_digest=digest)
    if recipients := list(recipients):
        outbox.publish(event, payload, recipients=recipients, subject_uid=request.uid)
