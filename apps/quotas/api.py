"""Workspaces, quotas and quota requests through the API: what the pages show, and the same actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.clusters.models import Flavour
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid
from apps.quotas import actions, admin_api, renewal, use_it
from apps.quotas.admin_api import WorkspaceAdminMixin
from apps.quotas.assess import Extras
from apps.quotas.change_api import ChangeRequestViewSet
from apps.quotas.choices import BorrowMode, LendMode
from apps.quotas.feasibility_api import FeasibilityMixin
from apps.quotas.live_api import StandingFields
from apps.quotas.models import Quota, QuotaRequest, Workspace


class WorkspaceSerializer(serializers.ModelSerializer[Workspace]):
    """A workspace."""

    team = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    cluster = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Workspace
        fields = [
            "uid", "team", "cluster", "environment", "namespace", "data_classes", "cpu_cores", "memory_gib",
            "storage_gib", "pods", "jobs", "deployments", "volume_claims", "rung", "archived_at",
            "created_at", "version",
        ]  # fmt: skip


class KubeconfigSerializer(serializers.Serializer[Any]):
    """A kubeconfig as YAML, and what the person still has to do before it works ("": nothing)."""

    kubeconfig = serializers.CharField()
    to_do = serializers.CharField(allow_blank=True)


class QuotaSerializer(StandingFields, serializers.ModelSerializer[Quota]):
    """What a workspace holds of a flavour over a time. `maximum` null: unlimited (see `borrow_mode`)."""

    workspace = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    request = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    valid_from = serializers.DateTimeField(source="valid.lower", read_only=True)
    valid_until = serializers.DateTimeField(source="valid.upper", allow_null=True, read_only=True)
    maximum = serializers.IntegerField(allow_null=True, read_only=True)

    class Meta:
        model = Quota
        fields = [
            "uid", "workspace", "flavour", "guaranteed", "borrow_mode", "borrow_limit", "maximum", "lend_mode",
            "lend_limit", "serving", "valid_from", "valid_until", "standing", "standing_why", "request",
        ]  # fmt: skip


class CostSerializer(serializers.Serializer[Any]):
    """A monthly cost change; null where no rate was published."""

    amount = serializers.CharField()
    currency = serializers.CharField()
    basis = serializers.CharField()


class RecurrenceSerializer(serializers.Serializer[Any]):
    """Weekly windows in UTC: on each of the days one begins at the start and lasts so many minutes."""

    days = serializers.ListField(child=serializers.IntegerField(min_value=0, max_value=6), help_text="0 is Monday.")
    start = serializers.CharField(max_length=5, help_text="HH:MM in UTC.")
    minutes = serializers.IntegerField(min_value=1, max_value=10_080)


class QuotaRequestSerializer(serializers.ModelSerializer[QuotaRequest]):
    """A quota request."""

    workspace = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    team = serializers.CharField(source="workspace.team.slug", read_only=True)
    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    requester = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    approval = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    supersedes = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    maximum = serializers.IntegerField(allow_null=True, read_only=True)
    monthly_cost_change = serializers.SerializerMethodField()
    recurrence = RecurrenceSerializer(read_only=True, allow_null=True)
    renews = serializers.SerializerMethodField(help_text="The end of the quota that it renews; null: it renews none.")

    class Meta:
        model = QuotaRequest
        fields = [
            "uid", "workspace", "team", "flavour", "guaranteed", "borrow_mode", "borrow_limit", "maximum", "lend_mode",
            "lend_limit", "serving", "valid_from", "valid_until", "recurrence", "renews", "reason", "status",
            "requester", "monthly_cost_change", "digest", "approval", "supersedes",
            "granted_at", "applied_at", "created_at", "version",
        ]  # fmt: skip

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_renews(self, request: QuotaRequest) -> str | None:
        """When the renewed quota ends."""
        renewed = renewal.read(request.change)
        return renewed.until.isoformat().replace("+00:00", "Z") if renewed is not None else None

    @extend_schema_field(CostSerializer(allow_null=True))
    def get_monthly_cost_change(self, request: QuotaRequest) -> dict[str, Any] | None:
        """The frozen estimate."""
        cost = request.cost
        if cost is None:
            return None
        return {"amount": str(cost.amount), "currency": cost.currency, "basis": request.estimate.get("basis", "")}


class _Terms(serializers.Serializer[Any]):
    """How much, how far beyond, from when, until when, what for."""

    flavour = serializers.SlugField(help_text="Slug of the flavour.")
    guaranteed = serializers.IntegerField(min_value=0)
    borrow_mode = serializers.ChoiceField(choices=BorrowMode.choices, default=BorrowMode.NONE)
    borrow_limit = serializers.IntegerField(min_value=0, default=0)
    valid_from = serializers.DateTimeField(allow_null=True, default=None)
    valid_until = serializers.DateTimeField(allow_null=True, default=None)
    recurrence = RecurrenceSerializer(allow_null=True, default=None, help_text="Needs `valid_until`.")
    lend_mode = serializers.ChoiceField(choices=LendMode.choices, default=LendMode.ALL)
    lend_limit = serializers.IntegerField(min_value=0, default=0)
    serving = serializers.IntegerField(min_value=0, default=0)
    reason = serializers.CharField(max_length=4000)


class NewRequestSerializer(_Terms):
    """Body of a new request."""

    workspace = serializers.UUIDField(help_text="uid of the workspace.")


class CorrectionSerializer(_Terms):
    """Body of a correction."""


class WithdrawSerializer(serializers.Serializer[Any]):
    """Body of a withdrawal."""

    reason = serializers.CharField(max_length=1000, required=False, allow_blank=True, default="")


def _flavour(slug: str) -> int:
    found = Flavour.objects.filter(slug=slug).values_list("pk", flat=True).first()
    if found is None:
        raise Invalid({"flavour": "There is no such flavour."})
    return int(found)


def _terms(data: Mapping[str, Any]) -> dict[str, Any]:
    names = ("guaranteed", "borrow_mode", "borrow_limit", "valid_from", "valid_until", "reason")
    extras = Extras(**{name: data[name] for name in ("recurrence", "lend_mode", "lend_limit", "serving")})
    return {"flavour_id": _flavour(data["flavour"]), "extras": extras, **{name: data[name] for name in names}}


class WorkspaceViewSet(WorkspaceAdminMixin, CommonsViewSet):
    """Workspaces within the caller's scope."""

    queryset = Workspace.objects.select_related("team", "cluster")
    serializer_class = WorkspaceSerializer
    permission = "quotas.workspace.view"
    permissions = {"kubeconfig": "quotas.workspace.use", **WorkspaceAdminMixin.admin_permissions}
    filterset_fields = ["team__slug", "cluster__slug", "environment"]

    @extend_schema(responses=KubeconfigSerializer)
    @action(detail=True, methods=["get"])
    def kubeconfig(self, request: Request, uid: str) -> Response:
        """Give the caller's own kubeconfig for the workspace; it holds nothing of the portal's credentials."""
        workspace = self.get_object()
        person: Any = request.user
        config, to_do = use_it.access(workspace, person.email)
        return Response({"kubeconfig": use_it.to_yaml(config), "to_do": to_do})


