"""Feasibility through the API: a POST that writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.clusters.models import Flavour
from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid
from apps.quotas import actions, book, feasibility_reader
from apps.quotas.choices import BorrowMode, LendMode
from apps.quotas.feasibility import LimitKind, Verdict
from apps.quotas.feasibility_reader import Feasibility
from apps.quotas.models import Workspace
from apps.quotas.terms import Extras

#: A refusal of these fields is an answer (never like this), not a mistake in the question.
_ANSWERS = {
    "guaranteed": LimitKind.CAPACITY,
    "borrow_limit": LimitKind.BORROWING,
    "borrow_mode": LimitKind.BORROWING,
    "flavour": LimitKind.RULE,
}


class FeasibilityQuestionSerializer(serializers.Serializer[Any]):
    """What would be asked for. Nothing is written."""

    workspace = serializers.UUIDField(help_text="uid of the workspace.")
    flavour = serializers.SlugField(help_text="Slug of the flavour.")
    guaranteed = serializers.IntegerField(min_value=0, max_value=1_000_000)
    borrow_mode = serializers.ChoiceField(choices=BorrowMode.choices, default=BorrowMode.NONE)
    borrow_limit = serializers.IntegerField(min_value=0, default=0)
    lend_mode = serializers.ChoiceField(choices=LendMode.choices, default=LendMode.ALL)
    lend_limit = serializers.IntegerField(min_value=0, default=0)
    serving = serializers.IntegerField(min_value=0, default=0)
    valid_from = serializers.DateTimeField(allow_null=True, default=None)
    valid_until = serializers.DateTimeField(allow_null=True, default=None)
    recurrence = serializers.JSONField(
        allow_null=True, default=None, help_text='{"days": [0-6], "start": "HH:MM", "minutes": n} in UTC.'
    )


class OfferSerializer(serializers.Serializer[Any]):
    """Another way to have it; null times: as asked for."""

    text = serializers.CharField()
    guaranteed = serializers.IntegerField()
    valid_from = serializers.DateTimeField(allow_null=True)
    valid_until = serializers.DateTimeField(allow_null=True)


class FeasibilitySerializer(serializers.Serializer[Any]):
    """Whether it fits, from when on, and what the limit is."""

    verdict = serializers.ChoiceField(choices=[(one.value, one.value) for one in Verdict])
    headline = serializers.CharField()
    limit_kind = serializers.ChoiceField(choices=[(one.value, one.value) for one in LimitKind])
    limit = serializers.CharField(help_text="What stands in the way, with numbers and the instant; empty: nothing.")
    fits_from = serializers.DateTimeField(allow_null=True)
    largest_now = serializers.IntegerField()
    guaranteed_now = serializers.IntegerField()
    borrowed_now = serializers.IntegerField()
    requests_ahead = serializers.IntegerField()
    warning = serializers.CharField()
    offers = OfferSerializer(many=True)


def answer_to(question: Mapping[str, Any], workspace: Workspace, user: User) -> Feasibility:
    """Return the feasibility of what is asked. Raises Invalid for a question that makes no sense, NotAllowed."""
    flavour = Flavour.objects.filter(slug=question["flavour"]).first()
    if flavour is None:
        raise Invalid({"flavour": "There is no such flavour."})
    extras = Extras(question["recurrence"], question["lend_mode"], question["lend_limit"], question["serving"])
    try:
        draft = actions.checked_draft(
            workspace.pk,
            flavour.pk,
            question["guaranteed"],
            question["borrow_mode"],
            question["borrow_limit"],
            question["valid_from"],
            question["valid_until"],
            user=user,
            extras=extras,
        )
    except Invalid as invalid:
        fields = set(invalid.errors)
        if not fields or not fields <= set(_ANSWERS):
            raise
        message = " ".join(text for texts in invalid.errors.values() for text in texts)
        return _later(question, workspace, flavour) or _refusal(fields, question, message)
    return feasibility_reader.of_draft(draft)


def _refusal(fields: set[str], question: Mapping[str, Any], message: str) -> Feasibility:
    unlimited = fields == {"borrow_mode"} and question["borrow_mode"] == BorrowMode.UNLIMITED
    permission = unlimited and "permission" in message
    kind = LimitKind.PERMISSION if permission else _ANSWERS[min(fields)]
    return feasibility_reader.refused(kind, message)


def _later(question: Mapping[str, Any], workspace: Workspace, flavour: Flavour) -> Feasibility | None:
    """Return when a pool that is too small in the asked time becomes large enough; None: that is not the matter."""
    pool = book.pool_of(workspace.cluster_id, flavour.pk)
    if pool is None or question["recurrence"] or question["borrow_mode"] != BorrowMode.NONE:
        return None
    now = clock.now().replace(microsecond=0)
    start = max(question["valid_from"] or now, now)
    found = feasibility_reader.of_terms(
        workspace, flavour, pool, question["guaranteed"], [(start, question["valid_until"])], now
    )
    # Where the room is not what was refused, the refusal itself is the answer.
    return found if found.limit_kind in (LimitKind.CAPACITY, LimitKind.ELASTIC, LimitKind.PROMISES) else None


class FeasibilityMixin(CommonsViewSet):
    """Adds the question to the quota requests' viewset."""

    permissions: ClassVar[dict[str, str]] = {"feasibility": "quotas.request.create"}

    @extend_schema(request=FeasibilityQuestionSerializer, responses={200: FeasibilitySerializer})
    @action(detail=False, methods=["post"])
    def feasibility(self, request: Request) -> Response:
        """Say whether a request would fit: now, by borrowing, from a date, or never. Writes nothing."""
        question = self.read_input(FeasibilityQuestionSerializer)
        workspace = Workspace.objects.get_visible(request.user, question["workspace"])
        found = answer_to(question, workspace, cast("User", request.user))
        return Response(FeasibilitySerializer(found.plain()).data)


__all__ = ["FeasibilityMixin", "answer_to"]
