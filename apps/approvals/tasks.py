"""Sweeps: what is past its due time lapses, what waits for capacity is tried again. Each row in its own transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from apps.approvals import actions, granting
from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest
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
