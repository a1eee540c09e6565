"""Single charges as CSV: a month has millions, so that they are read and sent by and by."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from apps.core.exports import Written, written
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.costs.choices import ChargeKind

_FIELDS = (
    "hour", "kind", "team_name", "unit_name", "cost_centre", "gpu_model", "quantity_ms", "gpu_ms", "rate_amount",
    "rate_currency", "fact_uid",
)  # fmt: skip
_CHUNK = 5000
_SIX = Decimal("0.000001")
_LABELS = {str(kind): str(kind.label) for kind in ChargeKind}


class _Cells(dict[Any, Written]):
    """Cells that come again in thousands of rows: hours, names, rates; each is written once."""

    def __missing__(self, cell: Any) -> Written:
        self[cell] = made = written(cell)
        return made


def rows(charges: Any) -> Iterator[list[Any]]:
    """Yield the cells of `ChargeTable`'s columns, in their order; reads a server-side cursor, no model instances.

    `charges`: a queryset with `rate_amount` and `rate_currency`. The cost is exact to six decimals, empty without rate.
    """
    source = charges.values_list(*_FIELDS).iterator(chunk_size=_CHUNK)
    cells = _Cells()
    for hour, kind, team, unit, centre, model, quantity, gpu, rate, currency, fact in source:
        cost = Decimal(quantity) * rate / MILLISECONDS_PER_HOUR if rate is not None else None
        held = _hours(quantity)
        yield [
            cells[hour], cells[_LABELS[kind]], cells[team], cells[unit], cells[centre], cells[model], held,
            held if gpu == quantity else _hours(gpu), cells[rate], cells[None] if cost is None else _six(cost),
            cells[currency], cells[None] if fact is None else Written(fact),
        ]  # fmt: skip


def _hours(milliseconds: int) -> Written:
    return _six(Decimal(milliseconds) / MILLISECONDS_PER_HOUR)


def _six(value: Decimal) -> Written:
    return Written(value.quantize(_SIX))


__all__ = ["rows"]
