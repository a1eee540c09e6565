"""Access reviews through the API: the same reviews, questions and answers as the pages."""

from __future__ import annotations

from typing import Any

import django_filters
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.core.errors import NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.teams import reviews
from apps.teams.choices import ReviewAnswer, Role
from apps.teams.models import AccessReview, ReviewItem


class ReviewSerializer(serializers.ModelSerializer[AccessReview]):
    """An access review."""

    class Meta:
        model = AccessReview
        fields = ("uid", "name", "quarter", "status", "opened_at", "due_at", "closed_at", "version")
        read_only_fields = fields


class ReviewItemSerializer(serializers.ModelSerializer[ReviewItem]):
    """A question: whether a person still needs a role or membership. Without unit and team: the whole installation."""

    review_uid = serializers.UUIDField(source="review.uid", read_only=True)
    user_uid = serializers.UUIDField(source="user.uid", read_only=True)
    user_name = serializers.CharField(source="user.display_name", read_only=True)
    unit_uid = serializers.UUIDField(source="unit.uid", default=None, read_only=True, allow_null=True)
    team_uid = serializers.UUIDField(source="team.uid", default=None, read_only=True, allow_null=True)
    role_grant_uid = serializers.UUIDField(source="grant.uid", default=None, read_only=True, allow_null=True)
    answered_by_uid = serializers.UUIDField(source="answered_by.uid", default=None, read_only=True, allow_null=True)

    class Meta:
        model = ReviewItem
        fields = (
            "uid", "review_uid", "user_uid", "user_name", "role", "unit_uid", "team_uid", "role_grant_uid", "answer",
            "answered_by_uid", "answered_at", "reason", "version",
        )  # fmt: skip
        read_only_fields = fields


class ReviewInput(serializers.Serializer[Any]):
    """A review to begin by hand."""

    name = serializers.CharField(max_length=100)
    due_at = serializers.DateTimeField()


class AnswerInput(serializers.Serializer[Any]):
    """One answer to some questions."""

    items = serializers.ListField(child=serializers.UUIDField(), min_length=1, max_length=reviews.SHEET_MAX)
    answer = serializers.ChoiceField(choices=[ReviewAnswer.KEEP.value, ReviewAnswer.REMOVE.value])
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class ReviewItemFilter(django_filters.FilterSet):
    """By review, answer and role."""

    review_uid = django_filters.UUIDFilter(field_name="review__uid")
    answer = django_filters.ChoiceFilter(choices=ReviewAnswer.choices)
    role = django_filters.ChoiceFilter(choices=Role.choices)

    class Meta:
        model = ReviewItem
        fields: list[str] = []


class ReviewViewSet(CommonsViewSet):
    """Access reviews: all for those who view them everywhere, else those with a question within one's reach."""

    queryset = AccessReview.objects.all()
    serializer_class = ReviewSerializer
    permission = "teams.review.view"
    permissions = {"create": reviews.START, "give_answers": reviews.ANSWER}

    def get_object(self) -> Any:
        """Return the review; answering is asked for anywhere, each question again by the action."""
        if self.action == "give_answers":
            row = self.get_queryset().get_visible(self.request.user, self.kwargs["uid"])
            if not may(self.request.user, reviews.ANSWER):
                raise NotAllowed(rule=reviews.ANSWER)
            return row
        if (row := self.get_queryset().filter(uid=self.kwargs["uid"]).first()) is None:
            raise NotVisible
        return row

    @extend_schema(request=ReviewInput, responses={201: ReviewSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Begin a review by hand."""
        if not may(request.user, reviews.START, INSTALLATION):
            raise NotAllowed(rule=reviews.START)
        given = self.read_input(ReviewInput)
        return self.answer(reviews.start_review(given["name"], given["due_at"], actor=self.actor), status=201)

    @extend_schema(request=AnswerInput, responses=ReviewItemSerializer(many=True), filters=False)
    @action(detail=True, methods=["post"], url_path="answer", pagination_class=None, filter_backends=[])
    def give_answers(self, request: Request, **kwargs: Any) -> Response:
        """Answer questions of a review, all of them or none; a removal acts at once."""
        review, given = self.get_object(), self.read_input(AnswerInput)
        items = reviews.answer_items(
            review.pk, given["items"], given["answer"], reason=given["reason"], actor=self.actor
        )
        return Response(ReviewItemSerializer(items, many=True).data)


class ReviewItemViewSet(CommonsViewSet):
    """The questions of access reviews."""

    queryset = ReviewItem.objects.select_related("review", "user", "unit", "team", "grant", "answered_by")
    serializer_class = ReviewItemSerializer
    filter_backends = [DjangoFilterBackend]
    filterset_class = ReviewItemFilter
    permission = "teams.review.view"


routes = [("access-reviews", ReviewViewSet, "access-review"), ("access-review-items", ReviewItemViewSet, "review-item")]
