"""Public keys that compliance registered: what a signature over a model's manifest is verified with."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from apps.catalogue.choices import KeyAlgorithm
from apps.core.models import VersionedRow
from apps.core.querysets import ScopedQuerySet
from apps.teams.models import Team

VIEW = "catalogue.signing_key.view"


class SigningKeyQuerySet(ScopedQuerySet["SigningKey"]):
    """Keys: whoever may see them sees all; the evidence names the one that it was verified with."""

    def visible_to(self, user: Any) -> Self:
        """Return all rows to those who hold `catalogue.signing_key.view` everywhere."""
        from apps.teams import scope

        signed_in = getattr(user, "is_authenticated", False) and getattr(user, "is_active", False)
        return self.all() if signed_in and scope.of(user).everywhere(VIEW) else self.none()


class SigningKey(VersionedRow):
    """A public key for signatures over manifests of some teams' models, for a time. Revoked, never deleted."""

    name = models.CharField(max_length=100, unique=True)
    holder = models.CharField(max_length=300, help_text="Who or what holds the private key, and where.")
    public_key = models.TextField(help_text="PEM (SubjectPublicKeyInfo).")
    algorithm = models.CharField(max_length=20, choices=KeyAlgorithm.choices)
    fingerprint = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the key's DER: known only once.")
    teams: models.ManyToManyField[Team, Any] = models.ManyToManyField(Team, related_name="signing_keys")
    valid_from = models.DateTimeField()
    expires_at = models.DateTimeField()
    registered_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    revoked_reason = models.CharField(max_length=2000, blank=True)
    void_from = models.DateTimeField(
        null=True, help_text="Signatures that came in from then on count no more: the key was in other hands."
    )

    objects = SigningKeyQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(expires_at__gt=F("valid_from")), name="signing_key_some_time"),
            models.CheckConstraint(
                condition=Q(void_from__isnull=True) | Q(revoked_at__isnull=False), name="signing_key_void_is_revoked"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def why_not(self, at: datetime) -> str:
        """Return why the key is not in force at a moment, or ""."""
        if self.revoked_at is not None and at >= self.revoked_at:
            return f"it was revoked on {self.revoked_at:%Y-%m-%d %H:%M} UTC"
        if at < self.valid_from:
            return f"it is valid from {self.valid_from:%Y-%m-%d %H:%M} UTC on"
        if at >= self.expires_at:
            return f"it expired on {self.expires_at:%Y-%m-%d %H:%M} UTC"
        return ""

    def why_void(self, verified_at: datetime) -> str:
        """Return why a signature that was verified then counts no more, or ""."""
        if self.void_from is not None and verified_at >= self.void_from:
            return f"its key “{self.name}” was in other hands from {self.void_from:%Y-%m-%d %H:%M} UTC on"
        return ""
