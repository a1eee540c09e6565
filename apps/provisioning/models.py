"""Declarations (desired state as stored bytes), plans, apply runs, observation, drift. No domain."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from apps.clusters.models import Cluster
from apps.core.models import Row, VersionedRow
from apps.provisioning.choices import (
    DeclarationKind,
    DeclarationStatus,
    DriftDecision,
    DriftResolution,
    Handling,
    PlanStatus,
    Removal,
    RunOutcome,
    StopCause,
    StopStatus,
)
from apps.provisioning.querysets import (
    ApplyRunQuerySet,
    DeclarationQuerySet,
    DeclaredObjectQuerySet,
    DriftQuerySet,
    ObservationQuerySet,
    PlanQuerySet,
    StopOrderQuerySet,
)
from apps.provisioning.queue_models import QueueEntry, QueueWait
from apps.provisioning.takeover import Last, last_of
from apps.teams.models import Team

__all__ = [
    "ApplyRun",
    "Declaration",
    "DeclarationRevision",
    "DeclaredObject",
    "Drift",
    "Observation",
    "Plan",
    "QueueEntry",
    "QueueWait",
    "StopOrder",
    "WatchCursor",
]  # fmt: skip


class Declaration(VersionedRow):
    """The objects an owner wants on a cluster. `generation` rises with every approved change of the bytes."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="declarations")
    kind = models.CharField(max_length=20, choices=DeclarationKind.choices)
    owner_uid = models.UUIDField(help_text="uid of the workspace or release; of the cluster for its baseline.")
    title = models.CharField(max_length=300)
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="declarations")
    generation = models.PositiveIntegerField(default=0)
    observed_generation = models.PositiveIntegerField(default=0)
    grant_uid = models.UUIDField(null=True, help_text="The grant that allowed this generation.")
    status = models.CharField(max_length=20, choices=DeclarationStatus.choices, default=DeclarationStatus.APPLIED)
    declared_at = models.DateTimeField(null=True)
    applied_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    error_class = models.CharField(max_length=40, blank=True)
    last_error = models.TextField(blank=True)
    failing_since = models.DateTimeField(null=True)
    take_over = models.BooleanField(
        default=False, help_text="An admin decided that this generation takes fields over from other managers."
    )

    objects = DeclarationQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["kind", "owner_uid", "cluster"], name="declaration_once"),
            models.CheckConstraint(
                condition=Q(observed_generation__lte=F("generation")), name="declaration_generations"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["cluster", "declared_at"],
                name="declaration_due",
                condition=Q(generation__gt=F("observed_generation")),
            )
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate; None: the platform."""
        return self.team_id


class DeclarationRevision(Row):
    """What one generation declared, kept for ever: the stored bytes of all its objects as one RFC 8785 list."""

    declaration = models.ForeignKey(Declaration, models.PROTECT, related_name="revisions")
    generation = models.PositiveIntegerField()
    manifest = models.BinaryField()
    digest = models.CharField(max_length=64)
    grant_uid = models.UUIDField(null=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["declaration", "generation"], name="revision_once")]


class DeclaredObject(Row):
    """One object of a declaration's newest generation, or one that it still has to remove.

    An object belongs to exactly one declaration.
    """

    declaration = models.ForeignKey(Declaration, models.PROTECT, related_name="declared_objects")
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    ordinal = models.PositiveSmallIntegerField(help_text="Apply order: dependencies first.")
    api_version = models.CharField(max_length=100)
    kind = models.CharField(max_length=100)
    namespace = models.CharField(max_length=253, blank=True)
    name = models.CharField(max_length=253)
    body = models.BinaryField(help_text="RFC 8785 bytes, applied as they are, never re-rendered.")
    digest = models.CharField(max_length=64)
    generation = models.PositiveIntegerField()
    applied_body = models.BinaryField(default=b"", help_text="The bytes last applied; empty: never.")
    settled = models.BinaryField(
        default=b"", help_text="The object as the server answered when it was applied, server fields left out."
    )
    removal = models.CharField(max_length=20, choices=Removal.choices, default=Removal.NONE, blank=True)
    handling = models.CharField(
        max_length=20, choices=Handling.choices, default=Handling.NORMAL, blank=True,
        help_text="What a person decided about this object for the apply that is due; forgotten once it is done.",
    )  # fmt: skip

    objects = DeclaredObjectQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["cluster", "kind", "namespace", "name"], name="declared_object_once")
        ]
        ordering: ClassVar = ["ordinal", "id"]

    @property
    def settled_object(self) -> dict[str, Any] | None:
        """What the server made of exactly these bytes, None where they were not applied yet."""
        if not self.settled or bytes(self.applied_body) != bytes(self.body):
            return None
        found: dict[str, Any] = json.loads(bytes(self.settled))
        return found

    @property
    def last_applied(self) -> Last | None:
        """What was last applied, be it of these bytes or of earlier ones; None where nothing ever was."""
        return last_of(bytes(self.applied_body), bytes(self.settled))


class Plan(VersionedRow):
    """The server's dry-run diff of a declaration, made for one subject as evidence beside its approval.

    `entries`: per object {api_version, kind, namespace, name, operation create|update|unchanged|remove|retain,
    server_checked, changes: [{path, before, after}], conflicts: [{manager, field, message}],
    taken_over: [the same, of fields that live as the portal last applied them], warnings: [text]}.
    A retained object leaves the declaration but stays on the cluster (namespaces, volume claims).
    """

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="plans")
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="plans")
    subject_uid = models.UUIDField()
    declaration_kind = models.CharField(max_length=20, choices=DeclarationKind.choices)
    owner_uid = models.UUIDField()
    base_generation = models.PositiveIntegerField(default=0)
    manifest = models.BinaryField(help_text="The proposed objects, one RFC 8785 list.")
    digest = models.CharField(max_length=64)
    status = models.CharField(max_length=20, choices=PlanStatus.choices, default=PlanStatus.PENDING)
    entries: models.JSONField = models.JSONField(default=list)
    error_class = models.CharField(max_length=40, blank=True)
    last_error = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    made_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(
        null=True, help_text="Its request is decided: from here on it is evidence and is never made anew."
    )

    objects = PlanQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["subject_uid"], name="plan_subject"),
            models.Index(
                fields=["status", "retry_at"],
                name="plan_due",
                condition=Q(status__in=["pending", "stale"], closed_at__isnull=True),
            ),
        ]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class ApplyRun(Row):
    """One attempt to bring a declaration's generation onto its cluster, with every request it made."""

    declaration = models.ForeignKey(Declaration, models.PROTECT, related_name="runs")
    generation = models.PositiveIntegerField()
    outcome = models.CharField(max_length=20, choices=RunOutcome.choices, default=RunOutcome.RUNNING)
    lease_token = models.UUIDField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    results: models.JSONField = models.JSONField(
        default=list, help_text="Per object: verb, status, warnings, milliseconds."
    )
    error_class = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)

    objects = ApplyRunQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["-started_at"], name="run_started"),
            models.Index(fields=["declaration"], name="run_open", condition=Q(outcome=RunOutcome.RUNNING)),
        ]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.declaration.team_id

    @property
    def duration_ms(self) -> int | None:
        """How long it took; None while it runs."""
        if self.finished_at is None:
            return None
        return round((self.finished_at - self.started_at).total_seconds() * 1000)


