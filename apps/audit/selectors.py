"""What pages, API and other rooms read from the trail."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Case, CharField, F, OuterRef, Subquery, UUIDField, Value, When
from django.db.models.functions import Cast, Coalesce

from apps.audit.models import AuditEvent, AuditHead, AuditLink, AuditNote
from apps.audit.querysets import AuditEventQuerySet


def events_for(subject_uid: uuid.UUID) -> AuditEventQuerySet:
    """Return the events of one object, oldest first, whoever asks: the caller has checked who sees the object."""
    return AuditEvent.objects.about(subject_uid)


def with_names(events: AuditEventQuerySet) -> AuditEventQuerySet:
    """Annotate `who`: the display name of the person at this moment (names are never part of the trail).

    System actors keep their own name; a person who is gone is shown by the opaque id.
    """
    person = Case(When(actor_type="person", then=Cast("actor_id", UUIDField())), output_field=UUIDField())
    persons: Any = get_user_model()
    names = persons.objects.filter(uid=OuterRef("person_uid")).values("display_name")[:1]
    return events.annotate(person_uid=person).annotate(
        who=Coalesce(Subquery(names, output_field=CharField()), F("actor_id"), Value(""), output_field=CharField())
    )


def names_of(uids: Iterable[str]) -> dict[str, str]:
    """Return the display names of persons by uid (as text); unknown ones are left out."""
    wanted = []
    for uid in uids:
        try:
            wanted.append(uuid.UUID(uid))
        except ValueError:
            continue
    persons: Any = get_user_model()
    found = persons.objects.filter(uid__in=wanted).values_list("uid", "display_name")
    return {str(uid): name for uid, name in found}


@dataclass(frozen=True, slots=True)
class Proof:
    """An event's place in the chain, in hexadecimal."""

    seq: int
    leaf: str
    prev: str
    hash: str
    sealed_at: datetime


def proof_of(event: AuditEvent) -> Proof | None:
    """Return the event's place in the chain; None until its transaction has committed."""
    link = AuditLink.objects.filter(event_uid=event.uid, occurred_at=event.occurred_at).first()
    if link is None:
        return None
    return Proof(link.seq, bytes(link.leaf).hex(), bytes(link.prev).hex(), bytes(link.hash).hex(), link.sealed_at)


def note_of(event: AuditEvent) -> dict[str, Any]:
    """Return the free text and personal details kept beside the event; empty where there are none."""
    note = AuditNote.objects.filter(event_uid=event.uid, occurred_at=event.occurred_at).first()
    return note.data if note is not None else {}


def head() -> AuditHead:
    """Return the end of the chain. Raises AuditHead.DoesNotExist in an unsound database."""
    return AuditHead.objects.get()
