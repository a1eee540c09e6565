"""Findings (something worth acting on, in GPU time and money) and idle cases (a workload that does nothing)."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import DateTimeRangeField
from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster, Flavour
from apps.core.models import VersionedRow
from apps.insights.choices import FindingKind, FindingStatus, IdleStatus
from apps.insights.querysets import FindingQuerySet, IdleCaseQuerySet
from apps.insights.report_models import ReportFile, ReportSent, WorkloadMonth
from apps.provisioning.models import StopOrder
from apps.quotas.models import QuotaRequest, Workspace
from apps.teams.models import Team

__all__ = ["Finding", "IdleCase", "ReportFile", "ReportSent", "WorkloadMonth"]


class Finding(VersionedRow):
    """Something worth acting on: what was seen, what it costs, what to do. One open finding per kind and key."""

    kind = models.CharField(max_length=30, choices=FindingKind.choices)
    key = models.CharField(max_length=200, help_text="What it is about, e.g. workspace uid and flavour slug.")
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="findings")
    workspace = models.ForeignKey(Workspace, models.PROTECT, null=True, related_name="findings")
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="findings")
    flavour = models.ForeignKey(Flavour, models.PROTECT, null=True, related_name="+")
    title = models.CharField(max_length=300)
    evidence: models.JSONField = models.JSONField(
        default=dict, help_text="Numbers behind it, with where they are from."
    )
    proposal: models.JSONField = models.JSONField(default=dict, help_text="What acting on it would change.")
    window = DateTimeRangeField(help_text="The time that was looked at.")
    gpu_ms = models.BigIntegerField(default=0, help_text="GPU time concerned in the window.")
    amount = models.DecimalField(max_digits=18, decimal_places=6, null=True, help_text="Null: unpriced, so unknown.")
    currency = models.CharField(max_length=3, blank=True)
    status = models.CharField(max_length=20, choices=FindingStatus.choices, default=FindingStatus.OPEN)
    snoozed_until = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True, help_text="Why it was snoozed or dismissed.")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    request = models.ForeignKey(QuotaRequest, models.PROTECT, null=True, related_name="+")
    found_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    realised = models.DecimalField(
        max_digits=18, decimal_places=6, null=True, help_text="Saved a month since somebody acted; null: not measured."
    )
    realised_basis: models.JSONField = models.JSONField(default=dict, help_text="What was compared with what.")
    realised_at = models.DateTimeField(null=True)

    objects = FindingQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "key"], name="finding_open_once", condition=Q(status__in=["open", "snoozed"])
            )
        ]
        indexes: ClassVar = [models.Index(fields=["team", "status"], name="finding_team_status")]

    def __str__(self) -> str:
        return self.title

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class IdleCase(VersionedRow):
    """A workload that holds GPUs and does nothing: noticed, asked about, stopped by approved policy, undone."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="idle_cases")
    team = models.ForeignKey(Team, models.PROTECT, related_name="idle_cases")
    workload_kind = models.CharField(max_length=100)
    workload_name = models.CharField(max_length=253)
    gpus = models.PositiveIntegerField(help_text="Units of the flavour that it holds.")
    flavour = models.ForeignKey(Flavour, models.PROTECT, null=True, related_name="+")
    policy: models.JSONField = models.JSONField(default=dict, help_text="The approved policy it is held against.")
    idle_since = models.DateTimeField()
    evidence: models.JSONField = models.JSONField(default=dict)
    noticed_at = models.DateTimeField()
    stop_at = models.DateTimeField(help_text="When it is stopped unless its owner answers.")
    status = models.CharField(max_length=20, choices=IdleStatus.choices, default=IdleStatus.NOTICED)
    answered_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    answer = models.CharField(max_length=300, blank=True)
    kept_until = models.DateTimeField(null=True)
    stop_order = models.OneToOneField(StopOrder, models.PROTECT, null=True, related_name="idle_case")
    stopped_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    saved_gpu_ms = models.BigIntegerField(default=0, help_text="GPU time given back so far.")
    counted_until = models.DateTimeField(null=True)

    objects = IdleCaseQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["workspace", "workload_kind", "workload_name"],
                name="idle_case_one_open",
                condition=Q(status__in=["noticed", "kept", "stopping", "stopped"]),
            )
        ]
        indexes: ClassVar = [models.Index(fields=["status", "stop_at"], name="idle_case_due")]

    def __str__(self) -> str:
        return f"{self.workload_kind} {self.workload_name} in {self.workspace}"

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.team_id
