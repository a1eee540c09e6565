"""How budgets stand on the report: what is billed against the limits, as the budget's own page says it."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from apps.core.money import Money
from apps.costs.budget_billed import Asked, Billed, Whose, billed
from apps.costs.report_types import MonthReport
from apps.costs.tally import amount_of
from apps.reports.extra_rows import BudgetRow
from apps.teams.models import Unit


def budgets(unit: Unit, report: MonthReport, rows: list[dict[str, Any]], *, adjusted: bool) -> list[BudgetRow]:
    """Return the budgets of a unit and of the teams shown, the unit's first.

    `adjusted`: whether corrections or credits are billed in a month that is not closed yet. The report's own figures
    are charges only then, and what budgets count is read for itself (one statement, a few more with credits); in a
    closed month the frozen figures hold them already.
    """
    lines = {line.team_id: line for line in report.lines}
    found = []
    counted = _counted(report, rows) if rows and adjusted else {}
    for row in rows:
        own = row["unit"] is not None
        line = None if own else lines.get(row["team"])
        spent = report.cost if own else line.cost if line is not None else None
        unpriced = report.unpriced_gpu_ms if own else line.unpriced_gpu_ms if line is not None else 0
        gpu_ms = report.allocated_gpu_ms if own else line.allocated_gpu_ms if line is not None else 0
        if adjusted:
            tally = counted.get(_owner(row), Billed()).total
            spent, unpriced, gpu_ms = amount_of(tally.product, report.currency), tally.unpriced_ms, tally.gpu_ms
        limit = Money(Decimal(row["amount"]), row["currency"]) if row["amount"] is not None else None
        found.append(
            BudgetRow(
                uid=uuid.UUID(row["uid"]),
                name=unit.name if own else line.name if line is not None else "",
                limit=limit,
                gpu_hours=row["gpu_hours"],
                spent=spent,
                gpu_ms=gpu_ms,
                left=limit - spent if limit is not None and spent is not None and not unpriced else None,
                steps=sorted(row["steps"] or [], key=lambda step: (not step.isdecimal(), step.zfill(4))),
            )
        )
    return sorted(found, key=lambda one: (one.name != unit.name, one.name))


def _owner(row: dict[str, Any]) -> Whose:
    return ("unit", row["unit"]) if row["unit"] is not None else ("team", row["team"])


def _counted(report: MonthReport, rows: list[dict[str, Any]]) -> dict[Whose, Billed]:
    asked = Asked(
        (row["team"] for row in rows if row["unit"] is None), (row["unit"] for row in rows if row["unit"] is not None)
    )
    return billed(asked, report.month)
