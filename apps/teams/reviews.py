"""Access reviews: who still needs what. What nobody confirms by the end lapses; nobody answers for themselves."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.urls import reverse

from apps import audit
from apps.accounts import merging
from apps.accounts.choices import UserKind
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.teams import ending, review_events, reviewing, scope
from apps.teams.choices import ReviewAnswer, ReviewStatus, Role
from apps.teams.gates import checked_reason, person, require
from apps.teams.models import AccessReview, Membership, ReviewItem, RoleGrant
from apps.teams.reviewing import Place, Reviewers

START, ANSWER = "teams.review.start", "teams.review.answer"
#: So many answers fit on one sheet.
SHEET_MAX = 200
NOT_YOURS = "This question is for somebody else: the page of the review says whom it asks."


@transaction.atomic
def start_review(name: str, due_at: datetime, *, actor: Actor, quarter: str = "") -> AccessReview:
    """Ask about every role and membership in force now, until `due_at`. Raises NotAllowed, Invalid, Conflict."""
    starter = person(actor)
    require(starter, actor, START, None)
    at, errors, name = clock.now(), dict[str, str](), " ".join(name.split())
    if not name or len(name) > 100:
        errors["name"] = "Enter a name of at most 100 characters, such as “Before the audit”."
    earliest, latest = at + timedelta(days=reviewing.MIN_DAYS), at + timedelta(days=reviewing.MAX_DAYS)
    if not earliest - timedelta(minutes=1) <= due_at <= latest + timedelta(minutes=1):
        errors["due_at"] = f"Choose an end between {reviewing.MIN_DAYS} and {reviewing.MAX_DAYS} days from now."
    if errors:
        raise Invalid(errors)
    if other := AccessReview.objects.filter(status=ReviewStatus.OPEN).first():
        raise Conflict(
            f"The review “{other.name}” is open until {other.due_at:%Y-%m-%d}: finish it first.",
            current={"status": "open"},
        )
    try:
        with transaction.atomic():
            review = AccessReview.objects.create(
                name=name, quarter=quarter, opened_at=at, due_at=due_at, started_by=starter
            )
    except IntegrityError as error:
        raise Conflict(f"The review of {quarter} was begun already.") from error
    items = _questions(review)
    ReviewItem.objects.bulk_create(items)
    payload = review_events.ReviewStarted(
        review=name, review_uid=review.uid, items=len(items), due_at=due_at, path=path_of(review)
    )
    audit.record(
        review_events.REVIEW_STARTED, payload, actor=actor, subject_type="teams.review", subject_uid=review.uid
    )
    if items:
        people = asked_by(review)
        outbox.publish(review_events.REVIEW_STARTED, payload, recipients=people, subject_uid=review.uid)
    else:
        _close(review, actor)
    return review


@transaction.atomic
def answer_items(
    review_id: int,
    item_uids: Sequence[uuid.UUID],
    answer: str,
    *,
    actor: Actor,
    reason: str = "",
    versions: dict[uuid.UUID, int] | None = None,
) -> list[ReviewItem]:
    """Answer some questions of a review the same way: all of them or none. `keep` or `remove`; a removal acts at once.

    Raises NotAllowed where one is not the actor's to answer, NotVisible, Invalid (a removal without a reason, no
    question at all), Conflict (closed, answered for good, changed since `versions`), Blocked for the last admin.
    """
    speaker = person(actor)
    review = AccessReview.objects.locked(review_id)
    if speaker is None:
        raise NotAllowed("Persons answer, never the portal.", rule=ANSWER)
    if not may(speaker, ANSWER):
        raise NotAllowed(rule=ANSWER)
    if actor.on_behalf_of is not None:
        raise NotAllowed("Answer in your own name.", rule="in_own_name")
    if answer not in (ReviewAnswer.KEEP, ReviewAnswer.REMOVE):
        raise Invalid({"answer": "Say whether it is still needed or not."})
    wanted = set(item_uids)
    if not wanted or len(wanted) > SHEET_MAX:
        raise Invalid({"items": f"Choose between 1 and {SHEET_MAX} questions."})
    if answer == ReviewAnswer.REMOVE or len(reason.strip()) > 500:
        reason = checked_reason(actor, reason)
    rows = ReviewItem.objects.visible_to(speaker).filter(review=review, uid__in=wanted).order_by("pk")
    rows = rows.select_for_update(of=("self",))
    items = list(rows.select_related("user", "team__unit", "unit", "grant", "membership"))
    who = reviewers()
    if len(items) != len(wanted):
        raise NotVisible
    for item in items:
        if speaker.pk not in who.asked(item.user_id, place_of(item)):
            raise NotAllowed(NOT_YOURS, rule="review_asks_others")
    if review.status != ReviewStatus.OPEN or review.due_at <= clock.now():
        raise Conflict("This review is closed.", current={"status": "closed"})
    for item in items:
        if versions and item.version != versions.get(item.uid, item.version):
            raise Conflict("Somebody answered in the meantime. Here is how it stands now.", current={"status": "open"})
        if item.answer not in (ReviewAnswer.OPEN, ReviewAnswer.KEEP):
            raise Conflict(f"{item.user.display_name}: answered for good already.", current={"status": item.answer})
    for item in items:
        said = answer
        if _ended(item):
            said = ReviewAnswer.GONE
        elif said == ReviewAnswer.REMOVE:
            _end(item, actor, f"Access review {review.name}: {reason.strip()}")
        _write(item, said, actor, reason.strip())
    if not review.items.filter(answer=ReviewAnswer.OPEN).exists():
        _close(review, actor)
    return items


def begin_quarter(at: datetime) -> int:
    """Begin the review of the quarter where it is not begun and roles were given before it; 1 where it was begun."""
    quarter, began = reviewing.quarter_of(at)
    if AccessReview.objects.filter(Q(quarter=quarter) | Q(status=ReviewStatus.OPEN)).exists():
        return 0
    if not RoleGrant.objects.in_force().filter(created_at__lt=began).exists():
        return 0
    try:
        due = at + timedelta(days=reviewing.QUARTER_DAYS)
        start_review(quarter, due, quarter=quarter, actor=Actor.system("teams.access_reviews"))
    except Conflict:
        return 0  # another scheduler was quicker
    return 1


@transaction.atomic
def attend(review_id: int, at: datetime) -> bool:
    """Send the reminder that is due, or end the review; False where nothing is due (any more)."""
    review = AccessReview.objects.select_for_update().filter(pk=review_id, status=ReviewStatus.OPEN).first()
    if review is None:
        return False
    actor = Actor.system("teams.access_reviews")
    if at >= review.due_at:
        _lapse(review, actor)
        return True
    days = reviewing.due_reminder(review.opened_at, review.due_at, review.reminded_days, at)
    if days is None:
        return False
    review.reminded_days = days
    review.save(update_fields=["reminded_days"])
    payload = review_events.ReviewReminder(
        review=review.name, review_uid=review.uid, days=days, due_at=review.due_at, path=path_of(review)
    )
    outbox.publish(
        review_events.REVIEW_REMINDER, payload, recipients=asked_by(review), subject_uid=review.uid
    )  # fmt: skip
    audit.record(
        review_events.REVIEW_REMINDER, payload, actor=actor, subject_type="teams.review", subject_uid=review.uid
    )
    return True


def open_reviews() -> list[int]:
    """Return the keys of the open reviews, the one that ends first before others."""
    found = AccessReview.objects.filter(status=ReviewStatus.OPEN).order_by("due_at", "pk")
    return list(found.values_list("pk", flat=True))


def reviewers() -> Reviewers:
    """Read who answers for whom now (two queries)."""
    owners: dict[int, set[int]] = {}
    compliance, admins = set[int](), set[int]()
    held = RoleGrant.objects.in_force().filter(
        role__in=[Role.UNIT_OWNER, Role.COMPLIANCE, Role.PLATFORM_ADMIN], team__isnull=True, user__kind=UserKind.PERSON
    )
    rows: list[tuple[int, str, int | None]] = list(held.values_list("user_id", "role", "unit_id"))
    for user_id, role, unit_id in rows:
        if role == Role.UNIT_OWNER and unit_id is not None:
            owners.setdefault(unit_id, set()).add(user_id)
        elif unit_id is None and role == Role.COMPLIANCE:
            compliance.add(user_id)
        elif unit_id is None and role == Role.PLATFORM_ADMIN:
            admins.add(user_id)
    return Reviewers(
        owners={unit: frozenset(ids) for unit, ids in owners.items()},
        compliance=frozenset(compliance),
        admins=frozenset(admins),
        persons=merging.persons(),
    )


def place_of(item: ReviewItem) -> Place:
    """Return where what an item is about counts (team with its unit, or unit, loaded)."""
    if item.team is not None:
        return Place(tuple(item.team.unit.path))
    return Place(tuple(item.unit.path), is_unit=True) if item.unit is not None else Place()


def asked_by(review: AccessReview) -> list[int]:
    """Return the ids of the persons who have questions open in a review."""
    who = reviewers()
    items = review.items.filter(answer=ReviewAnswer.OPEN).select_related("team__unit", "unit")
    return sorted({one for item in items for one in who.asked(item.user_id, place_of(item))})


def path_of(review: AccessReview) -> str:
    """Return the address of a review's page."""
    return reverse("teams:review-detail", kwargs={"review_uid": review.uid})


