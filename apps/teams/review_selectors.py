"""What pages and API read about access reviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Count

from apps.accounts.models import User
from apps.teams import reviews
from apps.teams.choices import ReviewAnswer, ReviewStatus
from apps.teams.models import AccessReview, ReviewItem


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a review is, within what the person sees."""

    total: int
    open: int
    kept: int
    removed: int
    lapsed: int
    gone: int

    @property
    def answered(self) -> int:
        """How many questions are not open any more."""
        return self.total - self.open


def progress_of(user: Any, review: AccessReview) -> Progress:
    """Count the answers of a review that the person may see (one query)."""
    counts = dict(
        ReviewItem.objects.visible_to(user).filter(review=review).order_by()
        .values_list("answer").annotate(rows=Count("pk"))
    )  # fmt: skip
    return Progress(
        total=sum(counts.values()),
        open=counts.get(ReviewAnswer.OPEN, 0),
        kept=counts.get(ReviewAnswer.KEEP, 0) + counts.get(ReviewAnswer.HELD, 0),
        removed=counts.get(ReviewAnswer.REMOVE, 0),
        lapsed=counts.get(ReviewAnswer.LAPSED, 0),
        gone=counts.get(ReviewAnswer.GONE, 0),
    )


def asks_me(user: Any, review: AccessReview, *, only_open: bool = True) -> list[int]:
    """Return the keys of the questions that the person is asked now."""
    who = reviews.reviewers()
    items = ReviewItem.objects.visible_to(user).filter(review=review)
    if only_open:
        items = items.filter(answer=ReviewAnswer.OPEN)
    items = items.select_related("team__unit", "unit")
    return [item.pk for item in items if user.pk in who.asked(item.user_id, reviews.place_of(item))]


class Asked:
    """Knows and names who is asked about what: three queries for any number of questions."""

    def __init__(self) -> None:
        self._who = reviews.reviewers()
        everybody = self._who.compliance.union(self._who.admins, *self._who.owners.values())
        self._names = dict(User.objects.filter(pk__in=everybody).values_list("pk", "display_name"))

    def asks(self, user: Any, item: ReviewItem) -> bool:
        """Whether a person is asked about it."""
        return user.pk in self._who.asked(item.user_id, reviews.place_of(item))

    def names(self, item: ReviewItem) -> str:
        """Return the names of those asked, "nobody" where there is nobody."""
        found = self._who.asked(item.user_id, reviews.place_of(item))
        return ", ".join(sorted(self._names[one] for one in found)) or "nobody"


def waiting_for(user: Any) -> tuple[AccessReview, int] | None:
    """Return the open review that asks the person something, with the number of questions; None where none does."""
    review = AccessReview.objects.filter(status=ReviewStatus.OPEN).order_by("due_at").first()
    if review is None:
        return None
    count = len(asks_me(user, review))
    return (review, count) if count else None
