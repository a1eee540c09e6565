"""Events to attack."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db import connection, transaction

from apps.audit.actions import record
from apps.audit.models import AuditEvent, AuditHead
from apps.core.actor import Actor
from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class Tried:
    number: int
    person: str = private(default="")
    reason: str = ""


TRIED = declare("tests.thing.tried", Tried, audience="nobody")


def write(number: int = 0, *, reason: str = "", subject: uuid.UUID | None = None, person: str = "") -> AuditEvent:
    with transaction.atomic():
        return record(
            TRIED,
            Tried(number=number, person=person),
            actor=Actor.system("tests.writer"),
            subject_type="tests.thing",
            subject_uid=subject or uuid.uuid4(),
            reason=reason,
        )


def seal() -> None:
    """Fire the deferred trigger now: the test's transaction never commits."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def head() -> AuditHead:
    return AuditHead.objects.get()
