"""Decisions about drift, and stopped workloads, through the API."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.core.api_fields import ReasonBody, RemarkBody
from apps.provisioning import drift_actions, stopping
from apps.provisioning.models import StopOrder


class IgnoreBody(ReasonBody):
    """Until when, and why."""

    until = serializers.DateTimeField()


class DriftStateSerializer(serializers.Serializer[Any]):
    """The drift, to be read at `Location` until it is resolved."""

    uid = serializers.UUIDField()
    decision = serializers.CharField(allow_blank=True)
    resolved_at = serializers.DateTimeField(allow_null=True)


class DriftDecisionsMixin(CommonsViewSet):
    """What is done about drift, added to its viewset."""

    admin_permissions: ClassVar[dict[str, str]] = dict.fromkeys(("reapply", "ignore", "reopen"), drift_actions.DECIDE)

    @extend_schema(request=ReasonBody, responses={202: DriftStateSerializer})
    @action(detail=True, methods=["post"])
    def reapply(self, request: Request, uid: str) -> Response:
        """Apply what was approved again to this object alone, taking its field over."""
        row, data = self.get_object(), self.read_input(ReasonBody)
        drift_actions.reapply([row.pk], data["reason"], actor=self.actor)
        return self.accepted(self.get_queryset().get(pk=row.pk), serializer_class=DriftStateSerializer)

    @extend_schema(request=IgnoreBody)
    @action(detail=True, methods=["post"])
    def ignore(self, request: Request, uid: str) -> Response:
        """Leave it as it lives until a time."""
        return self.perform(drift_actions.ignore, IgnoreBody)

    @extend_schema(request=None)
    @action(detail=True, methods=["post"])
    def reopen(self, request: Request, uid: str) -> Response:
        """Open an ignored drift again, now."""
        return self.perform(drift_actions.stop_ignoring)


class StopOrderSerializer(serializers.ModelSerializer[StopOrder]):
    """A workload that was stopped, or is to be."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = StopOrder
        fields = [
            "uid", "cluster", "team", "kind", "namespace", "name", "cause", "cause_uid", "status", "requested_at",
            "stopped_at", "undone_at", "attempts", "retry_at", "last_error", "version",
        ]  # fmt: skip


class StopOrderViewSet(CommonsViewSet):
    """Workloads that were stopped: idle ones, and those of a workspace whose quota has ended."""

    queryset = StopOrder.objects.select_related("cluster", "team")
    serializer_class = StopOrderSerializer
    filterset_fields = ["status", "cause", "cluster__slug", "team__slug"]
    permission = "provisioning.declaration.view"

    @extend_schema(request=RemarkBody, responses={202: StopOrderSerializer})
    @action(detail=True, methods=["post"])
    def undo(self, request: Request, uid: str) -> Response:
        """Have it started again."""
        stopping.require_undo(self.actor, self.get_object())
        return self.perform(stopping.undo, RemarkBody, status=202)


routes: list[tuple[str, Any, str]] = [("stop-orders", StopOrderViewSet, "stop-order")]
