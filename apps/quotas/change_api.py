"""Change requests through the API: what the pages show, and the same actions."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.quotas import changes
from apps.quotas.admin_api import ChangeAdminMixin
from apps.quotas.models import ChangeRequest

_RELATED = ("workspace__team", "receiver", "cluster", "requester", "approval")


class ChangeSerializer(serializers.ModelSerializer[ChangeRequest]):
    """A change request as lists show it; `workspace` and `team` are null for a change of the cluster itself."""

    workspace = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    team = serializers.CharField(source="team.slug", read_only=True, default=None, allow_null=True)
    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    requester = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    approval = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = ChangeRequest
        fields = [
            "uid", "title", "kind", "cluster", "workspace", "team", "reason", "values", "status", "requester", "digest",
            "approval", "granted_at", "applied_at", "created_at", "version",
        ]  # fmt: skip


class ChangeDetailSerializer(ChangeSerializer):
    """A change request with all that it changes: settings, objects (equal ones grouped) and every digest leaf."""

    change = serializers.JSONField(read_only=True)

    class Meta(ChangeSerializer.Meta):
        fields = [*ChangeSerializer.Meta.fields, "change"]


class ChangeWithdrawalSerializer(serializers.Serializer[Any]):
    """Body of a withdrawal."""

    reason = serializers.CharField(max_length=1000, required=False, allow_blank=True, default="")


class ChangeRequestViewSet(ChangeAdminMixin, CommonsViewSet):
    """Change requests within the caller's scope. Withdrawing takes If-Match with the ETag that was read."""

    queryset = ChangeRequest.objects.select_related(*_RELATED)
    serializer_class = ChangeSerializer
    permission = "quotas.request.view"
    permissions = {"withdraw": "quotas.change.create", **ChangeAdminMixin.admin_permissions}
    filterset_fields = ["status", "kind", "cluster__slug", "workspace__uid", "workspace__team__slug"]

    def _permission(self) -> str | None:
        """Whose change one may read is in `visible_to`: a workspace's by its team, a cluster's by who sees clusters."""
        return None if self.action == "retrieve" else super()._permission()

    def get_queryset(self) -> Any:
        """Leave the long parts of many rows in the database."""
        rows = super().get_queryset()
        return rows.defer("objects_after") if self.detail else rows.defer("objects_after", "change")

    def get_serializer_class(self) -> Any:
        """One change is shown whole."""
        return ChangeDetailSerializer if self.detail else ChangeSerializer

    @extend_schema(request=ChangeWithdrawalSerializer, responses={200: ChangeDetailSerializer})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take an open change request back."""
        row = self.get_object()
        data = self.read_input(ChangeWithdrawalSerializer)
        done = changes.withdraw_change(row.pk, data["reason"], actor=self.actor, expected_version=self.expected_version)
        return self.answer(ChangeRequest.objects.select_related(*_RELATED).get(pk=done.pk))
