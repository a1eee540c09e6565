"""Break-glass: two people, some hours, loudly; then a review that holds up the team's next normal request."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction

from apps.approvals import deciders, events, notices, ports
from apps.approvals.choices import ReviewOutcome
from apps.approvals.models import ApprovalRequest, Decision, EmergencyReview, Grant
from apps.approvals.policy_rules import Emergency
from apps.approvals.turns import take_turn
from apps.audit import actions as audit
from apps.core import clock, formats, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may

FINDINGS_LENGTH = 20
FINDINGS_LIMIT = 4000
REQUEST_PERMISSION = "approvals.emergency.request"
CLOSE_PERMISSION = "approvals.review.close"
PARTY_RULE = "Took part in the emergency: somebody else has to review it."


def take_turn_of(team_id: int | None) -> None:
    """Wait until no other transaction opens, or asks for, the reviews of a team (None: the platform)."""
    take_turn("review", str(team_id or "platform"))


def terms_of(request: ApprovalRequest) -> Emergency:
    """Return the emergency section of the request's pinned policy version. Raises Invalid where there is none."""
    section = deciders.rules_of(request.policy_version).emergency
    if section is None:
        raise Invalid({"": f"The policy “{request.policy_version}” knows no emergencies: ask the normal way."})
    return section


def refuse_while_under_review(team_id: int | None) -> None:
    """Refuse a normal request, of whatever kind, of a team that owes a review. Raises Conflict naming the emergency."""
    take_turn_of(team_id)
    found = blocking(team_id)
    if found is not None:
        raise Conflict(
            f"An emergency of this team has not been reviewed yet: “{found.request.title}”. Somebody who took no part "
            f"in it has to close the review (due {formats.datetime_utc(found.due_at)}) before the next normal request.",
            current={"review": str(found.uid)},
        )


def blocking(team_id: int | None) -> EmergencyReview | None:
    """Return the oldest open review that blocks a team's next normal request, whatever it is about.

    Were it only requests of the emergency's own kind, a team could go on with everything else and never be looked at.
    """
    rows = EmergencyReview.objects.open().for_team(team_id)
    return rows.select_related("request").order_by("created_at", "pk").first()


def refuse_second(subject_type: str, subject_uid: uuid.UUID, team_id: int | None) -> None:
    """Refuse another emergency about what an unreviewed one was about. Raises Conflict naming that one.

    Otherwise nobody would ever need the normal way again: one emergency after the other, and no review.
    """
    take_turn_of(team_id)
    if (found := unreviewed(subject_type, subject_uid, team_id)) is not None:
        raise Conflict(second_refused(found), current={"review": str(found.uid)})


def unreviewed(subject_type: str, subject_uid: uuid.UUID, team_id: int | None) -> EmergencyReview | None:
    """Return the oldest open review of an emergency about the same (`ports.Matter`; without it: the same subject)."""
    rows = EmergencyReview.objects.open().for_team(team_id).filter(request__subject_type=subject_type)
    subject = ports.get_subject(subject_type)

    def about(uid: uuid.UUID) -> str:
        return subject.matter(uid) if isinstance(subject, ports.Matter) else str(uid)

    mine = ""
    for row in rows.select_related("request").order_by("created_at", "pk"):
        mine = mine or about(subject_uid)
        if about(row.request.subject_uid) == mine:
            return row
    return None


def second_refused(review: EmergencyReview) -> str:
    """Return why no second emergency is taken, and how to go on."""
    return (
        f"The emergency “{review.request.title}” was about the same and has not been reviewed yet. Ask somebody of the "
        "review role who took no part in it to close its review (on the page of emergency reviews); then ask again."
    )


def open_review(request: ApprovalRequest, grant: Grant, at: datetime, *, actor: Actor) -> EmergencyReview:
    """Open the review of an emergency grant, in the transaction that makes it, and tell everybody who watches."""
    section = terms_of(request)
    # Two that were asked for before either was granted: the second one waits for the first one's review.
    refuse_second(request.subject_type, request.subject_uid, request.team_id)
    review = EmergencyReview.objects.create(request=request, due_at=at + timedelta(hours=section.review_hours))
    ends = formats.datetime_utc(grant.expires_at) if grant.expires_at is not None else "its review"
    notices.tell(
        events.EMERGENCY_GRANTED,
        request,
        notices.watchers(request) | {request.requester_id},
        actor=actor,
        note=f"In force until {ends}; review due {formats.datetime_utc(review.due_at)}. Reason: {request.reason}",
        reason=request.reason,
    )
    return review


