"""Sources, ingest runs, completeness, proofs, hourly facts, capacity lines and the daily roll-up."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster
from apps.core.models import IntRange, Row, VersionedRow
from apps.metering.choices import CheckVerdict, HourState, LineKind, RunStatus, SourceKind, Trigger
from apps.metering.querysets import (
    CapacityLineQuerySet,
    CheckQuerySet,
    DayUsageQuerySet,
    HourFactQuerySet,
    HourStatusQuerySet,
    IntervalQuerySet,
    ProofQuerySet,
    ResourceFactQuerySet,
    RunQuerySet,
    SourceQuerySet,
    WaiverQuerySet,
)
from apps.metering.rule_models import NamespaceOwner, ResourceRule, WorkspaceClass
from apps.rates.choices import Resource

__all__ = [
    "CapacityLine", "DayUsage", "HourFact", "HourStatus", "IngestRun", "NamespaceOwner", "ResourceFact",
    "ResourceRule", "Source", "SourceCheck", "SourceProof", "SourceWaiver", "UsageInterval", "WorkspaceClass",
]  # fmt: skip


class Source(VersionedRow):
    """Where a cluster's usage is read from, valid in time: one source of record per cluster and moment."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="usage_sources")
    kind = models.CharField(max_length=20, choices=SourceKind.choices)
    name = models.CharField(max_length=120)
    url = models.CharField(max_length=300, blank=True)
    credentials = models.BinaryField(default=b"", help_text="Encrypted bearer token (clusters.crypto).")
    options: models.JSONField = models.JSONField(
        default=dict, blank=True, help_text="cluster_filter, timeout_seconds, resolution_seconds, gpu_resources …"
    )
    valid = DateTimeRangeField()
    retry_at = models.DateTimeField(null=True, help_text="No reading before this time, after failures.")
    failures = models.PositiveIntegerField(default=0)
    check_requested_at = models.DateTimeField(
        null=True, help_text="A self-test was asked for; due while later than the newest one."
    )
    check_requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = SourceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            ExclusionConstraint(
                name="source_of_record",
                expressions=[(IntRange("cluster"), RangeOperators.OVERLAPS), ("valid", RangeOperators.OVERLAPS)],
            )
        ]

    def __str__(self) -> str:
        return self.name


class IngestRun(Row):
    """One attempt to read a window of hours from a source."""

    source = models.ForeignKey(Source, models.PROTECT, related_name="runs")
    window_start = models.DateTimeField()
    window_end = models.DateTimeField()
    trigger = models.CharField(max_length=20, choices=Trigger.choices, default=Trigger.SWEEP)
    status = models.CharField(max_length=20, choices=RunStatus.choices, default=RunStatus.RUNNING)
    started_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    finished_at = models.DateTimeField(null=True)
    hours_written = models.PositiveIntegerField(default=0)
    hours_unchanged = models.PositiveIntegerField(default=0)
    hours_failed = models.PositiveIntegerField(default=0)
    facts = models.PositiveIntegerField(default=0)
    requests = models.PositiveIntegerField(default=0)
    response_bytes = models.PositiveBigIntegerField(default=0)
    error = models.TextField(blank=True)
    report: models.JSONField = models.JSONField(default=dict, help_text="Import: rows taken, skipped, first errors.")

    objects = RunQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["source", "-created_at"], name="run_recent"),
            models.Index(fields=["-created_at"], name="run_newest"),
        ]


class HourStatus(models.Model):
    """How complete one cluster's hour is, and which revision of its facts stands."""

    id = models.BigAutoField(primary_key=True)
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    hour = models.DateTimeField()
    state = models.CharField(max_length=20, choices=HourState.choices, default=HourState.MISSING)
    source = models.ForeignKey(Source, models.PROTECT, null=True, related_name="+")
    coverage_permille = models.PositiveSmallIntegerField(default=0, help_text="Samples present of those expected.")
    inputs_hash = models.CharField(max_length=64, blank=True)
    revision = models.PositiveIntegerField(default=0)
    facts = models.PositiveIntegerField(default=0)
    # Without a constraint, as everything that refers to facts: capacity lines name no proof of their own.
    proof_id = models.BigIntegerField(null=True, help_text="The proof of the reading that the rows came from.")
    flags: ArrayField[list[str], list[str]] = ArrayField(models.CharField(max_length=30), default=list)
    reason = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    late_revision = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Newest revision of rows that came after the period was closed; 0: none."
    )
    late_hash = models.CharField(max_length=64, blank=True, default="", db_default="")
    requested_at = models.DateTimeField(null=True, help_text="Asked to be read again; due while later than read_at.")
    read_at = models.DateTimeField(null=True)
    written_at = models.DateTimeField(null=True)

    objects = HourStatusQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cluster", "hour"], name="hour_once")]
        indexes: ClassVar = [
            models.Index(fields=["cluster", "hour"], name="hour_open", condition=~Q(state=HourState.FINAL)),
            models.Index(fields=["hour"], name="hour_by_time"),
        ]


