"""The trail through the API: read only; every read is itself recorded."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit import keeping_api, selectors
from apps.audit.filters import AuditEventFilter
from apps.audit.models import AuditEvent
from apps.audit.querysets import AuditEventQuerySet
from apps.audit.reads import note_read
from apps.core.api import CommonsViewSet, CursorPagination


class AuditEventSerializer(serializers.Serializer[AuditEvent]):
    """An event by its opaque ids. `canonical` is the sealed text: SHA-256 of 0x00 and its UTF-8 bytes is the leaf."""

    uid = serializers.UUIDField()
    occurred_at = serializers.DateTimeField()
    action = serializers.CharField()
    actor_type = serializers.CharField()
    actor_id = serializers.CharField()
    on_behalf_of = serializers.CharField()
    channel = serializers.CharField()
    object_type = serializers.CharField()
    object_id = serializers.UUIDField()
    team_uid = serializers.UUIDField(allow_null=True)
    request_id = serializers.CharField()
    canonical = serializers.CharField(source="canonical_text")


class ProofSerializer(serializers.Serializer[selectors.Proof]):
    """An event's place in the chain, hashes in hexadecimal."""

    seq = serializers.IntegerField()
    leaf = serializers.CharField()
    prev = serializers.CharField()
    hash = serializers.CharField()
    sealed_at = serializers.DateTimeField()


class AuditEventDetailSerializer(AuditEventSerializer):
    """An event with its note and proof."""

    note = serializers.SerializerMethodField()
    proof = serializers.SerializerMethodField()

    def get_note(self, event: AuditEvent) -> dict[str, Any]:
        """Return the free text and personal details kept beside the event."""
        return selectors.note_of(event)

    def get_proof(self, event: AuditEvent) -> dict[str, Any] | None:
        """Return the event's place in the chain."""
        proof = selectors.proof_of(event)
        return dict(ProofSerializer(proof).data) if proof is not None else None


class AuditPagination(CursorPagination):
    """Newest first."""

    ordering = ("-occurred_at", "-uid")


class AuditEventViewSet(CommonsViewSet):
    """Audit events, newest first, filtered like the page (who, action, object, since, until, request)."""

    queryset = AuditEvent.objects.all()
    permission = "audit.event.view"
    filterset_class = AuditEventFilter
    pagination_class = AuditPagination

    def get_base_queryset(self) -> AuditEventQuerySet:
        """Return all events."""
        return AuditEvent.objects.all()

    def get_serializer_class(self) -> type[AuditEventSerializer]:
        """Return the fuller form for a single event."""
        return AuditEventDetailSerializer if self.detail else AuditEventSerializer

    def get_object(self) -> Any:
        """Return one event of the caller's scope; the queryset has decided on the permission's reach."""
        from apps.core.errors import NotAllowed, NotVisible
        from apps.core.permissions import may

        row = self.get_queryset().filter(uid=self.kwargs["uid"]).first()
        if row is None:
            raise NotVisible
        if not may(self.request.user, "audit.event.view"):
            raise NotAllowed(rule="audit.event.view")
        return row

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List events and note that they were read."""
        response = super().list(request, *args, **kwargs)
        note_read(request._request, self.actor)
        return response

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one event and note that it was read."""
        row = self.get_object()
        note_read(request._request, self.actor, row.uid)
        return self.answer(row)


routes = [("audit-events", AuditEventViewSet, "audit-event"), *keeping_api.routes]
