"""Statements of months that are not closed, as they stood when a worker last made them. Replaced, never added to."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import JSONField

from apps.core.money import Money
from apps.costs import choices
from apps.costs.period_models import Period
from apps.costs.period_querysets import RunningQuerySet


class RunningMonth(models.Model):
    """When the running statements of a month were made."""

    period = models.OneToOneField(Period, models.CASCADE, primary_key=True, related_name="running")
    made_at = models.DateTimeField()


class RunningStatement(models.Model):
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

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id

    @property
    def total(self) -> Money:
        """The total so far."""
        return Money(self.amount, self.currency)

    @property
    def own(self) -> Money:
        """The total without shares of common cost."""
        return Money(self.own_amount, self.currency)

    @property
    def owner_name(self) -> str:
        """Whose statement it is, in words."""
        return self.team_name or self.unit_name or self.cost_centre or "Platform"
