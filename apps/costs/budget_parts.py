"""What a budget's figure is made of, each part leading to its rows: the way down from a budget's page."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import urlencode

from django.urls import reverse

from apps.core.money import Money
from apps.costs.budget_billed import CHARGES, CORRECTIONS, CREDITS, PARTS, credits_of
from apps.costs.budget_figures import Standing
from apps.costs.tally import amount_of, round_to_total
from apps.costs.views import month_url
from apps.teams.models import Team

LABELS = {
    CHARGES: "Charged for the month",
    CORRECTIONS: "Corrections of closed months",
    CREDITS: "Credits",
}


@dataclass(frozen=True, slots=True)
class PartLine:
    """One part of a budget's figure. Amounts are rounded so that they add up to the figure shown."""

    code: str
    label: str
    amount: Money
    gpu_ms: int
    unpriced: bool
    url: str


def parts_of(row: Standing) -> list[PartLine]:
    """Return the parts of a standing, in a fixed order; the charges are always there."""
    tallies = [(code, row.billed.of(code)) for code in PARTS]
    exact = [amount_of(tally.product, tally.currency) for _, tally in tallies]
    rounded = round_to_total(exact, row.spent.quantized())
    return [
        PartLine(code, LABELS[code], amount, tally.gpu_ms, tally.unpriced_ms > 0, _url(row, code))
        for (code, tally), amount in zip(tallies, rounded, strict=True)
        if amount is not None and (code == CHARGES or code in row.billed.parts)
    ]


@dataclass(frozen=True, slots=True)
class CreditLine:
    """A credit as it counts: what lowers a statement is below zero."""

    uid: uuid.UUID
    team: Team
    reason: str
    counted: Money


def credit_lines(row: Standing) -> list[CreditLine]:
    """Return the credits that count, latest first; none is read where there are none."""
    if CREDITS not in row.billed.parts:
        return []
    return [
        CreditLine(one.uid, one.team, one.reason, Money(-one.amount, one.currency))
        for one in credits_of(row.budget, row.month)
    ]


def _url(row: Standing, code: str) -> str:
    """Return where a part's rows are listed; credits are few, and the page itself lists them."""
    budget, month = row.budget, row.month
    if code == CHARGES:
        if budget.team is not None:
            return month_url(budget.team, month)
        unit = budget.unit
        query = {"unit": unit.slug, "month": f"{month:%Y-%m}"} if unit is not None else {}
        return f"{reverse('costs:charge-list')}?{urlencode(query)}"
    if code == CORRECTIONS:
        own = (
            {"team": budget.team.name} if budget.team is not None else {"unit": budget.unit.slug if budget.unit else ""}
        )
        return f"{reverse('costs:correction-list')}?{urlencode({'period': f'{month:%Y-%m}', **own})}"
    return "#budget-credits"
