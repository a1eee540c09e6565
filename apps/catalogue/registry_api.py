"""Registries through the API, and the address that registries post their events to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.catalogue import registry_actions, registry_sync, registry_webhooks
from apps.catalogue.choices import RegistryKind
from apps.catalogue.core_serializers import TestResult
from apps.catalogue.models import Registry, RegistryFinding, RegistryModel
from apps.catalogue.registry_actions import REGISTRY_MANAGE, VIEW
from apps.core.api import CommonsViewSet
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import INSTALLATION, may
from apps.teams.models import Team


class RegistrySerializer(serializers.ModelSerializer[Registry]):
    """A registry and how reading goes. Whether secrets are stored is all that is ever told of them."""

    default_team = serializers.CharField(source="default_team.slug", read_only=True, default=None)
    has_credentials = serializers.SerializerMethodField()
    has_webhook_secret = serializers.SerializerMethodField()

    class Meta:
        model = Registry
        fields = [
            "uid", "slug", "name", "kind", "base_url", "team_tag", "default_team", "poll_minutes", "enabled",
            "has_credentials", "has_webhook_secret", "polled_at", "next_poll_at", "failing_since", "last_error",
            "created_at", "version",
        ]  # fmt: skip

    def get_has_credentials(self, row: Registry) -> bool:
        """Whether any are stored."""
        return bool(row.credentials)

    def get_has_webhook_secret(self, row: Registry) -> bool:
        """Whether one is stored."""
        return bool(row.webhook_secret)


class RegistryChanges(serializers.Serializer[Any]):
    """What can be changed of a registry."""

    name = serializers.CharField(max_length=200, required=False)
    base_url = serializers.CharField(max_length=300, required=False)
    ca_certificate = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    credentials = serializers.DictField(child=serializers.CharField(), required=False, write_only=True)
    webhook_secret = serializers.CharField(required=False, allow_blank=True, write_only=True, max_length=500)
    team_tag = serializers.CharField(max_length=60, required=False, allow_blank=True)
    default_team = serializers.SlugField(required=False, allow_null=True)
    poll_minutes = serializers.IntegerField(required=False, min_value=1, max_value=registry_actions.MAX_POLL_MINUTES)


class RegistryInput(RegistryChanges):
    """A new registry."""

    name = serializers.CharField(max_length=200)
    kind = serializers.ChoiceField(choices=RegistryKind.choices)
    base_url = serializers.CharField(max_length=300)
    slug = serializers.SlugField(max_length=60, required=False)


class RegistryViewSet(CommonsViewSet):
    """Registries, for those who hold the permission for the installation."""

    queryset = Registry.objects.select_related("default_team")
    serializer_class = RegistrySerializer
    permission = VIEW
    permissions: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create", "partial_update", "test", "poll", "enable", "disable"), REGISTRY_MANAGE
    )

    @extend_schema(request=RegistryInput, responses={201: RegistrySerializer})
    def create(self, request: Request) -> Response:
        """Add a registry; it is read from now on."""
        data = _with_team(self.read_input(RegistryInput))
        row = registry_actions.add_registry(data.pop("name"), data.pop("kind"), actor=self.actor, **data)
        return self.answer(row, status=201)

    @extend_schema(request=RegistryChanges, responses=RegistrySerializer)
    def partial_update(self, request: Request, uid: Any = None) -> Response:
        """Change a registry."""
        row = self.get_object()
        data = _with_team(self.read_input(RegistryChanges))
        return self.answer(
            registry_actions.edit_registry(row.pk, actor=self.actor, expected_version=self.expected_version, **data)
        )

    @extend_schema(request=None, responses=TestResult)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, uid: Any = None) -> Response:
        """Call the registry once and say what it answered."""
        fine, text = registry_sync.test_connection(self.get_object())
        return Response({"ok": fine, "detail": text})

    @extend_schema(request=None, responses=RegistrySerializer)
    @action(detail=True, methods=["post"])
    def poll(self, request: Request, uid: Any = None) -> Response:
        """Have it read at once."""
        row = self.get_object()
        return self.answer(
            registry_actions.poll_now(row.pk, actor=self.actor, expected_version=self.expected_version), status=202
        )

    @extend_schema(request=None, responses=RegistrySerializer)
    @action(detail=True, methods=["post"])
    def enable(self, request: Request, uid: Any = None) -> Response:
        """Read it again."""
        row = self.get_object()
        return self.answer(
            registry_actions.enable_registry(row.pk, actor=self.actor, expected_version=self.expected_version)
        )

    @extend_schema(request=None, responses=RegistrySerializer)
    @action(detail=True, methods=["post"])
    def disable(self, request: Request, uid: Any = None) -> Response:
        """Stop reading it."""
        row = self.get_object()
        return self.answer(
            registry_actions.disable_registry(row.pk, actor=self.actor, expected_version=self.expected_version)
        )


class RegisteredModelSerializer(serializers.ModelSerializer[RegistryModel]):
    """A registered model as last seen. What `seen` says is the registry's word, not the portal's."""

    registry = serializers.CharField(source="registry.slug", read_only=True)
    model = serializers.CharField(source="model.slug", read_only=True, default=None)

    class Meta:
        model = RegistryModel
        fields = [
            "uid", "registry", "foreign_id", "name", "model", "seen", "problem", "first_seen_at", "last_seen_at",
            "gone_at", "version",
        ]  # fmt: skip


class RegisteredModelOwner(serializers.Serializer[Any]):
    """To whom it belongs."""

    team = serializers.SlugField()


class EntryViewSet(CommonsViewSet):
    """Registered models of the teams that the caller sees."""

    queryset = RegistryModel.objects.select_related("registry", "model")
    serializer_class = RegisteredModelSerializer
    permission = "catalogue.model.view"
    permissions: ClassVar[Mapping[str, str]] = {"retrieve": "", "assign": ""}
    filterset_fields = ["registry__slug"]

    @extend_schema(request=RegisteredModelOwner, responses=RegisteredModelSerializer)
    @action(detail=True, methods=["post"])
    def assign(self, request: Request, uid: Any = None) -> Response:
        """Give a registered model that nobody owns to a team, and import it."""
        row = self.get_object()
        if not may(request.user, REGISTRY_MANAGE, INSTALLATION):
            raise NotAllowed("Registries are kept by platform admins.", rule=REGISTRY_MANAGE)
        team = Team.objects.filter(slug=self.read_input(RegisteredModelOwner)["team"]).first()
        return self.answer(
            registry_actions.assign_model(
                row.pk, team.pk if team else 0, actor=self.actor, expected_version=self.expected_version
            )
        )


class RegistryFindingSerializer(serializers.ModelSerializer[RegistryFinding]):
    """Something a registry did after it was read. `before` and `after` are the registry's words."""

    registry = serializers.CharField(source="registry.slug", read_only=True)
    registered_model = serializers.CharField(source="registry_model.name", read_only=True, default=None)
    registered_version = serializers.CharField(source="registry_version.foreign_version", read_only=True, default=None)

    class Meta:
        model = RegistryFinding
        fields = [
            "uid", "registry", "registered_model", "registered_version", "kind", "key", "before", "after", "found_at",
            "acknowledged_at", "note", "version",
        ]  # fmt: skip


