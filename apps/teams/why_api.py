"""Why somebody may do something, through the API: the page's answer, and what the token that asks may."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.models import ApiToken, User
from apps.core.errors import Invalid, NotVisible
from apps.core.permissions import reach
from apps.teams.choices import ALL_PERMISSIONS
from apps.teams.explaining import explain
from apps.teams.models import Team, Unit


class WhyInput(serializers.Serializer[Any]):
    """The question. Without team and unit: anywhere; without a person: oneself."""

    permission = serializers.ChoiceField(choices=sorted(ALL_PERMISSIONS))
    user_uid = serializers.UUIDField(required=False)
    team_uid = serializers.UUIDField(required=False)
    unit_uid = serializers.UUIDField(required=False)


class ReasonSerializer(serializers.Serializer[Any]):
    """A role, membership or group that gives it; with `but`: why it does not count there now."""

    text = serializers.CharField()
    role_grant_uid = serializers.UUIDField(source="grant.uid", default=None, allow_null=True)
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)
    source = serializers.CharField()  # type: ignore[assignment]  # a field of that name, not the option
    but = serializers.CharField()


class WhySerializer(serializers.Serializer[Any]):
    """The answer."""

    permission = serializers.CharField()
    allowed = serializers.BooleanField()
    reasons = ReasonSerializer(many=True)
    misses = ReasonSerializer(many=True)
    roles = serializers.ListField(child=serializers.CharField())
    token_allows = serializers.BooleanField(
        allow_null=True, help_text="Whether the token that asks lets it through; null without a token."
    )


class Why(APIView):
    """Why may somebody do something somewhere?"""

    scope_free = "person and place are looked up among what the caller sees"

    @extend_schema(
        parameters=[
            OpenApiParameter("permission", str, required=True),
            OpenApiParameter("user_uid", str),
            OpenApiParameter("team_uid", str),
            OpenApiParameter("unit_uid", str),
        ],
        responses=WhySerializer,
        summary="Why may somebody do something?",
    )
    def get(self, request: Request) -> Response:
        """Explain a permission: one's own to everybody, others' to those who see all roles."""
        serializer = WhyInput(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        given = serializer.validated_data
        person = self._person(request, given.get("user_uid"))
        answer = explain(person, given["permission"], self._place(request, given))
        allows = None
        if isinstance(request.auth, ApiToken):
            allows = not request.auth.limited or given["permission"] in request.auth.permissions
        body = {
            "permission": answer.permission, "allowed": answer.allowed, "reasons": answer.reasons,
            "misses": answer.misses, "roles": answer.roles, "token_allows": allows,
        }  # fmt: skip
        return Response(WhySerializer(body).data)

    @staticmethod
    def _person(request: Request, uid: Any) -> User:
        own = User.objects.get(pk=request.user.pk or 0)
        if uid is None or uid == own.uid:
            return own
        found = None
        if reach(request.user, "teams.grant.view").everywhere:
            found = User.objects.get_queryset().filter(uid=uid).first()
        if found is None:
            raise NotVisible
        return found

    @staticmethod
    def _place(request: Request, given: dict[str, Any]) -> Team | Unit | None:
        if "team_uid" in given and "unit_uid" in given:
            raise Invalid({"unit_uid": "Name a team or a unit, not both."})
        if "team_uid" in given:
            return Team.objects.select_related("unit").get_visible(request.user, given["team_uid"])
        return Unit.objects.all().get_visible(request.user, given["unit_uid"]) if "unit_uid" in given else None


paths = [path("permission-explanations", Why.as_view(), name="permission-explanation")]