class QuotaViewSet(CommonsViewSet):
    """Quotas within the caller's scope: past, in force and coming."""

    queryset = Quota.objects.select_related("workspace", "flavour", "request")
    serializer_class = QuotaSerializer
    permission = "quotas.quota.view"
    filterset_fields = ["workspace__uid", "flavour__slug"]


class QuotaRequestViewSet(FeasibilityMixin, CommonsViewSet):
    """Quota requests within the caller's scope. Changing one requires If-Match with the ETag that was read."""

    queryset = QuotaRequest.objects.select_related(
        "workspace__team", "workspace__cluster", "flavour", "requester", "approval", "supersedes"
    )
    serializer_class = QuotaRequestSerializer
    permission = "quotas.request.view"
    permissions = {
        **FeasibilityMixin.permissions,
        "create": "quotas.request.create",
        "withdraw": "quotas.request.withdraw",
        "correct": "quotas.request.withdraw",
    }
    filterset_fields = ["status", "workspace__uid", "workspace__team__slug", "flavour__slug"]

    @extend_schema(request=NewRequestSerializer, responses={201: QuotaRequestSerializer})
    def create(self, request: Request) -> Response:
        """Request quota."""
        data = self.read_input(NewRequestSerializer)
        workspace = Workspace.objects.get_visible(request.user, data["workspace"])
        made = actions.request_quota(workspace.pk, **_terms(data), actor=self.actor)
        return self.answer(self._fresh(made), status=201)

    @extend_schema(request=WithdrawSerializer, responses={200: QuotaRequestSerializer})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take an open request back. Requires If-Match (428 without)."""
        row = self.get_matched()
        data = self.read_input(WithdrawSerializer)
        done = actions.withdraw_request(
            row.pk, actor=self.actor, expected_version=self.expected_version, reason=data["reason"]
        )
        return self.answer(self._fresh(done))

    @extend_schema(request=CorrectionSerializer, responses={201: QuotaRequestSerializer})
    @action(detail=True, methods=["post"])
    def correct(self, request: Request, uid: str) -> Response:
        """Replace an open request by a corrected one; earlier decisions are void. Requires If-Match (428 without)."""
        row = self.get_matched()
        data = self.read_input(CorrectionSerializer)
        made = actions.correct_request(row.pk, **_terms(data), actor=self.actor, expected_version=self.expected_version)
        return self.answer(self._fresh(made), status=201)

    def _fresh(self, row: QuotaRequest) -> QuotaRequest:
        return QuotaRequest.objects.select_related(
            "workspace__team", "workspace__cluster", "flavour", "requester", "approval", "supersedes"
        ).get(pk=row.pk)


routes = [
    ("workspaces", WorkspaceViewSet, "workspace"),
    ("quotas", QuotaViewSet, "quota"),
    ("quota-requests", QuotaRequestViewSet, "quota-request"),
    ("change-requests", ChangeRequestViewSet, "change-request"),
]
paths = admin_api.paths
