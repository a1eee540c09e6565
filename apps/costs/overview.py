"""Month to date and budget of many teams at once: two queries, whatever their number."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from django.conf import settings
from django.db.models import Sum

from apps.core.money import Money
from apps.costs.choices import RESOURCES, ChargeKind
from apps.costs.models import Budget, DayCharge
from apps.costs.tally import Tally
from apps.metering import billing


@dataclass(frozen=True, slots=True)
class TeamMoney:
    """A team's month: what it spent so far (the priced part), what has no price, and what it may spend.

    `spent` is GPU time and resources; `unpriced_ms` > 0: part of either has no price, in its own units.
    """

    spent: Money
    unpriced_gpu_ms: int
    budget: Money | None
    unpriced_ms: int = 0

    @property
    def left(self) -> Money | None:
        """What is left of the budget; None without one, or where part of the cost is unknown."""
        return (
            None
            if self.budget is None or self.unpriced_ms or self.unpriced_gpu_ms
            else (self.budget - self.spent).quantized()
        )


def money_of(team_ids: Collection[int], month: date) -> dict[int, TeamMoney]:
    """Return month to date and budget of each team for a billing month. The caller has checked the scope."""
    currency = str(settings.COMMONS_CURRENCY)
    first = month.replace(day=1)
    rows = (
        DayCharge.objects.filter(
            team_id__in=team_ids,
            day__gte=first,
            day__lt=billing.following(first),
            kind__in=[ChargeKind.ALLOCATED, *RESOURCES],
        )
        .values_list("team_id", "rate__amount", "rate__currency")
        .annotate(Sum("quantity_ms"), Sum("gpu_ms"))
        .order_by("team_id", "rate__amount", "rate__currency")
    )
    tallies = {team_id: Tally(currency) for team_id in team_ids}
    for team_id, hourly, code, quantity, gpu_ms in rows:
        if team_id is not None:
            tallies[team_id].add(int(quantity), int(gpu_ms), hourly, code)
    budgets = {
        budget.team_id: budget.monthly
        for budget in Budget.objects.filter(team_id__in=team_ids, month_from__lte=first)
        .order_by("team_id", "-month_from")
        .distinct("team_id")
    }
    return {
        team_id: TeamMoney(
            tally.amount or Money.zero(currency), tally.unpriced_gpu_ms, budgets.get(team_id), tally.unpriced_ms
        )
        for team_id, tally in tallies.items()
    }
