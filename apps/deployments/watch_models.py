"""How endpoints fare (samples, objectives, drift), what a cluster enforces, and where models may run and ran."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField
from django.db import models
from django.db.models import Q

from apps.catalogue.models import DIGEST_LENGTH
from apps.core.models import Row, VersionedRow
from apps.deployments.choices import EnforcementMode, ObjectiveAction, ObjectiveKind
from apps.deployments.models import Endpoint, Release
from apps.deployments.querysets import (
    DriftReadingQuerySet,
    EnforcementNoteQuerySet,
    EnforcementQuerySet,
    ObjectiveQuerySet,
    ObjectiveReadingQuerySet,
    PlacementRuleQuerySet,
    PlacementStatementQuerySet,
    ServingSampleQuerySet,
)
from apps.quotas.models import Workspace


class ServingSample(Row):
    """What Prometheus said of one release over one window. Null: unknown, never zero."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="samples")
    release = models.ForeignKey(Release, models.CASCADE, related_name="samples")
    at = models.DateTimeField(help_text="End of the window.")
    window_seconds = models.PositiveIntegerField()
    requests = models.BigIntegerField(null=True)
    errors = models.BigIntegerField(null=True)
    latency_p50_ms = models.PositiveIntegerField(null=True)
    latency_p95_ms = models.PositiveIntegerField(null=True)
    ttft_p95_ms = models.PositiveIntegerField(null=True, help_text="Time to first token.")
    queue_depth = models.PositiveIntegerField(null=True)
    ready_replicas = models.PositiveIntegerField(null=True)
    dialect = models.CharField(
        max_length=20, blank=True, help_text="vllm, triton, kserve: whose metric names answered."
    )
    queries: models.JSONField = models.JSONField(default=dict, help_text="The queries as asked.")

    objects = ServingSampleQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["release", "at"], name="sample_once")]
        indexes: ClassVar = [models.Index(fields=["endpoint", "-at"], name="sample_recent")]


class Objective(VersionedRow):
    """What an endpoint is held to."""

    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="objectives")
    kind = models.CharField(max_length=20, choices=ObjectiveKind.choices)
    feature = models.CharField(max_length=100, blank=True, help_text="Drift: which feature, or the prediction.")
    target = models.DecimalField(max_digits=14, decimal_places=6)
    window_hours = models.PositiveIntegerField(default=24)
    action = models.CharField(max_length=20, choices=ObjectiveAction.choices, default=ObjectiveAction.NOTIFY)
    breached_since = models.DateTimeField(null=True)
    archived_at = models.DateTimeField(null=True)

    objects = ObjectiveQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["endpoint", "kind", "feature"], name="objective_once", condition=Q(archived_at__isnull=True)
            )
        ]

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.endpoint.workspace.team_id


class ObjectiveReading(Row):
    """How an objective stood at a time. Value null: unknown, which is no breach and is shown as unknown."""

    objective = models.ForeignKey(Objective, models.CASCADE, related_name="readings")
    at = models.DateTimeField()
    value = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    breached = models.BooleanField(null=True)
    detail: models.JSONField = models.JSONField(default=dict)

    objects = ObjectiveReadingQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["objective", "at"], name="objective_reading_once")]


class DriftReading(Row):
    """A drift statistic of one feature (or of the prediction), posted to the metric port or read from Prometheus."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="drift_readings")
    release = models.ForeignKey(Release, models.CASCADE, null=True, related_name="drift_readings")
    feature = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=[("psi", "PSI"), ("ks", "KS")])
    value = models.DecimalField(max_digits=20, decimal_places=9)
    samples = models.BigIntegerField(null=True)
    at = models.DateTimeField()
    source = models.CharField(max_length=100, help_text="Who said so.")
    detail: models.JSONField = models.JSONField(default=dict, help_text="Bins and counts, where they were posted.")

    objects = DriftReadingQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["endpoint", "feature", "kind", "at"], name="drift_reading_once")
        ]


class Enforcement(VersionedRow):
    """What the cluster does in one workspace about models that no usable grant covers; declared as `enforcement`."""

    workspace = models.OneToOneField(Workspace, models.PROTECT, related_name="enforcement")
    mode = models.CharField(max_length=10, choices=EnforcementMode.choices, default=EnforcementMode.OFF)
    entries: models.JSONField = models.JSONField(default=list, help_text="As last declared, one a usable grant.")
    entries_digest = models.CharField(max_length=DIGEST_LENGTH, blank=True)
    declared_at = models.DateTimeField(null=True)
    next_expiry_at = models.DateTimeField(null=True, help_text="When the first declared entry expires.")
    changed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    reason = models.CharField(max_length=500, blank=True)

    objects = EnforcementQuerySet.as_manager()

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.workspace.team_id


class PlacementRule(VersionedRow):
    """Where data of a class may be processed, over a time: data with a citation, never code."""

    data_class = models.CharField(max_length=30)
    location = models.CharField(max_length=20, blank=True, help_text='"on_premises", or empty: anywhere.')
    jurisdictions: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=10), default=list, blank=True, help_text="Empty: any."
    )
    text = models.CharField(max_length=500, help_text="The rule in a sentence, as pages show it.")
    citation = models.CharField(max_length=300, blank=True)
    valid = DateTimeRangeField()
    published_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = PlacementRuleQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=~Q(location="") | ~Q(jurisdictions=[]), name="placement_rule_says_something"
            ),
        ]


class PlacementStatement(Row):
    """Where every regulated model ran in a month, signed. A later revision replaces, and never removes, an earlier."""

    month = models.DateField(help_text="Its first day.")
    revision = models.PositiveIntegerField(default=1)
    body = models.BinaryField(help_text="RFC 8785 bytes.")
    digest = models.CharField(max_length=DIGEST_LENGTH)
    signature = models.CharField(max_length=120, help_text="Ed25519 over the body, base64.")
    key_id = models.CharField(max_length=64)
    made_at = models.DateTimeField()
    lines = models.PositiveIntegerField(default=0)
    violations = models.PositiveIntegerField(default=0)

    objects = PlacementStatementQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["month", "revision"], name="placement_statement_once")]


class EnforcementNote(Row):
    """A refusal or a would-be refusal that the cluster's audit or a dry run told about; or an overdue expiry."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="enforcement_notes")
    kind = models.CharField(max_length=30, help_text="overdue_expiry | uncovered | unknown_digest | bypass_probe")
    object = models.CharField(max_length=300)
    detail = models.CharField(max_length=500)
    found_at = models.DateTimeField()
    gone_at = models.DateTimeField(null=True)

    objects = EnforcementNoteQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["workspace", "-found_at"], name="enforcement_note", condition=Q(gone_at__isnull=True))
        ]
