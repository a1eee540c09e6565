"""What comes by mail, through the API: one's own wishes by group of events."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.api import ActorMixin, OnceMixin
from apps.notifications import actions, selectors
from apps.notifications.choices import MailWish


class MailWishesSerializer(serializers.Serializer[Any]):
    """Group of events → what is wished."""

    wishes = serializers.DictField(child=serializers.ChoiceField(choices=MailWish.choices))


class MailWishes(OnceMixin, ActorMixin, APIView):
    """One's own wishes. The portal shows everything; this is about mail."""

    scope_free = "the caller's own wishes only"
    permission_classes = [IsAuthenticated]

    @extend_schema(responses=MailWishesSerializer, operation_id="mail_wishes_retrieve")
    def get(self, request: Request) -> Response:
        """Return what is in force, for every group."""
        return Response({"wishes": dict(selectors.wishes(request.user))})

    @extend_schema(
        request=MailWishesSerializer, responses=MailWishesSerializer, operation_id="mail_wishes_update"
    )  # fmt: skip
    def put(self, request: Request) -> Response:
        """Store wishes for the groups that are named; the others stay."""
        body = MailWishesSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        actions.set_preferences(body.validated_data["wishes"], actor=self.actor)
        return Response({"wishes": dict(selectors.wishes(request.user))})


paths: list[Any] = [path("mail-wishes", MailWishes.as_view(), name="mail-wishes")]
