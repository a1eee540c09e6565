"""Declarations, apply runs, plans and drift through the API: read access and retry."""

from __future__ import annotations

import json
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters.selectors import maintenance_of
from apps.core.api import CommonsViewSet
from apps.provisioning import actions, decisions_api, planning, selectors
from apps.provisioning.choices import Removal
from apps.provisioning.decisions_api import DriftDecisionsMixin
from apps.provisioning.models import ApplyRun, Declaration, Drift, Plan


class DeclarationSerializer(serializers.ModelSerializer[Declaration]):
    """A declaration; `state` and `why` say in words how it stands."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    state = serializers.SerializerMethodField()
    why = serializers.SerializerMethodField()
    drift = serializers.SerializerMethodField()

    class Meta:
        model = Declaration
        fields = [
            "uid", "kind", "owner_uid", "title", "cluster", "team", "generation", "observed_generation", "grant_uid",
            "status", "state", "why", "drift", "declared_at", "applied_at", "attempts", "retry_at", "error_class",
            "last_error", "failing_since", "version",
        ]  # fmt: skip

    def get_state(self, declaration: Declaration) -> str:
        """Return applied, applying, waiting, failing or stopped."""
        return self._standing(declaration).state

    def get_why(self, declaration: Declaration) -> str:
        """Return why it is not applied, empty where it is."""
        return self._standing(declaration).why

    def get_drift(self, declaration: Declaration) -> str:
        """Return open where something lives differently, left where people left all of that until a date, or empty."""
        return selectors.drift_of(declaration)

    def _standing(self, declaration: Declaration) -> selectors.Standing:
        """Say how it stands; the windows in force are read once for the whole answer."""
        if "maintenance" not in self.context:
            self.context["maintenance"] = maintenance_of()  # type: ignore[index]  # DRF's context is a dict
        return selectors.standing(declaration, maintenance=self.context["maintenance"])


class DeclarationDetailSerializer(DeclarationSerializer):
    """A declaration with its objects as they are applied."""

    objects = serializers.SerializerMethodField()

    class Meta(DeclarationSerializer.Meta):
        fields = [*DeclarationSerializer.Meta.fields, "objects"]

    def get_objects(self, declaration: Declaration) -> list[dict[str, Any]]:
        """Return the objects in apply order."""
        rows = declaration.declared_objects.filter(removal=Removal.NONE)
        return [{"digest": row.digest, "manifest": json.loads(bytes(row.body))} for row in rows]


class RetrySerializer(serializers.Serializer[Any]):
    """How to apply again."""

    take_over = serializers.BooleanField(default=False)
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class DeclarationViewSet(CommonsViewSet):
    """Declarations."""

    queryset = Declaration.objects.select_related("cluster", "team").annotate(**selectors.drift_flags())
    serializer_class = DeclarationSerializer
    permission = "provisioning.declaration.view"
    permissions = {"retry": actions.RETRY}
    filterset_fields = {
        "status": ["exact"],
        "cluster__slug": ["exact"],
        "team__slug": ["exact"],
        "owner_uid": ["exact"],
    }

    def get_serializer_class(self) -> Any:
        """Objects only for a single one."""
        return DeclarationSerializer if self.action == "list" else DeclarationDetailSerializer

    @extend_schema(request=RetrySerializer, responses={202: DeclarationDetailSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, uid: str) -> Response:
        """Apply again; `take_over` overwrites other managers' values of declared fields, this once."""
        declaration = self.get_object()
        data = self.read_input(RetrySerializer)
        row = actions.retry(
            declaration.pk, actor=self.actor, take_over=data["take_over"], reason=data["reason"],
            expected_version=self.expected_version,
        )  # fmt: skip
        return self.accepted(row)


class ApplyRunSerializer(serializers.ModelSerializer[ApplyRun]):
    """An attempt with every request it made."""

    declaration = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = ApplyRun
        fields = [
            "uid", "declaration", "generation", "outcome", "started_at", "finished_at", "duration_ms", "error_class",
            "error", "results",
        ]  # fmt: skip


class ApplyRunViewSet(CommonsViewSet):
    """Apply runs."""

    queryset = ApplyRun.objects.select_related("declaration")
    serializer_class = ApplyRunSerializer
    permission = "provisioning.run.view"
    filterset_fields = {"outcome": ["exact"], "declaration__uid": ["exact"]}


class PlanSerializer(serializers.ModelSerializer[Plan]):
    """A plan: what the server says a change would do, object by object."""

    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Plan
        fields = [
            "uid", "cluster", "team", "subject_uid", "owner_uid", "declaration_kind", "base_generation", "digest",
            "status", "entries", "error_class", "last_error", "retry_at", "made_at", "closed_at", "version",
        ]  # fmt: skip


class PlanViewSet(CommonsViewSet):
    """Plans."""

    queryset = Plan.objects.select_related("cluster", "team")
    serializer_class = PlanSerializer
    permission = "provisioning.declaration.view"
    permissions = {"remake": actions.RETRY}
    filterset_fields = {"status": ["exact"], "subject_uid": ["exact"], "owner_uid": ["exact"]}

    @extend_schema(request=None, responses={202: PlanSerializer})
    @action(detail=True, methods=["post"])
    def remake(self, request: Request, uid: str) -> Response:
        """Make a failed plan again."""
        plan = self.get_object()
        return self.accepted(planning.remake_failed(plan.pk, actor=self.actor))


class DriftSerializer(serializers.ModelSerializer[Drift]):
    """A declared field that lives differently."""

    declaration = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)

    class Meta:
        model = Drift
        fields = [
            "uid", "declaration", "kind", "namespace", "name", "field", "declared", "live", "manager", "operation",
            "changed_at", "found_at", "decision", "ignored_until", "ignore_reason", "resolved_at", "resolution",
        ]  # fmt: skip


class DriftViewSet(DriftDecisionsMixin, CommonsViewSet):
    """Drift."""

    queryset = Drift.objects.select_related("declaration")
    serializer_class = DriftSerializer
    permission = "provisioning.declaration.view"
    permissions = DriftDecisionsMixin.admin_permissions
    filterset_fields = {"declaration__uid": ["exact"], "resolved_at": ["isnull"]}


routes = [
    ("declarations", DeclarationViewSet, "declaration"),
    ("apply-runs", ApplyRunViewSet, "apply-run"),
    ("plans", PlanViewSet, "plan"),
    ("drift", DriftViewSet, "drift"),
    *decisions_api.routes,
]
