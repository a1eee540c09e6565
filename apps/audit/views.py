"""Pages of the trail: the list with its export, and one event with its proof."""

from __future__ import annotations

import json
from typing import Any

import django_tables2
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from apps.audit import selectors
from apps.audit.events import TRAIL_EXPORTED
from apps.audit.filters import AuditEventFilter
from apps.audit.models import AuditEvent
from apps.audit.querysets import AuditEventQuerySet
from apps.audit.reads import note_read
from apps.audit.tables import AuditEventTable, AuditExportTable
from apps.core.views import Crumb, DetailView, ListView


class EventList(ListView):
    """The trail."""

    title = "Audit trail"
    intro = "Every decision, change and refusal, in the order it was committed. Nothing here can be changed or removed."
    permission = "audit.event.view"
    export_permission = "audit.event.export"
    export_event = TRAIL_EXPORTED
    filterset_class = AuditEventFilter
    empty_title = "No events yet"
    empty_text = "Whatever people and the portal change from now on is written here."
    template_name = "audit/event_list.html"

    @property
    def table_class(self) -> type[django_tables2.Table]:  # type: ignore[override]  # the export has more columns
        """Return the page's table, or the fuller one for an export."""
        return AuditExportTable if "export" in self.request.GET else AuditEventTable

    def get_base_queryset(self) -> AuditEventQuerySet:
        """Return all events with the present names of their persons."""
        return selectors.with_names(AuditEvent.objects.order_by("-occurred_at", "-uid"))

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the trail and note that it was read (an export notes itself)."""
        response = super().get(request, *args, **kwargs)
        if "export" not in request.GET:
            note_read(request, self.actor)
        return response

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the end of the chain, which an auditor writes down to compare later."""
        head = selectors.head()
        return super().get_context(head_seq=head.seq, head_hash=bytes(head.hash).hex(), **extra)


class EventDetail(DetailView):
    """One event: what the columns say, the sealed bytes, the note kept beside them, the place in the chain."""

    permission = "audit.event.view"
    template_name = "audit/event_detail.html"
    history = False

    def get_base_queryset(self) -> AuditEventQuerySet:
        """Return all events with the present names of their persons."""
        return selectors.with_names(AuditEvent.objects.all())

    def scope_object(self) -> Any:
        """The queryset has decided already: events carry a team's uid, not a row the gate could ask about."""
        return None

    def get_title(self) -> str:
        """Return the action's name."""
        return str(self.object.action)

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the trail."""
        return [Crumb("Audit trail", reverse("audit:event-list"))]

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the event and note that it was read."""
        response = super().get(request, *args, **kwargs)
        note_read(request, self.actor, self.object.uid)
        return response

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add note, proof and the other events of the same object and the same request."""
        event: AuditEvent = self.object
        visible = selectors.with_names(AuditEvent.objects.visible_to(self.request.user))
        same_request = visible.filter(request_id=event.request_id).exclude(uid=event.uid)
        note = selectors.note_of(event)
        behalf = selectors.names_of([event.on_behalf_of]).get(event.on_behalf_of, event.on_behalf_of)
        return super().get_context(
            pretty=json.dumps(event.data, indent=2, ensure_ascii=False),
            canonical=event.canonical_text,
            proof=selectors.proof_of(event),
            reason=note.get("reason", ""),
            details=sorted(note.get("details", {}).items()),
            on_behalf_of=behalf,
            history=list(visible.about(event.object_id).reverse()[:20]),
            same_request=list(same_request.order_by("occurred_at", "uid")[:20]),
            **extra,
        )
