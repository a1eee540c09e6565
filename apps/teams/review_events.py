"""What access reviews tell: to the trail, to those asked, and an alarm where nobody could administer any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.events import declare
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class ReviewStarted:
    """A review began: how many roles and memberships it asks about. `path` leads to it."""

    review: str
    review_uid: UUID
    items: int
    due_at: datetime
    path: str


@dataclass(frozen=True, slots=True)
class ReviewReminder:
    """A review ends in so many days, and the receiver has questions open."""

    review: str
    review_uid: UUID
    days: int
    due_at: datetime
    path: str


@dataclass(frozen=True, slots=True)
class ItemAnswered:
    """A question was answered, lapsed, was found ended, or held. `grant_uid` or `membership_uid` says what it is about.

    `role` counts where `scope` says: "installation", "unit:slug" or "team:slug".
    """

    item_uid: UUID
    user_uid: UUID
    role: str
    scope: str
    answer: str
    grant_uid: UUID | None
    membership_uid: UUID | None


@dataclass(frozen=True, slots=True)
class ReviewClosed:
    """A review ended, with so many questions of each answer."""

    review: str
    review_uid: UUID
    kept: int
    removed: int
    lapsed: int
    held: int
    gone: int
    path: str


@dataclass(frozen=True, slots=True)
class ReviewAlarm:
    """Nobody confirmed the last platform admin: the role was kept, since nobody could administer otherwise."""

    review: str
    review_uid: UUID
    user_uid: UUID
    path: str


REVIEW_STARTED = declare(
    "teams.review.started",
    ReviewStarted,
    audience="those asked",
    mail=True,
    headline=lambda p: f"Access review {p.review}: please confirm who still needs what",
    body=lambda p: f"What nobody confirms by {p.due_at} lapses.",
    path=lambda p: p.path,
)
REVIEW_REMINDER = declare(
    "teams.review.reminded",
    ReviewReminder,
    audience="those with questions open",
    mail=True,
    headline=lambda p: f"Access review {p.review}: your answers are missing, {p.days} day{'s' * (p.days != 1)} left",
    body=lambda p: f"What nobody confirms by {p.due_at} lapses.",
    path=lambda p: p.path,
)
ITEM_ANSWERED = declare("teams.review.answered", ItemAnswered, audience="auditors")
REVIEW_CLOSED = declare(
    "teams.review.closed",
    ReviewClosed,
    audience="compliance and auditors",
    headline=lambda p: f"Access review {p.review} is closed: {p.removed} removed, {p.lapsed} lapsed",
    path=lambda p: p.path,
)
REVIEW_ALARM = declare(
    "teams.review.alarm",
    ReviewAlarm,
    audience="compliance, auditors and platform admins",
    mail=True,
    headline=lambda p: f"Access review {p.review}: nobody confirmed the last platform admin",
    body=lambda p: "The role was kept, since nobody could administer the portal otherwise. Give it to a second person.",
    path=lambda p: p.path,
)
REVIEW_EXPORTED = declare("teams.review.exported", Exported, audience="auditors")
