"""How a cluster's figures are compared with those of the cost tool that runs on it."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models import Q

from apps.clusters.models import Cluster
from apps.core.models import VersionedRow
from apps.costs.period_querysets import CheckSettingQuerySet


class CheckSetting(VersionedRow):
    """Where a cluster's OpenCost or Kubecost answers, for comparison only, and how much of a difference is none."""

    cluster = models.OneToOneField(Cluster, models.PROTECT, related_name="check_setting")
    enabled = models.BooleanField(default=True)
    url = models.CharField(
        max_length=300, blank=True, help_text="Empty: the cluster's source, where that is an allocation API."
    )
    path = models.CharField(max_length=100, default="/allocation")
    credentials = models.BinaryField(default=b"", help_text="Encrypted bearer token (clusters.crypto).")
    currency = models.CharField(max_length=3, help_text="What their amounts are in: they name none themselves.")
    resolution_seconds = models.PositiveIntegerField(default=300)
    tolerance_permille = models.PositiveSmallIntegerField(default=5, help_text="Of our figure.")
    tolerance_amount = models.DecimalField(max_digits=20, decimal_places=2, default=Decimal("1.00"))
    retry_at = models.DateTimeField(null=True, help_text="No reading before this time, after failures.")
    failures = models.PositiveIntegerField(default=0)

    objects = CheckSettingQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(tolerance_amount__gte=0), name="check_tolerance_not_negative")
        ]
