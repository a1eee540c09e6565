"""Tables and filters of access reviews."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.teams import review_selectors
from apps.teams.choices import ReviewAnswer, Role
from apps.teams.models import AccessReview, ReviewItem

TONES: dict[str, str] = {
    ReviewAnswer.OPEN: "info",
    ReviewAnswer.KEEP: "positive",
    ReviewAnswer.REMOVE: "neutral",
    ReviewAnswer.LAPSED: "caution",
    ReviewAnswer.GONE: "neutral",
    ReviewAnswer.HELD: "critical",
}


class ReviewTable(CommonsTable):
    """Reviews, the newest first."""

    name = UidLinkColumn("teams:review-detail", kwarg="review_uid")
    status = StatusColumn()
    opened_at = TimeColumn(verbose_name="Begun", attrs={"cell": {"class": "d-none d-md-table-cell text-nowrap"}})
    due_at = TimeColumn(verbose_name="Answers until")

    class Meta(CommonsTable.Meta):
        model = AccessReview
        fields = ("name", "status", "opened_at", "due_at")
        order_by = ("-opened_at",)
        caption = "Access reviews"


class ChoiceColumn(tables.Column):
    """A box that puts the row onto the answer sheet; the form stands above the list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            empty_values=(), orderable=False, exclude_from_export=True, verbose_name="Choose", accessor="uid", **kwargs
        )

    def render(self, record: ReviewItem, table: ItemTable) -> SafeString | str:
        """Draw the box where whoever looks may still answer: one that asks others would refuse the whole sheet."""
        answered = record.answer not in (ReviewAnswer.OPEN, ReviewAnswer.KEEP)
        if answered or not table.asked_now().asks(table.request.user, record):
            return ""
        words = f"{record.user.display_name}: {Role(record.role).label}"
        return format_html(
            '<input type="checkbox" class="form-check-input" name="items" value="{}" form="answer-sheet"'
            ' aria-label="{}">',
            record.uid, words,
        )  # fmt: skip


class ItemTable(CommonsTable):
    """The questions of one review."""

    choose = ChoiceColumn()
    user = tables.Column(accessor="user__display_name", verbose_name="Person")
    role = tables.Column(verbose_name="Role")
    place = tables.Column(empty_values=(), orderable=False, verbose_name="Where")
    source = tables.Column(
        empty_values=(), orderable=False, verbose_name="Given by", attrs={"cell": {"class": "d-none d-md-table-cell"}}
    )
    asked = tables.Column(
        empty_values=(), orderable=False, verbose_name="Asked", attrs={"cell": {"class": "d-none d-md-table-cell"}}
    )
    answer = StatusColumn(tones=TONES)
    answered_by = tables.Column(
        accessor="answered_by__display_name", verbose_name="Answered by", default="–",
        attrs={"cell": {"class": "d-none d-lg-table-cell"}},
    )  # fmt: skip
    answered_at = TimeColumn(verbose_name="Answered", attrs={"cell": {"class": "d-none d-lg-table-cell text-nowrap"}})
    reason = tables.Column(default="–", attrs={"cell": {"class": "d-none d-lg-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = ReviewItem
        fields = (
            "choose",
            "user",
            "role",
            "place",
            "source",
            "asked",
            "answer",
            "answered_by",
            "answered_at",
            "reason",
        )
        order_by = ("user",)
        caption = "Questions of the review"

    _asked: review_selectors.Asked | None = None

    def render_role(self, value: Any, record: ReviewItem) -> str:
        """Write the role in words."""
        return str(Role(record.role).label)

    def value_role(self, value: Any, record: ReviewItem) -> str:
        """Export the role in words."""
        return str(Role(record.role).label)

    def render_place(self, record: ReviewItem) -> str:
        """Write where the role counts."""
        if record.team is not None:
            return record.team.name
        return f"{record.unit.name} and below" if record.unit is not None else "Whole installation"

    def render_source(self, record: ReviewItem) -> str:
        """Write who, or which group, gave it."""
        held = record.grant or record.membership
        if held is not None and held.mapping is not None:
            # Names of groups are the directory's: for those who keep the mappings.
            named = may(self.request.user, "teams.mapping.view", INSTALLATION)
            return f"Group {held.mapping.group}" if named else "A directory group"
        if record.grant is not None and record.grant.granted_by is not None:
            return record.grant.granted_by.display_name
        return "–" if record.grant is None else "The portal"

    def render_asked(self, record: ReviewItem) -> str:
        """Name who is asked, while the question is open."""
        if record.answer != ReviewAnswer.OPEN:
            return "–"
        return self.asked_now().names(record)

    def asked_now(self) -> review_selectors.Asked:
        """Return who is asked about what, read once for all rows."""
        if self._asked is None:
            self._asked = review_selectors.Asked()
        return self._asked


class ItemFilter(CommonsFilterSet):
    """By person or place, role, answer, and what asks oneself."""

    q = SearchFilter(columns=["user__display_name", "unit__name", "team__name"], label="Person or place")
    role = django_filters.ChoiceFilter(choices=Role.choices, label="Role", empty_label="All")
    answer = django_filters.ChoiceFilter(choices=ReviewAnswer.choices, label="Answer", empty_label="All")
    mine = django_filters.ChoiceFilter(
        choices=[("yes", "Those that ask me")], label="Whose", empty_label="All", method="ask_me"
    )

    class Meta:
        model = ReviewItem
        fields: list[str] = []

    def ask_me(self, queryset: Any, name: str, value: str) -> Any:
        """Keep the questions that ask whoever looks."""
        first = queryset.values_list("review_id", flat=True).first()
        review = AccessReview.objects.filter(pk=first or 0).first()
        if review is None:
            return queryset.none()
        return queryset.filter(pk__in=review_selectors.asks_me(self.request.user, review, only_open=False))
