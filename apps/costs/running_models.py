"""Statements of months that are not closed, as they stood when a worker last made them. Replaced, never added to."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import JSONField

from apps.costs import choices
from apps.costs.period_models import DistributionPolicy, Period, StatementLike
from apps.costs.period_querysets import RunningQuerySet


class RunningMonth(models.Model):
    """When the running statements of a month were made, what they stand on, and how far they are being made anew."""

    period = models.OneToOneField(Period, models.CASCADE, primary_key=True, related_name="running")
    made_at = models.DateTimeField(null=True, help_text="NULL: never yet.")
    state = models.CharField(max_length=20, choices=choices.FileStatus.choices, default=choices.FileStatus.DONE)
    asked_at = models.DateTimeField(null=True, help_text="Somebody asked to have them made anew; done once made later.")
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    alive_at = models.DateTimeField(null=True, help_text="Last sign of life of the worker that is at it.")
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    marker = models.CharField(max_length=64, blank=True, help_text="Digest of what they were made from.")
    policy = models.ForeignKey(DistributionPolicy, models.PROTECT, null=True, related_name="+")
    bill = models.DecimalField(max_digits=20, decimal_places=2, null=True)
    unpriced_ms = models.BigIntegerField(default=0)
    statements = models.PositiveIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 over all numbers and amounts.")
    confirmed: JSONField[dict[str, Any] | None, dict[str, Any] | None] = JSONField(
        null=True, help_text="What the person saw who confirmed the close: digest, bill, when it was made."
    )


class RunningStatement(StatementLike, models.Model):
    """One owner's running statement: what its statement would have been at `made_at`, lines included."""

    id = models.BigAutoField(primary_key=True)
    period = models.ForeignKey(Period, models.CASCADE, related_name="running_statements")
    made_at = models.DateTimeField()
    rank = models.PositiveSmallIntegerField(help_text="Platform, units, teams, cost centres.")
    number = models.CharField(max_length=40)
    owner_kind = models.CharField(max_length=20, choices=choices.OwnerKind.choices)
    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200, blank=True)
    unit_name = models.CharField(max_length=200, blank=True)
    own_amount = models.DecimalField(max_digits=20, decimal_places=2)
    amount = models.DecimalField(max_digits=20, decimal_places=2)
    currency = models.CharField(max_length=3)
    gpu_ms = models.BigIntegerField(default=0)
    unpriced_ms = models.BigIntegerField(default=0)
    line_count = models.PositiveIntegerField(default=0)
    lines: JSONField[list[dict[str, Any]], list[dict[str, Any]]] = JSONField(default=list)

    objects = RunningQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["period", "number"], name="running_number")]
        indexes: ClassVar = [models.Index(fields=["period", "rank", "number"], name="running_order")]

    def __str__(self) -> str:
        return self.number
