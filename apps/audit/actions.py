"""Writing the trail: `record()` in the caller's transaction, `record_refusal()` in one of its own."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection, transaction

from apps.audit import canonical, partitions
from apps.audit.events import ACCESS_REFUSED, AccessRefused
from apps.audit.models import AuditEvent, AuditNote
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import canonical_bytes
from apps.core.events import EventType, plain

#: Stands for the installation where an event is about no single row.
INSTALLATION = uuid.UUID(int=0)


def record(
    event: EventType,
    payload: Any,
    *,
    actor: Actor,
    subject_type: str,
    subject_uid: uuid.UUID,
    team_uid: uuid.UUID | None = None,
    before_digest: str = "",
    after_digest: str = "",
    reason: str = "",
) -> AuditEvent:
    """Write an event into the caller's transaction: it commits or rolls back with the change it describes.

    The database links it into the chain when the transaction commits. `reason` and the payload's private fields go into
    a side note of which the event holds a salted commitment. Raises RuntimeError outside a transaction, TypeError for a
    payload of the wrong type or with floats, ValueError for a mail address in a field that is not private.
    """
    row, note = _built(
        event, payload, actor=actor, subject_type=subject_type, subject_uid=subject_uid, team_uid=team_uid,
        before_digest=before_digest, after_digest=after_digest, reason=reason,
    )  # fmt: skip
    row.save(force_insert=True)
    if note is not None:
        note.save(force_insert=True)
    return row


@dataclass(frozen=True, slots=True)
class Record:
    """One of many events of the same kind: what happened, to which row, of which team."""

    payload: Any
    subject_uid: uuid.UUID
    team_uid: uuid.UUID | None = None


_INSERT_MANY = (
    "INSERT INTO audit.event (id, occurred_at, actor_type, actor_id, on_behalf_of, channel, action, object_type,"
    " object_id, team_id, request_id, canonical)"
    " SELECT new.id, new.at, %s, %s, %s, %s, %s, %s, new.object, new.team, %s, new.canonical"
    " FROM unnest(%s::uuid[], %s::timestamptz[], %s::uuid[], %s::uuid[], %s::bytea[])"
    " WITH ORDINALITY AS new(id, at, object, team, canonical, place) ORDER BY new.place"
)


def record_many(event: EventType, records: Sequence[Record], *, actor: Actor, subject_type: str) -> list[AuditEvent]:
    """Write many events of one kind in two statements, linked in the order given. As `record` otherwise."""
    built = [
        _built(event, one.payload, actor=actor, subject_type=subject_type, subject_uid=one.subject_uid,
               team_uid=one.team_uid)
        for one in records
    ]  # fmt: skip
    if built:
        first = built[0][0]
        rows = [row for row, _ in built]
        with connection.cursor() as cursor:
            cursor.execute(
                _INSERT_MANY,
                [
                    first.actor_type, first.actor_id, first.on_behalf_of, first.channel, event.name, subject_type,
                    actor.request_id, [row.uid for row in rows], [row.occurred_at for row in rows],
                    [row.object_id for row in rows], [row.team_uid for row in rows], [row.canonical for row in rows],
                ],
            )  # fmt: skip
    AuditNote.objects.bulk_create([note for _, note in built if note is not None])
    return [row for row, _ in built]


def _built(
    event: EventType,
    payload: Any,
    *,
    actor: Actor,
    subject_type: str,
    subject_uid: uuid.UUID,
    team_uid: uuid.UUID | None,
    before_digest: str = "",
    after_digest: str = "",
    reason: str = "",
) -> tuple[AuditEvent, AuditNote | None]:
    if not connection.in_atomic_block:
        raise RuntimeError(f"{event.name} recorded outside a transaction")
    changes, private = canonical.split_payload(event, payload)
    canonical.refuse_addresses(changes)
    at = clock.now().astimezone(UTC)
    partitions.ensure(at)
    uid = uuid.uuid4()
    note = _note_bytes(reason, private)
    salt = secrets.token_bytes(32) if note else b""
    who = actor_fields(actor)
    data = canonical.event_bytes(
        uid=str(uid),
        at=plain(at),
        actor=who,
        action=event.name,
        object_type=subject_type,
        object_id=str(subject_uid),
        team=str(team_uid or ""),
        changes=changes,
        note=canonical.commitment(salt, note) if note else "",
        request_id=actor.request_id,
        before_digest=before_digest,
        after_digest=after_digest,
    )
    row = AuditEvent(
        uid=uid,
        occurred_at=at,
        actor_type=who.type,
        actor_id=who.id,
        on_behalf_of=who.on_behalf_of,
        channel=who.channel,
        action=event.name,
        object_type=subject_type,
        object_id=subject_uid,
        team_uid=team_uid,
        request_id=actor.request_id,
        canonical=data,
    )
    return row, AuditNote(event_uid=uid, occurred_at=at, salt=salt, body=note) if note else None


def record_refusal(
    *,
    actor: Actor,
    method: str,
    path: str,
    rule: str = "",
    message: str = "",
    subject_type: str = "portal.page",
    subject_uid: uuid.UUID = INSTALLATION,
) -> AuditEvent:
    """Write down that somebody was refused, in a transaction of its own: the refused change has rolled back by now."""
    with transaction.atomic():
        return record(
            ACCESS_REFUSED,
            AccessRefused(method=method, path=path[:500], rule=rule),
            actor=actor,
            subject_type=subject_type,
            subject_uid=subject_uid,
            reason=message,
        )


def actor_fields(actor: Actor) -> canonical.ActorFields:
    """Return the opaque ids of an actor; looks a person's uid up where the actor does not carry it."""
    behalf = str(_uid_of(actor.on_behalf_of)) if actor.on_behalf_of is not None else ""
    if actor.user_id is None:
        kind = "anonymous" if actor.name == "anonymous" else "system"
        return canonical.ActorFields(kind, actor.name or "portal", str(actor.channel), behalf)
    return canonical.ActorFields("person", str(actor.user_uid or _uid_of(actor.user_id)), str(actor.channel), behalf)


def ensure_months(first: datetime | date, last: datetime | date) -> int:
    """Make the partitions of the months from that of `first` to that of `last`; returns how many were made."""
    return partitions.ensure_range(first, last)


def _uid_of(user_id: int) -> uuid.UUID:
    persons: Any = get_user_model()
    found: uuid.UUID = persons.objects.values_list("uid", flat=True).get(pk=user_id)
    return found


def _note_bytes(reason: str, private: dict[str, Any]) -> bytes:
    body: dict[str, Any] = {"reason": reason} if reason else {}
    if details := {name: value for name, value in private.items() if value not in ("", None, [])}:
        body["details"] = details
    return canonical_bytes(body) if body else b""
