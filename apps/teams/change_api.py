"""Changes of units and teams through the API: now (200) or at a moment to come, and what is planned."""

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
from apps.core.errors import Invalid
from apps.teams import changes
from apps.teams.changes import Wish
from apps.teams.choices import ChangeStatus
from apps.teams.models import PlannedChange, Unit


class PlannedChangeSerializer(serializers.ModelSerializer[PlannedChange]):
    """A change of a unit or team, done or planned; null and "" leave a field as it is."""

    team_uid = serializers.UUIDField(source="team.uid", default=None, read_only=True, allow_null=True)
    unit_uid = serializers.UUIDField(source="unit.uid", default=None, read_only=True, allow_null=True)
    new_unit_uid = serializers.UUIDField(source="new_unit.uid", default=None, read_only=True, allow_null=True)

    class Meta:
        model = PlannedChange
        fields = (
            "uid", "team_uid", "unit_uid", "new_name", "new_cost_centre", "new_unit_uid", "to_top", "archive",
            "effective_at", "reason", "status", "ended_at", "problem", "version",
        )  # fmt: skip
        read_only_fields = fields


class ChangeInput(serializers.Serializer[Any]):
    """What is to change; a field that is left out stays as it is."""

    name = serializers.CharField(max_length=200, required=False)
    cost_centre = serializers.CharField(max_length=50, required=False, allow_blank=True)
    unit_uid = serializers.UUIDField(required=False, help_text="A team's unit, or the unit that a unit is part of.")
    to_top = serializers.BooleanField(required=False, default=False, help_text="Takes a unit to the top.")
    archive = serializers.BooleanField(required=False, default=False)
    effective_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=500)


class ChangeReasonInput(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=500)


def wish_of(given: dict[str, Any], user: Any) -> Wish:
    """Return the wish of an API call. Raises Invalid for a unit that is missing or foreign."""
    unit_id = None
    if given.get("unit_uid") is not None:
        found = Unit.objects.visible_to(user).filter(uid=given["unit_uid"]).values_list("pk", flat=True).first()
        if found is None:
            raise Invalid({"unit_uid": "There is no such row, or it is not yours to see."})
        unit_id = found
    return Wish(given.get("name"), given.get("cost_centre"), unit_id, given["to_top"], given["archive"])


class PlannedChangeFilter(django_filters.FilterSet):
    """By status."""

    status = django_filters.ChoiceFilter(choices=ChangeStatus.choices)

    class Meta:
        model = PlannedChange
        fields: list[str] = []


class PlannedChangeViewSet(CommonsViewSet):
    """Changes of units and teams: planned, done, cancelled, not possible."""

    queryset = PlannedChange.objects.select_related("team", "unit", "new_unit")
    serializer_class = PlannedChangeSerializer
    filter_backends = [DjangoFilterBackend]
    filterset_class = PlannedChangeFilter
    permission = "teams.unit.view"
    permissions = {"cancel": changes.MANAGE}

    @extend_schema(request=ChangeReasonInput, responses=PlannedChangeSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, **kwargs: Any) -> Response:
        """Take back a planned change."""
        row, given = self.get_object(), self.read_input(ChangeReasonInput)
        return self.answer(
            changes.cancel(row.pk, given["reason"], expected_version=self.expected_version, actor=self.actor)
        )


routes = [("planned-changes", PlannedChangeViewSet, "planned-change")]
