"""Clusters, flavours, pools with dated capacity, and the node inventory."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.clusters.choices import Health, PoolKind, Sharing
from apps.clusters.querysets import ClusterQuerySet, FlavourQuerySet, NodeQuerySet, PoolCapacityQuerySet, PoolQuerySet
from apps.core.models import IntRange, Row, VersionedRow


class Cluster(VersionedRow):
    """A Kubernetes cluster that the portal applies to and observes."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=40, unique=True)
    region = models.CharField(max_length=60, blank=True)
    api_url = models.CharField(max_length=300)
    ca_certificate = models.TextField(blank=True, help_text="PEM; empty: the system's trust store.")
    credentials = models.BinaryField(default=b"", help_text="Encrypted bearer token (clusters.crypto).")
    simulated = models.BooleanField(default=False, help_text="A simulated cluster is named as such wherever it shows.")
    paused_at = models.DateTimeField(null=True, blank=True)
    pause_reason = models.CharField(max_length=300, blank=True)
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
    capabilities: models.JSONField = models.JSONField(default=dict)

    objects = ClusterQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def shown_health(self) -> str:
        """What a page may say: never healthy once the last contact is stale (see `health.shown_health`)."""
        from apps.clusters.health import shown_health

        return shown_health(self)


class Flavour(VersionedRow):
    """A GPU or CPU class a team can ask for. `numerator/denominator` is the share of one physical device it holds."""

    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=40, unique=True)
    gpu_model = models.CharField(max_length=120, help_text="As the nodes' nvidia.com/gpu.product label says.")
    resource_name = models.CharField(max_length=120, default="nvidia.com/gpu")
    sharing = models.CharField(max_length=20, choices=Sharing.choices, default=Sharing.EXCLUSIVE)
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


class Pool(VersionedRow):
    """The GPUs of one model on one cluster, with the flavours offered from it."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="pools")
    gpu_model = models.CharField(max_length=120)
    kind = models.CharField(max_length=20, choices=PoolKind.choices, default=PoolKind.FIXED)
    flavours: models.ManyToManyField[Flavour, Any] = models.ManyToManyField(Flavour, related_name="pools")
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
    observed_at = models.DateTimeField()

    objects = NodeQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cluster", "name"], name="node_once")]
