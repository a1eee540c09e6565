"""Endpoints, their releases and every step of their rollouts. Watching, enforcement, placement: `watch_models`."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.approvals.models import ApprovalRequest
from apps.catalogue.models import DIGEST_LENGTH, Model, ModelVersion
from apps.clusters.models import Cluster, Flavour
from apps.core.models import IntRange, Row, VersionedRow
from apps.core.money import Money
from apps.deployments.choices import OPEN_RELEASES, CanaryMode, LoadState, ReleaseKind, ReleaseStatus, StepKind, Tier
from apps.deployments.querysets import (
    EndpointQuerySet,
    ReleaseQuerySet,
    RolloutStepQuerySet,
    ServingIntervalQuerySet,
)
from apps.provisioning.models import Plan
from apps.quotas.models import Workspace


class Endpoint(VersionedRow):
    """A served model in a workspace: one name that clients call, one declaration, one current release at a time."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="endpoints")
    name = models.CharField(max_length=40, help_text="InferenceService name: a letter first, then a-z 0-9 -.")
    model = models.ForeignKey(Model, models.PROTECT, related_name="endpoints")
    current = models.ForeignKey("Release", models.PROTECT, null=True, related_name="+", help_text="Takes the rest.")
    candidate = models.ForeignKey("Release", models.PROTECT, null=True, related_name="+", help_text="The canary.")
    traffic = models.PositiveSmallIntegerField(default=0, help_text="Per cent to the candidate.")
    canary_mode = models.CharField(max_length=20, choices=CanaryMode.choices, default=CanaryMode.NONE)
    stopped_at = models.DateTimeField(null=True)
    removed_at = models.DateTimeField(null=True)
    url = models.CharField(max_length=500, blank=True)
    ready_replicas = models.PositiveIntegerField(null=True, help_text="Of both releases, as last observed.")
    live: models.JSONField = models.JSONField(default=dict, help_text="The last observed status, condensed (watching).")
    live_at = models.DateTimeField(null=True, help_text="When the cluster said so.")

    objects = EndpointQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["workspace", "name"], name="endpoint_once", condition=Q(removed_at__isnull=True)
            ),
            models.CheckConstraint(condition=Q(traffic__lte=100), name="endpoint_traffic"),
            models.CheckConstraint(
                condition=Q(candidate__isnull=False) | Q(traffic=0), name="endpoint_traffic_needs_candidate"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.workspace.team_id


class Release(VersionedRow):
    """One version on one endpoint with its flavour, scale and ladder. Subject of approval `deployments.release`.

    `spec` is what deployments.spec.Spec reads: {min_replicas, max_replicas, units_per_replica, cpu, memory_gib,
    autoscaling {metric, query, threshold, up_seconds, down_seconds}, tier, schedule [{days, start, minutes,
    replicas}], ladder [{traffic, hours}], guard {error_rate, latency_p95_ms, window_minutes}, logger, explainer,
    expiry_action}. `change`: {before, leaves, placement {rules, verdict}, feasibility, mode}.
    """

    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="releases")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=20, choices=ReleaseKind.choices, default=ReleaseKind.DEPLOY)
    model_version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="releases")
    version_digest = models.CharField(max_length=DIGEST_LENGTH)
    flavour = models.ForeignKey(Flavour, models.PROTECT, related_name="+")
    tier = models.CharField(max_length=10, choices=Tier.choices, default=Tier.HOT)
    spec: models.JSONField = models.JSONField()
    reason = models.TextField()
    estimate: models.JSONField = models.JSONField(default=dict, help_text="Monthly cost and the rates it stands on.")
    change: models.JSONField = models.JSONField(default=dict)
    digest = models.CharField(max_length=DIGEST_LENGTH, blank=True)
    status = models.CharField(max_length=30, choices=ReleaseStatus.choices, default=ReleaseStatus.IN_REVIEW)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="releases")
    approval = models.OneToOneField(ApprovalRequest, models.PROTECT, null=True, related_name="release")
    plan = models.ForeignKey(Plan, models.PROTECT, null=True, related_name="+")
    model_grant_uid = models.UUIDField(null=True, help_text="The version's grant that this release stands on.")
    name_bound = models.BooleanField(
        default=False, help_text="The bytes are not verified at load time: bound by name only."
    )
    supersedes = models.OneToOneField("self", models.PROTECT, null=True, related_name="superseded_by")
    granted_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True, help_text="Its objects were declared.")
    live_at = models.DateTimeField(null=True, help_text="It took all traffic.")
    ended_at = models.DateTimeField(null=True)
    ladder_step = models.PositiveSmallIntegerField(default=0)
    step_since = models.DateTimeField(null=True)
    next_step_at = models.DateTimeField(null=True, help_text="Earliest next step of the ladder, null: by hand.")
    load_state = models.CharField(max_length=20, choices=LoadState.choices, default=LoadState.UNKNOWN, blank=True)
    observed_digest = models.CharField(
        max_length=DIGEST_LENGTH, blank=True, help_text="What the verifying storage container hashed; empty: unknown."
    )
    failure = models.TextField(blank=True)

    objects = ReleaseQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["endpoint", "number"], name="release_once"),
            models.UniqueConstraint(
                fields=["endpoint"], name="release_one_open", condition=Q(status__in=[str(s) for s in OPEN_RELEASES])
            ),
            models.UniqueConstraint(fields=["endpoint"], name="release_one_live", condition=Q(status="live")),
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "next_step_at"], name="release_due"),
            models.Index(fields=["version_digest"], name="release_version_digest"),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} release {self.number}"

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.endpoint.workspace.team_id

    @property
    def cost(self) -> Money | None:
        """The monthly cost change as estimated; None: no rate was published, so it is unknown."""
        amount = self.estimate.get("amount")
        return Money(Decimal(amount), self.estimate["currency"]) if amount is not None else None