def parties(request: ApprovalRequest) -> frozenset[int]:
    """Return everybody who took part: the requester's side, who wrote or proved it, and who stands behind a word."""
    pairs: Iterable[tuple[int, int | None]] = Decision.objects.filter(request=request).values_list(
        "actor_id", "on_behalf_of_id"
    )
    spoke = {person for pair in pairs for person in pair if person is not None}
    return deciders.excluded(request) | spoke


def why_not_close(user_id: int, request: ApprovalRequest) -> str:
    """Return the rule that keeps a person from closing the review, "" where none does."""
    if user_id in parties(request):
        return PARTY_RULE
    role = terms_of(request).review_role
    if user_id not in deciders.holders(role, request.unit_id):
        return f"Only {deciders.role_label(role)} over the paying unit closes the review."
    return ""


@transaction.atomic
def close_review(
    review_uid: uuid.UUID, outcome: str, findings: str, *, actor: Actor, expected_version: int | None = None
) -> EmergencyReview:
    """Close the review: was the emergency justified, and what was found. Normal requests are accepted again.

    Raises Invalid (outcome, findings), NotVisible, NotAllowed for whoever took part or lacks the role, Conflict where
    it is closed already or moved on.
    """
    findings = findings.strip()
    errors: dict[str, str] = {}
    if outcome not in (ReviewOutcome.JUSTIFIED, ReviewOutcome.NOT_JUSTIFIED):
        errors["outcome"] = "Choose whether the emergency was justified."
    if len(findings) < FINDINGS_LENGTH:
        errors["findings"] = f"Write in at least {FINDINGS_LENGTH} characters what happened and what follows from it."
    elif len(findings) > FINDINGS_LIMIT:
        errors["findings"] = f"Keep the findings below {FINDINGS_LIMIT:,} characters."
    if errors:
        raise Invalid(errors)
    found = EmergencyReview.objects.select_related("request").filter(uid=review_uid).first()
    user = notices.person(actor)
    if found is None or user is None or not EmergencyReview.objects.visible_to(user).filter(pk=found.pk).exists():
        raise NotVisible
    # The request first, as everywhere: what is decided on it and what is found about it come one after the other.
    request = ApprovalRequest.objects.locked(found.request_id)
    review = EmergencyReview.objects.locked(found.pk, expected_version=expected_version)
    if not may(user, CLOSE_PERMISSION, request):
        raise NotAllowed("Only compliance closes the review of an emergency.", rule=CLOSE_PERMISSION)
    if rule := why_not_close(user.pk, request):
        raise NotAllowed(f"You cannot close this review: {rule}", rule=rule)
    if review.closed_at is not None:
        raise Conflict("This review is closed already.", current={"version": review.version})
    review.outcome, review.findings = ReviewOutcome(outcome), findings
    review.closed_at, review.closed_by = clock.now(), user
    review.bump("outcome", "findings", "closed_at", "closed_by")
    people = (notices.concerned(request) | notices.watchers(request)) - {user.pk}
    tell(events.REVIEW_CLOSED, review, people, actor=actor, note=findings)
    return review


def remind(review_id: int, *, actor: Actor) -> bool:
    """Tell those who should have closed an overdue review, once; False where that is not due."""
    review = EmergencyReview.objects.select_for_update(of=("self",)).filter(pk=review_id).first()
    at = clock.now()
    if review is None or review.closed_at is not None or review.overdue_told_at is not None or review.due_at > at:
        return False
    review.overdue_told_at = at
    review.bump("overdue_told_at")
    tell(events.REVIEW_OVERDUE, review, notices.watchers(review.request), actor=actor)
    return True


def tell(event: EventType, review: EmergencyReview, people: set[int], *, actor: Actor, note: str = "") -> None:
    """Record an event of a review and queue it, in the caller's transaction."""
    request = review.request
    said = events.ReviewEvent(
        review_uid=str(review.uid),
        request_uid=str(request.uid),
        subject_type=request.subject_type,
        subject_uid=str(request.subject_uid),
        path=notices.path_of(request),
        due=formats.datetime_utc(review.due_at),
        outcome=str(review.outcome),
        title=request.title,
        note=note,
    )
    audit.record(
        event,
        said,
        actor=actor,
        subject_type="approvals.review",
        subject_uid=review.uid,
        team_uid=request.team.uid if request.team is not None else None,
        reason=note,
    )
    if people:
        outbox.publish(event, said, recipients=people, subject_uid=review.uid)