class Observation(Row):
    """An object as last seen on a cluster: hashes and status only."""

    cluster = models.ForeignKey(Cluster, models.CASCADE, related_name="observations")
    declaration = models.ForeignKey(Declaration, models.CASCADE, null=True, related_name="observations")
    kind = models.CharField(max_length=100)
    namespace = models.CharField(max_length=253, blank=True)
    name = models.CharField(max_length=253)
    resource_version = models.CharField(max_length=60, blank=True)
    declared_digest = models.CharField(
        max_length=64, blank=True, help_text="Digest of the declared fields as they live."
    )
    status: models.JSONField = models.JSONField(
        default=dict, help_text="ResourceQuota: {hard, used}; Namespace: {phase}."
    )
    missing = models.BooleanField(default=False)
    observed_at = models.DateTimeField()

    objects = ObservationQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["cluster", "kind", "namespace", "name"], name="observation_once")
        ]


class WatchCursor(models.Model):
    """Where the observer of one cluster and kind has got to, so that it resumes instead of relisting."""

    cluster = models.ForeignKey(Cluster, models.CASCADE, related_name="watch_cursors")
    kind = models.CharField(max_length=100)
    resource_version = models.CharField(max_length=60, blank=True)
    listed_at = models.DateTimeField(null=True)
    seen_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cluster", "kind"], name="cursor_once")]


class Drift(Row):
    """A declared field that lives differently, with who changed it and when (from managedFields)."""

    declaration = models.ForeignKey(Declaration, models.CASCADE, related_name="drifts")
    kind = models.CharField(max_length=100)
    namespace = models.CharField(max_length=253, blank=True)
    name = models.CharField(max_length=253)
    field = models.CharField(max_length=500, blank=True)
    declared = models.TextField(blank=True)
    live = models.TextField(blank=True)
    manager = models.CharField(max_length=128, blank=True)
    changed_at = models.DateTimeField(null=True)
    found_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)
    resolution = models.CharField(
        max_length=20, choices=DriftResolution.choices, default=DriftResolution.OPEN, blank=True
    )
    ignored_until = models.DateTimeField(null=True, help_text="Somebody decided to leave it until then.")
    ignored_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    ignore_reason = models.CharField(max_length=300, blank=True)
    ignored_live = models.TextField(blank=True, help_text="The live value it was left at; another one opens it again.")
    operation = models.CharField(max_length=20, blank=True, help_text="Apply or Update, as managedFields say.")
    decision = models.CharField(max_length=20, choices=DriftDecision.choices, default=DriftDecision.NONE, blank=True)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    change_uid = models.UUIDField(null=True, help_text="The change request that adopts it.")
    #: Why it cannot be adopted, set by pages that offer it (`ports.adoption_refusals`).
    not_adoptable: str = ""

    objects = DriftQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["declaration", "kind", "namespace", "name", "field"],
                name="drift_open_once",
                condition=Q(resolved_at__isnull=True),
            )
        ]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.declaration.team_id


class StopOrder(VersionedRow):
    """One workload that the portal stops (idle, or at the end of quota), under a field manager of its own.

    `before`: what undoing restores ({"replicas": n} of a Deployment, {} where it is a switch).
    """

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="stop_orders")
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="stop_orders")
    kind = models.CharField(max_length=100, help_text="Workload, Job, Deployment or InferenceService.")
    namespace = models.CharField(max_length=253)
    name = models.CharField(max_length=253)
    cause = models.CharField(max_length=20, choices=StopCause.choices)
    cause_uid = models.UUIDField(null=True, help_text="uid of the idle case or the workspace behind it.")
    status = models.CharField(max_length=20, choices=StopStatus.choices, default=StopStatus.PENDING)
    before: models.JSONField = models.JSONField(default=dict)
    requested_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True)
    undone_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)

    objects = StopOrderQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["cluster", "kind", "namespace", "name"],
                name="stop_order_one_open",
                condition=Q(status__in=["pending", "stopped", "undoing"]),
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["retry_at"], name="stop_order_due", condition=Q(status__in=["pending", "undoing"]))
        ]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id
