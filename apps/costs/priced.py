"""Charges beside the rates behind them: what anybody can multiply again."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from apps.core.money import Money
from apps.costs.models import Charge
from apps.costs.tally import EXACT, Tally, hours_of
from apps.rates.models import Rate

_TWELVE = Decimal("1e-12")


@dataclass(frozen=True, slots=True)
class PricedCharge:
    """One charge with its rate; None: none was in force, the cost is unknown."""

    charge: Charge
    rate: Rate | None

    @property
    def exact(self) -> Money | None:
        """Quantity × rate ÷ 3,600,000 to twelve decimals, as statements store it; None: unknown."""
        if self.rate is None:
            return None
        product = EXACT.multiply(Decimal(self.charge.quantity_ms), self.rate.amount)
        return Money(hours_of(product).quantize(_TWELVE), self.rate.currency)

    @property
    def exact_text(self) -> str:
        """The exact cost with all its decimals, without trailing zeros."""
        exact = self.exact
        return "unknown" if exact is None else f"{exact.amount.normalize():,f} {exact.currency}"

    def add_to(self, tally: Tally) -> None:
        """Add it to a sum. Raises CurrencyMismatch for a foreign currency."""
        rate, charge = self.rate, self.charge
        tally.add(charge.quantity_ms, charge.gpu_ms, rate.amount if rate else None, rate.currency if rate else None)


def priced(charges: Any) -> list[PricedCharge]:
    """Return the charges of a queryset, in the order of their uids, with their rates and cards: two queries."""
    rows = list(charges.order_by("uid"))
    found = Rate.objects.filter(pk__in={row.rate_id for row in rows if row.rate_id is not None})
    rates = {rate.pk: rate for rate in found.select_related("card", "flavour")}
    return [PricedCharge(row, rates.get(row.rate_id)) for row in rows]


__all__ = ["PricedCharge", "priced"]
