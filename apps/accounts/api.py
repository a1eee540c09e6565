"""Accounts through the API: who am I, one's own tokens, and for platform admins the people."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts import actions, merging, scim_api, session_api, step_up
from apps.accounts.filters import UserFilter
from apps.accounts.models import ApiToken, User
from apps.core.api import CommonsViewSet


class UserSerializer(serializers.ModelSerializer[User]):
    """A person."""

    class Meta:
        model = User
        fields: tuple[str, ...] = ("uid", "email", "display_name", "is_active", "created_at")
        read_only_fields = fields


class UserInput(serializers.Serializer[User]):
    """A new account."""

    email = serializers.CharField(max_length=254)
    display_name = serializers.CharField(max_length=200)


class CreatedUserSerializer(UserSerializer):
    """A new person with the initial password, which is shown once."""

    initial_password = serializers.CharField(read_only=True)

    class Meta(UserSerializer.Meta):
        fields = (*UserSerializer.Meta.fields, "initial_password")
        read_only_fields = fields


class WhyInput(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=500)


class MergeInput(serializers.Serializer[Any]):
    """The account that stays, and why."""

    into_uid = serializers.UUIDField()
    reason = serializers.CharField(max_length=500)


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """A token, without its secret."""

    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = (
            "uid", "name", "prefix", "read_only", "limited", "permissions", "expires_at", "revoked_at", "last_used_at",
            "created_at",
        )  # fmt: skip
        read_only_fields = fields


class TokenInput(serializers.Serializer[ApiToken]):
    """A new token."""

    name = serializers.CharField(max_length=100)
    expires_at = serializers.DateTimeField()
    read_only = serializers.BooleanField(default=True)  # type: ignore[assignment]  # a field of that name, not the option
    permissions = serializers.ListField(
        child=serializers.CharField(max_length=60),
        required=False,
        allow_null=True,
        default=None,
        max_length=200,
        help_text="Permissions that the token is limited to; null: all that its owner may do.",
    )


class CreatedTokenSerializer(TokenSerializer):
    """A new token with its secret, which is shown once."""

    secret = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "secret")
        read_only_fields = fields


class Me(APIView):
    """Who the caller is."""

    scope_free = "the caller only"

    @extend_schema(responses=UserSerializer, summary="Who am I")
    def get(self, request: Request) -> Response:
        """Return the person behind token or session."""
        person = User.objects.get(pk=request.user.pk or 0)
        return Response(UserSerializer(person).data)


class UserViewSet(CommonsViewSet):
    """People: platform admins and auditors read all, everybody else themselves."""

    secret_answers = frozenset({"create"})
    queryset = User.objects.all()
    serializer_class = UserSerializer
    filterset_class = UserFilter
    permissions = {
        "create": "accounts.user.manage",
        "deactivate": "accounts.user.manage",
        "reactivate": "accounts.user.manage",
        "merge": "accounts.user.manage",
    }

    @extend_schema(request=UserInput, responses={201: CreatedUserSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make an account; the answer holds its initial password, once."""
        given = self.read_input(UserInput)
        user, initial = actions.create_user(given["email"], given["display_name"], actor=self.actor)
        return Response({**UserSerializer(user).data, "initial_password": initial}, status=201)

    @extend_schema(request=WhyInput, responses=UserSerializer)
    @action(detail=True, methods=["post"])
    def deactivate(self, request: Request, **kwargs: Any) -> Response:
        """Switch an account off."""
        row = self.get_object()
        return self.answer(actions.deactivate_user(row.pk, self.read_input(WhyInput)["reason"], actor=self.actor))

    @extend_schema(request=WhyInput, responses=UserSerializer)
    @action(detail=True, methods=["post"])
    def reactivate(self, request: Request, **kwargs: Any) -> Response:
        """Switch an account on again."""
        row = self.get_object()
        return self.answer(actions.reactivate_user(row.pk, self.read_input(WhyInput)["reason"], actor=self.actor))

    @extend_schema(request=MergeInput, responses=UserSerializer)
    @action(detail=True, methods=["post"])
    def merge(self, request: Request, **kwargs: Any) -> Response:
        """Merge an account into another of the same person, for good; the answer is the one that stays."""
        row, given = self.get_object(), self.read_input(MergeInput)
        into = User.objects.get_queryset().filter(uid=given["into_uid"]).values_list("pk", flat=True).first() or 0
        return self.answer(merging.merge(row.pk, into, given["reason"], actor=self.actor))


class TokenViewSet(CommonsViewSet):
    """One's own API tokens."""

    secret_answers = frozenset({"create"})
    queryset = ApiToken.objects.all()
    serializer_class = TokenSerializer

    @extend_schema(request=TokenInput, responses={201: CreatedTokenSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make a token; the answer holds its secret, once."""
        if request.auth is None:
            step_up.demand_fresh(request._request)
        given = self.read_input(TokenInput)
        token, secret = actions.create_token(
            self.actor.user_id or 0,
            given["name"],
            given["expires_at"],
            given["read_only"],
            actor=self.actor,
            permissions=given["permissions"],
        )
        return Response({**TokenSerializer(token).data, "secret": secret}, status=201)

    @extend_schema(request=None, responses=TokenSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, **kwargs: Any) -> Response:
        """Revoke a token."""
        return self.answer(actions.revoke_token(self.get_object().pk, actor=self.actor))


routes = [
    ("users", UserViewSet, "user"),
    ("api-tokens", TokenViewSet, "api-token"),
    *session_api.routes,
    *scim_api.routes,
]
paths = [path("me", Me.as_view(), name="me")]
