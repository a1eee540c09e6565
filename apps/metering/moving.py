"""A source of record whose server moved to another address: same source, same history."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db import transaction

from apps import audit
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.core.events import declare
from apps.metering.actions import require
from apps.metering.models import Source


@dataclass(frozen=True, slots=True)
class SourceMoved:
    """A source is asked at another address from now on."""

    source_uid: uuid.UUID
    url_before: str
    url: str


SOURCE_MOVED = declare("metering.source.moved", SourceMoved, audience="auditors")


@transaction.atomic
def move_source(source_id: int, url: str, *, actor: Actor, expected_version: int | None = None) -> Source:
    """Ask a source at `url` from now on. Raises NotAllowed, NotVisible, Conflict, Invalid for no http(s) address."""
    require(actor, "metering.import.create")
    source = Source.objects.locked(source_id, expected_version=expected_version)
    if not url.startswith(("http://", "https://")):
        raise Invalid({"url": "Give the address of the server, beginning with http:// or https://."})
    before, source.url = source.url, url.rstrip("/")
    if source.url != before:
        source.bump("url")
        audit.record(
            SOURCE_MOVED,
            SourceMoved(source.uid, before, source.url),
            actor=actor,
            subject_type="metering.source",
            subject_uid=source.uid,
        )
    return source
