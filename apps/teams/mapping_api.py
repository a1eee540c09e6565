"""Group roles through the API."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import IdentityProvider
from apps.accounts.step_up import FreshActions
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotAllowed
from apps.teams import mapping_actions, mapping_selectors, scope
from apps.teams.choices import Role
from apps.teams.models import GroupMapping, Team, Unit
from apps.teams.querysets import GroupMappingQuerySet


class GroupMappingSerializer(serializers.ModelSerializer[GroupMapping]):
    """Whoever is in the group of the provider holds the role; without unit and team for the whole installation."""

    provider_uid = serializers.UUIDField(source="provider.uid", read_only=True)
    unit_uid = serializers.UUIDField(source="unit.uid", default=None, read_only=True)
    team_uid = serializers.UUIDField(source="team.uid", default=None, read_only=True)

    class Meta:
        model = GroupMapping
        fields = (
            "uid", "provider_uid", "group", "role", "unit_uid", "team_uid", "reason", "created_at", "ended_at",
            "version",
        )  # fmt: skip
        read_only_fields = fields


class MappingDraftInput(serializers.Serializer[Any]):
    """A mapping that does not exist yet."""

    provider_uid = serializers.UUIDField()
    group = serializers.CharField(max_length=255)
    role = serializers.ChoiceField(choices=Role.choices)
    unit_uid = serializers.UUIDField(required=False, allow_null=True, default=None)
    team_uid = serializers.UUIDField(required=False, allow_null=True, default=None)


class MappingInput(MappingDraftInput):
    """A new mapping and why."""

    reason = serializers.CharField(max_length=500)


class MappingReasonInput(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=500)


class ConcernedSerializer(serializers.Serializer[mapping_selectors.Person]):
    """Somebody whom a mapping concerns."""

    user_uid = serializers.UUIDField(source="user.uid")
    display_name = serializers.CharField(source="user.display_name")
    note = serializers.CharField()


class MappingPreviewSerializer(serializers.Serializer[mapping_selectors.Preview]):
    """What making the mapping would do now: `others` are in the group and gain nothing, with the reason."""

    gains = ConcernedSerializer(many=True)
    others = ConcernedSerializer(many=True)
    alike = serializers.ListField(child=serializers.CharField())


class GroupMappingViewSet(FreshActions, CommonsViewSet):
    """Group roles."""

    fresh_actions = frozenset({"create", "end"})
    serializer_class = GroupMappingSerializer
    permission = "teams.mapping.view"
    permissions = {
        "create": "teams.mapping.manage",
        "preview": "teams.mapping.manage",
        "end": "teams.mapping.manage",
    }
    queryset = GroupMapping.objects.select_related("provider", "unit", "team").order_by("-pk")

    def get_base_queryset(self) -> GroupMappingQuerySet:
        """Return all mappings, ended ones too."""
        return GroupMapping.objects.select_related("provider", "unit", "team").order_by("-pk")

    @extend_schema(request=MappingInput, responses={201: GroupMappingSerializer})
    def create(self, request: Request, **kwargs: Any) -> Response:
        """Give a role to a group; everybody in it gets the role in the same transaction, but not its maker."""
        given = self.read_input(MappingInput)
        mapping = mapping_actions.create_mapping(self._draft(given), actor=self.actor, reason=given["reason"])
        return self.answer(mapping, status=201)

    @extend_schema(request=MappingDraftInput, responses={200: MappingPreviewSerializer})
    @action(detail=False, methods=["post"])
    def preview(self, request: Request, **kwargs: Any) -> Response:
        """Say who would get the role; changes nothing."""
        if not scope.of(request.user).everywhere("teams.mapping.manage"):
            raise NotAllowed(rule="teams.mapping.manage")
        draft = mapping_actions.checked(self._draft(self.read_input(MappingDraftInput)))
        found = mapping_selectors.preview(draft, maker_id=self.actor.user_id)
        return Response(MappingPreviewSerializer(found).data)

    @extend_schema(request=MappingReasonInput, responses={200: GroupMappingSerializer})
    @action(detail=True, methods=["post"])
    def end(self, request: Request, **kwargs: Any) -> Response:
        """Take the role from the group: whoever holds it by this mapping loses it now."""
        mapping, given = self.get_object(), self.read_input(MappingReasonInput)
        ended = mapping_actions.end_mapping(
            mapping.pk, actor=self.actor, reason=given["reason"], expected_version=self.expected_version
        )
        return self.answer(ended)

    def _draft(self, given: dict[str, Any]) -> mapping_actions.Draft:
        user = self.request.user
        providers = IdentityProvider.objects.visible_to(user)
        return mapping_actions.Draft(
            provider_id=_key(providers, given["provider_uid"], "provider_uid") or 0,
            group=given["group"],
            role=given["role"],
            unit_id=_key(Unit.objects.visible_to(user), given["unit_uid"], "unit_uid"),
            team_id=_key(Team.objects.visible_to(user), given["team_uid"], "team_uid"),
        )


def _key(rows: Any, uid: Any, field: str) -> int | None:
    """Return the key of a visible row in use. Raises Invalid where there is none."""
    if uid is None:
        return None
    found: int | None = rows.filter(uid=uid, archived_at__isnull=True).values_list("pk", flat=True).first()
    if found is None:
        raise Invalid({field: "There is no such row, or it is not yours to see."})
    return found


routes = [("group-mappings", GroupMappingViewSet, "group-mapping")]
