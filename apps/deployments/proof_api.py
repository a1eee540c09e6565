"""Statements of placement and the time machine through the API."""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime
from typing import Any

from django.urls import path
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import may
from apps.deployments import time_machine
from apps.deployments.models import PlacementStatement

#: Nothing was deployed before; offsets of years long gone are no whole minutes, which no database takes.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_ENDPOINT_VIEW = "deployments.endpoint.view"


class PlacementStatementSerializer(serializers.ModelSerializer[PlacementStatement]):
    """A statement: `body` is base64 of the RFC 8785 bytes, `signature` base64 of Ed25519 over them."""

    body = serializers.SerializerMethodField()

    class Meta:
        model = PlacementStatement
        fields = ["uid", "month", "revision", "digest", "signature", "key_id", "made_at", "lines", "violations", "body"]

    def get_body(self, row: PlacementStatement) -> str:
        """The bytes."""
        return base64.b64encode(bytes(row.body)).decode()


class StatementViewSet(CommonsViewSet):
    """Statements of placement, for those who may read placement everywhere."""

    queryset = PlacementStatement.objects.all()
    serializer_class = PlacementStatementSerializer
    permission = "deployments.placement.view"
    permissions = {"retrieve": ""}
    filterset_fields = ["month"]


class TimeMachineView(APIView):
    """What was approved, deployed, where and by whom at a time."""

    scope_free = "the selectors take the user"
    permission_classes = [IsAuthenticated]

    @extend_schema(
        parameters=[
            OpenApiParameter("at", datetime, required=True), OpenApiParameter("endpoint", uuid.UUID),
            OpenApiParameter("model", str), OpenApiParameter("cluster", str),
        ],
        responses=dict[str, Any],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """Answer for `at` (with offset), of an endpoint, a model, a cluster, or all that the caller sees."""
        if not may(request.user, _ENDPOINT_VIEW, None):
            raise NotAllowed(rule=_ENDPOINT_VIEW)
        try:
            at = parse_datetime(request.query_params.get("at", ""))
        except ValueError:
            at = None
        if at is None or at.tzinfo is None or not EARLIEST <= at <= clock.now():
            raise Invalid({"at": "A past moment with its offset: 2026-11-22T14:00:00Z."})
        try:
            uid = uuid.UUID(request.query_params["endpoint"]) if request.query_params.get("endpoint") else None
        except ValueError as error:
            raise Invalid({"endpoint": "An endpoint's uid."}) from error
        found = time_machine.ask(
            request.user, at, endpoint=uid, model=request.query_params.get("model", ""),
            cluster=request.query_params.get("cluster", ""),
        )  # fmt: skip
        return Response({"at": at, "more": found.more, "results": [time_machine.plain(one) for one in found.answers]})


routes: list[tuple[str, Any, str]] = [("placement-statements", StatementViewSet, "placement-statement")]
paths: list[Any] = [path("time-machine", TimeMachineView.as_view(), name="time-machine")]
