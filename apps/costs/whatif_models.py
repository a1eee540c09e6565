"""What-ifs that a worker answers: the question as asked, how far it is, the answer. Of the person who asked alone."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import JSONField

from apps.core.models import VersionedRow
from apps.core.querysets import ScopedQuerySet
from apps.costs.choices import FileStatus


class WhatIfQuerySet(ScopedQuerySet["WhatIfRun"]):
    """What-ifs by who asked."""

    def visible_to(self, user: Any) -> WhatIfQuerySet:
        """Return the person's own."""
        known = getattr(user, "is_authenticated", False) and user.is_active
        return self.filter(requested_by=user) if known else self.none()


class WhatIfRun(VersionedRow):
    """One question to a worker. Prices and quantities stay where they are; only the answer is kept, for a while."""

    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    question: JSONField[dict[str, Any], dict[str, Any]] = JSONField()
    status = models.CharField(max_length=20, choices=FileStatus.choices, default=FileStatus.QUEUED)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    answer: JSONField[dict[str, Any] | None, dict[str, Any] | None] = JSONField(null=True)
    reach = models.CharField(max_length=64, blank=True, help_text="Digest of the rights that the answer was made with.")
    finished_at = models.DateTimeField(null=True)

    objects = WhatIfQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["requested_by", "-created_at"], name="whatif_own"),
            models.Index(fields=["id"], name="whatif_due", condition=models.Q(status__in=["queued", "running"])),
        ]


__all__ = ["WhatIfRun"]
