"""What gives people roles without a click each, accounts of programs, and reviews of who still needs what."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from apps.core.models import VersionedRow
from apps.teams.choices import ReviewAnswer, ReviewStatus, Role
from apps.teams.querysets import AccessReviewQuerySet, GroupMappingQuerySet, ReviewItemQuerySet, ServiceAccountQuerySet


class GroupMapping(VersionedRow):
    """Whoever is in this group of a provider holds this role there. Ends with `ended_at`; never edited otherwise."""

    provider = models.ForeignKey("accounts.IdentityProvider", models.PROTECT, related_name="mappings")
    group = models.CharField(max_length=255, help_text="Name of the group, as the provider writes it.")
    role = models.CharField(max_length=30, choices=Role.choices)
    unit = models.ForeignKey("teams.Unit", models.PROTECT, null=True, blank=True, related_name="group_mappings")
    team = models.ForeignKey("teams.Team", models.PROTECT, null=True, blank=True, related_name="group_mappings")
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    reason = models.CharField(max_length=500, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = GroupMappingQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(unit__isnull=True) | Q(team__isnull=True), name="mapping_one_scope"),
            models.UniqueConstraint(
                F("provider"), F("group"), F("role"), F("unit"), F("team"),
                name="mapping_once", condition=Q(ended_at__isnull=True), nulls_distinct=False,
            ),
        ]  # fmt: skip


class ServiceAccount(VersionedRow):
    """An account of a program, kept by a team (or by the platform admins, without one). It fills no seat."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.PROTECT, related_name="service_account")
    team = models.ForeignKey("teams.Team", models.PROTECT, null=True, blank=True, related_name="service_accounts")
    purpose = models.CharField(max_length=500)
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = ServiceAccountQuerySet.as_manager()

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class AccessReview(VersionedRow):
    """One round of asking who still needs what; what nobody confirms by the due date lapses."""

    name = models.CharField(max_length=100)
    quarter = models.CharField(max_length=7, blank=True, help_text="2026-Q4; empty for one started by hand.")
    status = models.CharField(max_length=10, choices=ReviewStatus.choices, default=ReviewStatus.OPEN)
    opened_at = models.DateTimeField()
    due_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    started_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    reminded_days = models.PositiveSmallIntegerField(null=True, help_text="The last reminder: days before the end.")

    objects = AccessReviewQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["quarter"], name="review_quarter_once", condition=~Q(quarter=""))
        ]


class ReviewItem(VersionedRow):
    """One role or membership under review. Exactly one of `grant` and `membership` is set."""

    review = models.ForeignKey(AccessReview, models.PROTECT, related_name="items")
    grant = models.ForeignKey("teams.RoleGrant", models.PROTECT, null=True, related_name="review_items")
    membership = models.ForeignKey("teams.Membership", models.PROTECT, null=True, related_name="review_items")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    #: Where the role counts, as it was when the review began: decides who is asked.
    unit = models.ForeignKey("teams.Unit", models.PROTECT, null=True, related_name="+")
    team = models.ForeignKey("teams.Team", models.PROTECT, null=True, related_name="+")
    role = models.CharField(max_length=30, choices=Role.choices)
    answer = models.CharField(max_length=10, choices=ReviewAnswer.choices, default=ReviewAnswer.OPEN)
    answered_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    answered_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=500, blank=True)

    objects = ReviewItemQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(grant__isnull=False, membership__isnull=True)
                | Q(grant__isnull=True, membership__isnull=False),
                name="review_item_one_subject",
            ),
            models.UniqueConstraint(fields=["review", "grant"], name="review_grant_once"),
            models.UniqueConstraint(fields=["review", "membership"], name="review_membership_once"),
        ]

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id

    @property
    def scope_unit_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.unit_id
