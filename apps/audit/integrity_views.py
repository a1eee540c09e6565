"""Pages about the trail's integrity: checkpoints, their copies, verifications; and bundles for people outside."""

from __future__ import annotations

import base64
import tempfile
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.http import FileResponse, HttpResponseBase
from django.urls import reverse

from apps.audit import bundle, checkpoints, nightly, selectors
from apps.audit.models import AuditEvent, CheckpointRow, VerificationRun
from apps.audit.querysets import AuditEventQuerySet, CheckpointRowQuerySet
from apps.audit.reads import note_read
from apps.core import clock, signing
from apps.core.errors import Invalid
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION, may
from apps.core.views import CreateView, Crumb, PageView

SHOWN = 20
#: A page packs so many events at most; more of them go through the command.
MOST_EVENTS = 100_000


class Integrity(PageView):
    """How far the trail is proven: by the chain, by checkpoints, by copies elsewhere."""

    title = "Integrity of the audit trail"
    permission = "audit.event.view"
    template_name = "audit/integrity.html"

    def get_base_queryset(self) -> CheckpointRowQuerySet:
        """Return all checkpoints."""
        return CheckpointRow.objects.all()

    def scope_object(self) -> Any:
        """The whole trail is everybody's: a unit's auditor does not hold this."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the trail."""
        return [Crumb("Audit trail", reverse("audit:event-list"))]

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the page and note that it was read."""
        response = super().get(request, *args, **kwargs)
        note_read(request, self.actor)
        return response

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add checkpoints, places, verifications, keys and the exposure in words."""
        rows = list(self.get_queryset().order_by("-seq")[:SHOWN])
        head = selectors.head()
        wanted = [place.key for place in checkpoints.places()]
        proven = next((row for row in rows if wanted and all(key in row.places for key in wanted)), None)
        runs = list(VerificationRun.objects.visible_to(self.request.user)[:SHOWN])
        return super().get_context(
            head=head,
            rows=[(row, [key for key in wanted if key not in row.places]) for row in rows],
            wanted=wanted,
            proven=proven,
            unproven=head.seq - (proven.seq if proven else 0),
            minutes=settings.COMMONS_CHECKPOINT_MINUTES,
            runs=runs,
            late=nightly.overdue(),
            keys=[(name, base64.urlsafe_b64encode(raw).decode()) for name, raw in signing.public_keys().items()],
            may_export=may(self.request.user, "audit.event.export", INSTALLATION),
            **extra,
        )


class BundleForm(CommonsForm):
    """Which events to pack."""

    start = forms.DateField(label="From", help_text="First day (UTC).", widget=forms.DateInput(attrs={"type": "date"}))
    end = forms.DateField(
        label="Until", help_text="Last day (UTC), included.", widget=forms.DateInput(attrs={"type": "date"})
    )
    object_uid = forms.UUIDField(
        label="Object", required=False, help_text="Only events of this object: the uid on its page or in the trail."
    )

    def clean(self) -> dict[str, Any]:
        """Refuse a time that ends before it starts."""
        data: dict[str, Any] = super().clean() or {}
        if data.get("start") and data.get("end") and data["end"] < data["start"]:
            self.add_error("end", "Choose a day on or after the first one.")
        return data


class Bundle(CreateView):
    """Pack events with their proofs for somebody who has no account here."""

    title = "Export a bundle"
    intro = (
        "The archive holds the events' exact bytes, their notes, proofs that lead to a signed checkpoint, and a"
        " verifier that needs nothing but Python. Give the public key to whoever is to check it, another way than this"
        " file."
    )
    permission = "audit.event.export"
    form_class = BundleForm
    submit_label = "Export"

    def get_base_queryset(self) -> AuditEventQuerySet:
        """Return all events."""
        return AuditEvent.objects.all()

    def scope_object(self) -> Any:
        """Links and proofs are of the whole trail."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        return [
            Crumb("Audit trail", reverse("audit:event-list")),
            Crumb("Integrity", reverse("audit:integrity")),
        ]

    def get_initial(self) -> dict[str, Any]:
        """Return the last thirty days."""
        today = clock.now().date()
        return {"start": today - timedelta(days=30), "end": today}

    def perform(self, form: Any) -> HttpResponseBase:
        """Write the archive to a temporary file and send it. Raises Invalid where nothing or too much was chosen."""
        if not checkpoints.newest():
            raise Invalid({"": "There is no checkpoint yet, so nothing could be proven. Try again after the next one."})
        data = form.cleaned_data
        selection = bundle.Selection(_day(data["start"]), _day(data["end"] + timedelta(days=1)), data["object_uid"])
        count = bundle.count(selection, MOST_EVENTS + 1)
        if not count:
            raise Invalid({"": "No event matches. Choose other days or another object."})
        if count > MOST_EVENTS:
            raise Invalid(
                {"": f"More than {MOST_EVENTS:,} events match. Choose fewer days, or have an admin run audit_bundle."}
            )
        name = f"audit-{data['start']:%Y%m%d}-{data['end']:%Y%m%d}.zip"
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the response closes it)
        bundle.write(file, selection, actor=self.actor, organisation=settings.COMMONS_ORGANISATION, name=name)
        file.seek(0)
        return FileResponse(file, as_attachment=True, filename=name, content_type="application/zip")


def _day(day: Any) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
