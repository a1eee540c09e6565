"""Events of the costs room."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from apps.core import events
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class BudgetSet:
    """A team's or a unit's monthly budget was set from a month on; None: no limit in that measure."""

    budget_uid: uuid.UUID
    team_uid: uuid.UUID | None
    month_from: str
    amount: Decimal | None
    currency: str
    before: Decimal | None
    unit_uid: uuid.UUID | None = None
    gpu_hours: int | None = None
    actions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BudgetReached:
    """A step of a budget was reached in a month."""

    budget_uid: uuid.UUID
    team_uid: uuid.UUID | None
    unit_uid: uuid.UUID | None
    owner: str
    month: str
    step: str
    measure: str
    figure: str
    limit: str
    at_least: bool
    basis: str
    actions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class WhatIfAsked:
    """A person asked a worker what stored hours would have cost at other prices."""

    run_uid: uuid.UUID
    start: str
    end: str


def month_name(month: date) -> str:
    """Return a month as it is written in events and addresses: yyyy-mm."""
    return f"{month:%Y-%m}"


WHATIF_EXPORTED = events.declare("costs.whatif.exported", Exported, audience="auditors")
WHATIF_ASKED = events.declare("costs.whatif.asked", WhatIfAsked, audience="auditors")
CHARGES_EXPORTED = events.declare("costs.charges.exported", Exported, audience="auditors")
BUDGET_SET = events.declare(
    "costs.budget.set",
    BudgetSet,
    audience="the team's leads",
    headline=lambda p: f"Budget of {_limits(p)} a month from {p.month_from}",
    path=lambda p: f"/costs/budgets/{p.budget_uid}/",
)
BUDGET_REACHED = events.declare(
    "costs.budget.reached",
    BudgetReached,
    audience="the team's leads, the unit's owners, finance",
    mail=True,
    headline=lambda p: _reached_headline(p),
    body=lambda p: _reached_body(p),
    path=lambda p: f"/costs/budgets/{p.budget_uid}/",
)


def _limits(payload: Any) -> str:
    money = f"{payload.amount} {payload.currency}" if payload.amount is not None else ""
    hours = f"{payload.gpu_hours} GPU-hours" if payload.gpu_hours is not None else ""
    return " and ".join(part for part in (money, hours) if part)


def _reached_headline(payload: Any) -> str:
    if payload.step == "forecast":
        return f"{payload.owner}: the forecast for {payload.month} lies beyond the budget"
    return f"{payload.owner}: {payload.step} % of the budget for {payload.month} is reached"


def _reached_body(payload: Any) -> str:
    what = "The forecast is" if payload.step == "forecast" else "So far it is"
    lines = [f"{what} {'at least ' if payload.at_least else ''}{payload.figure} of {payload.limit}."]
    if payload.basis:
        lines.append(f"It stands on {payload.basis}.")
    return "\n".join([*lines, *payload.actions])


DRILL_DOWN_EXPORTED = events.declare("costs.drilldown.exported", Exported, audience="auditors")