class SourceProof(Row):
    """What a reading asked and what it was told: queries, parameters, SHA-256 of each response, compressed bodies."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    source = models.ForeignKey(Source, models.PROTECT, related_name="+")
    run = models.ForeignKey(IngestRun, models.PROTECT, null=True, related_name="proofs")
    window_start = models.DateTimeField()
    window_end = models.DateTimeField()
    read_at = models.DateTimeField()
    exchanges: models.JSONField = models.JSONField(
        default=list, help_text="In order: purpose, url, query, parameters, sha256, bytes, offset into the body."
    )
    body = models.BinaryField(help_text="zlib over the response bodies, one after the other.")
    body_bytes = models.PositiveBigIntegerField(default=0)

    objects = ProofQuerySet.as_manager()


class UsageInterval(models.Model):
    """One imported interval of use. Keyed by what it says, so that importing a file again changes nothing."""

    id = models.BigAutoField(primary_key=True)
    source = models.ForeignKey(Source, models.PROTECT, related_name="intervals")
    key = models.CharField(max_length=64, help_text="Digest of workload, namespace, flavour, start and ordinal.")
    workload = models.CharField(max_length=253)
    namespace = models.CharField(max_length=120)
    units = models.PositiveIntegerField()
    flavour = models.CharField(max_length=120, blank=True)
    start_ms = models.BigIntegerField()
    end_ms = models.BigIntegerField()
    used_permille = models.PositiveSmallIntegerField(null=True)

    objects = IntervalQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["source", "key"], name="interval_once"),
            models.CheckConstraint(condition=Q(end_ms__gt=models.F("start_ms")), name="interval_positive"),
        ]
        indexes: ClassVar = [models.Index(fields=["source", "start_ms", "end_ms"], name="interval_time")]


class _Owned(models.Model):
    """The owner as of that hour, copied: present ownership never decides who sees the past (design §3)."""

    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    unit_path: ArrayField[list[int], list[int]] = ArrayField(models.BigIntegerField(), default=list)
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200, blank=True)
    unit_name = models.CharField(max_length=200, blank=True)
    workspace_id = models.BigIntegerField(null=True)
    environment = models.CharField(max_length=20, blank=True)

    class Meta:
        abstract = True

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id


class HourFact(_Owned):
    """Metered quantities of one workload in one hour. Month-partitioned; nothing refers to it by foreign key."""

    pk = models.CompositePrimaryKey("hour", "uid")
    hour = models.DateTimeField()
    uid = models.UUIDField()
    cluster_id = models.BigIntegerField()
    namespace = models.CharField(max_length=120)
    workload_key = models.CharField(max_length=300)
    workload_name = models.CharField(max_length=253)
    workload_kind = models.CharField(max_length=60, blank=True)
    pod = models.CharField(max_length=253, blank=True)
    container = models.CharField(max_length=253, blank=True)
    node = models.CharField(max_length=253, blank=True)
    flavour_id = models.BigIntegerField(null=True)
    flavour_name = models.CharField(max_length=120, blank=True)
    gpu_model = models.CharField(max_length=120, blank=True)
    resource = models.CharField(max_length=120, blank=True)
    capacity_type = models.CharField(max_length=20, blank=True)
    spans: ArrayField[list[int], list[int]] = ArrayField(
        models.IntegerField(), help_text="start, end, units, …: milliseconds within the hour."
    )
    allocated_unit_ms = models.BigIntegerField(help_text="In units of the flavour.")
    allocated_gpu_ms = models.BigIntegerField(help_text="In physical GPUs.")
    used_gpu_ms = models.BigIntegerField(null=True, help_text="NULL: unknown, never zero.")
    used_source = models.CharField(max_length=30, blank=True)
    coverage_permille = models.PositiveSmallIntegerField(default=0)
    flags: ArrayField[list[str], list[str]] = ArrayField(models.CharField(max_length=30), default=list)
    source_id = models.BigIntegerField()
    proof_id = models.BigIntegerField(null=True)
    revision = models.PositiveIntegerField(default=1)
    project = models.CharField(max_length=120, blank=True, default="")
    purpose = models.CharField(max_length=40, blank=True, default="")
    release_uid = models.UUIDField(null=True)
    service_class = models.CharField(max_length=20, blank=True, default="")
    gpu_memory_mib = models.BigIntegerField(null=True, help_text="Mean GPU memory held, all devices; NULL: unknown.")

    objects = HourFactQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = "metering_hourfact"


class CapacityLine(_Owned):
    """One line of a cluster's GPU time of one model and hour. Month-partitioned; nothing refers to it."""

    pk = models.CompositePrimaryKey("hour", "uid")
    hour = models.DateTimeField()
    uid = models.UUIDField()
    cluster_id = models.BigIntegerField()
    gpu_model = models.CharField(max_length=120, blank=True)
    kind = models.CharField(max_length=20, choices=LineKind.choices)
    flavour_id = models.BigIntegerField(null=True)
    gpu_ms = models.BigIntegerField()
    revision = models.PositiveIntegerField(default=1)

    objects = CapacityLineQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = "metering_capacityline"


