"""Clusters, flavours, pools with dated capacity, and the node inventory."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.clusters.choices import CheckStatus, DeviceClass, GuardMode, Health, KueueMode, Location, PoolKind, Sharing
from apps.clusters.querysets import (
    ClusterCheckQuerySet,
    ClusterPlaceQuerySet,
    ClusterQuerySet,
    FlavourQuerySet,
    MaintenanceWindowQuerySet,
    NodeQuerySet,
    PoolCapacityQuerySet,
    PoolQuerySet,
)
from apps.core.models import IntRange, Row, VersionedRow

#: What a pool or flavour of a device class counts.
UNITS: dict[str, str] = {DeviceClass.GPU: "GPUs", DeviceClass.CPU: "cores"}


class Cluster(VersionedRow):
    """A Kubernetes cluster that the portal applies to and observes."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=40, unique=True)
    region = models.CharField(max_length=60, blank=True)
    location = models.CharField(max_length=20, choices=Location.choices, default=Location.UNKNOWN, blank=True)
    jurisdiction = models.CharField(
        max_length=10, blank=True, help_text='Whose law the data are under there: "EU", or an ISO 3166-1 code.'
    )
    api_url = models.CharField(max_length=300)
    ca_certificate = models.TextField(blank=True, help_text="PEM; empty: the system's trust store.")
    credentials = models.BinaryField(default=b"", help_text="Encrypted bearer token (clusters.crypto).")
    simulated = models.BooleanField(default=False, help_text="A simulated cluster is named as such wherever it shows.")
    paused_at = models.DateTimeField(null=True, blank=True)
    pause_reason = models.CharField(max_length=300, blank=True)
    # An archived cluster is a paused one that nothing new is offered on.
    archived_at = models.DateTimeField(null=True, blank=True)
    # What people's own kubeconfigs use to sign in: an exec or OIDC hint per cluster; never the portal's credentials.
    identity_provider: models.JSONField = models.JSONField(default=dict, blank=True)
    group_prefix = models.CharField(
        max_length=60, default="gpu-commons:", help_text="Prefix of groups in RoleBindings."
    )

    health = models.CharField(max_length=20, choices=Health.choices, default=Health.UNKNOWN)
    last_seen_at = models.DateTimeField(null=True)
    unreachable_since = models.DateTimeField(null=True, help_text="Since when it is not healthy.")
    last_error = models.TextField(blank=True)
    consecutive_failures = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True, help_text="Circuit breaker: no call before this time.")
    probed_at = models.DateTimeField(null=True, help_text="Last time the version and the nodes were read.")
    kubernetes_version = models.CharField(max_length=60, blank=True)
    capabilities: models.JSONField = models.JSONField(
        default=dict, help_text="What the last check found; read it through clusters.capabilities.of()."
    )
    kueue_mode = models.CharField(max_length=10, choices=KueueMode.choices, default=KueueMode.OFF)
    kueue_namespace_labels: models.JSONField = models.JSONField(
        default=dict, blank=True, help_text="Labels by which this cluster's Kueue takes a namespace as managed."
    )
    guard_mode = models.CharField(max_length=10, choices=GuardMode.choices, default=GuardMode.OFF)
    credentials_expire_at = models.DateTimeField(null=True, help_text="When the bearer token says that it expires.")
    certificate_expires_at = models.DateTimeField(null=True, help_text="End of the server certificate, as last seen.")
    expiry_notices: models.JSONField = models.JSONField(
        default=dict, help_text="What was told about ends of certificate and token: so that nothing is told twice."
    )

    objects = ClusterQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def shown_health(self) -> str:
        """What a page may say: never healthy once the last contact is stale (see `health.shown_health`)."""
        from apps.clusters.health import shown_health

        return shown_health(self)