class RolloutStep(Row):
    """What happened to an endpoint and why: the log that the time machine replays. Append-only."""

    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="steps")
    release = models.ForeignKey(Release, models.PROTECT, related_name="steps")
    kind = models.CharField(max_length=20, choices=StepKind.choices)
    traffic_before = models.PositiveSmallIntegerField(default=0)
    traffic_after = models.PositiveSmallIntegerField(default=0)
    at = models.DateTimeField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    automatic = models.BooleanField(default=False)
    reason = models.TextField(blank=True)
    evidence: models.JSONField = models.JSONField(default=dict, help_text="The figures that decided it.")
    generation = models.PositiveIntegerField(null=True, help_text="Of the endpoint's declaration.")
    model_grant_uid = models.UUIDField(null=True)
    release_grant_uid = models.UUIDField(null=True)

    objects = RolloutStepQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["at", "id"]
        indexes: ClassVar = [models.Index(fields=["endpoint", "at"], name="step_endpoint")]


class ServingInterval(Row):
    """That a release had its objects on a cluster over a time, with a share of the traffic: what ran where at T."""

    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="intervals")
    release = models.ForeignKey(Release, models.PROTECT, related_name="intervals")
    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    version_digest = models.CharField(max_length=DIGEST_LENGTH)
    traffic = models.PositiveSmallIntegerField()
    valid = DateTimeRangeField()
    release_grant_uid = models.UUIDField(null=True)
    model_grant_uid = models.UUIDField(null=True)

    objects = ServingIntervalQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(traffic__lte=100), name="interval_traffic"),
            models.UniqueConstraint(
                fields=["release"], name="interval_one_open", condition=Q(valid__endswith__isnull=True)
            ),
            ExclusionConstraint(
                name="interval_no_overlap",
                expressions=[(IntRange("release"), RangeOperators.OVERLAPS), ("valid", RangeOperators.OVERLAPS)],
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["endpoint"], name="interval_endpoint"),
            models.Index(fields=["version_digest"], name="interval_digest"),
        ]


from apps.deployments.watch_models import (  # noqa: E402  (they point at the rows above)
    DriftReading,
    Enforcement,
    EnforcementNote,
    Objective,
    ObjectiveReading,
    PlacementRule,
    PlacementStatement,
    ServingSample,
)

__all__ = [
    "DriftReading", "Endpoint", "Enforcement", "EnforcementNote", "Objective", "ObjectiveReading", "PlacementRule",
    "PlacementStatement", "Release", "RolloutStep", "ServingInterval", "ServingSample",
]  # fmt: skip
