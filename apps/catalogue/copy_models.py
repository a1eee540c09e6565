"""Copies of uploaded files in a store that clusters reach: where an approved version is loaded from."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models

from apps.catalogue.choices import JobStatus
from apps.core.models import VersionedRow
from apps.core.querysets import ScopedQuerySet

VIEW = "catalogue.model.view"


class StoredCopyQuerySet(ScopedQuerySet["StoredCopy"]):
    """Copies, by the team of their version's model."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))


class StoredCopy(VersionedRow):
    """An uploaded version's files in a store, below its manifest's digest: written, read again, hashed, resumable.

    `done` means that every byte was read back from `location` and had the manifest's digests, and that nothing else
    lay there. `done_through` is the last file, by path, of which that holds.
    """

    model_version = models.ForeignKey("catalogue.ModelVersion", models.PROTECT, related_name="copies")
    store = models.ForeignKey("catalogue.ModelStore", models.PROTECT, related_name="copies")
    location = models.CharField(max_length=1000)
    status = models.CharField(max_length=20, choices=JobStatus.choices, default=JobStatus.PENDING)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    files_total = models.PositiveIntegerField(default=0)
    files_done = models.PositiveIntegerField(default=0)
    bytes_total = models.BigIntegerField(default=0)
    bytes_done = models.BigIntegerField(default=0)
    done_through = models.CharField(max_length=500, blank=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    beat_at = models.DateTimeField(null=True, help_text="Last sign of life of the worker that holds it.")
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)

    objects = StoredCopyQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["model_version", "store"], name="stored_copy_once",
                condition=models.Q(status__in=["pending", "running", "done"]),
            ),
            models.UniqueConstraint(
                fields=["model_version"], name="stored_copy_one_open",
                condition=models.Q(status__in=["pending", "running"]),
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.location
