"""Sums of daily charges that reports read: by month and team, and by day and unit. Rebuilt with the charges."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from apps.costs.rollup_querysets import DayTotalQuerySet, MonthTotalQuerySet

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
