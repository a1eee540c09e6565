"""What the digests of statements and months are over (RFC 8785), from stored rows or such as will be stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from apps.core.canonical import digest_of
from apps.costs.models import Statement, StatementLine
from apps.rates.models import Rate


def _decimal(value: Decimal | None, places: int) -> str | None:
    return None if value is None else f"{value:.{places}f}"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def content(statement: Statement, lines: Iterable[StatementLine], rate_uids: Mapping[int, UUID]) -> dict[str, Any]:
    """Return what a statement's digest is over: header and lines, from stored or unstored rows alike.

    Amounts are strings with two, prices with eight, exact costs with twelve decimals; ids are those that people see.
    """
    return {
        "number": statement.number,
        "month": f"{statement.period.month:%Y-%m}",
        "owner": [statement.owner_kind, statement.team_name, statement.unit_name, statement.cost_centre],
        "mode": statement.mode,
        "currency": statement.currency,
        "amount": _decimal(statement.amount, 2),
        "own_amount": _decimal(statement.own_amount, 2),
        "gpu_ms": str(statement.gpu_ms),
        "used_gpu_ms": None if statement.used_gpu_ms is None else str(statement.used_gpu_ms),
        "measured_gpu_ms": str(statement.measured_gpu_ms),
        "unpriced_ms": str(statement.unpriced_ms),
        "lines": [
            [
                line.ordinal, line.sort, line.kind, line.description, line.cluster_name, line.flavour_name,
                line.gpu_model, str(rate_uids[line.rate_id]) if line.rate_id is not None else "",
                _decimal(line.hourly, 8), str(line.quantity_ms), str(line.gpu_ms), _decimal(line.exact, 12),
                _decimal(line.amount, 2), _time(line.charge_start), _time(line.charge_end), line.method,
                line.ratio_ppm, str(line.reference or ""),
            ]
            for line in lines
        ],
    }  # fmt: skip


def digest_from_rows(statement: Statement) -> str:
    """Work a stored statement's digest out again from its rows."""
    lines = list(statement.lines.order_by("ordinal"))
    rates = dict(Rate.objects.filter(pk__in={line.rate_id for line in lines if line.rate_id}).values_list("pk", "uid"))
    return digest_of(content(statement, lines, rates))


def digest_of_period(statements: Iterable[tuple[str, str]], month: date, hours: str) -> str:
    """Return a month's digest: over its statements' numbers and digests and over the hours that they stand on."""
    return digest_of({"month": f"{month:%Y-%m}", "hours": hours, "statements": sorted(map(list, statements))})


__all__ = ["content", "digest_from_rows", "digest_of_period"]
