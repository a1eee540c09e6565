"""Endpoints, releases and placement rules through the API: what the pages show, and the same actions."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.catalogue.models import ModelVersion
from apps.clusters.choices import Location
from apps.clusters.models import Flavour
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid
from apps.deployments import actions, placement_rules, rollout, selectors
from apps.deployments.models import Endpoint, PlacementRule, Release, RolloutStep
from apps.quotas.choices import DataClass
from apps.quotas.models import Workspace

_ENDPOINT = (
    "workspace__team", "workspace__cluster", "model", "current__model_version__model", "current__flavour",
    "candidate__model_version__model", "candidate__flavour",
)  # fmt: skip
_RELEASE = (
    "endpoint__workspace__team", "endpoint__workspace__cluster", "model_version", "flavour", "requester", "approval",
)  # fmt: skip


class SideSerializer(serializers.ModelSerializer[Release]):
    """One of an endpoint's two releases."""

    model_version = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)

    class Meta:
        model = Release
        fields = ["uid", "number", "status", "load_state", "model_version", "version_digest", "flavour", "tier"]


class EndpointSerializer(serializers.ModelSerializer[Endpoint]):
    """An endpoint. `traffic`: per cent to the candidate; `ready_replicas` null: not observed."""

    workspace = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    team = serializers.CharField(source="workspace.team.slug", read_only=True)
    cluster = serializers.CharField(source="workspace.cluster.slug", read_only=True)
    environment = serializers.CharField(source="workspace.environment", read_only=True)
    model = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    current = SideSerializer(read_only=True, allow_null=True)
    candidate = SideSerializer(read_only=True, allow_null=True)

    class Meta:
        model = Endpoint
        fields = [
            "uid", "name", "workspace", "team", "cluster", "environment", "model", "current", "candidate", "traffic",
            "canary_mode", "url", "ready_replicas", "live_at", "stopped_at", "removed_at", "created_at", "version",
        ]  # fmt: skip


class ReleaseCostSerializer(serializers.Serializer[Any]):
    """A month's cost in the ledger currency, as frozen with the release; null where no rate was published."""

    change = serializers.CharField(allow_null=True)
    minimum = serializers.CharField(allow_null=True)
    maximum = serializers.CharField(allow_null=True)
    currency = serializers.CharField(allow_null=True)


class ReleaseSerializer(serializers.ModelSerializer[Release]):
    """A release. `spec`: what it asks for, as it is sent."""

    endpoint = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    workspace = serializers.SlugRelatedField[Any](source="endpoint.workspace", slug_field="uid", read_only=True)
    team = serializers.CharField(source="endpoint.workspace.team.slug", read_only=True)
    model_version = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    flavour = serializers.SlugRelatedField[Any](slug_field="slug", read_only=True)
    requester = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    approval = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)
    monthly_cost = serializers.SerializerMethodField()

    class Meta:
        model = Release
        fields = [
            "uid", "endpoint", "workspace", "team", "number", "kind", "status", "model_version", "version_digest",
            "flavour", "tier", "spec", "reason", "monthly_cost", "digest", "name_bound", "requester", "approval",
            "granted_at", "started_at", "live_at", "ended_at", "next_step_at", "load_state", "observed_digest",
            "failure", "created_at", "version",
        ]  # fmt: skip

    @extend_schema_field(ReleaseCostSerializer())
    def get_monthly_cost(self, release: Release) -> dict[str, Any]:
        """The frozen estimate."""
        estimate = release.estimate
        after = estimate.get("after") or {}
        return {
            "change": estimate.get("amount"), "minimum": after.get("minimum"), "maximum": after.get("maximum"),
            "currency": estimate.get("currency"),
        }  # fmt: skip


class NewReleaseSerializer(serializers.Serializer[Any]):
    """Body of a new release."""

    workspace = serializers.UUIDField(help_text="uid of the workspace.")
    name = serializers.CharField(max_length=40, help_text="The endpoint; a new name makes a new one.")
    model_version = serializers.UUIDField(help_text="uid of the sealed version.")
    flavour = serializers.SlugField(help_text="Slug of the flavour.")
    spec = serializers.JSONField(
        help_text="{min_replicas, max_replicas, units_per_replica, cpu, memory_gib, tier, autoscaling, schedule, "
        "ladder, guard, logger, explainer, expiry_action}"
    )
    reason = serializers.CharField(max_length=4000)
    emergency = serializers.BooleanField(default=False)


