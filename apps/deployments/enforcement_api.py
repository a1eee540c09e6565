"""Enforcement through the API: how it stands in a workspace, and deciding it."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.deployments import enforcement
from apps.deployments.choices import EnforcementMode
from apps.deployments.models import Enforcement


class EnforcementSerializer(serializers.ModelSerializer[Enforcement]):
    """What is decided for one workspace, and the entries as last declared to its cluster."""

    workspace = serializers.UUIDField(source="workspace.uid", read_only=True)
    namespace = serializers.CharField(source="workspace.namespace", read_only=True)
    cluster = serializers.CharField(source="workspace.cluster.slug", read_only=True)

    class Meta:
        model = Enforcement
        fields = [
            "uid", "workspace", "namespace", "cluster", "mode", "entries", "entries_digest", "declared_at",
            "next_expiry_at", "reason", "version",
        ]  # fmt: skip


class ModeSerializer(serializers.Serializer[Any]):
    """The mode, why, and that one knows what it refuses."""

    mode = serializers.ChoiceField(choices=EnforcementMode.choices)
    reason = serializers.CharField(max_length=500)
    confirmed = serializers.BooleanField(required=False, default=False)


class EnforcementViewSet(CommonsViewSet):
    """Enforcement of workspaces within the caller's scope. Deciding requires If-Match with the ETag that was read."""

    queryset = Enforcement.objects.select_related("workspace__cluster", "workspace__team")
    serializer_class = EnforcementSerializer
    permission = "deployments.endpoint.view"
    permissions = {"retrieve": "deployments.endpoint.view", "decide": enforcement.SET}
    filterset_fields = ["mode", "workspace__uid", "workspace__cluster__slug"]

    @extend_schema(request=ModeSerializer, responses={200: EnforcementSerializer})
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, uid: str) -> Response:
        """Decide what the cluster does with models that no usable grant covers. Requires If-Match (428 without)."""
        row, data = self.get_matched(), self.read_input(ModeSerializer)
        enforcement.set_mode(row.workspace_id, **data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))


routes: list[tuple[str, Any, str]] = [("enforcements", EnforcementViewSet, "enforcement")]
paths: list[Any] = []
