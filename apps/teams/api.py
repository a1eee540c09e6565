"""Units, teams, membership and roles through the API: the pages' reads and the pages' actions."""

from __future__ import annotations

from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.accounts.step_up import FreshActions
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid
from apps.teams import (
    actions,
    change_api,
    changes,
    import_api,
    mapping_api,
    review_api,
    selectors,
    service_api,
    why_api,
)
from apps.teams.choices import Role
from apps.teams.filters import GrantFilter
from apps.teams.models import RoleGrant, Team, Unit
from apps.teams.querysets import RoleGrantQuerySet


class UnitSerializer(serializers.ModelSerializer[Unit]):
    """A business unit."""

    parent_uid = serializers.UUIDField(source="parent.uid", default=None, read_only=True)

    class Meta:
        model = Unit
        fields = ("uid", "slug", "name", "parent_uid", "cost_centre", "archived_at", "version")
        read_only_fields = fields


class TeamSerializer(serializers.ModelSerializer[Team]):
    """A team."""

    unit_uid = serializers.UUIDField(source="unit.uid", read_only=True)

    class Meta:
        model = Team
        fields = ("uid", "slug", "name", "unit_uid", "cost_centre", "archived_at", "version")
        read_only_fields = fields


class TeamPersonSerializer(serializers.Serializer[selectors.TeamPerson]):
    """A person of a team."""

    user_uid = serializers.UUIDField(source="user.uid")
    display_name = serializers.CharField(source="user.display_name")
    member = serializers.BooleanField(source="is_member")
    roles = serializers.ListField(child=serializers.CharField())
    since = serializers.DateTimeField()


class GrantSerializer(serializers.ModelSerializer[RoleGrant]):
    """A role of a person; without unit and team it counts for the whole installation."""

    user_uid = serializers.UUIDField(source="user.uid", read_only=True)
    unit_uid = serializers.UUIDField(source="unit.uid", default=None, read_only=True)
    team_uid = serializers.UUIDField(source="team.uid", default=None, read_only=True)

    class Meta:
        model = RoleGrant
        fields = (
            "uid",
            "user_uid",
            "role",
            "unit_uid",
            "team_uid",
            "created_at",
            "starts_at",
            "expires_at",
            "revoked_at",
        )
        read_only_fields = fields


class UnitInput(serializers.Serializer[Any]):
    """A new unit."""

    name = serializers.CharField(max_length=200)
    slug = serializers.CharField(max_length=63)
    parent_uid = serializers.UUIDField(required=False, allow_null=True, default=None)
    cost_centre = serializers.CharField(max_length=50, required=False, allow_blank=True, default="")


class TeamInput(serializers.Serializer[Any]):
    """A new team."""

    name = serializers.CharField(max_length=200)
    slug = serializers.CharField(max_length=40)
    unit_uid = serializers.UUIDField()
    cost_centre = serializers.CharField(max_length=50)


class MemberInput(serializers.Serializer[Any]):
    """Somebody to add to a team, from now on or between two moments to come."""

    user_uid = serializers.UUIDField()
    since = serializers.DateTimeField(required=False, allow_null=True, default=None)
    until = serializers.DateTimeField(required=False, allow_null=True, default=None)


class MemberOffInput(serializers.Serializer[Any]):
    """Somebody to take off a team."""

    user_uid = serializers.UUIDField()


class GrantInput(serializers.Serializer[Any]):
    """A role to give."""

    user_uid = serializers.UUIDField()
    role = serializers.ChoiceField(choices=Role.choices)
    unit_uid = serializers.UUIDField(required=False, allow_null=True, default=None)
    team_uid = serializers.UUIDField(required=False, allow_null=True, default=None)
    starts_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=500)


class ExtendInput(serializers.Serializer[Any]):
    """Another end of a role; null: until it is revoked."""

    expires_at = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField(max_length=500)


class GrantReasonInput(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=500)


