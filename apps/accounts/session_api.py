"""Sessions through the API: one's own, and for those who keep them everybody's."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import actions, session_actions
from apps.accounts.models import SignInSession
from apps.accounts.session_tables import SessionFilter
from apps.core.api import CommonsViewSet


class SessionSerializer(serializers.ModelSerializer[SignInSession]):
    """An open session."""

    user: Any = serializers.SlugRelatedField(slug_field="uid", read_only=True)
    provider: Any = serializers.SlugRelatedField(slug_field="slug", read_only=True)

    class Meta:
        model = SignInSession
        fields: tuple[str, ...] = (
            "uid", "user", "device", "method", "provider", "second_factor", "network", "opened_at", "last_seen_at",
            "proved_at", "expires_at", "closed_at",
        )  # fmt: skip
        read_only_fields = fields


class SessionEndInput(serializers.Serializer[Any]):
    """Why; not asked for one's own session."""

    reason = serializers.CharField(max_length=500, required=False, default="")


class SessionViewSet(CommonsViewSet):
    """Open sessions: one's own, and everybody's for those who keep them."""

    queryset = SignInSession.objects.all()
    serializer_class = SessionSerializer
    filterset_class = SessionFilter

    def get_queryset(self) -> Any:
        """Return those in force."""
        return super().get_queryset().open().select_related("user", "provider")

    @extend_schema(request=SessionEndInput, responses=SessionSerializer)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, **kwargs: Any) -> Response:
        """End a session at once; somebody else's takes a reason."""
        row = self.get_object()
        reason = self.read_input(SessionEndInput)["reason"]
        if row.user_id == self.actor.user_id:
            return self.answer(actions.close_session(row.pk, actor=self.actor, cause="closed"))
        return self.answer(session_actions.end_session(row.pk, reason, actor=self.actor))


routes = [("sessions", SessionViewSet, "session")]
