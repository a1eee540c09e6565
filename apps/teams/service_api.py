"""Accounts of programs through the API: the pages' reads and the pages' actions."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.api import CreatedTokenSerializer, TokenInput, TokenSerializer
from apps.accounts.models import ApiToken
from apps.accounts.step_up import FreshActions
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotVisible
from apps.teams import service_actions, service_rules
from apps.teams.choices import Role
from apps.teams.models import ServiceAccount, Team

_ROLES = [(role, Role(role).label) for role in (*service_rules.TEAM_ROLES, *service_rules.PLATFORM_ROLES)]


class ServiceAccountSerializer(serializers.ModelSerializer[ServiceAccount]):
    """The account of a program. Without a team the platform keeps it; `user_uid` stands in audit events."""

    user_uid = serializers.UUIDField(source="user.uid", read_only=True)
    name = serializers.CharField(source="user.display_name", read_only=True)
    team_uid = serializers.UUIDField(source="team.uid", default=None, read_only=True, allow_null=True)
    in_use = serializers.BooleanField(source="user.is_active", read_only=True)

    class Meta:
        model = ServiceAccount
        fields = ("uid", "user_uid", "name", "team_uid", "purpose", "in_use", "created_at", "ended_at", "version")
        read_only_fields = fields


class ServiceAccountInput(serializers.Serializer[Any]):
    """A new account of a program."""

    name = serializers.CharField(max_length=100)
    purpose = serializers.CharField(max_length=500)
    role = serializers.ChoiceField(choices=_ROLES)
    team_uid = serializers.UUIDField(required=False, allow_null=True, default=None)


class ServiceRoleInput(serializers.Serializer[Any]):
    """Another role, and why."""

    role = serializers.ChoiceField(choices=_ROLES)
    reason = serializers.CharField(max_length=500)


class ServiceEndInput(serializers.Serializer[Any]):
    """Why it ends."""

    reason = serializers.CharField(max_length=500)


class RotateInput(serializers.Serializer[Any]):
    """Which token, and how many days the old one stays in use beside the new one."""

    token_uid = serializers.UUIDField()
    overlap_days = serializers.IntegerField(min_value=0, max_value=service_rules.OVERLAP_MAX_DAYS, default=3)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class TokenUidInput(serializers.Serializer[Any]):
    """Which token."""

    token_uid = serializers.UUIDField()


class ServiceAccountViewSet(FreshActions, CommonsViewSet):
    """Accounts of programs."""

    fresh_actions = frozenset({"create", "role", "make_token", "rotate"})
    secret_answers = frozenset({"make_token", "rotate"})
    queryset = ServiceAccount.objects.select_related("user", "team")
    serializer_class = ServiceAccountSerializer
    permission = "teams.service.view"
    permissions = dict.fromkeys(
        ("create", "role", "end", "make_token", "rotate", "revoke_token"), service_actions.MANAGE
    )

    @extend_schema(request=ServiceAccountInput, responses={201: ServiceAccountSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make an account."""
        given = self.read_input(ServiceAccountInput)
        team_id = None
        if given["team_uid"] is not None:
            team_id = (
                Team.objects.visible_to(request.user).filter(uid=given["team_uid"]).values_list("pk", flat=True).first()
            )
            if team_id is None:
                raise Invalid({"team_uid": "There is no such team, or it is not yours to see."})
        account = service_actions.create_service_account(
            given["name"], given["purpose"], given["role"], team_id=team_id, actor=self.actor
        )
        return self.answer(account, status=201)

    @extend_schema(request=ServiceRoleInput, responses=ServiceAccountSerializer)
    @action(detail=True, methods=["post"])
    def role(self, request: Request, **kwargs: Any) -> Response:
        """Give it another role."""
        account, given = self.get_object(), self.read_input(ServiceRoleInput)
        return self.answer(
            service_actions.set_service_role(
                account.pk,
                given["role"],
                given["reason"],
                actor=self.actor,
                expected_version=self.expected_version,
            )
        )

    @extend_schema(request=ServiceEndInput, responses=ServiceAccountSerializer)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, **kwargs: Any) -> Response:
        """End it."""
        account, given = self.get_object(), self.read_input(ServiceEndInput)
        return self.answer(
            service_actions.end_service_account(
                account.pk, given["reason"], actor=self.actor, expected_version=self.expected_version
            )
        )

    @extend_schema(responses=TokenSerializer(many=True))
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def tokens(self, request: Request, **kwargs: Any) -> Response:
        """Return its tokens in force, without their secrets."""
        account = self.get_object()
        found = ApiToken.objects.usable().filter(user=account.user).order_by("-created_at", "-pk")
        return Response(TokenSerializer(found, many=True).data)

    @extend_schema(request=TokenInput, responses={201: CreatedTokenSerializer})
    @action(detail=True, methods=["post"], url_path="make-token")
    def make_token(self, request: Request, **kwargs: Any) -> Response:
        """Make a token; the answer holds its secret, once."""
        account, given = self.get_object(), self.read_input(TokenInput)
        token, secret = service_actions.create_service_token(
            account.pk,
            given["name"],
            given["expires_at"],
            given["read_only"],
            actor=self.actor,
            permissions=given["permissions"],
        )
        return Response({**TokenSerializer(token).data, "secret": secret}, status=201)

    @extend_schema(request=RotateInput, responses={201: CreatedTokenSerializer})
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, **kwargs: Any) -> Response:
        """Rotate a token; the answer holds the new secret, once."""
        account, given = self.get_object(), self.read_input(RotateInput)
        token, secret = service_actions.rotate_service_token(
            self._token(account, given["token_uid"]),
            given["overlap_days"],
            expires_at=given["expires_at"],
            actor=self.actor,
        )
        return Response({**TokenSerializer(token).data, "secret": secret}, status=201)

    @extend_schema(request=TokenUidInput, responses=TokenSerializer)
    @action(detail=True, methods=["post"], url_path="revoke-token")
    def revoke_token(self, request: Request, **kwargs: Any) -> Response:
        """Revoke a token."""
        account, given = self.get_object(), self.read_input(TokenUidInput)
        token = service_actions.revoke_service_token(self._token(account, given["token_uid"]), actor=self.actor)
        return Response(TokenSerializer(token).data)

    def _token(self, account: ServiceAccount, uid: Any) -> int:
        found = ApiToken.objects.filter(user=account.user, uid=uid).values_list("pk", flat=True).first()
        if found is None:
            raise NotVisible
        return found


routes = [("service-accounts", ServiceAccountViewSet, "service-account")]
