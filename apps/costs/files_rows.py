"""The rows of a statement or month as a file: one list of columns for CSV, XLSX, PDF and the print page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import QuerySet

from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs.choices import OwnerKind
from apps.costs.models import Period, Statement, StatementLine

HEADER = (
    "Month", "Statement", "Owner", "Unit", "Cost centre", "Line", "What", "Kind", "Description", "Cluster", "Flavour",
    "GPU model", "Hours", "GPU-hours", "Price per hour", "Exact amount", "Amount", "Currency", "From", "Until",
    "Distribution", "Share", "Reference",
)  # fmt: skip
_PLACES = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Row:
    """One line as every file and page writes it. `exact` None: no price, the cost is unknown."""

    statement: Statement
    line: StatementLine

    @property
    def hours(self) -> Decimal:
        """What the price applies to, in hours of the unit that is sold."""
        return (Decimal(self.line.quantity_ms) / MILLISECONDS_PER_HOUR).quantize(_PLACES)

    @property
    def gpu_hours(self) -> Decimal:
        """The same in physical GPUs; 0 for what is no GPU time."""
        return (Decimal(self.line.gpu_ms) / MILLISECONDS_PER_HOUR).quantize(_PLACES)

    @property
    def amount(self) -> Money:
        """The rounded amount."""
        return Money(self.line.amount, self.statement.currency)

    @property
    def cells(self) -> list[Any]:
        """The row in `HEADER`'s order."""
        statement, line = self.statement, self.line
        return [
            f"{statement.period.month:%Y-%m}", statement.number, owner_of(statement), statement.unit_name,
            statement.cost_centre, line.ordinal, line.get_sort_display(), line.get_kind_display(), line.description,
            line.cluster_name, line.flavour_name, line.gpu_model, self.hours, self.gpu_hours, line.hourly, line.exact,
            line.amount, statement.currency, line.charge_start, line.charge_end, line.method,
            None if line.ratio_ppm is None else Decimal(line.ratio_ppm) / 1_000_000,
            str(line.reference) if line.reference else None,
        ]  # fmt: skip


def owner_of(statement: Statement) -> str:
    """Return whom a statement is for, by the name it had."""
    if statement.owner_kind == OwnerKind.TEAM:
        return statement.team_name
    if statement.owner_kind == OwnerKind.UNIT:
        return statement.unit_name
    return statement.cost_centre if statement.owner_kind == OwnerKind.COST_CENTRE else "Platform"


def lines_of(period: Period, statement: Statement | None) -> QuerySet[StatementLine]:
    """Return the lines of one statement, or of all that add up to the month's bill, in their order."""
    if statement is not None:
        return StatementLine.objects.filter(statement=statement).order_by("ordinal")
    return StatementLine.objects.filter(
        statement__period=period,
        statement__superseded_at__isnull=True,
        statement__owner_kind__in=(OwnerKind.TEAM, OwnerKind.PLATFORM),
    ).order_by("statement__number", "ordinal")


def rows(period: Period, statement: Statement | None) -> Iterator[Row]:
    """Yield the rows, a chunk in memory at a time."""
    for line in lines_of(period, statement).select_related("statement__period").iterator(chunk_size=2000):
        yield Row(line.statement, line)
