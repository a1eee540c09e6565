"""The outbox: events for people and other systems, written with the change and delivered afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from django.db import connection

from apps.core.actor import current_request_id
from apps.core.events import EventType
from apps.core.models import OutboxMessage


def publish(
    event: EventType, payload: Any, *, recipients: Iterable[int] = (), subject_uid: uuid.UUID | None = None
) -> OutboxMessage:
    """Queue `payload` for the people with the user ids `recipients`, in the caller's transaction.

    Raises RuntimeError outside a transaction (an event must commit or roll back with its change), TypeError for a
    payload of the wrong type.
    """
    if not connection.in_atomic_block:
        raise RuntimeError(f"{event.name} published outside a transaction")
    return OutboxMessage.objects.create(
        event=event.name,
        payload=event.dump(payload),
        recipient_ids=sorted(set(recipients)),
        subject_uid=subject_uid,
        request_id=current_request_id(),
    )
