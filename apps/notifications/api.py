"""API of the notifications room."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import CommonsViewSet
from apps.notifications import actions, preferences_api, webhook_api
from apps.notifications.filters import MailFilter, NotificationFilter
from apps.notifications.models import Notification, SentMail


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    """One piece of news."""

    class Meta:
        model = Notification
        fields = ("uid", "event", "title", "body", "path", "happened_at", "read_at")
        read_only_fields = fields


class SentMailSerializer(serializers.ModelSerializer[SentMail]):
    """One mail."""

    body_text = serializers.CharField(source="text", read_only=True)

    class Meta:
        model = SentMail
        fields = (
            "uid",
            "event",
            "address",
            "subject",
            "body_text",
            "attachment_name",
            "attachment_sha256",
            "status",
            "attempts",
            "created_at",
            "sent_at",
            "error",
        )
        read_only_fields = fields


class MarkedSerializer(serializers.Serializer[Any]):
    """How many were marked."""

    marked = serializers.IntegerField()


class NotificationViewSet(CommonsViewSet):
    """The caller's own notifications."""

    queryset = Notification.objects.all()
    serializer_class = NotificationSerializer
    filterset_class = NotificationFilter

    @extend_schema(request=None, responses=NotificationSerializer)
    @action(detail=True, methods=["post"])
    def read(self, request: Request, uid: Any = None) -> Response:
        """Mark as read."""
        row = self.get_object()
        return self.answer(actions.mark_read(row.uid, actor=self.actor))

    @extend_schema(request=None, responses=MarkedSerializer, filters=False)
    @action(detail=False, methods=["post"], url_path="read-all", pagination_class=None)
    def read_all(self, request: Request) -> Response:
        """Mark everything as read."""
        return Response({"marked": actions.mark_all_read(actor=self.actor)})


class SentMailViewSet(CommonsViewSet):
    """The caller's own mail; all mail for those who watch over it."""

    queryset = SentMail.objects.all()
    serializer_class = SentMailSerializer
    filterset_class = MailFilter
    permissions = {"retry": actions.RETRY_PERMISSION}

    @extend_schema(request=None, responses=SentMailSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, uid: Any = None) -> Response:
        """Send a failed mail once more."""
        return self.answer(actions.retry_mail(self.get_object().uid, actor=self.actor))


routes = [
    ("notifications", NotificationViewSet, "notification"),
    ("sent-mail", SentMailViewSet, "sent-mail"),
    *webhook_api.routes,
]
paths = preferences_api.paths
