"""What people say of usage, dated: a resource's share of a device, a namespace's team, a workspace's service class."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.clusters.choices import DeviceClass
from apps.clusters.models import Cluster
from apps.core.models import IntRange, Row, TextRange, VersionedRow
from apps.metering.querysets import NamespaceOwnerQuerySet, RuleQuerySet, WorkspaceClassQuerySet
from apps.quotas.models import Workspace
from apps.rates.choices import ServiceClass
from apps.teams.models import Team


class ResourceRule(VersionedRow):
    """What one unit of an extended resource is of a device: the admin's table (design §7), dated."""

    resource = models.CharField(max_length=120, help_text="As nodes name it, e.g. nvidia.com/mig-3g.40gb.")
    gpu_model = models.CharField(max_length=120, blank=True, help_text="Empty: every model.")
    device_class = models.CharField(max_length=20, choices=DeviceClass.choices, default=DeviceClass.GPU)
    numerator = models.PositiveIntegerField(default=1)
    denominator = models.PositiveIntegerField(default=1)
    note = models.CharField(max_length=300, blank=True)
    set_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    valid = DateTimeRangeField()

    objects = RuleQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(numerator__gt=0, denominator__gte=models.F("numerator")), name="rule_at_most_one_device"
            ),
            ExclusionConstraint(
                name="rule_once",
                expressions=[
                    (TextRange("resource"), RangeOperators.OVERLAPS),
                    (TextRange("gpu_model"), RangeOperators.OVERLAPS),
                    ("valid", RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        return self.resource


class NamespaceOwner(VersionedRow):
    """A namespace that is no workspace, claimed for a team from an hour on: its cost is the team's from then."""

    cluster = models.ForeignKey(Cluster, models.PROTECT, related_name="+")
    namespace = models.CharField(max_length=120)
    team = models.ForeignKey(Team, models.PROTECT, related_name="+")
    environment = models.CharField(max_length=20, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    claimed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    valid = DateTimeRangeField()
    pending_from = models.DateTimeField(
        null=True, help_text="Hours from here on are still to be moved to whom the claims name."
    )

    objects = NamespaceOwnerQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            ExclusionConstraint(
                name="namespace_one_owner",
                expressions=[
                    (IntRange("cluster"), RangeOperators.OVERLAPS),
                    (TextRange("namespace"), RangeOperators.OVERLAPS),
                    ("valid", RangeOperators.OVERLAPS),
                ],
            )
        ]

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class WorkspaceClass(Row):
    """The service class a workspace is charged at, valid in time; without a row: standard."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="service_classes")
    service_class = models.CharField(max_length=20, choices=ServiceClass.choices)
    set_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    reason = models.CharField(max_length=300, blank=True)
    valid = DateTimeRangeField()

    objects = WorkspaceClassQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            ExclusionConstraint(
                name="workspace_one_class",
                expressions=[(IntRange("workspace"), RangeOperators.OVERLAPS), ("valid", RangeOperators.OVERLAPS)],
            )
        ]