class RegistryFindingNote(serializers.Serializer[Any]):
    """What follows from it."""

    note = serializers.CharField(max_length=500)


class FindingViewSet(CommonsViewSet):
    """What registries changed about models that the caller sees."""

    queryset = RegistryFinding.objects.select_related("registry", "registry_model", "registry_version")
    serializer_class = RegistryFindingSerializer
    permission = "catalogue.model.view"
    permissions: ClassVar[Mapping[str, str]] = {"retrieve": "", "acknowledge": ""}
    filterset_fields = ["registry__slug", "kind"]

    @extend_schema(request=RegistryFindingNote, responses=RegistryFindingSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, uid: Any = None) -> Response:
        """Take note of a finding."""
        row = self.get_object()
        if not registry_actions.may_acknowledge(request.user, row):
            raise NotAllowed("This is for leads of the owning team and platform admins.")
        note = self.read_input(RegistryFindingNote)["note"]
        return self.answer(
            registry_actions.acknowledge_finding(row.pk, note, actor=self.actor, expected_version=self.expected_version)
        )


class RegistryEvents(APIView):
    """Where a registry posts its events: signed with the shared secret, so nobody signs in."""

    scope_free = "takes a signed event and shows nothing"
    authentication_classes = []
    permission_classes = [AllowAny]
    # The signature is over the bytes as they came: nothing may read them before it is checked.
    parser_classes = []

    @extend_schema(request={"application/json": dict}, responses={202: None, 401: None, 409: None}, auth=[])
    def post(self, request: Request, slug: str) -> Response:
        """Take an event and have the registry read at once. 401: not genuine or too old; 409: taken before."""
        length = request.META.get("CONTENT_LENGTH") or "0"
        if not length.isdigit() or int(length) > registry_webhooks.MAX_BODY:
            raise Invalid({"body": f"An event has at most {registry_webhooks.MAX_BODY // 1024} KiB."})
        registry_webhooks.take(
            slug,
            request._request.body,
            signed=request.headers.get("X-MLflow-Signature", ""),
            timestamp=request.headers.get("X-MLflow-Timestamp", ""),
            delivery_id=request.headers.get("X-MLflow-Delivery-Id", ""),
        )
        return Response(status=202)


def _with_team(data: dict[str, Any]) -> dict[str, Any]:
    if "default_team" in data:
        slug = data.pop("default_team")
        team = Team.objects.filter(slug=slug).first() if slug else None
        if slug and team is None:
            raise Invalid({"default_team": f"There is no team {slug}."})
        data["default_team_id"] = team.pk if team else None
    return data


routes: list[tuple[str, Any, str]] = [
    ("registries", RegistryViewSet, "registry"),
    ("registered-models", EntryViewSet, "registered-model"),
    ("registry-findings", FindingViewSet, "registry-finding"),
]
paths: list[Any] = [path("registries/<slug:slug>/events", RegistryEvents.as_view(), name="registry-events")]
