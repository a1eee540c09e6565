"""Who sees charges, daily charges and budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from apps.core.querysets import ScopedQuerySet

if TYPE_CHECKING:
    from apps.costs.models import Budget, BudgetStep, Charge, DayCharge


class ChargeQuerySet(ScopedQuerySet["Charge"]):
    """Charges by the team and unit on the row; rows of nobody (unsold, unattributed) for the installation's readers."""

    def visible_to(self, user: Any) -> Self:
        """Return the charges whose team or unit, as of that hour, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id"))


class DayChargeQuerySet(ScopedQuerySet["DayCharge"]):
    """Daily charges by the team and unit on the row."""

    def visible_to(self, user: Any) -> Self:
        """Return the rows whose team or unit, as of that day, lies in the person's scope."""
        from apps.teams import scope

        return self.filter(scope.of(user).row_filter("costs.charge.view", team="team_id", unit="unit_id"))


class BudgetQuerySet(ScopedQuerySet["Budget"]):
    """Budgets of teams and of units."""

    def visible_to(self, user: Any) -> Self:
        """Return the budgets of teams in scope, and those of units in which the person may view budgets."""
        from apps.teams import scope

        held = scope.of(user)
        # Where the permission reaches everywhere both conditions are empty, and so is their union.
        return self.filter(held.team_filter("costs.budget.view") | held.unit_filter("costs.budget.view", field="unit"))


class BudgetStepQuerySet(ScopedQuerySet["BudgetStep"]):
    """Reached steps by their budget."""

    def visible_to(self, user: Any) -> Self:
        """Return the steps of budgets in scope."""
        from apps.costs.models import Budget

        return self.filter(budget__in=Budget.objects.visible_to(user))
