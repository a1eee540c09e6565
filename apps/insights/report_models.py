"""What the monthly report keeps of its own: workloads by month, files of reports, and that a report was sent."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.conf import settings
from django.db import models

from apps.core.models import Row, VersionedRow
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.insights.querysets import ReportFileQuerySet, ReportSentQuerySet, WorkloadMonthQuerySet
from apps.teams.models import Unit


class FileStatus(models.TextChoices):
    """Where the making of a report's file stands."""

    QUEUED = "queued", "Queued"
    RUNNING = "running", "Being made"
    DONE = "done", "Ready"
    FAILED = "failed", "Failed"


class WorkloadMonth(Row):
    """A workload's billing month: what it held, used, cost, and what stopping it when idle would have saved.

    Owner, project, purpose and environment as on its latest fact. Σ quantity × hourly price stands unrounded in
    `product`; rebuilt once a day for the running month, and until the month after is two days old.
    """

    month = models.DateField()
    cluster_id = models.BigIntegerField()
    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    workspace_id = models.BigIntegerField(null=True)
    team_name = models.CharField(max_length=200, blank=True)
    namespace = models.CharField(max_length=120)
    workload_kind = models.CharField(max_length=60, blank=True)
    workload_name = models.CharField(max_length=253)
    flavour_id = models.BigIntegerField(null=True)
    flavour_name = models.CharField(max_length=120, blank=True)
    project = models.CharField(max_length=120, blank=True)
    purpose = models.CharField(max_length=40, blank=True)
    environment = models.CharField(max_length=20, blank=True)
    hours = models.PositiveIntegerField()
    allocated_gpu_ms = models.BigIntegerField()
    allocated_unit_ms = models.BigIntegerField()
    used_gpu_ms = models.BigIntegerField(null=True, help_text="NULL: nothing was measured.")
    covered_gpu_ms = models.BigIntegerField(help_text="Allocated in hours whose use is known from 90 % of the samples.")
    idle_gpu_ms = models.BigIntegerField(help_text="Allocated in known hours used below the threshold.")
    savable_gpu_ms = models.BigIntegerField(help_text="Idle beyond the first hours of each idle run.")
    idle_hours = models.PositiveIntegerField()
    currency = models.CharField(max_length=3, blank=True)
    product = models.DecimalField(max_digits=40, decimal_places=8, default=0)
    savable_product = models.DecimalField(max_digits=40, decimal_places=8, default=0)
    unpriced_ms = models.BigIntegerField(default=0)
    amount = models.DecimalField(max_digits=24, decimal_places=6, null=True, help_text="NULL: no price. For sorting.")
    most_memory_mib = models.BigIntegerField(null=True)
    use_p95_permille = models.IntegerField(null=True, help_text="Used of allocated in 95 % of the known hours.")
    last_hour = models.DateTimeField()
    made_at = models.DateTimeField()

    objects = WorkloadMonthQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["month", "-amount"], name="workloadmonth_dearest"),
            models.Index(fields=["month", "unit_id"], name="workloadmonth_unit"),
            models.Index(fields=["cluster_id", "month"], name="workloadmonth_cluster"),
        ]

    def __str__(self) -> str:
        return self.workload_name

    @property
    def cost(self) -> Money | None:
        """What it cost, rounded; None: unknown."""
        return _money(self.product, self.currency)

    @property
    def savable(self) -> Money | None:
        """What stopping it after the first idle hours would have saved, rounded; None: unknown."""
        return _money(self.savable_product, self.currency)

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id


def _money(product: Decimal, currency: str) -> Money | None:
    if not currency:
        return None
    return Money(product / MILLISECONDS_PER_HOUR, currency).quantized()


class ReportSent(Row):
    """That a unit's report of a month went out: one row per unit and month, made in the sending transaction."""

    unit = models.ForeignKey(Unit, models.PROTECT, related_name="+")
    month = models.DateField()
    due_at = models.DateTimeField()
    sent_at = models.DateTimeField()
    recipients = models.PositiveIntegerField()
    headline = models.CharField(max_length=300)

    objects = ReportSentQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["unit", "month"], name="report_sent_once")]


class ReportFile(VersionedRow):
    """A unit's report of a month as PDF, made by a worker; made anew when its figures moved."""

    unit = models.ForeignKey(Unit, models.PROTECT, related_name="+")
    month = models.DateField()
    platform = models.BooleanField(default=True, help_text="With platform costs.")
    status = models.CharField(max_length=20, choices=FileStatus.choices, default=FileStatus.QUEUED)
    body = models.BinaryField(null=True)
    size = models.PositiveBigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    error = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    claimed_until = models.DateTimeField(null=True)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    requested_at = models.DateTimeField()
    made_at = models.DateTimeField(null=True)

    objects = ReportFileQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["unit", "month", "platform"], name="report_file_once")]

    @property
    def scope_unit_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.unit_id
