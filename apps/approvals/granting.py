"""What follows from the last needed decision: the grant, the line, or the end. Called by actions, under their locks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Q

from apps.approvals import events, notices, ports
from apps.approvals.choices import REQUEST_TRANSITIONS, RequestStatus, Verdict
from apps.approvals.deciders import rules_of
from apps.approvals.models import ApprovalRequest, Decision, Grant
from apps.core import clock
from apps.core.actor import Actor


def take_turn(kind: str, name: str) -> None:
    """Wait for one's turn at a named point until the transaction ends (a PostgreSQL advisory lock)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"approvals.{kind}:{name}"])


def attempt(request: ApprovalRequest, *, actor: Actor) -> bool:
    """Grant a request whose decisions are complete, or let it wait for capacity; True where it was granted.

    Grant and change come into force in one savepoint: where the room refuses, neither exists and the decisions stand.
    Nobody in a line is served before an earlier request that waits there for the same time and could be served.
    """
    subject = ports.get_subject(request.subject_type)
    at = clock.now()
    reason = " ".join(blocked(request, at))
    if request.queue and not reason:
        take_turn("line", request.queue)
        ahead = waiting_ahead(request, at)
        if ahead:
            reason = f"{ahead} earlier request{'s' if ahead > 1 else ''} for the same capacity must be served first."
    if not reason:
        try:
            with transaction.atomic():
                _grant(request, subject, at)
        except ports.CannotTake as refusal:
            reason = refusal.reason
    if reason:
        _hold(request, subject, reason, actor)
        return False
    request.status = REQUEST_TRANSITIONS.next(request.status, "approve")
    request.concluded_at = at
    request.conclusion = f"by policy: {request.automatic_rule}"[:500] if request.automatic else ""
    request.bump("status", "concluded_at", "conclusion")
    note = f"By policy, rule “{request.automatic_rule}”." if request.automatic else ""
    notices.tell(events.REQUEST_APPROVED, request, [request.requester_id], actor=actor, note=note)
    return True


def spans_of(request: ApprovalRequest, at: datetime) -> Sequence[ports.Span] | None:
    """Return when a request would take from its line; None: its room does not say, so at any time."""
    subject = ports.get_subject(request.subject_type)
    return subject.spans(request.subject_uid, at) if isinstance(subject, ports.Timed) else None


def waiting_ahead(request: ApprovalRequest, at: datetime) -> int:
    """Return how many requests wait in the same line before this one for a time that it wants, too.

    Those that nothing can serve now do not count.
    """
    earlier = ApprovalRequest.objects.in_line(request.queue).exclude(pk=request.pk)
    earlier = earlier.filter(
        Q(submitted_at__lt=request.submitted_at) | Q(submitted_at=request.submitted_at, pk__lt=request.pk)
    )
    mine = spans_of(request, at)
    return sum(1 for other in earlier if ports.meet(mine, spans_of(other, at)) and not blocked(other, at))


def blocked(request: ApprovalRequest, at: datetime) -> list[str]:
    """Return why nothing could be granted at `at`: what the room says, and a change of the bytes."""
    subject = ports.get_subject(request.subject_type)
    found = [str(line) for line in subject.blockers(request.subject_uid, at)]
    if live_digest(request) != request.subject_digest:
        found.append("The change was edited after it was submitted.")
    return found


def live_digest(request: ApprovalRequest) -> str:
    """Return the digest of the subject's bytes as they are now."""
    from apps.core.canonical import digest

    return digest(ports.get_subject(request.subject_type).canonical(request.subject_uid))


def _grant(request: ApprovalRequest, subject: ports.Subject, at: datetime) -> Grant:
    # The pinned version, never the newest one: a policy edit changes no open request.
    days = rules_of(request.policy_version).validity_days
    grant = Grant.objects.create(
        request=request,
        subject_digest=request.subject_digest,
        scope={
            "subject_type": request.subject_type,
            "subject_uid": str(request.subject_uid),
            "clusters": sorted({leaf["cluster"] for leaf in request.leaves}),
        },
        not_before=at,
        expires_at=at + timedelta(days=days) if days else None,
    )
    subject.on_granted(request.subject_uid, grant)
    return grant


def _hold(request: ApprovalRequest, subject: ports.Subject, reason: str, actor: Actor) -> None:
    if request.status == RequestStatus.WAITING:
        if request.conclusion != reason[:500]:
            request.conclusion = reason[:500]
            request.bump("conclusion")
        return
    request.status = REQUEST_TRANSITIONS.next(request.status, "hold")
    request.conclusion = reason[:500]
    request.due_at = None
    request.bump("status", "conclusion", "due_at")
    subject.on_concluded(request.subject_uid, RequestStatus.WAITING.value, reason)
    approvers = Decision.objects.filter(request=request, verdict=Verdict.APPROVE).values_list("actor_id", flat=True)
    people = {request.requester_id, *approvers}
    notices.tell(events.REQUEST_WAITING, request, people, actor=actor, note=reason, reason=reason)


def conclude(request: ApprovalRequest, action: str, reason: str) -> None:
    """End the request by `action` (reject, withdraw, lapse, supersede) and tell the subject's room."""
    request.status = REQUEST_TRANSITIONS.next(request.status, action)
    request.concluded_at = clock.now()
    request.conclusion = reason[:500]
    request.due_at = None
    request.bump("status", "concluded_at", "conclusion", "due_at")
    subject = ports.get_subject(request.subject_type)
    subject.on_concluded(request.subject_uid, RequestStatus(request.status).value, reason)