# -- the parts


def _questions(review: AccessReview) -> list[ReviewItem]:
    grants = RoleGrant.objects.in_force().order_by("pk")
    memberships = Membership.objects.current().filter(user__is_active=True).order_by("pk")
    found = [
        ReviewItem(
            review=review, grant=one, user_id=one.user_id, unit_id=one.unit_id, team_id=one.team_id, role=one.role
        )
        for one in grants
    ]
    found += [
        ReviewItem(review=review, membership=one, user_id=one.user_id, team_id=one.team_id, role=Role.MEMBER)
        for one in memberships
    ]
    return found


def _ended(item: ReviewItem) -> bool:
    if item.grant_id is not None:
        return not RoleGrant.objects.in_force().filter(pk=item.grant_id).exists()
    return not Membership.objects.current().filter(pk=item.membership_id or 0, user__is_active=True).exists()


def _end(item: ReviewItem, actor: Actor, reason: str) -> None:
    """End what an item is about, under lock. Raises Blocked for the last platform admin."""
    if item.grant_id is not None:
        given = RoleGrant.objects.select_for_update(of=("self",)).get(pk=item.grant_id)
        ending.end_grant(given, actor=actor, reason=reason[:500])
    else:
        membership = Membership.objects.select_for_update(of=("self",)).get(pk=item.membership_id or 0)
        ending.end_membership(membership, actor=actor, reason=reason[:500])


