"""Sums of daily charges that reports read: by month and team or unit, and by day and unit. Rebuilt with the charges."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models

from apps.costs.rollup_querysets import (
    DayTotalQuerySet,
    MonthTotalQuerySet,
    TeamMonthQuerySet,
    UnitMonthQuerySet,
)

#: The kind of rows that hold what was used, beside the kinds of charges.
USAGE = "usage"


class _Summed(models.Model):
    """Σ quantity × hourly price, unrounded (ms × units × currency per hour); what has no price is a row of its own."""

    cluster_id = models.BigIntegerField()
    unit_id = models.BigIntegerField(null=True)
    kind = models.CharField(max_length=20)
    currency = models.CharField(max_length=3, blank=True, help_text="Empty: none of it has a price.")
    quantity_ms = models.BigIntegerField()
    gpu_ms = models.BigIntegerField()
    product = models.DecimalField(max_digits=40, decimal_places=8, default=0, db_default=0)

    class Meta:
        abstract = True


class MonthTotal(_Summed):
    """A team's billing month on one cluster by kind, flavour, capacity type and service class; of usage one row."""

    id = models.BigAutoField(primary_key=True)
    month = models.DateField()
    team_id = models.BigIntegerField(null=True)
    flavour_id = models.BigIntegerField(null=True)
    capacity_type = models.CharField(max_length=20, blank=True)
    service_class = models.CharField(max_length=20, blank=True)
    used_gpu_ms = models.BigIntegerField(default=0, db_default=0)
    measured_gpu_ms = models.BigIntegerField(default=0, db_default=0)
    idle_gpu_ms = models.BigIntegerField(default=0, db_default=0)

    objects = MonthTotalQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["month", "unit_id"], name="monthtotal_month_unit"),
            models.Index(fields=["cluster_id", "month"], name="monthtotal_cluster_month"),
            models.Index(fields=["team_id", "month"], name="monthtotal_team_month"),
        ]


class DayTotal(_Summed):
    """A unit's billing day on one cluster by kind."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField()

    objects = DayTotalQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["day", "unit_id"], name="daytotal_day_unit"),
            models.Index(fields=["cluster_id", "day"], name="daytotal_cluster_day"),
        ]


class UnitMonth(_Summed):
    """A unit's own billing month (no unit below it) on one cluster by what the monthly sums are kept by, but team.

    What a report says of everything at once reads these: as many rows as units and prices, however many teams.
    """

    id = models.BigAutoField(primary_key=True)
    month = models.DateField()
    flavour_id = models.BigIntegerField(null=True)
    capacity_type = models.CharField(max_length=20, blank=True)
    service_class = models.CharField(max_length=20, blank=True)

    objects = UnitMonthQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["month", "unit_id"], name="unitmonth_month_unit"),
            models.Index(fields=["cluster_id", "month"], name="unitmonth_cluster_month"),
        ]


def _ms() -> models.BigIntegerField[int, int]:
    return models.BigIntegerField(default=0, db_default=0)


def _product() -> models.DecimalField[Decimal, Decimal]:
    return models.DecimalField(max_digits=40, decimal_places=8, default=0, db_default=0)


class TeamMonth(models.Model):
    """A team's billing month on one cluster in one row: what it pays, its resources, its use, what it left unused.

    `product` is Σ quantity × hourly price, unrounded; `spare` is capacity reserved for the team and not used.
    """

    id = models.BigAutoField(primary_key=True)
    month = models.DateField()
    cluster_id = models.BigIntegerField()
    team_id = models.BigIntegerField(null=True)
    unit_id = models.BigIntegerField(null=True)
    currency = models.CharField(max_length=7, blank=True, help_text="Two of them: a defect, told by the report.")
    priced_ms = _ms()
    unpriced_ms = _ms()
    gpu_ms = _ms()
    unpriced_gpu_ms = _ms()
    product = _product()
    resource_priced_ms = _ms()
    resource_unpriced_ms = _ms()
    resource_product = _product()
    allocated_gpu_ms = _ms()
    used_gpu_ms = _ms()
    measured_gpu_ms = _ms()
    idle_gpu_ms = _ms()
    spare_priced_ms = _ms()
    spare_unpriced_ms = _ms()
    spare_gpu_ms = _ms()
    spare_unpriced_gpu_ms = _ms()
    spare_product = _product()

    objects = TeamMonthQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["month", "unit_id"], name="teammonth_month_unit"),
            models.Index(fields=["cluster_id", "month"], name="teammonth_cluster_month"),
        ]
