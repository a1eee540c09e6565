"""API of webhooks and their deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.core.permissions import INSTALLATION, may
from apps.notifications import webhooks
from apps.notifications.models import Webhook, WebhookDelivery
from apps.notifications.querysets import VIEW
from apps.notifications.webhook_delivery import MANAGE
from apps.notifications.webhook_tables import DeliveryFilter, WebhookFilter


class WebhookSerializer(serializers.ModelSerializer[Webhook]):
    """A receiver of events. Its secret is never told again; who may not change it is told the host only."""

    url = serializers.SerializerMethodField()

    class Meta:
        model = Webhook
        fields: tuple[str, ...] = (
            "uid", "name", "url", "events", "include_texts", "enabled", "ended_reason", "failing_since", "last_error",
            "last_delivered_at", "created_at", "version",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields

    def get_url(self, row: Webhook) -> str:
        """Return the address; its path may hold a key."""
        request = self.context.get("request")
        known = request is not None and may(request.user, MANAGE, INSTALLATION)
        return row.url if known else f"{row.host}/…"


class NewWebhookSerializer(WebhookSerializer):
    """A webhook with its secret, which is told this once."""

    secret = serializers.SerializerMethodField()

    class Meta(WebhookSerializer.Meta):
        fields = (*WebhookSerializer.Meta.fields, "secret")
        read_only_fields: tuple[str, ...] = fields

    def get_secret(self, row: Webhook) -> str:
        """Return the secret that was just made, given in the context."""
        return str(self.context["secret"])


class WebhookChanges(serializers.Serializer[Any]):
    """What can be changed of a webhook."""

    name = serializers.CharField(max_length=120, required=False)
    url = serializers.CharField(max_length=500, required=False)
    events = serializers.ListField(
        child=serializers.CharField(max_length=100), required=False, max_length=500,
        help_text="Names of events (quotas.request.approved) or of groups (quotas).",
    )  # fmt: skip
    include_texts = serializers.BooleanField(required=False)


class WebhookInput(WebhookChanges):
    """A new webhook."""

    name = serializers.CharField(max_length=120)
    url = serializers.CharField(max_length=500)
    events = serializers.ListField(child=serializers.CharField(max_length=100), max_length=500)
    enabled = serializers.BooleanField(required=False, default=True)


class DeliverySerializer(serializers.ModelSerializer[WebhookDelivery]):
    """One event on its way to one webhook; `uid` is the delivery id that the receiver gets."""

    webhook = serializers.UUIDField(source="webhook.uid", read_only=True)

    class Meta:
        model = WebhookDelivery
        fields: tuple[str, ...] = (
            "uid", "webhook", "event", "status", "attempts", "answer_status", "error", "created_at", "retry_at",
            "delivered_at",
        )  # fmt: skip
        read_only_fields: tuple[str, ...] = fields


class DeliveryDetailSerializer(DeliverySerializer):
    """A delivery with its body as sent and the headers of the last attempt."""

    body = serializers.CharField(source="body_text", read_only=True)
    headers = serializers.DictField(child=serializers.CharField(), read_only=True)

    class Meta(DeliverySerializer.Meta):
        fields = (*DeliverySerializer.Meta.fields, "headers", "body")
        read_only_fields: tuple[str, ...] = fields


class WebhookViewSet(CommonsViewSet):
    """Webhooks, for those who watch over what leaves the portal; changed by platform admins."""

    queryset = Webhook.objects.all()
    serializer_class = WebhookSerializer
    filterset_class = WebhookFilter
    permission = VIEW
    permissions: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create", "partial_update", "enable", "disable", "rotate_secret", "test"), MANAGE
    )
    secret_answers = frozenset({"create", "rotate_secret"})

    @extend_schema(request=WebhookInput, responses={201: NewWebhookSerializer})
    def create(self, request: Request) -> Response:
        """Add a webhook. The answer holds its secret, once."""
        data = self.read_input(WebhookInput)
        made = webhooks.create_webhook(
            data["name"], data["url"], data["events"], include_texts=data.get("include_texts", False),
            enabled=data["enabled"], actor=self.actor,
        )  # fmt: skip
        return self._with_secret(made, status=201)

    @extend_schema(request=WebhookChanges, responses=WebhookSerializer)
    def partial_update(self, request: Request, uid: Any = None) -> Response:
        """Change a webhook."""
        row = self.get_object()
        data = self.read_input(WebhookChanges)
        return self.answer(
            webhooks.edit_webhook(row.pk, actor=self.actor, expected_version=self.expected_version, **data)
        )

    @extend_schema(request=None, responses=WebhookSerializer)
    @action(detail=True, methods=["post"])
    def enable(self, request: Request, uid: Any = None) -> Response:
        """Send again."""
        row = self.get_object()
        return self.answer(webhooks.enable_webhook(row.pk, actor=self.actor, expected_version=self.expected_version))

    @extend_schema(request=None, responses=WebhookSerializer)
    @action(detail=True, methods=["post"])
    def disable(self, request: Request, uid: Any = None) -> Response:
        """Send nothing any more."""
        row = self.get_object()
        return self.answer(webhooks.disable_webhook(row.pk, actor=self.actor, expected_version=self.expected_version))

    @extend_schema(request=None, responses=NewWebhookSerializer)
    @action(detail=True, methods=["post"], url_path="rotate-secret")
    def rotate_secret(self, request: Request, uid: Any = None) -> Response:
        """Make a new secret; the old one is void at once. The answer holds it, once."""
        row = self.get_object()
        return self._with_secret(
            webhooks.rotate_secret(row.pk, actor=self.actor, expected_version=self.expected_version)
        )

    @extend_schema(request=None, responses={202: DeliverySerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, uid: Any = None) -> Response:
        """Queue a test event."""
        row = self.get_object()
        made = webhooks.send_test(row.pk, actor=self.actor, expected_version=self.expected_version)
        return self.answer(made, status=202, serializer_class=DeliverySerializer)

    def _with_secret(self, made: webhooks.NewSecret, *, status: int = 200) -> Response:
        context = {**self.get_serializer_context(), "secret": made.secret}
        data = NewWebhookSerializer(made.webhook, context=context).data
        return Response(data, status=status, headers={"ETag": f'"{made.webhook.version}"'})


class DeliveryViewSet(CommonsViewSet):
    """What was sent to webhooks, for those who watch over what leaves the portal."""

    queryset = WebhookDelivery.objects.select_related("webhook")
    serializer_class = DeliverySerializer
    filterset_class = DeliveryFilter
    permission = VIEW
    permissions: ClassVar[Mapping[str, str]] = {"replay": MANAGE}

    def get_serializer_class(self) -> Any:
        """Show the body of a single one only."""
        return DeliveryDetailSerializer if self.action == "retrieve" else DeliverySerializer

    def get_base_queryset(self) -> Any:
        """Leave bodies and secrets where they are in lists."""
        rows = super().get_base_queryset()
        return rows.defer("body", "headers", "webhook__secret") if self.action == "list" else rows

    @extend_schema(request=None, responses={202: DeliverySerializer})
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, uid: Any = None) -> Response:
        """Send it once more: the same bytes under the same delivery id."""
        row = self.get_object()
        return self.answer(webhooks.replay(row.pk, actor=self.actor), status=202, serializer_class=DeliverySerializer)


routes: list[tuple[str, Any, str]] = [
    ("webhooks", WebhookViewSet, "webhook"),
    ("webhook-deliveries", DeliveryViewSet, "webhook-delivery"),
]
