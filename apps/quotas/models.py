"""Workspaces, quotas and quota requests."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q
from django.db.models.fields.json import KeyTextTransform

from apps.approvals.models import ApprovalRequest
from apps.clusters.models import Cluster, Flavour
from apps.core.models import IntRange, Row, VersionedRow
from apps.core.money import Money
from apps.provisioning.models import Plan
from apps.quotas.choices import (
    OPEN_STATUSES,
    BorrowMode,
    ChangeKind,
    Environment,
    LendMode,
    ReadingStatus,
    RequestStatus,
    Rung,
)
from apps.quotas.querysets import (
    ChangeRequestQuerySet,
    NamespaceReadingQuerySet,
    QuotaQuerySet,
    QuotaRequestQuerySet,
    WorkspaceQuerySet,
)
from apps.teams.models import Team

_BORROW_TIED = Q(borrow_mode=BorrowMode.LIMITED, borrow_limit__gt=0) | (
    Q(borrow_mode__in=[BorrowMode.NONE, BorrowMode.UNLIMITED], borrow_limit=0)
)
_LEND_TIED = (
    Q(lend_mode=LendMode.LIMITED, lend_limit__gt=0) | Q(lend_mode__in=[LendMode.ALL, LendMode.NONE], lend_limit=0)
) & Q(serving__lte=models.F("guaranteed"), lend_limit__lte=models.F("guaranteed"))


class Workspace(VersionedRow):
    """A team's place on one cluster for one environment: its namespace, and the data classes allowed there."""

    team = models.ForeignKey(Team, models.PROTECT, related_name="workspaces")
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="workspaces")
    environment = models.CharField(max_length=20, choices=Environment.choices)
    namespace = models.CharField(max_length=63)
    data_classes: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=30), default=list, blank=True
    )
    cpu_cores = models.PositiveIntegerField(default=256, help_text="requests.cpu of the namespace.")
    memory_gib = models.PositiveIntegerField(default=2048, help_text="requests.memory of the namespace, GiB.")
    storage_gib = models.PositiveIntegerField(default=10240, help_text="requests.storage of the namespace, GiB.")
    pods = models.PositiveIntegerField(default=200)
    jobs = models.PositiveIntegerField(default=500, help_text="count/jobs.batch of the namespace.")
    deployments = models.PositiveIntegerField(default=100, help_text="count/deployments.apps of the namespace.")
    volume_claims = models.PositiveIntegerField(default=50, help_text="persistentvolumeclaims of the namespace.")
    fair_weight = models.DecimalField(
        max_digits=6, decimal_places=2, default=Decimal("1.00"), help_text="Kueue fair sharing: share of what is idle."
    )
    idle_policy: models.JSONField = models.JSONField(
        default=dict, blank=True, help_text="As approved (quotas.policies.IdlePolicy); empty: idle work is left alone."
    )
    expiry_policy: models.JSONField = models.JSONField(
        default=dict, blank=True, help_text="As approved (quotas.policies.ExpiryPolicy); empty: stop admitting only."
    )
    rung = models.CharField(max_length=20, choices=Rung.choices, default=Rung.NONE)
    rung_at = models.DateTimeField(null=True, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True)
    drain_asked_at = models.DateTimeField(
        null=True, editable=False, help_text="Its leads asked to stop what holds GPUs; a worker has not done it yet."
    )
    rolled_at = models.DateTimeField(
        null=True, editable=False, help_text="Up to when the declared GPU limits follow the dated quotas."
    )

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["team", "cluster", "environment"], name="workspace_once"),
            models.UniqueConstraint(fields=["cluster", "namespace"], name="workspace_namespace_once"),
        ]

    def __str__(self) -> str:
        return f"{self.namespace} on {self.cluster}"

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class QuotaRequest(VersionedRow):
    """A request to change what a workspace holds of a flavour, from a time on, until a time or for good."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="requests")
    flavour = models.ForeignKey(Flavour, models.PROTECT, related_name="+")
    guaranteed = models.PositiveIntegerField()
    borrow_mode = models.CharField(max_length=20, choices=BorrowMode.choices, default=BorrowMode.NONE)
    borrow_limit = models.PositiveIntegerField(default=0)
    lend_mode = models.CharField(max_length=20, choices=LendMode.choices, default=LendMode.ALL)
    lend_limit = models.PositiveIntegerField(default=0)
    serving = models.PositiveIntegerField(
        default=0, help_text="Of the guaranteed units: kept for serving, never lent, never in a queue of jobs."
    )
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True, blank=True)
    recurrence: models.JSONField = models.JSONField(
        null=True, blank=True, help_text='Weekly windows in UTC: {"days": [0-6], "start": "HH:MM", "minutes": n}.'
    )
    is_renewal = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="It continues a quota from its end on and takes no more: one may be open beside another request.",
    )
    reason = models.TextField()
    status = models.CharField(max_length=30, choices=RequestStatus.choices, default=RequestStatus.IN_REVIEW)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="quota_requests")
    estimate: models.JSONField = models.JSONField(default=dict, help_text="Cost change and the rates it stands on.")
    change: models.JSONField = models.JSONField(
        default=dict, help_text="What it was before, and one digest leaf per cluster and field path, as submitted."
    )
    digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 over the canonical change.")
    approval = models.OneToOneField(ApprovalRequest, models.PROTECT, null=True, related_name="quota_request")
    plan = models.ForeignKey(Plan, models.PROTECT, null=True, related_name="+")
    supersedes = models.OneToOneField("self", models.PROTECT, null=True, related_name="superseded_by")
    granted_at = models.DateTimeField(null=True)
    generation = models.PositiveIntegerField(null=True, help_text="The declaration's generation that carries it.")
    applied_at = models.DateTimeField(null=True)

    objects = QuotaRequestQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=_BORROW_TIED, name="request_borrow_tied"),
            models.CheckConstraint(condition=_LEND_TIED, name="request_lend_tied"),
            models.CheckConstraint(
                condition=Q(valid_until__isnull=True) | Q(valid_until__gt=models.F("valid_from")),
                name="request_until_after_from",
            ),
            models.UniqueConstraint(
                fields=["workspace", "flavour"],
                name="request_one_open",
                condition=Q(status__in=["in_review", "waiting_for_capacity"], is_renewal=False),
            ),
            models.UniqueConstraint(
                fields=["workspace", "flavour"],
                name="request_one_renewal_open",
                condition=Q(status__in=["in_review", "waiting_for_capacity"], is_renewal=True),
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["workspace", "-created_at"], name="quota_request_recent"),
            models.Index(fields=["status", "id"], name="quota_request_status"),
        ]

    def __str__(self) -> str:
        return f"{self.guaranteed} × {self.flavour} for {self.workspace}"

    @property
    def maximum(self) -> int | None:
        """Guaranteed and borrow together; None: unlimited."""
        return None if self.borrow_mode == BorrowMode.UNLIMITED else self.guaranteed + self.borrow_limit

    @property
    def cost(self) -> Money | None:
        """The monthly cost change as estimated at submission; None: no rate was published, so it is unknown."""
        amount = self.estimate.get("amount")
        return Money(Decimal(amount), self.estimate["currency"]) if amount is not None else None

    @property
    def is_open(self) -> bool:
        """Whether it can be withdrawn and corrected."""
        return self.status in OPEN_STATUSES

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.workspace.team_id


class Quota(Row):
    """What a workspace holds of a flavour over a time. Rows of one workspace and flavour never overlap."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="quotas")
    flavour = models.ForeignKey(Flavour, models.PROTECT, related_name="+")
    guaranteed = models.PositiveIntegerField()
    borrow_mode = models.CharField(max_length=20, choices=BorrowMode.choices, default=BorrowMode.NONE)
    borrow_limit = models.PositiveIntegerField(default=0)
    lend_mode = models.CharField(max_length=20, choices=LendMode.choices, default=LendMode.ALL)
    lend_limit = models.PositiveIntegerField(default=0)
    serving = models.PositiveIntegerField(
        default=0, help_text="Of the guaranteed units: kept for serving, never lent, never in a queue of jobs."
    )
    valid = DateTimeRangeField()
    request = models.ForeignKey(QuotaRequest, models.PROTECT, null=True, related_name="quotas")
    noticed_days = models.PositiveSmallIntegerField(
        null=True, help_text="The last notice of its end that was sent: so many days before."
    )

    objects = QuotaQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=_BORROW_TIED, name="quota_borrow_tied"),
            models.CheckConstraint(condition=_LEND_TIED, name="quota_lend_tied"),
            ExclusionConstraint(
                name="quota_no_overlap",
                expressions=[
                    (IntRange("workspace"), RangeOperators.OVERLAPS),
                    (IntRange("flavour"), RangeOperators.OVERLAPS),
                    ("valid", RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.guaranteed} × {self.flavour} for {self.workspace}"

    @property
    def maximum(self) -> int | None:
        """Guaranteed and borrow together; None: unlimited."""
        return None if self.borrow_mode == BorrowMode.UNLIMITED else self.guaranteed + self.borrow_limit

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.workspace.team_id


class ChangeRequest(VersionedRow):
    """A request to change what is declared besides the numbers of quotas: cluster baseline, workspace limits, policies.

    `objects_after`: RFC 8785 list of {declaration_kind, owner_uid, title, manifests}, exactly what will be declared.
    """

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="change_requests")
    workspace = models.ForeignKey(
        Workspace, models.PROTECT, null=True, related_name="change_requests", help_text="Null: the cluster itself."
    )
    receiver = models.ForeignKey(
        Team, models.PROTECT, null=True, related_name="+", help_text="Whose workspace a granted change makes."
    )
    kind = models.CharField(max_length=20, choices=ChangeKind.choices)
    title = models.CharField(max_length=300)
    reason = models.TextField()
    values: models.JSONField = models.JSONField(default=dict, help_text="The new settings, as the kind defines them.")
    objects_after = models.BinaryField(default=b"")
    change: models.JSONField = models.JSONField(
        default=dict, help_text="What it was before, and one digest leaf per cluster and object or field path."
    )
    digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 over the canonical change.")
    status = models.CharField(max_length=30, choices=RequestStatus.choices, default=RequestStatus.IN_REVIEW)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="change_requests")
    approval = models.OneToOneField(ApprovalRequest, models.PROTECT, null=True, related_name="change_request")
    plan = models.ForeignKey(Plan, models.PROTECT, null=True, related_name="+")
    granted_at = models.DateTimeField(null=True)
    generations: models.JSONField = models.JSONField(
        default=dict, help_text="Declaration uid → the generation that carries it."
    )
    applied_at = models.DateTimeField(null=True)

    objects = ChangeRequestQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["workspace", "kind"],
                name="change_one_open",
                condition=Q(status__in=["in_review", "waiting_for_capacity"], workspace__isnull=False),
            ),
            models.UniqueConstraint(
                fields=["cluster", "kind"],
                name="cluster_change_one_open",
                condition=Q(
                    status__in=["in_review", "waiting_for_capacity"], workspace__isnull=True, receiver__isnull=True
                ),
            ),
            models.UniqueConstraint(
                "cluster",
                "kind",
                KeyTextTransform("namespace", "values"),
                name="new_workspace_change_one_open",
                condition=Q(status__in=["in_review", "waiting_for_capacity"], receiver__isnull=False),
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["status", "id"], name="change_request_status")]

    def __str__(self) -> str:
        return self.title

    @property
    def is_open(self) -> bool:
        """Whether it can be withdrawn."""
        return self.status in OPEN_STATUSES

    @property
    def team(self) -> Team | None:
        """The team whose workspace it changes, or makes; None: the platform."""
        return self.workspace.team if self.workspace is not None else self.receiver

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate; None: the platform."""
        return self.workspace.team_id if self.workspace is not None else self.receiver_id


class BaselineState(Row):
    """What the last look found of a cluster's baseline: whether it would be rendered differently than it is declared.

    Kept so that nothing is rendered again while nothing it stands on has changed (`fingerprint`).
    """

    cluster = models.OneToOneField(Cluster, models.CASCADE, related_name="baseline_state")
    fingerprint = models.CharField(max_length=64, blank=True)
    renderer_version = models.PositiveIntegerField(default=0, help_text="Of the baseline approved last; 0: none was.")
    lines = models.PositiveIntegerField(default=0, help_text="Differences, equal ones of many workspaces counted once.")
    workspaces = models.PositiveIntegerField(default=0, help_text="Workspaces that would be declared differently.")
    problem = models.TextField(blank=True, help_text="Why it cannot be rendered.")
    checked_at = models.DateTimeField(null=True)
    due_since = models.DateTimeField(null=True)
    asked_at = models.DateTimeField(
        null=True, help_text="A person asked for the request; a worker has not made it yet."
    )
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    asked_reason = models.TextField(blank=True)
    asked_problem = models.TextField(blank=True, help_text="Why the request could not be made.")

    def __str__(self) -> str:
        return f"Baseline of {self.cluster}"

    @property
    def is_due(self) -> bool:
        """Whether a new baseline should be requested."""
        return self.due_since is not None


class NamespaceReading(VersionedRow):
    """What a worker found in a namespace that is there already, and what adopting it would add.

    `found`: namespace, quotas, limit ranges, roles, network policies, use by pods. `plan`: the server's dry run of what
    the portal would add (provisioning.planner entries, with `error` where the server refused one).
    """

    cluster = models.ForeignKey(Cluster, models.CASCADE, related_name="namespace_readings")
    namespace = models.CharField(max_length=63)
    team = models.ForeignKey(Team, models.PROTECT, related_name="+")
    environment = models.CharField(max_length=20, choices=Environment.choices)
    data_classes: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=30), default=list, blank=True
    )
    workspace_uid = models.UUIDField(
        default=uuid.uuid4, editable=False, help_text="Of the workspace that a granted adoption makes."
    )
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    status = models.CharField(max_length=20, choices=ReadingStatus.choices, default=ReadingStatus.PENDING)
    steps: models.JSONField = models.JSONField(default=list, help_text="Steps that are done, in order.")
    found: models.JSONField = models.JSONField(default=dict)
    plan: models.JSONField = models.JSONField(default=list)
    error_class = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    asked_at = models.DateTimeField()
    retry_at = models.DateTimeField(null=True)
    read_at = models.DateTimeField(null=True)
    change = models.OneToOneField(ChangeRequest, models.SET_NULL, null=True, related_name="reading")

    objects = NamespaceReadingQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["status", "id"], name="namespace_reading_status")]

    def __str__(self) -> str:
        return f"{self.namespace} on {self.cluster}"

    @property
    def is_moving(self) -> bool:
        """Whether a worker is at it, or will be."""
        return self.status in (ReadingStatus.PENDING, ReadingStatus.RUNNING)