class ClusterPlace(Row):
    """Where a cluster stood from a moment on, as it was stated then: written when that changes, never rewritten."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="places")
    location = models.CharField(max_length=20, choices=Location.choices, default=Location.UNKNOWN, blank=True)
    jurisdiction = models.CharField(max_length=10, blank=True)
    starts_at = models.DateTimeField(null=True, help_text="Null: as it was stated before the first change.")
    stated_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = ClusterPlaceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["cluster", "starts_at"], name="cluster_place_once", nulls_distinct=False)
        ]


class Flavour(VersionedRow):
    """A GPU or CPU class a team can ask for. `numerator/denominator` is the share of one physical device it holds."""

    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=40, unique=True)
    gpu_model = models.CharField(max_length=120, help_text="As the nodes' nvidia.com/gpu.product label says.")
    resource_name = models.CharField(max_length=120, default="nvidia.com/gpu")
    sharing = models.CharField(max_length=20, choices=Sharing.choices, default=Sharing.EXCLUSIVE)
    device_class = models.CharField(max_length=10, choices=DeviceClass.choices, default=DeviceClass.GPU)
    numerator = models.PositiveIntegerField(default=1)
    denominator = models.PositiveIntegerField(default=1)
    memory_mib = models.PositiveIntegerField(default=0)
    node_labels: models.JSONField = models.JSONField(default=dict)
    tolerations: models.JSONField = models.JSONField(default=list)

    objects = FlavourQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(numerator__gt=0, denominator__gt=0, numerator__lte=models.F("denominator")),
                name="flavour_share",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def unit(self) -> str:
        """What is counted: cores of a CPU class, else GPUs (or shares of one)."""
        return UNITS[self.device_class]


class Pool(VersionedRow):
    """The GPUs of one model on one cluster, with the flavours offered from it; of a CPU class: its cores.

    `gpu_model`, `committable_gpus`, `max_gpus`, `observed_gpus` name the class and count its cores in a CPU pool: one
    ledger serves both, and nothing sums the two (`device_class`).
    """

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="pools")
    gpu_model = models.CharField(max_length=120)
    kind = models.CharField(max_length=20, choices=PoolKind.choices, default=PoolKind.FIXED)
    flavours: models.ManyToManyField[Flavour, Any] = models.ManyToManyField(Flavour, related_name="pools")
    device_class = models.CharField(max_length=10, choices=DeviceClass.choices, default=DeviceClass.GPU)
    max_gpus = models.PositiveIntegerField(
        null=True, blank=True, help_text="Elastic pools: how far the pool can grow; null: not elastic."
    )
    startup_minutes = models.PositiveIntegerField(
        default=0, help_text="Elastic pools: how long a new node takes until it can run pods."
    )
    reserved_until = models.DateTimeField(
        null=True, blank=True, help_text="Reserved pools: when the reservation ends; null: open-ended."
    )
    commit_factor = models.DecimalField(max_digits=4, decimal_places=2, default=Decimal("1.00"))
    best_effort = models.BooleanField(default=False, help_text="Borrowing without Kueue; no page then says guaranteed.")
    open_names = models.BooleanField(default=False, help_text="Show the names of foreign teams on the pool's page.")
    observed_gpus = models.PositiveIntegerField(null=True)
    observed_at = models.DateTimeField(null=True)

    objects = PoolQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cluster", "gpu_model"], name="pool_once")]

    def __str__(self) -> str:
        return f"{self.gpu_model} on {self.cluster}"

    @property
    def unit(self) -> str:
        """What is counted: cores in a pool of a CPU class, else GPUs."""
        return UNITS[self.device_class]

    @property
    def elastic(self) -> bool:
        """Whether nodes come and go with the work: nothing there at rest is no lost capacity."""
        return self.kind == PoolKind.ELASTIC

    @property
    def start_words(self) -> str:
        """How long what is asked of an elastic pool takes to be there; "" where it is there already."""
        if not self.elastic or not self.startup_minutes:
            return ""
        return f"from a pool that starts in {self.startup_minutes} minute{'' if self.startup_minutes == 1 else 's'}"


class PoolCapacity(Row):
    """How many GPUs of a pool an admin commits to hand out, dated."""

    pool = models.ForeignKey(Pool, models.PROTECT, related_name="capacities")
    committable_gpus = models.PositiveIntegerField()
    valid = DateTimeRangeField()
    reason = models.CharField(max_length=300, blank=True)

    objects = PoolCapacityQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            ExclusionConstraint(
                name="capacity_no_overlap",
                expressions=[(IntRange("pool"), RangeOperators.OVERLAPS), ("valid", RangeOperators.OVERLAPS)],
            )
        ]


class Node(Row):
    """A node as last observed."""

    cluster = models.ForeignKey(Cluster, models.CASCADE, related_name="nodes")
    name = models.CharField(max_length=253)
    gpu_model = models.CharField(max_length=120, blank=True)
    sharing = models.CharField(max_length=20, choices=Sharing.choices, default=Sharing.EXCLUSIVE)
    physical_gpus = models.PositiveIntegerField(default=0)
    schedulable = models.BooleanField(default=True)
    ready = models.BooleanField(default=True)
    allocatable: models.JSONField = models.JSONField(default=dict)
    capacity: models.JSONField = models.JSONField(default=dict, help_text="What is built in, unhealthy devices too.")
    taints: models.JSONField = models.JSONField(default=list, help_text="{key, value, effect}, lasting ones only.")
    problem = models.CharField(
        max_length=300, blank=True, help_text="Why its GPUs are not counted: what it says contradicts itself."
    )
    mig_strategy = models.CharField(max_length=10, blank=True, help_text="none, single or mixed, as labelled.")
    replicas = models.PositiveIntegerField(default=1, help_text="Time-slicing: pods per GPU.")
    gpu_memory_mib = models.PositiveIntegerField(default=0, help_text="Of one physical GPU.")
    slices: models.JSONField = models.JSONField(default=dict, help_text="MIG profile → instances on this node.")
    labels: models.JSONField = models.JSONField(default=dict, help_text="GPU and topology labels.")
    observed_at = models.DateTimeField()

    objects = NodeQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cluster", "name"], name="node_once")]

    @property
    def state(self) -> str:
        """What a page says first: unknown before not ready before cordoned before ready."""
        if self.problem:
            return "unknown"
        if not self.ready:
            return "not_ready"
        return "ready" if self.schedulable else "cordoned"


class ClusterCheck(VersionedRow):
    """One step-by-step check of a cluster: reach, TLS, version, permissions, what is installed there.

    `steps`: in order {key, title, outcome ok|warning|failed|skipped, detail, advice}.
    """

    cluster = models.ForeignKey(Cluster, models.CASCADE, related_name="checks")
    status = models.CharField(max_length=10, choices=CheckStatus.choices, default=CheckStatus.PENDING)
    steps: models.JSONField = models.JSONField(default=list)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = ClusterCheckQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["cluster", "-id"], name="cluster_check_recent"),
            models.Index(fields=["id"], name="cluster_check_open", condition=~Q(status=CheckStatus.DONE)),
        ]


class MaintenanceWindow(VersionedRow):
    """A time in which the portal applies nothing to a cluster (it still observes); what is due waits for its end."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="maintenance_windows")
    valid = DateTimeRangeField()
    reason = models.CharField(max_length=300)
    cancelled_at = models.DateTimeField(null=True)

    objects = MaintenanceWindowQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["cluster", "valid"], name="maintenance_recent")]
