"""The costs room in the navigation, and a team's money on its page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpRequest

from apps.core import clock
from apps.core.permissions import may
from apps.costs import latest, selectors
from apps.costs.budget_views import standing_seen
from apps.costs.views import day_url, month_url
from apps.costs.waiting import waiting_for
from apps.metering import billing
from apps.teams.models import Team
from portal.panels import nav, panel

nav("Costs", "costs:team-list", icon="currency-dollar", order=10, permission="costs.charge.view", group="Money")
nav("Charges", "costs:charge-list", icon="list", order=20, permission="costs.charge.view", group="Money")
nav("Service classes", "costs:class-list", icon="adjustments", order=70, permission="rates.card.view", group="Money")
nav("What if", "costs:whatif", icon="scale", order=60, permission="costs.whatif.run", group="Money")
nav("Statements", "costs:statement-list", icon="receipt", order=22, permission="costs.statement.view", group="Money")
nav("Months", "costs:period-list", icon="calendar", order=24, permission="costs.statement.view", group="Money")
nav("Distribution", "costs:distribution-list", icon="scale", order=28, permission="costs.policy.manage", group="Money")
nav("Corrections", "costs:correction-list", icon="receipt", order=25, permission="costs.statement.view", group="Money")
nav("Credits", "costs:credit-list", icon="receipt", order=26, permission="costs.statement.view", group="Money")
nav("Disputes", "costs:dispute-list", icon="alert-triangle", order=27, permission="costs.statement.view", group="Money")
nav(
    "Showback and chargeback", "costs:billing-mode-list", icon="building", order=29, permission="costs.period.manage",
    group="Money",
)  # fmt: skip
nav("Budgets", "costs:budget-list", icon="wallet", order=30, permission="costs.budget.view", group="Money")


@panel(page="home", order=12, permission="costs.period.manage")
def books(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """What of the books waits for this person of finance, oldest first; nothing where nothing does."""
    rows = waiting_for(request.user)
    return {"template": "costs/panels/waiting.html", "rows": rows} if rows else None


@panel(page="team", order=20, permission="costs.charge.view")
def money(request: HttpRequest, team: Team) -> dict[str, Any]:
    """Show month to date, budget and what ran yesterday and today."""
    now = clock.now()
    month = billing.month_of(now)
    cost = selectors.cost_of_month(team.pk, month)
    standing = standing_seen(request, team, month)
    budget = standing.budget.monthly if standing is not None else None
    adjusted = standing.billed.adjusted.quantized() if standing is not None else None
    running = latest.running_workloads(team, request.user, since=now - timedelta(hours=3))
    return {
        "template": "costs/panels/team.html",
        "team": team,
        "month": month,
        "zone": billing.zone_name(),
        "cost": cost,
        "spent": cost.amount.quantized(),
        "budget": budget,
        "left": standing.left if standing is not None else None,
        "adjusted": adjusted if adjusted is not None and adjusted.amount else None,
        "running": running[:8],
        "more": max(0, len(running) - 8),
        "month_url": month_url(team, month),
        "day_url": day_url(team, billing.day_of(now)),
        "may_set": may(request.user, "costs.budget.set", team),
    }