def _write(item: ReviewItem, answer: str, actor: Actor, reason: str = "") -> None:
    item.answer, item.answered_by_id, item.answered_at = answer, actor.user_id, clock.now()
    item.reason = reason
    item.bump("answer", "answered_by", "answered_at", "reason")
    place = (
        f"team:{item.team.slug}" if item.team is not None
        else f"unit:{item.unit.slug}" if item.unit is not None else "installation"
    )  # fmt: skip
    payload = review_events.ItemAnswered(
        item_uid=item.uid, user_uid=item.user.uid, role=item.role, scope=place, answer=str(answer),
        grant_uid=item.grant.uid if item.grant else None,
        membership_uid=item.membership.uid if item.membership else None,
    )  # fmt: skip
    audit.record(
        review_events.ITEM_ANSWERED, payload, actor=actor, subject_type="teams.review", subject_uid=item.review.uid,
        team_uid=item.team.uid if item.team is not None else None, reason=reason,
    )  # fmt: skip


def _lapse(review: AccessReview, actor: Actor) -> None:
    rows = review.items.filter(answer=ReviewAnswer.OPEN).select_for_update(of=("self",)).order_by("pk")
    for item in rows.select_related("user", "team__unit", "unit", "grant", "membership", "review"):
        answer = ReviewAnswer.LAPSED
        if _ended(item):
            answer = ReviewAnswer.GONE
        else:
            try:
                _end(item, actor, f"Access review {review.name}: nobody confirmed it.")
            except Blocked:
                answer = ReviewAnswer.HELD
                _alarm(review, item, actor)
        _write(item, answer, actor)
    _close(review, actor)


def _alarm(review: AccessReview, item: ReviewItem, actor: Actor) -> None:
    payload = review_events.ReviewAlarm(
        review=review.name, review_uid=review.uid, user_uid=item.user.uid, path=path_of(review)
    )
    audit.record(review_events.REVIEW_ALARM, payload, actor=actor, subject_type="teams.review", subject_uid=review.uid)
    people = [pk for role in (Role.COMPLIANCE, Role.AUDITOR, Role.PLATFORM_ADMIN) for pk in scope.holders_of_role(role)]
    outbox.publish(review_events.REVIEW_ALARM, payload, recipients=people, subject_uid=review.uid)


def _close(review: AccessReview, actor: Actor) -> None:
    review.status, review.closed_at = ReviewStatus.CLOSED, clock.now()
    review.bump("status", "closed_at")
    count = Counter(review.items.values_list("answer", flat=True))
    payload = review_events.ReviewClosed(
        review=review.name, review_uid=review.uid, kept=count[ReviewAnswer.KEEP], removed=count[ReviewAnswer.REMOVE],
        lapsed=count[ReviewAnswer.LAPSED], held=count[ReviewAnswer.HELD], gone=count[ReviewAnswer.GONE],
        path=path_of(review),
    )  # fmt: skip
    audit.record(review_events.REVIEW_CLOSED, payload, actor=actor, subject_type="teams.review", subject_uid=review.uid)
    people = [pk for role in (Role.COMPLIANCE, Role.AUDITOR) for pk in scope.holders_of_role(role)]
    outbox.publish(review_events.REVIEW_CLOSED, payload, recipients=people, subject_uid=review.uid)
