"""Events of the costs room."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from apps.core import events
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class BudgetSet:
    """A team's monthly budget was set from a month on."""

    budget_uid: uuid.UUID
    team_uid: uuid.UUID
    month_from: str
    amount: Decimal
    currency: str
    before: Decimal | None


def month_name(month: date) -> str:
    """Return a month as it is written in events and addresses: yyyy-mm."""
    return f"{month:%Y-%m}"


CHARGES_EXPORTED = events.declare("costs.charges.exported", Exported, audience="auditors")
BUDGET_SET = events.declare(
    "costs.budget.set",
    BudgetSet,
    audience="the team's leads",
    headline=lambda p: f"Budget of {p.amount} {p.currency} a month from {p.month_from}",
    path=lambda p: "/costs/budgets/",
)
