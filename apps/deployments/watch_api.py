"""Objectives through the API, and the metric port: drift of an endpoint, posted by whoever measures it."""

from __future__ import annotations

import uuid
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.deployments import drift_actions, objectives
from apps.deployments.choices import ObjectiveAction, ObjectiveKind
from apps.deployments.models import DriftReading, Endpoint, Objective


class ObjectiveSerializer(serializers.ModelSerializer[Objective]):
    """What an endpoint is held to. `target` as in the portal: shares of 1, ms, days."""

    endpoint = serializers.UUIDField(source="endpoint.uid", read_only=True)

    class Meta:
        model = Objective
        fields = [
            "uid", "endpoint", "kind", "feature", "target", "window_hours", "action", "breached_since", "archived_at",
            "created_at", "version",
        ]  # fmt: skip


class ObjectiveTermsSerializer(serializers.Serializer[Any]):
    """What an objective asks."""

    target = serializers.DecimalField(max_digits=14, decimal_places=6)
    window_hours = serializers.IntegerField(default=24)
    action = serializers.ChoiceField(choices=ObjectiveAction.choices, default=str(ObjectiveAction.NOTIFY))


class NewObjectiveSerializer(ObjectiveTermsSerializer):
    """A new objective."""

    endpoint = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=ObjectiveKind.choices)
    feature = serializers.CharField(max_length=100, required=False, allow_blank=True, default="")


class ObjectiveViewSet(CommonsViewSet):
    """Objectives of endpoints within the caller's scope. Changing one requires If-Match with the ETag that was read."""

    queryset = Objective.objects.select_related("endpoint__workspace__team").order_by("-created_at", "-pk")
    serializer_class = ObjectiveSerializer
    permission = "deployments.endpoint.view"
    permissions = {"create": objectives.SET, "change": objectives.SET, "archive": objectives.SET}
    filterset_fields = ["endpoint__uid", "kind"]

    @extend_schema(request=NewObjectiveSerializer, responses={201: ObjectiveSerializer})
    def create(self, request: Request) -> Response:
        """Hold an endpoint to something."""
        data = self.read_input(NewObjectiveSerializer)
        endpoint = Endpoint.objects.get_visible(request.user, data.pop("endpoint"))
        made = objectives.set_objective(endpoint.pk, **data, actor=self.actor)
        return self.answer(self.get_queryset().get(pk=made.pk), status=201)

    @extend_schema(request=ObjectiveTermsSerializer, responses={200: ObjectiveSerializer})
    @action(detail=True, methods=["post"])
    def change(self, request: Request, uid: str) -> Response:
        """Change what it asks. Requires If-Match (428 without)."""
        row, data = self.get_matched(), self.read_input(ObjectiveTermsSerializer)
        objectives.change_objective(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))

    @extend_schema(request=None, responses={200: ObjectiveSerializer})
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, uid: str) -> Response:
        """Hold the endpoint to it no longer. Requires If-Match (428 without)."""
        row = self.get_matched()
        objectives.archive_objective(row.pk, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))


class DriftReadingSerializer(serializers.ModelSerializer[DriftReading]):
    """One statistic of one feature over the window that ended at `at`."""

    release = serializers.UUIDField(source="release.uid", read_only=True, allow_null=True)

    class Meta:
        model = DriftReading
        fields = ["uid", "release", "feature", "kind", "value", "samples", "at", "source"]


class ReadingSerializer(serializers.Serializer[Any]):
    """A feature over a window, with exactly one of bins, samples and values.

    `bins` and `samples`: {"expected": […], "actual": […]}, counts of the same bins or the observations themselves.
    `values`: {"psi": 0.08, "ks": 0.04}, computed elsewhere; `count` says of how many observations.
    """

    feature = serializers.CharField(max_length=100)
    at = serializers.DateTimeField(help_text="End of the window.")
    bins = serializers.JSONField(required=False, allow_null=True)
    samples = serializers.JSONField(required=False, allow_null=True)
    values = serializers.JSONField(required=False, allow_null=True)
    count = serializers.IntegerField(required=False, min_value=0)


class PostingSerializer(serializers.Serializer[Any]):
    """What a monitor posts. `release`: null is the one that serves."""

    # The metaclass takes declared fields out of the class: DRF's own attribute stays.
    source = serializers.CharField(max_length=100, help_text="What measured this.")  # type: ignore[assignment]  # as said
    release = serializers.UUIDField(required=False, allow_null=True, default=None)
    readings = ReadingSerializer(many=True)


class DriftViewSet(CommonsViewSet):
    """Drift of one endpoint: the newest first, and the port where monitors post it."""

    serializer_class = DriftReadingSerializer
    permission = "deployments.endpoint.view"
    permissions = {"create": drift_actions.POST}
    filterset_fields = ["feature", "kind"]

    def get_base_queryset(self) -> Any:
        """The endpoint's readings."""
        rows = DriftReading.objects.select_related("release").order_by("-at", "-pk")
        return rows.filter(endpoint__uid=self.kwargs.get("endpoint_uid") or uuid.UUID(int=0))

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the readings. An endpoint outside the caller's scope is not found."""
        Endpoint.objects.get_visible(request.user, kwargs["endpoint_uid"])
        return super().list(request, *args, **kwargs)

    @extend_schema(request=PostingSerializer, responses={201: DriftReadingSerializer(many=True)})
    def create(self, request: Request, endpoint_uid: uuid.UUID) -> Response:
        """Post readings. The same feature, statistic and time again changes nothing."""
        Endpoint.objects.get_visible(request.user, endpoint_uid)
        data = self.read_input(PostingSerializer)
        rows = drift_actions.post(
            endpoint_uid, data["readings"], data["source"], actor=self.actor, release_uid=data["release"]
        )
        return Response(DriftReadingSerializer(rows, many=True).data, status=201)


routes: list[tuple[str, Any, str]] = [("objectives", ObjectiveViewSet, "objective")]
paths: list[Any] = [
    path(
        "endpoints/<uuid:endpoint_uid>/drift",
        DriftViewSet.as_view({"get": "list", "post": "create"}),
        name="endpoint-drift",
    ),
]
