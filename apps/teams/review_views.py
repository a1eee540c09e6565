"""Pages of access reviews: the list, one review with its questions, an answer sheet, and beginning one by hand."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.core.errors import Conflict, NotAllowed
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, ListView
from apps.teams import review_selectors, reviews
from apps.teams.choices import ReviewStatus, Role
from apps.teams.models import AccessReview, ReviewItem
from apps.teams.querysets import ReviewItemQuerySet
from apps.teams.review_events import REVIEW_EXPORTED
from apps.teams.review_forms import AnswerForm, StartReviewForm
from apps.teams.review_tables import ItemFilter, ItemTable, ReviewTable

VIEW = "teams.review.view"


class ReviewList(ListView):
    """Every review that the person has to do with."""

    title = "Access reviews"
    intro = "Every quarter somebody confirms what each person may do. What nobody confirms by the end lapses."
    permission = VIEW
    queryset = AccessReview.objects.all()
    table_class = ReviewTable
    exportable = False
    empty_title = "No review yet"
    empty_text = "A review begins by itself with each quarter, or by hand."
    empty_icon = "shield-lock"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer to begin one to those who may."""
        starts = may(self.request.user, reviews.START, INSTALLATION)
        return [("Begin a review", reverse("teams:review-start"))] if starts else []


class ReviewDetail(ListView):
    """One review: how far it is, and its questions."""

    permission = VIEW
    template_name = "teams/review_detail.html"
    table_class = ItemTable
    filterset_class = ItemFilter
    export_event = REVIEW_EXPORTED
    empty_title = "No questions"

    def prepare(self) -> None:
        """Load the review."""
        self.object = AccessReview.objects.all().get_visible(self.request.user, self.kwargs["review_uid"])

    def get_base_queryset(self) -> ReviewItemQuerySet:
        """Return the review's questions with what a row shows."""
        return ReviewItem.objects.filter(review=self.object).select_related(
            "user", "team__unit", "unit", "grant__granted_by", "grant__mapping", "membership__mapping", "answered_by"
        )

    def get_title(self) -> str:
        """Return the review's name."""
        return f"Access review {self.object.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("Access reviews", reverse("teams:review-list"))]

    def may_answer(self) -> bool:
        """Whether the person could answer something here."""
        return self.object.status == ReviewStatus.OPEN and may(self.request.user, reviews.ANSWER)

    def get_table_kwargs(self) -> dict[str, Any]:
        """Leave the boxes out where nothing can be answered."""
        return {} if self.may_answer() else {"exclude": ("choose",)}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add how far it is."""
        mine = len(review_selectors.asks_me(self.request.user, self.object)) if self.may_answer() else 0
        return super().get_context(
            review=self.object,
            progress=review_selectors.progress_of(self.request.user, self.object),
            mine=mine,
            may_answer=self.may_answer(),
            answer_url=reverse("teams:review-answer", kwargs={"review_uid": self.object.uid}),
            **extra,
        )


class ReviewStart(CreateView):
    """Begins a review by hand."""

    title = "Begin an access review"
    intro = (
        "Everybody's roles and memberships in force now are asked about. Owners of units, compliance and platform"
        " admins answer; what nobody confirms by the end is taken away."
    )
    permission = reviews.START
    queryset = AccessReview.objects.all()
    form_class = StartReviewForm
    submit_label = "Begin review"
    success_message = "The review has begun; those asked are told."

    def scope_object(self) -> Any:
        """A review is about the whole installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("Access reviews", reverse("teams:review-list"))]

    def perform(self, form: Any) -> str:
        """Begin it."""
        data = form.cleaned_data
        return reviews.path_of(reviews.start_review(data["name"], data["due_at"], actor=self.actor))


class ReviewAnswerSheet(ActionView):
    """Answers the chosen questions the same way. The boxes come along in the address; nothing is decided by GET."""

    title = "Answer"
    queryset = AccessReview.objects.all()
    permission = None
    form_class = AnswerForm
    submit_label = "Save answer"
    success_message = "The answer is saved."

    def check_permission(self) -> None:
        """Whoever may answer anywhere opens the sheet; each question is asked for again by the action."""
        if not may(self.request.user, reviews.ANSWER):
            raise NotAllowed(rule=reviews.ANSWER)

    def check_state(self) -> None:
        """A closed review takes no answers."""
        if self.object.status != ReviewStatus.OPEN:
            raise Conflict("This review is closed.", current={"status": self.object.status})

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the review."""
        return [
            Crumb("Access reviews", reverse("teams:review-list")),
            Crumb(f"Access review {self.object.name}", reviews.path_of(self.object)),
        ]

    def _chosen(self) -> list[str]:
        source = self.request.POST if self.request.method == "POST" else self.request.GET
        return source.getlist("items")

    def get_initial(self) -> dict[str, Any]:
        """Tick what was chosen, but no answer: nobody keeps a right by pressing the button.

        The review's version says nothing of its questions.
        """
        return {"version": None, "items": self._chosen()}

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer what was chosen, or else every open question that asks the person."""
        items = ReviewItem.objects.visible_to(self.request.user).filter(review=self.object)
        items = items.select_related("user", "team", "unit").order_by("user__display_name", "pk")
        chosen = {item for item in self._chosen() if len(item) == 36}
        if chosen:
            found = [item for item in items if str(item.uid) in chosen]
        else:
            mine = review_selectors.asks_me(self.request.user, self.object)
            found = list(items.filter(pk__in=mine)[: reviews.SHEET_MAX])
        return {"choices": [(str(item.uid), label_of(item)) for item in found]}

    def perform(self, form: Any) -> str:
        """Answer."""
        data = form.cleaned_data
        reviews.answer_items(self.object.pk, data["items"], data["answer"], reason=data["reason"], actor=self.actor)
        return f"{reviews.path_of(self.object)}?mine=yes"


def label_of(item: ReviewItem) -> str:
    """Return person, role and place of a question in words."""
    place = item.team.name if item.team else f"{item.unit.name} and below" if item.unit else "whole installation"
    return f"{item.user.display_name}: {Role(item.role).label}, {place}"
