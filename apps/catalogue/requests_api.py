"""Requests that a version be approved through the API: what the pages show, done by the same actions."""

from __future__ import annotations

import uuid
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.catalogue import requests as asks
from apps.catalogue.access import VIEW
from apps.catalogue.models import ModelRequest, ModelVersion
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import may
from apps.quotas.models import Workspace


class EvidenceReason(serializers.Serializer[Any]):
    """A reason."""

    reason = serializers.CharField(max_length=2000)


def visible_version(request: Request, uid: uuid.UUID) -> ModelVersion:
    """Return a version the caller sees. Raises Invalid otherwise."""
    row = ModelVersion.objects.visible_to(request.user).filter(uid=uid).first()
    if row is None:
        raise Invalid({"model_version": "You see no version of this uid."})
    return row


class ModelRequestSerializer(serializers.ModelSerializer[ModelRequest]):
    """A request that a version be approved. `scope` is what a grant covers."""

    model_version = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    manifest_digest = serializers.CharField(source="model_version.digest", read_only=True)
    requester = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    approval = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    approval_status = serializers.CharField(source="approval.status", read_only=True, default=None, allow_null=True)
    supersedes = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    renews = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = ModelRequest
        fields = [
            "uid", "model_version", "manifest_digest", "scope", "not_before", "valid_days", "reason", "status",
            "requester", "digest", "approval", "approval_status", "supersedes", "renews",
            "recertify_reason", "created_at", "version",
        ]  # fmt: skip


class ModelRequestDetailSerializer(ModelRequestSerializer):
    """With the checklist as it was submitted."""

    class Meta(ModelRequestSerializer.Meta):
        fields = [*ModelRequestSerializer.Meta.fields, "checklist"]


class AskedInput(serializers.Serializer[Any]):
    """What is asked for."""

    workspaces = serializers.ListField(child=serializers.UUIDField(), allow_empty=False, max_length=asks.MOST)
    max_traffic = serializers.IntegerField(min_value=1, max_value=100, required=False, default=100)
    valid_days = serializers.IntegerField(min_value=1, max_value=asks.MAX_DAYS, required=False, default=365)
    not_before = serializers.DateTimeField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=2000)


class NewRequestInput(AskedInput):
    """A new request."""

    model_version = serializers.UUIDField()


class RenewInput(serializers.Serializer[Any]):
    """Ask for the same scope again."""

    valid_days = serializers.IntegerField(min_value=1, max_value=asks.MAX_DAYS, required=False, allow_null=True)
    reason = serializers.CharField(max_length=2000)


class ModelRequestViewSet(CommonsViewSet):
    """Requests in scope. Correcting and withdrawing take If-Match with the ETag that was read."""

    queryset = ModelRequest.objects.select_related(
        "model_version__model__team__unit", "requester", "approval", "supersedes", "renews"
    )
    serializer_class = ModelRequestSerializer
    permission = VIEW
    permissions = {"create": asks.SUBMIT, "correct": asks.SUBMIT, "renew": asks.SUBMIT}
    filterset_fields = ["status", "model_version__uid", "model_version__model__slug"]

    def get_serializer_class(self) -> Any:
        """The checklist only with one request."""
        return ModelRequestDetailSerializer if self.detail or self.action == "create" else ModelRequestSerializer

    def _asked(self, data: dict[str, Any]) -> asks.Asked:
        rows = dict(Workspace.objects.filter(uid__in=data["workspaces"]).values_list("uid", "pk"))
        # An unknown uid stays one too many, so that the action refuses the list as it refuses a foreign one.
        keys = [rows.get(uid, -position) for position, uid in enumerate(data["workspaces"], start=1)]
        return asks.Asked(keys, data["max_traffic"], data["valid_days"], data["reason"], data["not_before"])

    @extend_schema(request=NewRequestInput, responses={201: ModelRequestDetailSerializer})
    def create(self, request: Request) -> Response:
        """Ask that a sealed version be approved."""
        data = self.read_input(NewRequestInput)
        version = visible_version(request, data["model_version"])
        return self._done(asks.submit(version.pk, self._asked(data), actor=self.actor), status=201)

    @extend_schema(request=AskedInput, responses={201: ModelRequestDetailSerializer})
    @action(detail=True, methods=["post"])
    def correct(self, request: Request, uid: str) -> Response:
        """Put another request in place of an open one."""
        row = self.get_matched()
        data = self.read_input(AskedInput)
        return self._done(
            asks.correct(row.pk, self._asked(data), actor=self.actor, expected_version=self.expected_version),
            status=201,
        )

    @extend_schema(request=RenewInput, responses={201: ModelRequestDetailSerializer})
    @action(detail=True, methods=["post"])
    def renew(self, request: Request, uid: str) -> Response:
        """Ask for an approved scope again."""
        row = self.get_object()
        data = self.read_input(RenewInput)
        made = asks.renew(row.pk, data["reason"], actor=self.actor, valid_days=data.get("valid_days"))
        return self._done(made, status=201)

    @extend_schema(request=EvidenceReason, responses={200: ModelRequestDetailSerializer})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take an open request back: the requester, or who may withdraw for the team."""
        row = self.get_object()
        own = row.requester_id == request.user.pk
        if not own and (row.approval is None or not may(request.user, "approvals.request.withdraw", row.approval)):
            raise NotAllowed(rule="approvals.request.withdraw")
        self.get_matched()
        data = self.read_input(EvidenceReason)
        return self._done(
            asks.withdraw(row.pk, data["reason"], actor=self.actor, expected_version=self.expected_version)
        )

    def _done(self, row: ModelRequest, *, status: int = 200) -> Response:
        return self.answer(self.get_base_queryset().get(pk=row.pk), status=status)


routes: list[tuple[str, Any, str]] = [("model-requests", ModelRequestViewSet, "model-request")]
