"""Who sees units, teams, memberships and grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core import clock
from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.teams.models import Membership, RoleGrant, Team, Unit


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
        """Return all grants to those who may view grants, and everybody their own."""
        from apps.teams import scope

        if scope.of(user).anywhere("teams.grant.view"):
            return self.all()
        return self.filter(user_id=user.pk)

    def in_force(self) -> Self:
        """Return the grants that count now: neither revoked nor expired, of active persons."""
        at = clock.now()
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=at), revoked_at__isnull=True, user__is_active=True
        )
