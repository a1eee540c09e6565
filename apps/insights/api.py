"""Findings and idle workloads through the API: what the pages show, and the same decisions."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.insights import actions, idle_actions
from apps.insights.models import Finding, IdleCase


class FindingSerializer(serializers.ModelSerializer[Finding]):
    """One finding. `amount` null: the cost is unknown."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    workspace = serializers.UUIDField(source="workspace.uid", read_only=True, default=None)
    request = serializers.UUIDField(source="request.uid", read_only=True, default=None)
    window_start = serializers.DateTimeField(source="window.lower", read_only=True)
    window_end = serializers.DateTimeField(source="window.upper", read_only=True)

    class Meta:
        model = Finding
        fields = [
            "uid", "kind", "status", "title", "team", "cluster", "workspace", "flavour", "window_start", "window_end",
            "gpu_ms", "amount", "currency", "evidence", "proposal", "snoozed_until", "reason", "request", "found_at",
            "closed_at", "version",
        ]  # fmt: skip


class SnoozeSerializer(serializers.Serializer[Any]):
    """Until when, and why."""

    until = serializers.DateTimeField()
    reason = serializers.CharField(max_length=300)


class ReasonSerializer(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=300)


class GiveBackSerializer(serializers.Serializer[Any]):
    """What approvers read; empty: what was seen."""

    reason = serializers.CharField(max_length=1000, required=False, default="", allow_blank=True)


class FindingViewSet(CommonsViewSet):
    """Findings within the caller's scope. Deciding one requires If-Match with the ETag that was read."""

    queryset = Finding.objects.select_related("team", "cluster", "flavour", "workspace", "request")
    serializer_class = FindingSerializer
    permission = "insights.finding.view"
    permissions = {
        "retrieve": "insights.finding.view",
        "snooze": actions.DECIDE,
        "dismiss": actions.DECIDE,
        "give_back": actions.DECIDE,
    }
    filterset_fields = ["kind", "status", "team__slug", "cluster__slug"]

    @extend_schema(request=SnoozeSerializer, responses={200: FindingSerializer})
    @action(detail=True, methods=["post"])
    def snooze(self, request: Request, uid: str) -> Response:
        """Leave a finding alone until a date. Requires If-Match (428 without)."""
        row, data = self.get_matched(), self.read_input(SnoozeSerializer)
        actions.snooze(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))

    @extend_schema(request=ReasonSerializer, responses={200: FindingSerializer})
    @action(detail=True, methods=["post"])
    def dismiss(self, request: Request, uid: str) -> Response:
        """Say that a finding is none. Requires If-Match (428 without)."""
        row, data = self.get_matched(), self.read_input(ReasonSerializer)
        actions.dismiss(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))

    @extend_schema(request=GiveBackSerializer, responses={200: FindingSerializer})
    @action(detail=True, methods=["post"], url_path="give-back")
    def give_back(self, request: Request, uid: str) -> Response:
        """Request the lower number that the finding proposes. Requires If-Match (428 without)."""
        row, data = self.get_matched(), self.read_input(GiveBackSerializer)
        actions.give_back(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))


class IdleCaseSerializer(serializers.ModelSerializer[IdleCase]):
    """One idle workload. `saved_gpu_ms`: GPU time given back so far, in physical GPUs."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    workspace = serializers.UUIDField(source="workspace.uid", read_only=True)

    class Meta:
        model = IdleCase
        fields = [
            "uid", "status", "team", "workspace", "workload_kind", "workload_name", "gpus", "flavour", "policy",
            "idle_since", "noticed_at", "stop_at", "kept_until", "answer", "stopped_at", "ended_at", "saved_gpu_ms",
            "version",
        ]  # fmt: skip


class IdleCaseViewSet(CommonsViewSet):
    """Idle workloads within the caller's scope. An answer requires If-Match with the ETag that was read."""

    queryset = IdleCase.objects.select_related("team", "workspace", "flavour")
    serializer_class = IdleCaseSerializer
    permission = "insights.finding.view"
    permissions = {"keep": actions.DECIDE, "stop": actions.DECIDE, "start": actions.DECIDE}
    filterset_fields = ["status", "team__slug", "workspace__uid"]

    @extend_schema(request=SnoozeSerializer, responses={200: IdleCaseSerializer})
    @action(detail=True, methods=["post"])
    def keep(self, request: Request, uid: str) -> Response:
        """Keep it until a time. Requires If-Match (428 without)."""
        row, data = self.get_matched(), self.read_input(SnoozeSerializer)
        idle_actions.keep(row.pk, **data, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))

    @extend_schema(request=None, responses={200: IdleCaseSerializer})
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, uid: str) -> Response:
        """Stop it now. Requires If-Match (428 without)."""
        row = self.get_matched()
        idle_actions.stop_now(row.pk, actor=self.actor, expected_version=self.expected_version)
        return self.answer(self.get_queryset().get(pk=row.pk))

    @extend_schema(request=None, responses={200: IdleCaseSerializer})
    @action(detail=True, methods=["post"])
    def start(self, request: Request, uid: str) -> Response:
        """Start it again. Requires If-Match (428 without)."""
        row = self.get_matched()
        idle_actions.start_again(row.pk, actor=self.actor)
        return self.answer(self.get_queryset().get(pk=row.pk))


routes = [("findings", FindingViewSet, "finding"), ("idle-workloads", IdleCaseViewSet, "idle-workload")]
