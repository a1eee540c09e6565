"""Who sees monthly and daily sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db.models import Q

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.costs.rollup_models import DayTotal, MonthTotal, TeamMonth, UnitMonth


class MonthTotalQuerySet(ScopedQuerySet["MonthTotal"]):
    """Monthly sums by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows whose team or unit, as of that month, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id"))


class TeamMonthQuerySet(ScopedQuerySet["TeamMonth"]):
    """Monthly sums of teams by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows whose team or unit, as of that month, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id"))


class UnitMonthQuerySet(ScopedQuerySet["UnitMonth"]):
    """Monthly sums of whole units: for those who see all of the unit."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of units in the person's scope; a team alone shows nothing of its unit's sums."""
        from apps.teams import scope

        found = scope.of(user)
        if found.everywhere("costs.charge.view"):
            return self.all()
        return self.filter(unit_id__in=[unit.pk for unit in found.units_with("costs.charge.view")])


class DayTotalQuerySet(ScopedQuerySet["DayTotal"]):
    """Daily sums of whole units: for those who see all of the unit."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows of units in the person's scope; a team alone shows nothing of its unit's sums."""
        from apps.teams import scope

        found = scope.of(user)
        if found.everywhere("costs.charge.view"):
            return self.all()
        return self.filter(Q(unit_id__in=[unit.pk for unit in found.units_with("costs.charge.view")]))
