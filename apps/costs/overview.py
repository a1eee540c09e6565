"""Month to date and budget of many teams at once: two queries, whatever their number."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from apps.core.money import Money
from apps.costs.budget_billed import CHARGES, Asked, Billed, billed
from apps.costs.models import Budget
from apps.costs.tally import amount_of


@dataclass(frozen=True, slots=True)
class TeamMoney:
    """A team's month: what it spent so far (the priced part), what has no price, and what it may spend.

    `spent` is GPU time and resources; `adjusted` what corrections of closed months and credits come to that are billed
    in the month: both count against the budget. `unpriced_ms` > 0: part of it has no price, in its own units.
    """

    spent: Money
    unpriced_gpu_ms: int
    budget: Money | None
    unpriced_ms: int = 0
    adjusted: Money | None = None

    @property
    def left(self) -> Money | None:
        """What is left of the budget; None without one, or where part of the cost is unknown."""
        return (
            None
            if self.budget is None or self.unpriced_ms or self.unpriced_gpu_ms
            else (self.budget - self.spent - (self.adjusted or Money.zero(self.spent.currency))).quantized()
        )


def money_of(team_ids: Collection[int], month: date) -> dict[int, TeamMoney]:
    """Return month to date and budget of each team for a billing month. The caller has checked the scope."""
    first = month.replace(day=1)
    found = billed(Asked(team_ids), first) if team_ids else {}
    budgets = {
        budget.team_id: budget.monthly
        for budget in Budget.objects.filter(team_id__in=team_ids, month_from__lte=first)
        .order_by("team_id", "-month_from")
        .distinct("team_id")
    }
    nothing = Billed()
    result = {}
    for team_id in team_ids:
        one = found.get(("team", team_id), nothing)
        charges = one.of(CHARGES)
        result[team_id] = TeamMoney(
            amount_of(charges.product, charges.currency),
            charges.unpriced_gpu_ms,
            budgets.get(team_id),
            one.total.unpriced_ms,
            one.adjusted,
        )
    return result
