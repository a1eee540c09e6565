"""Events, notes, links and the head of the chain: read models over schema `audit`, which Django never alters."""

from __future__ import annotations

import json
from typing import Any

from django.db import models

from apps.audit.querysets import AuditEventQuerySet, CheckpointRowQuerySet, VerificationRunQuerySet
from apps.core.models import Row


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


class CheckpointRow(Row):
    """A checkpoint as it was signed; the copies that count lie outside the database (`places`)."""

    seq = models.BigIntegerField(unique=True, help_text="Number of the last link it covers.")
    body = models.BinaryField(help_text="The signed bytes (audit.checkpoint_format).")
    digest = models.CharField(max_length=64)
    key_id = models.CharField(max_length=16)
    signature = models.CharField(max_length=120)
    public_key = models.BinaryField()
    frontier = models.BinaryField(help_text="Where the Merkle tree goes on (audit.merkle.Frontier).")
    made_at = models.DateTimeField()
    places: models.JSONField = models.JSONField(
        default=dict, help_text='Where a copy was written: {"folder:/path": time, "mail:address": time}.'
    )
    last_error = models.TextField(blank=True, help_text="Why a place could not be written at the last try.")

    objects = CheckpointRowQuerySet.as_manager()

    class Meta:
        db_table = "audit_checkpoint"


class VerificationRun(Row):
    """That the trail was verified: by night, or by somebody."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    outcome = models.CharField(max_length=20)
    links = models.BigIntegerField()
    head_seq = models.BigIntegerField()
    findings_total = models.PositiveIntegerField(default=0)
    findings: models.JSONField = models.JSONField(default=list, help_text="The first findings, in words.")
    weaknesses: models.JSONField = models.JSONField(default=list)
    checkpoint_seq = models.BigIntegerField(null=True, help_text="The newest checkpoint it was compared with.")
    checkpoints = models.PositiveIntegerField(default=0, help_text="How many were compared.")
    source = models.CharField(max_length=40, help_text="nightly, command …")

    objects = VerificationRunQuerySet.as_manager()

    class Meta:
        db_table = "audit_verification_run"
        ordering = ["-finished_at", "-id"]


from apps.audit.keeping_models import (  # noqa: E402  (they stand beside the trail's own)
    Floor,
    Hold,
    HoldRelease,
    Purge,
    ReconciliationRun,
    RetentionProposal,
)

__all__ = [
    "AuditEvent",
    "AuditHead",
    "AuditLink",
    "AuditNote",
    "CheckpointRow",
    "Floor",
    "Hold",
    "HoldRelease",
    "Purge",
    "ReconciliationRun",
    "RetentionProposal",
    "VerificationRun",
]
