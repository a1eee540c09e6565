"""What follows from the last needed decision: the grant, the line, or the end. Called by actions, under their locks."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from apps.approvals import deciders, emergencies, engine, events, notices, ports
from apps.approvals.choices import REQUEST_TRANSITIONS, RequestKind, RequestStatus, Verdict
from apps.approvals.deciders import rules_of
from apps.approvals.models import ApprovalRequest, Decision, Grant
from apps.approvals.turns import take_turn
from apps.core import clock, formats
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.row_security import lifted
from apps.teams.choices import Role

REVOCATION_REASON_LENGTH = 10
REVOCATION_REASON_LIMIT = 500


def attempt(request: ApprovalRequest, *, actor: Actor) -> bool:
    """Grant a request whose decisions are complete, or let it wait for capacity; True where it was granted.

    Grant and change come into force in one savepoint: where the room refuses, neither exists and the decisions stand.
    Nobody in a line is served before an earlier request that waits there for the same time and could be served.
    """
    subject = ports.get_subject(request.subject_type)
    at = clock.now()
    reason = " ".join(blocked(request, at))
    if request.kind == RequestKind.EMERGENCY:
        # Before the line: a normal request of the team waits for the same turn, and must see the review.
        emergencies.take_turn_of(request.team_id)
    if request.queue and not reason:
        take_turn("line", request.queue)
        ahead = waiting_ahead(request, at)
        if ahead:
            reason = f"{ahead} earlier request{'s' if ahead > 1 else ''} for the same capacity must be served first."
    if not reason:
        try:
            with transaction.atomic():
                _grant(request, subject, at, actor)
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


@lifted("who waits before a request holds for everybody")
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
    if request.kind == RequestKind.EMERGENCY:
        review = emergencies.unreviewed(request.subject_type, request.subject_uid, request.team_id)
        if review is not None and review.request_id != request.pk:
            found.append(emergencies.second_refused(review))
    start, end = span_of(request, at)
    if end is not None and end <= start:
        found.append(f"It was asked for until {formats.datetime_utc(end)}, which leaves no time at all.")
    return found


def span_of(request: ApprovalRequest, at: datetime) -> tuple[datetime, datetime | None]:
    """Return from when until when a grant made at `at` would hold.

    The pinned policy version counts, never the newest one: a policy edit changes no open request.
    """
    subject, rules = ports.get_subject(request.subject_type), rules_of(request.policy_version)
    asked = subject.validity(request.subject_uid) if isinstance(subject, ports.Dated) else (None, None)
    urgent = rules.emergency if request.kind == RequestKind.EMERGENCY else None
    return engine.granted_span(
        at, days=rules.validity_days, asked=asked, hours=urgent.hours if urgent is not None else None
    )


def live_digest(request: ApprovalRequest) -> str:
    """Return the digest of the subject's bytes as they are now."""
    from apps.core.canonical import digest

    return digest(ports.get_subject(request.subject_type).canonical(request.subject_uid))


def _grant(request: ApprovalRequest, subject: ports.Subject, at: datetime, actor: Actor) -> Grant:
    start, end = span_of(request, at)
    scope = {
        "subject_type": request.subject_type,
        "subject_uid": str(request.subject_uid),
        "clusters": sorted({leaf["cluster"] for leaf in request.leaves}),
    }
    if isinstance(subject, ports.Scoped):
        scope.update(subject.grant_scope(request.subject_uid))
    grant = Grant.objects.create(
        request=request,
        subject_digest=request.subject_digest,
        subject_type=request.subject_type,
        team_id=request.team_id,
        unit_id=request.unit_id,
        requester_id=request.requester_id,
        scope=scope,
        not_before=start,
        expires_at=end,
        kind=request.kind,
    )
    subject.on_granted(request.subject_uid, grant)
    if request.kind == RequestKind.EMERGENCY:
        emergencies.open_review(request, grant, at, actor=actor)
    return grant


@transaction.atomic
def revoke(grant_uid: uuid.UUID, reason: str, *, actor: Actor) -> Grant:
    """Take an approval back before its end: compliance over the paying unit, or a platform admin, with a reason.

    The subject's room is told in the same transaction. Raises Invalid without a reason, NotVisible, NotAllowed, and
    Conflict where it has ended already, or where its room would not hear of it.
    """
    reason = reason.strip()
    if len(reason) < REVOCATION_REASON_LENGTH:
        raise Invalid({"reason": f"Say in at least {REVOCATION_REASON_LENGTH} characters why it is revoked."})
    if len(reason) > REVOCATION_REASON_LIMIT:
        raise Invalid({"reason": f"Keep the reason below {REVOCATION_REASON_LIMIT} characters."})
    grant = Grant.objects.filter(uid=grant_uid).first()
    if grant is None:
        raise NotVisible
    grant = Grant.objects.locked(grant.pk)
    request = grant.request
    if not actor.is_system:
        user = notices.person(actor)
        if user is None or not Grant.objects.visible_to(user).filter(pk=grant.pk).exists():
            raise NotVisible
        if not may_revoke(user.pk, request):
            raise NotAllowed("Only compliance and platform admins revoke an approval.", rule="compliance or admin")
    at = clock.now()
    if grant.revoked_at is not None or (grant.expires_at is not None and grant.expires_at <= at):
        raise Conflict("This approval has ended already.")
    if request.subject_type not in ports.hears_of_ends():
        raise Conflict("An approval of this kind is changed where it is used; revoking it here would change nothing.")
    grant.revoked_at, grant.revoked_reason, grant.end_handled_at = at, reason, at
    grant.save(update_fields=["revoked_at", "revoked_reason", "end_handled_at"])
    ports.tell_ended(grant)
    people = notices.concerned(request) | notices.watchers(request)
    notices.tell_of_grant(events.GRANT_REVOKED, grant, people, actor=actor, note=f"Reason: {reason}", reason=reason)
    return grant


def may_revoke(user_id: int, request: ApprovalRequest) -> bool:
    """Whether the person is compliance over the paying unit, or a platform admin."""
    over = deciders.holders(Role.COMPLIANCE, request.unit_id)
    return user_id in over or user_id in deciders.holders(Role.PLATFORM_ADMIN, None)


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


__all__ = [
    "attempt", "blocked", "conclude", "live_digest", "may_revoke", "revoke", "span_of", "spans_of", "take_turn",
    "waiting_ahead",
]  # fmt: skip
