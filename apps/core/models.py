"""Base classes of all rows, the outbox and leases."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import F, Func
from django.db.models.functions import Now


class Row(models.Model):
    """A row with a bigint key that never leaves the server and a `uid` for URLs, API, events and exports."""

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        abstract = True


class VersionedRow(Row):
    """A mutable row: `version` rises with every change and is the ETag (design §2)."""

    version = models.PositiveIntegerField(default=1, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

    def bump(self, *fields: str) -> None:
        """Save the named fields together with the next version number."""
        self.version += 1
        self.save(update_fields=[*fields, "version", "updated_at"])


class IntRange(Func):
    """A bigint as a one-point range, so that exclusion constraints need no btree_gist (reference stack §1)."""

    function = "int8range"
    template = "%(function)s(%(expressions)s, '[]')"

    def __init__(self, field: str) -> None:
        super().__init__(F(field), F(field))


class TextRange(Func):
    """A text's 32-bit hash as a one-point range: equality of texts in exclusion constraints without btree_gist.

    Two texts with one hash would be refused although they differ: a false refusal among a handful of words, never a
    missed overlap.
    """

    function = "int8range"
    template = "%(function)s(hashtext(%(expressions)s)::bigint, hashtext(%(expressions)s)::bigint, '[]')"

    def __init__(self, field: str) -> None:
        super().__init__(F(field))


class OutboxMessage(Row):
    """What people and other systems are to receive, written in the transaction of the change itself."""

    event = models.CharField(max_length=100)
    payload = models.JSONField()
    recipient_ids: models.JSONField = models.JSONField(
        default=list, help_text="User ids resolved when the event happened."
    )
    subject_uid = models.UUIDField(null=True)
    request_id = models.CharField(max_length=64, blank=True)
    delivered_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["id"], name="outbox_undelivered", condition=models.Q(delivered_at__isnull=True)),
            models.Index(fields=["subject_uid"], name="outbox_subject"),
        ]


class Lease(models.Model):
    """A claim on work by name, with an expiry: claim → call the network → record, refused if the lease moved."""

    name = models.CharField(max_length=200, primary_key=True)
    holder = models.UUIDField()
    acquired_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    detail = models.JSONField(default=dict)


__all__ = ["IntRange", "Lease", "OutboxMessage", "Row", "VersionedRow"]


class IdempotentCall(models.Model):
    """An API call that was done under an Idempotency-Key, with its answer. Kept for a day (`core.idempotency`)."""

    key = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 over person and key.")
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 over method, path and body.")
    made_at = models.DateTimeField(db_index=True)
    status = models.PositiveSmallIntegerField()
    headers: models.JSONField = models.JSONField(default=dict)
    body = models.TextField(blank=True)
