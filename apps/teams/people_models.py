"""Changes of teams and units on a date, and what a team was before: hours keep the owner they had."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import Q

from apps.core.models import IntRange, VersionedRow
from apps.teams.choices import ChangeStatus
from apps.teams.querysets import FormerPlaceQuerySet, PlannedChangeQuerySet


class FormerPlace(models.Model):
    """What facts copied of a team until a change took effect: hours metered late still go to who owned them then.

    Only the past stands here; the present is the team's own row. The first one has no beginning.
    """

    id = models.BigAutoField(primary_key=True)
    team = models.ForeignKey("teams.Team", models.PROTECT, related_name="former_places")
    valid = DateTimeRangeField()
    unit = models.ForeignKey("teams.Unit", models.PROTECT, related_name="+")
    unit_path: ArrayField[list[int], list[int]] = ArrayField(models.BigIntegerField())
    cost_centre = models.CharField(max_length=50, blank=True)
    team_name = models.CharField(max_length=200)
    unit_name = models.CharField(max_length=200)

    objects = FormerPlaceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            ExclusionConstraint(
                name="former_place_no_overlap",
                expressions=[(IntRange("team"), RangeOperators.OVERLAPS), ("valid", RangeOperators.OVERLAPS)],
            )
        ]


class PlannedChange(VersionedRow):
    """A change of one team or unit that takes effect at a moment; a sweep carries it out. Done ones are the history.

    Empty fields stay as they are. `new_unit` is a team's unit or a unit's parent; `to_top` takes a unit to the top.
    """

    team = models.ForeignKey("teams.Team", models.PROTECT, null=True, related_name="changes")
    unit = models.ForeignKey("teams.Unit", models.PROTECT, null=True, related_name="changes")
    new_name = models.CharField(max_length=200, blank=True)
    new_cost_centre = models.CharField(max_length=50, null=True)  # noqa: DJ001 (empty is a value of its own)
    new_unit = models.ForeignKey("teams.Unit", models.PROTECT, null=True, related_name="+")
    to_top = models.BooleanField(default=False)
    archive = models.BooleanField(default=False)
    effective_at = models.DateTimeField()
    reason = models.CharField(max_length=500)
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    status = models.CharField(max_length=10, choices=ChangeStatus.choices, default=ChangeStatus.PLANNED)
    ended_at = models.DateTimeField(null=True, help_text="When it was done, cancelled or found impossible.")
    problem = models.CharField(max_length=500, blank=True, help_text="Why it was not possible when its time came.")

    objects = PlannedChangeQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(team__isnull=False, unit__isnull=True) | Q(team__isnull=True, unit__isnull=False),
                name="change_one_subject",
            ),
            models.UniqueConstraint(
                fields=["team"], name="change_team_one_waits", condition=Q(status="planned", team__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["unit"], name="change_unit_one_waits", condition=Q(status="planned", unit__isnull=False)
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["status", "effective_at"], name="change_due")]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id
