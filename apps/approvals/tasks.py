"""Sweeps over what is due: lapses, escalations, waiting requests, ends of grants. Each row in its own transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from django.db.models import DurationField, ExpressionWrapper, F, Value

from apps.approvals import actions, emergencies, granting, recertifying
from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest, EmergencyReview, Stage
from apps.approvals.ports import Span, meet
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.sweeps import sweep

logger = logging.getLogger(__name__)


@sweep("approvals.lapse_overdue", every=timedelta(minutes=1))
def lapse_overdue() -> int:
    """Mark the requests as lapsed whose open stage is past its due time; that they have lapsed needs no sweep."""
    actor = Actor.system("approvals.lapse_overdue")
    overdue = ApprovalRequest.objects.filter(status=RequestStatus.IN_REVIEW, due_at__lte=clock.now()).order_by("due_at")
    return sum(actions.lapse(pk, actor=actor) for pk in overdue.values_list("pk", flat=True)[:500])


@sweep("approvals.retry_waiting", every=timedelta(minutes=1))
def retry_waiting() -> int:
    """Try the waiting requests again, in order of submission.

    Behind the first that still has no room, only those are tried that want no time of it.
    """
    actor = Actor.system("approvals.retry_waiting")
    waiting = ApprovalRequest.objects.filter(status=RequestStatus.WAITING).order_by("submitted_at", "pk")
    granted = 0
    at = clock.now()
    stopped: dict[str, list[Sequence[Span] | None]] = {}
    for waits in list(waiting):
        pk, queue = waits.pk, waits.queue
        if queue in stopped:
            mine = granting.spans_of(waits, at)
            if any(meet(mine, other) for other in stopped[queue]):
                continue
        try:
            request = actions.retry_waiting(pk, actor=actor)
        except Conflict:
            # Withdrawn or granted since the list was read: nothing left to do for it.
            logger.info("waiting request moved on", extra={"request_pk": pk})
            continue
        if request.status == RequestStatus.APPROVED:
            granted += 1
        elif queue and not granting.blocked(request, clock.now()):
            stopped.setdefault(queue, []).append(granting.spans_of(request, at))
    return granted


@sweep("approvals.escalate_overdue", every=timedelta(minutes=1))
def escalate_overdue() -> int:
    """Tell those that late stages escalate to; that they may decide by then needs no sweep."""
    actor = Actor.system("approvals.escalate_overdue")
    waited = ExpressionWrapper(Value(timedelta(hours=1)) * F("escalate_hours"), output_field=DurationField())
    late = Stage.objects.filter(
        request__status=RequestStatus.IN_REVIEW,
        opened_at__lte=clock.now() - waited,
        completed_at__isnull=True,
        escalated_at__isnull=True,
        escalate_hours__isnull=False,
    )
    return sum(
        actions.escalate(pk, actor=actor) for pk in late.order_by("opened_at").values_list("pk", flat=True)[:500]
    )


@sweep("approvals.remind_reviews", every=timedelta(minutes=5))
def remind_reviews() -> int:
    """Remind of reviews after emergencies that are overdue, once each."""
    actor = Actor.system("approvals.remind_reviews")
    late = EmergencyReview.objects.open().filter(due_at__lte=clock.now(), overdue_told_at__isnull=True)
    return sum(emergencies.remind(pk, actor=actor) for pk in late.order_by("due_at").values_list("pk", flat=True)[:500])


@sweep("approvals.attend_grants", every=timedelta(minutes=1))
def attend_grants() -> int:
    """Send the notices before grants end, tell the rooms of those that have. A grant past its end is dead anyway."""
    actor = Actor.system("approvals.attend_grants")
    return sum(recertifying.attend(pk, actor=actor) for pk in recertifying.ending(clock.now())[:1000])
