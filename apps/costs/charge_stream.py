"""Single charges as CSV: a month has millions, so that they are read and sent by and by."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from apps.core.money import MILLISECONDS_PER_HOUR
from apps.costs.choices import ChargeKind

_FIELDS = (
    "hour", "kind", "team_name", "unit_name", "cost_centre", "gpu_model", "quantity_ms", "gpu_ms", "rate_amount",
    "rate_currency", "fact_uid",
)  # fmt: skip
_CHUNK = 5000
_SIX = Decimal("0.000001")
_LABELS = {str(kind): str(kind.label) for kind in ChargeKind}


def rows(charges: Any) -> Iterator[list[Any]]:
    """Yield the cells of `ChargeTable`'s columns, in their order; reads a server-side cursor, no model instances.

    `charges`: a queryset with `rate_amount` and `rate_currency`. The cost is exact to six decimals, empty without rate.
    """
    source = charges.values_list(*_FIELDS).iterator(chunk_size=_CHUNK)
    for hour, kind, team, unit, centre, model, quantity, gpu, rate, currency, fact in source:
        cost = None if rate is None else (Decimal(quantity) * rate / MILLISECONDS_PER_HOUR).quantize(_SIX)
        yield [
            hour, _LABELS[kind], team, unit, centre, model, _hours(quantity), _hours(gpu), rate, cost, currency, fact
        ]  # fmt: skip


def _hours(milliseconds: int) -> Decimal:
    return (Decimal(milliseconds) / MILLISECONDS_PER_HOUR).quantize(_SIX)


__all__ = ["rows"]
