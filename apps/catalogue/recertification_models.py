"""Approvals of versions that end soon: one draft for each grant, which a person of the owning team makes a request."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.approvals.models import Grant
from apps.catalogue.choices import RecertificationStatus
from apps.core.models import VersionedRow
from apps.core.querysets import ScopedQuerySet

VIEW = "catalogue.model.view"


class RecertificationQuerySet(ScopedQuerySet["Recertification"]):
    """Recertifications, by the team of their version's model."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of models whose team lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter(VIEW, field="model_version__model__team"))

    def open(self) -> Self:
        """Return those that wait for somebody to confirm them."""
        return self.filter(status=RecertificationStatus.OPEN)


class Recertification(VersionedRow):
    """That a grant ends, opened by the portal 30 days before. It asks for nothing by itself.

    The portal is nobody's requester: whoever of the owning team confirms the draft becomes the requester of the request
    that it turns into, and is kept from deciding it like any other.
    """

    grant = models.OneToOneField(Grant, models.PROTECT, related_name="recertification")
    model_version = models.ForeignKey("catalogue.ModelVersion", models.PROTECT, related_name="recertifications")
    request = models.ForeignKey(
        "catalogue.ModelRequest", models.PROTECT, related_name="recertifications", help_text="Whose approval ends."
    )
    due_at = models.DateTimeField(help_text="When the grant ends.")
    status = models.CharField(max_length=20, choices=RecertificationStatus.choices, default=RecertificationStatus.OPEN)
    renewal = models.OneToOneField(
        "catalogue.ModelRequest", models.PROTECT, null=True, related_name="recertified", help_text="What it became."
    )
    confirmed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    confirmed_at = models.DateTimeField(null=True)
    escalated_at = models.DateTimeField(null=True, help_text="When those above the team were told.")
    closed_at = models.DateTimeField(null=True)
    closed_reason = models.CharField(max_length=500, blank=True)

    objects = RecertificationQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(status="submitted", renewal__isnull=False, confirmed_by__isnull=False)
                | Q(status="open", renewal__isnull=True, confirmed_by__isnull=True, closed_at__isnull=True)
                | Q(status__in=["renewed", "superseded", "declined", "ended"], closed_at__isnull=False),
                name="recertification_whole",
            )
        ]
        indexes: ClassVar = [models.Index(fields=["status", "due_at"], name="recertification_due")]

    def __str__(self) -> str:
        return f"{self.model_version}"

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.model_version.model.team_id