class RolloutReasonSerializer(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=2000, required=False, allow_blank=True, default="")


class RollBackSerializer(RolloutReasonSerializer):
    """Why, and where to."""

    to = serializers.UUIDField(required=False, allow_null=True, default=None, help_text="An earlier release; the last.")


class StepSerializer(serializers.ModelSerializer[RolloutStep]):
    """A step of an endpoint's log."""

    release = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True)
    actor = serializers.SlugRelatedField[Any](slug_field="uid", read_only=True, allow_null=True)

    class Meta:
        model = RolloutStep
        fields = [
            "uid", "release", "kind", "traffic_before", "traffic_after", "at", "actor", "automatic", "reason",
            "evidence", "generation", "model_grant_uid", "release_grant_uid",
        ]  # fmt: skip


class EndpointViewSet(CommonsViewSet):
    """Endpoints within the caller's scope. Acting on one requires If-Match with the ETag that was read."""

    queryset = Endpoint.objects.select_related(*_ENDPOINT)
    serializer_class = EndpointSerializer
    permission = "deployments.endpoint.view"
    permissions = dict.fromkeys(
        ("step", "promote", "hold", "resume", "roll_back", "stop", "start_again", "remove"), rollout.OPERATE
    )
    filterset_fields = ["name", "workspace__uid", "workspace__team__slug", "workspace__cluster__slug"]

    @extend_schema(responses=StepSerializer(many=True), filters=False)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=[])
    def steps(self, request: Request, uid: str) -> Response:
        """Give the newest steps of the endpoint's log, the latest first."""
        endpoint = self.get_object()
        rows = RolloutStep.objects.visible_to(request.user).filter(endpoint=endpoint).select_related("release", "actor")
        newest = rows.order_by("-at", "-id")[: selectors.STEPS]
        return Response(StepSerializer(newest, many=True).data)

    def _run(self, function: Any, serializer: type[serializers.Serializer[Any]] = RolloutReasonSerializer) -> Response:
        row = self.get_matched()
        data = self.read_input(serializer)
        done = function(row.pk, actor=self.actor, expected_version=self.expected_version, **data)
        return self.answer(Endpoint.objects.select_related(*_ENDPOINT).get(pk=done.pk))

    @extend_schema(request=RolloutReasonSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"])
    def step(self, request: Request, uid: str) -> Response:
        """Take the next rung of the canary's ladder. Requires If-Match (428 without)."""
        return self._run(rollout.step)

    @extend_schema(request=RolloutReasonSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"])
    def promote(self, request: Request, uid: str) -> Response:
        """Give the canary all traffic. Requires If-Match (428 without)."""
        return self._run(rollout.promote)

    @extend_schema(request=RolloutReasonSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"])
    def hold(self, request: Request, uid: str) -> Response:
        """Keep the canary at its share. Requires If-Match (428 without)."""
        return self._run(rollout.hold)

    @extend_schema(request=RolloutReasonSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, uid: str) -> Response:
        """Let a held canary climb on. Requires If-Match (428 without)."""
        return self._run(rollout.resume)

    @extend_schema(request=RollBackSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"], url_path="roll-back", url_name="roll-back")
    def roll_back(self, request: Request, uid: str) -> Response:
        """Take the canary off, or go back to an earlier release. Requires If-Match (428 without)."""
        return self._run(rollout.roll_back, RollBackSerializer)

    @extend_schema(request=RolloutReasonSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, uid: str) -> Response:
        """Stop serving. Requires If-Match (428 without)."""
        return self._run(rollout.stop)

    @extend_schema(request=RolloutReasonSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"], url_path="start-again", url_name="start-again")
    def start_again(self, request: Request, uid: str) -> Response:
        """Serve again. Requires If-Match (428 without)."""
        return self._run(rollout.start_again)

    @extend_schema(request=RolloutReasonSerializer, responses={200: EndpointSerializer})
    @action(detail=True, methods=["post"])
    def remove(self, request: Request, uid: str) -> Response:
        """Take a stopped endpoint off the cluster for good. Requires If-Match (428 without)."""
        return self._run(rollout.remove)


class ReleaseViewSet(CommonsViewSet):
    """Releases within the caller's scope. Withdrawing one requires If-Match with the ETag that was read."""

    queryset = Release.objects.select_related(*_RELEASE).defer("change")
    serializer_class = ReleaseSerializer
    permission = "deployments.endpoint.view"
    permissions = {"create": actions.CREATE, "withdraw": actions.CREATE}
    filterset_fields = ["status", "endpoint__uid", "endpoint__workspace__team__slug", "model_version__uid"]

    @extend_schema(request=NewReleaseSerializer, responses={201: ReleaseSerializer})
    def create(self, request: Request) -> Response:
        """Ask that a version serve."""
        data = self.read_input(NewReleaseSerializer)
        workspace = Workspace.objects.get_visible(request.user, data["workspace"])
        version = ModelVersion.objects.get_visible(request.user, data["model_version"])
        flavour = Flavour.objects.filter(slug=data["flavour"]).values_list("pk", flat=True).first()
        if flavour is None:
            raise Invalid({"flavour": "There is no such flavour."})
        made = actions.request_release(
            workspace.pk, data["name"], version.pk, flavour, data["spec"], data["reason"], actor=self.actor,
            emergency=data["emergency"],
        )  # fmt: skip
        return self.answer(self._fresh(made), status=201)

    @extend_schema(request=RolloutReasonSerializer, responses={200: ReleaseSerializer})
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, uid: str) -> Response:
        """Take a release back before it is on the cluster. Requires If-Match (428 without)."""
        row = self.get_matched()
        data = self.read_input(RolloutReasonSerializer)
        done = actions.withdraw_release(
            row.pk, actor=self.actor, expected_version=self.expected_version, reason=data["reason"]
        )
        return self.answer(self._fresh(done))

    def _fresh(self, row: Release) -> Release:
        return Release.objects.select_related(*_RELEASE).get(pk=row.pk)


class RuleSerializer(serializers.ModelSerializer[PlacementRule]):
    """A placement rule. `valid_until` null: in force without end."""

    valid_from = serializers.DateTimeField(source="valid.lower", read_only=True)
    valid_until = serializers.DateTimeField(source="valid.upper", allow_null=True, read_only=True)

    class Meta:
        model = PlacementRule
        fields = ["uid", "data_class", "location", "jurisdictions", "text", "citation", "valid_from", "valid_until"]


class RuleInput(serializers.Serializer[Any]):
    """A rule to add: a location, jurisdictions (EU, DE …), or both."""

    data_class = serializers.ChoiceField(choices=DataClass.choices)
    location = serializers.ChoiceField(choices=Location.choices, required=False, allow_blank=True, default="")
    jurisdictions = serializers.ListField(
        child=serializers.CharField(max_length=10), max_length=100, required=False, default=list
    )
    text = serializers.CharField(max_length=500)
    citation = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    reason = serializers.CharField(max_length=500)


class RuleEndInput(serializers.Serializer[Any]):
    """Why it ends."""

    reason = serializers.CharField(max_length=500)


class RuleViewSet(CommonsViewSet):
    """Placement rules, those that ended included: everybody may read what they are judged by."""

    queryset = PlacementRule.objects.all()
    serializer_class = RuleSerializer
    permission = None
    permissions = {"create": placement_rules.PUBLISH, "end": placement_rules.PUBLISH}
    filterset_fields = ["data_class"]

    @extend_schema(request=RuleInput, responses={201: RuleSerializer})
    def create(self, request: Request) -> Response:
        """Add a rule from now on."""
        return self.made(placement_rules.add_rule(**self.read_input(RuleInput), actor=self.actor))

    @extend_schema(request=RuleEndInput, responses={200: RuleSerializer})
    @action(detail=True, methods=["post"])
    def end(self, request: Request, uid: str) -> Response:
        """End a rule from now on."""
        return self.perform(placement_rules.end_rule, RuleEndInput)


routes: list[tuple[str, Any, str]] = [
    ("endpoints", EndpointViewSet, "endpoint"),
    ("releases", ReleaseViewSet, "release"),
    ("placement-rules", RuleViewSet, "placement-rule"),
]
paths: list[Any] = []
