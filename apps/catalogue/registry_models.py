"""Model registries that are read as untrusted catalogues: what they said, when, and what they changed afterwards."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.catalogue.choices import RegistryFindingKind, RegistryKind
from apps.catalogue.models import Model, ModelVersion
from apps.catalogue.querysets import (
    RegistryDeliveryQuerySet,
    RegistryFindingQuerySet,
    RegistryModelQuerySet,
    RegistryQuerySet,
    RegistryVersionQuerySet,
)
from apps.core.models import Row, VersionedRow
from apps.teams.models import Team


class Registry(VersionedRow):
    """A registry that is polled; a webhook only makes the next poll come at once."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=20, choices=RegistryKind.choices)
    base_url = models.CharField(max_length=300)
    ca_certificate = models.TextField(blank=True)
    credentials = models.BinaryField(default=b"", help_text="Encrypted bearer token or user:password.")
    webhook_secret = models.BinaryField(default=b"", help_text="Encrypted.")
    default_team = models.ForeignKey(
        Team, models.PROTECT, null=True, related_name="+", help_text="Owner of models whose owner tag names no team."
    )
    team_tag = models.CharField(max_length=60, default="team", help_text="Tag that names the owning team's slug.")
    keeper = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+",
        help_text="Who added it: author of imported drafts whose author is nobody of the owning team.",
    )  # fmt: skip
    poll_minutes = models.PositiveIntegerField(default=15)
    enabled = models.BooleanField(default=True)
    next_poll_at = models.DateTimeField(null=True)
    polled_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)

    objects = RegistryQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class RegistryModel(VersionedRow):
    """A registered model as last seen. Its name is no identity: it can be renamed."""

    registry = models.ForeignKey(Registry, models.PROTECT, related_name="models")
    foreign_id = models.CharField(max_length=300, help_text="MLflow: the name as first seen; Kubeflow: its id.")
    name = models.CharField(max_length=300)
    model = models.ForeignKey(Model, models.PROTECT, null=True, related_name="registry_entries")
    seen: models.JSONField = models.JSONField(default=dict, help_text="Description, tags, aliases as last seen.")
    problem = models.CharField(max_length=500, blank=True, help_text="Why it is not imported; empty: no obstacle.")
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    gone_at = models.DateTimeField(null=True)

    objects = RegistryModelQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["registry", "foreign_id"], name="registry_model_once"),
        ]


class RegistryVersion(VersionedRow):
    """A version as last seen, and the draft or sealed version it was imported as."""

    registry_model = models.ForeignKey(RegistryModel, models.PROTECT, related_name="versions")
    foreign_version = models.CharField(max_length=100)
    source = models.CharField(max_length=1000, blank=True)
    run_id = models.CharField(max_length=100, blank=True)
    model_version = models.OneToOneField(ModelVersion, models.PROTECT, null=True, related_name="registry_entry")
    seen: models.JSONField = models.JSONField(default=dict)
    problem = models.CharField(max_length=500, blank=True, help_text="Why it is not imported; empty: no obstacle.")
    bytes_checked_at = models.DateTimeField(null=True, help_text="When the files at its source were last compared.")
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    gone_at = models.DateTimeField(null=True)

    objects = RegistryVersionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["registry_model", "foreign_version"], name="registry_version_once"),
        ]


class RegistryFinding(VersionedRow):
    """Something a registry did after the import; nothing here changes by itself because of it."""

    registry = models.ForeignKey(Registry, models.PROTECT, related_name="findings")
    registry_model = models.ForeignKey(RegistryModel, models.PROTECT, null=True, related_name="findings")
    registry_version = models.ForeignKey(RegistryVersion, models.PROTECT, null=True, related_name="findings")
    kind = models.CharField(max_length=30, choices=RegistryFindingKind.choices)
    key = models.CharField(max_length=200, blank=True)
    before = models.TextField(blank=True)
    after = models.TextField(blank=True)
    found_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    note = models.CharField(max_length=500, blank=True)

    objects = RegistryFindingQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["registry", "-found_at"],
                name="registry_finding_open",
                condition=Q(acknowledged_at__isnull=True),
            )
        ]


class RegistryDelivery(Row):
    """A webhook delivery that was taken: by its id, so that none is taken twice."""

    registry = models.ForeignKey(Registry, models.PROTECT, related_name="deliveries")
    delivery_id = models.CharField(max_length=100)
    sent_at = models.DateTimeField()
    entity = models.CharField(max_length=60, blank=True)
    action = models.CharField(max_length=60, blank=True)

    objects = RegistryDeliveryQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["registry", "delivery_id"], name="registry_delivery_once")
        ]
