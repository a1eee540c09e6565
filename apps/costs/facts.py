"""The facts that costs knows for approval policies."""

from __future__ import annotations

from decimal import Decimal

from apps.approvals.ports import FactContext, register_fact_provider
from apps.costs import budget_figures, budget_steps


def team_budget_remaining(context: FactContext) -> Decimal | None:
    """Return the month's budget minus what is billed to the team in it so far; None where that is unknown."""
    if context.team_id is None:  # the platform has no budget
        return None
    remaining = budget_figures.remaining(context.team_id, context.at)
    return None if remaining is None else remaining.amount


def team_budget_exhausted(context: FactContext) -> str | None:
    """Return "yes" where a reached step of the team's budget, or of a unit above it, asks for approval; else "no"."""
    if context.team_id is None:
        return None
    return "yes" if budget_steps.exhausted(context.team_id, context.at) else "no"


def register() -> None:
    """Register the providers (when the app loads)."""
    register_fact_provider(
        "team.budget_remaining",
        team_budget_remaining,
        label="Budget left",
        meaning="The team's budget for this month minus what is billed to it in the month so far (charges, "
        "corrections of closed months, credits); absent without a budget.",
        unit="money",
    )
    register_fact_provider(
        "team.budget_exhausted",
        team_budget_exhausted,
        label="Budget exhausted",
        meaning="yes where a step of the team's budget, or of a unit above it, asks for approval this month; else no.",
    )
