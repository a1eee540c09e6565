"""Events, notes, links and the head of the chain: read models over schema `audit`, which Django never alters."""

from __future__ import annotations

import json
from typing import Any

from django.db import models

from apps.audit.querysets import AuditEventQuerySet


class AuditEvent(models.Model):
    """What happened: `canonical` holds the hashed RFC 8785 bytes, the other columns repeat it for searching."""

    uid = models.UUIDField(primary_key=True, db_column="id")
    occurred_at = models.DateTimeField()
    actor_type = models.TextField()
    actor_id = models.TextField()
    on_behalf_of = models.TextField()
    channel = models.TextField()
    action = models.TextField()
    object_type = models.TextField()
    object_id = models.UUIDField()
    team_uid = models.UUIDField(null=True, db_column="team_id")
    request_id = models.TextField()
    canonical = models.BinaryField()

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = '"audit"."event"'

    def __str__(self) -> str:
        return f"{self.action} at {self.occurred_at:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def canonical_text(self) -> str:
        """The canonical bytes as text (they are UTF-8)."""
        return bytes(self.canonical).decode()

    @property
    def data(self) -> dict[str, Any]:
        """The canonical bytes as data."""
        parsed: dict[str, Any] = json.loads(bytes(self.canonical))
        return parsed


class AuditNote(models.Model):
    """Free text and personal details of an event, outside the hashed bytes: those hold SHA-256(salt ‖ body) of it."""

    event_uid = models.UUIDField(primary_key=True, db_column="event_id")
    occurred_at = models.DateTimeField()
    salt = models.BinaryField()
    body = models.BinaryField()

    class Meta:
        managed = False
        db_table = '"audit"."note"'

    @property
    def data(self) -> dict[str, Any]:
        """The note as data: `reason` and the payload's private fields."""
        parsed: dict[str, Any] = json.loads(bytes(self.body))
        return parsed


class AuditLink(models.Model):
    """An event's place in the chain, written by the database when the transaction commits."""

    seq = models.BigIntegerField(primary_key=True)
    event_uid = models.UUIDField(db_column="event_id")
    occurred_at = models.DateTimeField()
    leaf = models.BinaryField()
    prev = models.BinaryField()
    hash = models.BinaryField()
    sealed_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = '"audit"."link"'


class AuditHead(models.Model):
    """The end of the chain: number and hash of the newest link."""

    one = models.BooleanField(primary_key=True)
    seq = models.BigIntegerField()
    hash = models.BinaryField()

    class Meta:
        managed = False
        db_table = '"audit"."head"'