class UnitViewSet(CommonsViewSet):
    """Business units."""

    queryset = Unit.objects.select_related("parent")
    serializer_class = UnitSerializer
    permission = "teams.unit.view"
    permissions = {"create": "teams.unit.manage", "change": "teams.unit.manage", "restore": "teams.unit.manage"}

    @extend_schema(request=UnitInput, responses={201: UnitSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make a unit."""
        given = self.read_input(UnitInput)
        parent = _key(Unit.objects.visible_to(request.user), given["parent_uid"], "parent_uid")
        unit = actions.create_unit(given["name"], given["slug"], parent, given["cost_centre"], actor=self.actor)
        return self.answer(unit, status=201)

    @extend_schema(request=change_api.ChangeInput, responses=change_api.PlannedChangeSerializer)
    @action(detail=True, methods=["post"])
    def change(self, request: Request, **kwargs: Any) -> Response:
        """Rename, move or archive a unit, now or at a moment to come; the answer is the change, done or planned."""
        row, given = self.get_object(), self.read_input(change_api.ChangeInput)
        made = changes.change_unit(
            row.pk, change_api.wish_of(given, request.user), given["reason"], effective_at=given["effective_at"],
            expected_version=self.expected_version, actor=self.actor,
        )  # fmt: skip
        return self.answer(made, serializer_class=change_api.PlannedChangeSerializer)

    @extend_schema(request=change_api.ChangeReasonInput, responses=UnitSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, **kwargs: Any) -> Response:
        """Take an archived unit into use again."""
        row, given = self.get_object(), self.read_input(change_api.ChangeReasonInput)
        return self.answer(changes.restore(row, given["reason"], actor=self.actor))


class TeamViewSet(CommonsViewSet):
    """Teams and their people."""

    queryset = Team.objects.select_related("unit")
    serializer_class = TeamSerializer
    permission = "teams.team.view"
    permissions = {
        "create": "teams.unit.manage",
        "add_member": "teams.member.manage",
        "remove_member": "teams.member.manage",
        "change": "teams.unit.manage",
        "restore": "teams.unit.manage",
    }

    @extend_schema(request=TeamInput, responses={201: TeamSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make a team."""
        given = self.read_input(TeamInput)
        unit = _key(Unit.objects.visible_to(request.user), given["unit_uid"], "unit_uid") or 0
        team = actions.create_team(given["name"], given["slug"], unit, given["cost_centre"], actor=self.actor)
        return self.answer(team, status=201)

    @extend_schema(responses=TeamPersonSerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def people(self, request: Request, **kwargs: Any) -> Response:
        """List the team's people."""
        people: Any = selectors.people_of(self.get_object())
        return Response(TeamPersonSerializer(people, many=True).data)

    @extend_schema(request=MemberInput, responses={204: None})
    @action(detail=True, methods=["post"], url_path="add-member")
    def add_member(self, request: Request, **kwargs: Any) -> Response:
        """Make a person a member."""
        team, given = self.get_object(), self.read_input(MemberInput)
        actions.add_member(
            team.pk, _person(given["user_uid"]), since=given["since"], until=given["until"], actor=self.actor
        )
        return Response(status=204)

    @extend_schema(request=MemberOffInput, responses={204: None})
    @action(detail=True, methods=["post"], url_path="remove-member")
    def remove_member(self, request: Request, **kwargs: Any) -> Response:
        """End a membership."""
        team = self.get_object()
        actions.remove_member(team.pk, _person(self.read_input(MemberOffInput)["user_uid"]), actor=self.actor)
        return Response(status=204)

    @extend_schema(request=change_api.ChangeInput, responses=change_api.PlannedChangeSerializer)
    @action(detail=True, methods=["post"])
    def change(self, request: Request, **kwargs: Any) -> Response:
        """Rename, move or archive a team, now or at a moment to come; the answer is the change, done or planned."""
        row, given = self.get_object(), self.read_input(change_api.ChangeInput)
        made = changes.change_team(
            row.pk, change_api.wish_of(given, request.user), given["reason"], effective_at=given["effective_at"],
            expected_version=self.expected_version, actor=self.actor,
        )  # fmt: skip
        return self.answer(made, serializer_class=change_api.PlannedChangeSerializer)

    @extend_schema(request=change_api.ChangeReasonInput, responses=TeamSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, **kwargs: Any) -> Response:
        """Take an archived team into use again."""
        row, given = self.get_object(), self.read_input(change_api.ChangeReasonInput)
        return self.answer(changes.restore(row, given["reason"], actor=self.actor))


class GrantViewSet(FreshActions, CommonsViewSet):
    """Roles in force: all for those who may view roles, one's own for everybody."""

    fresh_actions = frozenset({"create", "revoke", "extend"})
    queryset = RoleGrant.objects.select_related("user", "unit", "team")
    serializer_class = GrantSerializer
    filter_backends = [DjangoFilterBackend]
    filterset_class = GrantFilter
    permissions = {
        "create": "teams.grant.manage",
        "revoke": "teams.grant.manage",
        "extend": "teams.grant.manage",
    }

    def get_base_queryset(self) -> RoleGrantQuerySet:
        """Return the roles in force."""
        return RoleGrant.objects.in_force().select_related("user", "unit", "team")

    @extend_schema(request=GrantInput, responses={201: GrantSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Give a role."""
        given = self.read_input(GrantInput)
        grant = actions.grant_role(
            _person(given["user_uid"]),
            given["role"],
            unit_id=_key(Unit.objects.visible_to(request.user), given["unit_uid"], "unit_uid"),
            team_id=_key(Team.objects.visible_to(request.user), given["team_uid"], "team_uid"),
            starts_at=given["starts_at"],
            expires_at=given["expires_at"],
            reason=given["reason"],
            actor=self.actor,
        )
        return self.answer(grant, status=201)

    @extend_schema(request=GrantReasonInput, responses=GrantSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, **kwargs: Any) -> Response:
        """Revoke a role."""
        grant = self.get_object()
        return self.answer(
            actions.revoke_role(grant.pk, reason=self.read_input(GrantReasonInput)["reason"], actor=self.actor)
        )

    @extend_schema(request=ExtendInput, responses=GrantSerializer)
    @action(detail=True, methods=["post"])
    def extend(self, request: Request, **kwargs: Any) -> Response:
        """Let a role end at another time; the answer is the role that takes its place."""
        grant, given = self.get_object(), self.read_input(ExtendInput)
        return self.answer(
            actions.extend_role(grant.pk, expires_at=given["expires_at"], reason=given["reason"], actor=self.actor)
        )


def _key(rows: Any, uid: Any, field: str) -> int | None:
    """Return the key of a visible row. Raises Invalid where there is none."""
    if uid is None:
        return None
    found: int | None = rows.filter(uid=uid).values_list("pk", flat=True).first()
    if found is None:
        raise Invalid({field: "There is no such row, or it is not yours to see."})
    return found


def _person(uid: Any) -> int:
    """Return the key of a person, or 0, which no person has: the action then says that the person is missing."""
    return User.objects.filter(uid=uid).values_list("pk", flat=True).first() or 0


routes = [
    ("units", UnitViewSet, "unit"),
    ("teams", TeamViewSet, "team"),
    ("role-grants", GrantViewSet, "role-grant"),
    *review_api.routes,
    *service_api.routes,
    *change_api.routes,
    *mapping_api.routes,
]
paths = [*import_api.paths, *why_api.paths]
