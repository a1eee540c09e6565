"""Charges, their daily roll-up, and budgets."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster
from apps.core.models import Row, VersionedRow
from apps.core.money import Money
from apps.costs.adjusting_models import (
    Bill,
    BillLine,
    Correction,
    Credit,
    CrossCheck,
    Dispute,
    DisputeComment,
    JournalAccount,
    UnitBilling,
)
from apps.costs.choices import ChargeKind, Measure
from apps.costs.cross_check_models import CheckSetting
from apps.costs.period_models import (
    DistributionPolicy,
    Period,
    PeriodWaiver,
    ReopenRequest,
    Statement,
    StatementFile,
    StatementLine,
)
from apps.costs.querysets import BudgetQuerySet, BudgetStepQuerySet, ChargeQuerySet, DayChargeQuerySet
from apps.costs.rollup_models import DayTotal, MonthTotal, TeamMonth, UnitMonth
from apps.costs.running_models import RunningMonth, RunningStatement
from apps.costs.whatif_models import WhatIfRun
from apps.rates.models import Rate
from apps.teams.models import Team, Unit

__all__ = [
    "Bill", "BillLine", "Budget", "BudgetStep", "Charge", "CheckSetting", "Correction", "Credit", "CrossCheck",
    "DayCharge", "DayTotal",
    "Dispute", "DisputeComment", "DistributionPolicy", "JournalAccount", "MonthTotal", "Period", "PeriodWaiver",
    "PricedHour", "ReopenRequest", "RunningMonth", "RunningStatement", "Statement", "StatementFile", "StatementLine",
    "TeamMonth", "UnitBilling",
    "UnitMonth", "WhatIfRun",
]  # fmt: skip


class Charge(models.Model):
    """A priced fact or capacity line: quantity and rate, never an amount (design §7). Month-partitioned.

    `rate_id` NULL: no rate was in force, the cost is unknown, not zero.
    """

    pk = models.CompositePrimaryKey("hour", "uid")
    hour = models.DateTimeField()
    uid = models.UUIDField()
    kind = models.CharField(max_length=20, choices=ChargeKind.choices)
    cluster_id = models.BigIntegerField()
    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    unit_path: ArrayField[list[int], list[int]] = ArrayField(models.BigIntegerField(), default=list)
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200, blank=True)
    unit_name = models.CharField(max_length=200, blank=True)
    workspace_id = models.BigIntegerField(null=True)
    flavour_id = models.BigIntegerField(null=True)
    gpu_model = models.CharField(max_length=120, blank=True)
    rate_id = models.BigIntegerField(null=True)
    quantity_ms = models.BigIntegerField(help_text="Milliseconds × units of the flavour: what the rate applies to.")
    gpu_ms = models.BigIntegerField(help_text="The same in physical GPUs.")
    fact_uid = models.UUIDField(null=True, help_text="The fact or capacity line of the same hour that is priced.")
    revision = models.PositiveIntegerField(default=1)
    environment = models.CharField(max_length=20, blank=True, default="")
    capacity_type = models.CharField(max_length=20, blank=True, default="")
    service_class = models.CharField(max_length=20, blank=True, default="")

    objects = ChargeQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = "costs_charge"

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id


class PricedHour(models.Model):
    """Which revision of a cluster's hour the charges stand on."""

    id = models.BigAutoField(primary_key=True)
    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    hour = models.DateTimeField()
    revision = models.PositiveIntegerField()
    priced_at = models.DateTimeField()
    unpriced_ms = models.BigIntegerField(default=0, help_text="Quantity without a rate in this hour.")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["cluster", "hour"], name="priced_once")]
        indexes: ClassVar = [
            models.Index(fields=["cluster", "hour"], name="priced_unknown", condition=Q(unpriced_ms__gt=0))
        ]


class DayCharge(models.Model):
    """Roll-up of charges by billing day, kind, team, flavour and rate: what reports read."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()
    cluster_id = models.BigIntegerField()
    kind = models.CharField(max_length=20, choices=ChargeKind.choices)
    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200, blank=True)
    unit_name = models.CharField(max_length=200, blank=True)
    flavour_id = models.BigIntegerField(null=True)
    gpu_model = models.CharField(max_length=120, blank=True)
    # Without a constraint, as everything that is rebuilt in bulk; named so that sums can join the price.
    rate = models.ForeignKey(Rate, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+")
    quantity_ms = models.BigIntegerField()
    gpu_ms = models.BigIntegerField()
    # As metered, not as priced: a price for every type or class stands behind many of them.
    capacity_type = models.CharField(max_length=20, blank=True, default="", db_default="")
    service_class = models.CharField(max_length=20, blank=True, default="", db_default="")

    objects = DayChargeQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["day", "team_id"], name="daycharge_day_team"),
            models.Index(fields=["cluster_id", "day"], name="daycharge_cluster_day"),
            models.Index(fields=["team_id", "day"], name="daycharge_team_day"),
        ]


class Budget(VersionedRow):
    """What a team or unit may spend in a month, in money or GPU-hours, from a month on until its next budget begins.

    `actions` maps a step ("50", "80", "100", "120", "forecast") to what is done when it is reached: notify,
    require_approval, stop_borrowing, hold_admissions; never anything that stops what runs.
    """

    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="budgets")
    unit = models.ForeignKey(Unit, models.PROTECT, null=True, related_name="budgets")
    month_from = models.DateField(help_text="First day of the first month it counts for.")
    amount = models.DecimalField(max_digits=20, decimal_places=2, null=True, help_text="NULL: no limit in money.")
    currency = models.CharField(max_length=3)
    gpu_hours = models.PositiveBigIntegerField(null=True, help_text="NULL: no limit in GPU-hours.")
    actions: models.JSONField = models.JSONField(default=dict, blank=True)
    set_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = BudgetQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["team", "month_from"], name="budget_once"),
            models.UniqueConstraint(fields=["unit", "month_from"], name="budget_unit_once"),
            models.CheckConstraint(
                condition=Q(team__isnull=False, unit__isnull=True) | Q(team__isnull=True, unit__isnull=False),
                name="budget_of_team_or_unit",
            ),
            models.CheckConstraint(
                condition=Q(amount__isnull=False) | Q(gpu_hours__isnull=False), name="budget_has_a_limit"
            ),
            models.CheckConstraint(condition=Q(amount__gte=0), name="budget_not_negative"),
            models.CheckConstraint(condition=Q(month_from__day=1), name="budget_first_of_month"),
        ]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id

    @property
    def monthly(self) -> Money | None:
        """The amount per month; None: no limit in money."""
        return None if self.amount is None else Money(self.amount, self.currency)


class BudgetStep(Row):
    """A step of a budget that was reached in a month: once per month, with the figure and what was done."""

    budget = models.ForeignKey(Budget, models.PROTECT, related_name="steps")
    month = models.DateField()
    measure = models.CharField(max_length=20, choices=Measure.choices)
    step = models.CharField(max_length=20, help_text="50, 80, 100, 120 (per cent) or forecast.")
    figure = models.DecimalField(max_digits=24, decimal_places=6)
    limit = models.DecimalField(max_digits=24, decimal_places=6)
    basis: models.JSONField = models.JSONField(default=dict, help_text="Of a forecast: what it stands on.")
    actions: models.JSONField = models.JSONField(default=list, help_text="What was done, with uids.")
    reached_at = models.DateTimeField()

    objects = BudgetStepQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["budget", "month", "measure", "step"], name="budget_step_once")
        ]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate: with its budget."""
        return self.budget.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate: with its budget."""
        return self.budget.unit_id
