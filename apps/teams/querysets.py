"""Who sees units, teams, memberships and grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core import clock
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.teams.models import (
        AccessReview,
        FormerPlace,
        GroupMapping,
        Membership,
        PlannedChange,
        ReviewItem,
        RoleGrant,
        ServiceAccount,
        Team,
        Unit,
    )


class UnitQuerySet(ScopedQuerySet["Unit"]):
    """Units; a person sees those they hold a unit-wide permission in, and the ones above their teams by name only."""

    def visible_to(self, user: Any) -> Self:
        """Return the units at or below a scope in which the person may view units."""
        from apps.teams import scope

        return self.filter(scope.of(user).unit_filter("teams.unit.view"))


class TeamQuerySet(ScopedQuerySet["Team"]):
    """Teams by scope."""

    def visible_to(self, user: Any) -> Self:
        """Return the teams that the person may view."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("teams.team.view", field=""))


class MembershipQuerySet(ScopedQuerySet["Membership"]):
    """Memberships by team."""

    def visible_to(self, user: Any) -> Self:
        """Return memberships of the teams that the person may view."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("teams.team.view"))

    def current(self) -> Self:
        """Return the memberships in force now."""
        return self.filter(valid__contains=clock.now())


class RoleGrantQuerySet(ScopedQuerySet["RoleGrant"]):
    """Role grants."""

    def visible_to(self, user: Any) -> Self:
        """Return the grants of the places for which the person may view them, and everybody their own."""
        from apps.teams import scope

        held = scope.of(user)
        if held.everywhere("teams.grant.view"):
            return self.all()
        own = Q(user_id=user.pk)
        if not held.anywhere("teams.grant.view"):
            return self.filter(own)
        there = held.team_filter("teams.grant.view") & Q(team__isnull=False)
        there |= held.unit_filter("teams.grant.view", field="unit") & Q(unit__isnull=False)
        return self.filter(own | there)

    def in_force(self) -> Self:
        """Return the grants that count now: neither revoked nor expired, of active persons."""
        at = clock.now()
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=at),
            Q(starts_at__isnull=True) | Q(starts_at__lte=at),
            revoked_at__isnull=True,
            user__is_active=True,
        )


class GroupMappingQuerySet(ScopedQuerySet["GroupMapping"]):
    """Which group gives which role."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who may view mappings for the installation."""
        from apps.teams import scope

        return self.all() if scope.of(user).everywhere("teams.mapping.view") else self.none()

    def in_force(self) -> Self:
        """Return the mappings that count now."""
        return self.filter(ended_at__isnull=True, provider__archived_at__isnull=True)


class ServiceAccountQuerySet(ScopedQuerySet["ServiceAccount"]):
    """Accounts of programs, by the team that keeps them."""

    def visible_to(self, user: Any) -> Self:
        """Return those of the teams in which the person may view them; those without a team to the platform."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("teams.service.view"))


class AccessReviewQuerySet(ScopedQuerySet["AccessReview"]):
    """Reviews: the platform's, and those in which the person is asked something."""

    def visible_to(self, user: Any) -> Self:
        """Return all to those who may view reviews everywhere, else those with an item within the person's reach."""
        from apps.teams import scope
        from apps.teams.models import ReviewItem

        if scope.of(user).everywhere("teams.review.view"):
            return self.all()
        return self.filter(pk__in=ReviewItem.objects.visible_to(user).values("review_id"))


class ReviewItemQuerySet(ScopedQuerySet["ReviewItem"]):
    """What is under review, by where the role counts."""

    def visible_to(self, user: Any) -> Self:
        """Return the items of teams and units in which the person may view reviews."""
        from apps.teams import scope

        held = scope.of(user)
        where = held.team_filter("teams.review.view") & Q(team__isnull=False)
        where |= held.unit_filter("teams.review.view", field="unit") & Q(unit__isnull=False)
        return self.all() if held.everywhere("teams.review.view") else self.filter(where)


class PlannedChangeQuerySet(ScopedQuerySet["PlannedChange"]):
    """Dated changes, with the team or unit they are about."""

    def visible_to(self, user: Any) -> Self:
        """Return the changes of the teams and units in which the person may view units."""
        from apps.teams import scope
        from apps.teams.models import Unit

        held = scope.of(user)
        if held.everywhere("teams.unit.view"):
            return self.all()
        units = Unit.objects.filter(held.unit_filter("teams.unit.view")).values("pk")
        return self.filter(Q(unit__in=units) | Q(team__unit__in=units))


class FormerPlaceQuerySet(ScopedQuerySet["FormerPlace"]):
    """Former places: no page shows them, metering reads them."""

    def visible_to(self, user: Any) -> Self:
        """Return the former places of the teams that lie in units the person may view."""
        from apps.teams import scope

        return self.filter(scope.of(user).team_filter("teams.unit.view"))