class DayUsage(models.Model):
    """Roll-up of facts by billing day: what reports read. Replaced for the days that an ingest touches."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    cluster_id = models.BigIntegerField()
    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    workspace_id = models.BigIntegerField(null=True)
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200, blank=True)
    unit_name = models.CharField(max_length=200, blank=True)
    flavour_id = models.BigIntegerField(null=True)
    gpu_model = models.CharField(max_length=120, blank=True)
    allocated_gpu_ms = models.BigIntegerField()
    used_gpu_ms = models.BigIntegerField(help_text="Where measured.")
    measured_gpu_ms = models.BigIntegerField(help_text="Allocated GPU time that the measurement covers.")
    idle_gpu_ms = models.BigIntegerField()
    workloads = models.PositiveIntegerField()

    objects = DayUsageQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["day", "team_id"], name="dayusage_day_team"),
            models.Index(fields=["cluster_id", "day"], name="dayusage_cluster_day"),
            models.Index(fields=["team_id", "day"], name="dayusage_team_day"),
        ]


class ResourceFact(_Owned):
    """CPU, memory, storage or egress of one workload in one hour. Month-partitioned.

    `quantity_ms` is what is charged for: milliseconds × units (cores, GiB); one GiB of egress counts as 3,600,000,
    so that price × quantity ÷ 3,600,000 holds for every resource.
    """

    pk = models.CompositePrimaryKey("hour", "uid")
    hour = models.DateTimeField()
    uid = models.UUIDField()
    cluster_id = models.BigIntegerField()
    namespace = models.CharField(max_length=120)
    workload_key = models.CharField(max_length=300)
    workload_name = models.CharField(max_length=253)
    workload_kind = models.CharField(max_length=60, blank=True)
    node = models.CharField(max_length=253, blank=True)
    capacity_type = models.CharField(max_length=20, blank=True)
    resource = models.CharField(max_length=20, choices=Resource.choices)
    quantity_ms = models.BigIntegerField()
    requested_ms = models.BigIntegerField(null=True, help_text="Requested; NULL: nothing requested or unknown.")
    used_ms = models.BigIntegerField(null=True, help_text="Measured; NULL: unknown, never zero.")
    coverage_permille = models.PositiveSmallIntegerField(default=0)
    flags: ArrayField[list[str], list[str]] = ArrayField(models.CharField(max_length=30), default=list)
    project = models.CharField(max_length=120, blank=True)
    purpose = models.CharField(max_length=40, blank=True)
    service_class = models.CharField(max_length=20, blank=True)
    source_id = models.BigIntegerField()
    proof_id = models.BigIntegerField(null=True)
    revision = models.PositiveIntegerField(default=1)

    objects = ResourceFactQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = "metering_resourcefact"


class SourceCheck(Row):
    """One self-test of a source: what it can tell, what is missing, what to do about it."""

    source = models.ForeignKey(Source, models.PROTECT, related_name="checks")
    verdict = models.CharField(max_length=20, choices=CheckVerdict.choices)
    findings: models.JSONField = models.JSONField(
        default=list, help_text="In order: code, status ok|warning|failed, title, detail, todo, evidence."
    )
    requests = models.PositiveIntegerField(default=0)
    started_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    checked_at = models.DateTimeField()

    objects = CheckQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["source", "-checked_at"], name="check_newest")]


class SourceWaiver(VersionedRow):
    """Somebody's word, by name and for a time, that a source may be billed from although these checks fail."""

    source = models.ForeignKey(Source, models.PROTECT, related_name="waivers")
    codes: ArrayField[list[str], list[str]] = ArrayField(models.CharField(max_length=40))
    reason = models.CharField(max_length=500)
    waived_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    valid = DateTimeRangeField()
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    ended_for = models.CharField(
        max_length=300, blank=True, db_default="", help_text="What was changed of its source, which ended it."
    )

    objects = WaiverQuerySet.as_manager()
