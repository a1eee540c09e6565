"""The facts that costs knows for approval policies."""

from __future__ import annotations

from decimal import Decimal

from apps.approvals.ports import FactContext, register_fact_provider
from apps.costs import selectors


def team_budget_remaining(context: FactContext) -> Decimal | None:
    """Return the month's budget minus the month's cost so far, in the ledger currency; None where unknown."""
    if context.team_id is None:  # the platform has no budget
        return None
    remaining = selectors.budget_remaining(context.team_id, context.at)
    return None if remaining is None else remaining.amount


def register() -> None:
    """Register the providers (when the app loads)."""
    register_fact_provider(
        "team.budget_remaining",
        team_budget_remaining,
        label="Budget left",
        meaning="The team's budget for this month minus what the month cost so far; absent without a budget.",
        unit="money",
    )
