"""Business units (a tree), teams, membership and role grants."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeOperators
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q

from apps.core.models import IntRange, Row, VersionedRow
from apps.teams.choices import Role
from apps.teams.querysets import MembershipQuerySet, RoleGrantQuerySet, TeamQuerySet, UnitQuerySet


class Unit(VersionedRow):
    """A business unit. `path` holds the ids of its ancestors and its own, so a subtree is one indexed condition."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=63, unique=True)
    parent = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="children")
    path: ArrayField[list[int], list[int]] = ArrayField(models.BigIntegerField(), default=list, editable=False)
    cost_centre = models.CharField(max_length=50, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    objects = UnitQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [GinIndex(fields=["path"], name="unit_path")]

    def __str__(self) -> str:
        return self.name

    @property
    def scope_unit_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.pk


class Team(VersionedRow):
    """A team: the smallest owner of workspaces, quota and cost."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=40, unique=True, help_text="Also the first part of its namespaces.")
    unit = models.ForeignKey(Unit, models.PROTECT, related_name="teams")
    cost_centre = models.CharField(max_length=50)
    colour = models.PositiveSmallIntegerField(default=0, help_text="Index into the fixed chart palette.")
    archived_at = models.DateTimeField(null=True, blank=True)

    objects = TeamQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.pk


class Membership(Row):
    """That a person belongs to a team, in time: members are beneficiaries of what the team receives."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="memberships")
    team = models.ForeignKey(Team, models.PROTECT, related_name="memberships")
    valid = DateTimeRangeField()
    #: Which group brought it; empty: a person added the member.
    mapping = models.ForeignKey("teams.GroupMapping", models.PROTECT, null=True, related_name="memberships")
    #: The group stopped giving it. Ended without this, somebody took it away by hand: the group does not bring it back.
    ended_by_group = models.BooleanField(default=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            ExclusionConstraint(
                name="membership_no_overlap",
                expressions=[
                    (IntRange("user"), RangeOperators.OVERLAPS),
                    (IntRange("team"), RangeOperators.OVERLAPS),
                    ("valid", RangeOperators.OVERLAPS),
                ],
            )
        ]


class RoleGrant(Row):
    """A role of a person within a scope: one team, one unit and below, or (both empty) the installation.

    Dead the moment it expires or is revoked: the scope query compares with the clock, no scheduler is involved.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="role_grants")
    role = models.CharField(max_length=30, choices=Role.choices)
    unit = models.ForeignKey(Unit, models.PROTECT, null=True, blank=True, related_name="role_grants")
    team = models.ForeignKey(Team, models.PROTECT, null=True, blank=True, related_name="role_grants")
    granted_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    reason = models.CharField(max_length=500, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    starts_at = models.DateTimeField(null=True, blank=True, help_text="Counts from then on; empty: from its making.")
    noticed_days = models.PositiveSmallIntegerField(null=True, help_text="The last notice: days before the end.")
    #: Which group brought it; empty: a person gave it.
    mapping = models.ForeignKey("teams.GroupMapping", models.PROTECT, null=True, related_name="role_grants")
    #: The group stopped giving it. Ended without this, somebody took it away by hand: the group does not bring it back.
    ended_by_group = models.BooleanField(default=False)

    objects = RoleGrantQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(unit__isnull=True) | Q(team__isnull=True), name="grant_one_scope"),
            models.UniqueConstraint(
                F("user"), F("role"), F("unit"), F("team"), F("mapping"),
                name="grant_once_by_source", condition=Q(revoked_at__isnull=True), nulls_distinct=False,
            ),
        ]  # fmt: skip
        indexes: ClassVar = [models.Index(fields=["user", "role"], name="grant_user_role")]

    @property
    def scope_name(self) -> str:
        """Where the role counts, in words."""
        if self.team is not None:
            return self.team.name
        return f"{self.unit.name} and below" if self.unit is not None else "Whole installation"

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id


from apps.teams.identity_models import (  # noqa: E402  (they refer to the rows above)
    AccessReview,
    GroupMapping,
    ReviewItem,
    ServiceAccount,
)
from apps.teams.people_models import FormerPlace, PlannedChange  # noqa: E402  (as above)

__all__ = [
    "AccessReview",
    "FormerPlace",
    "GroupMapping",
    "Membership",
    "PlannedChange",
    "ReviewItem",
    "RoleGrant",
    "ServiceAccount",
    "Team",
    "Unit",
]
