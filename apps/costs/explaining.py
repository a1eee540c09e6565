"""Why a cost changed between two months: price, quantity and mix, exact to the cent. Pure.

Price–volume–mix analysis as management accounting does it (flexible-budget variances: selling-price, sales-quantity
and sales-mix variance; C. T. Horngren et al., *Cost Accounting*, chapter on strategy and sales variances), with the
earlier month in the place of the budget. Within one measure (GPU-hours; core-hours; GiB-hours …), with q and c the
quantity and cost of an item i, p = c ÷ q, Q = Σ q, C = Σ c, and P₀ = C₀ ÷ Q₀ the earlier month's average price:

    price    = Σ over items of both months  (p₁ − p₀) × q₁
    quantity = (Q₁ − Q₀) × P₀
    mix      = Σ items of both months p₀ × q₁ + Σ new items p₁ × q₁ − P₀ × Q₁

The three add up to C₁ − C₀ identically. A new item has no earlier price, hence no price effect: at the quantity's
average it is quantity, what it costs beyond that is mix; a vanished item is likewise quantity and mix. A measure that
is new as a whole (Q₀ = 0) is quantity alone, and so is one that ended. Measures are added up, never converted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from apps.core.money import MILLISECONDS_PER_HOUR, Money, minor_units

#: What quantities of different items have in common: "gpu", "cpu", "memory" …
Measure = str
#: (measure, what identifies the item within it)
ItemKey = tuple[Measure, Hashable]


@dataclass(slots=True)
class Item:
    """Quantity of an item in a month, in ms × unit of its measure, and Σ of quantity × hourly price (unrounded)."""

    quantity_ms: int = 0
    product: Decimal = Decimal(0)

    def add(self, quantity_ms: int, product: Decimal) -> None:
        """Add a part of the month."""
        self.quantity_ms += quantity_ms
        self.product += product


Items = Mapping[ItemKey, Item]


@dataclass(frozen=True, slots=True)
class Effects:
    """What moved a cost from `before` to `after`; the three effects sum to the difference exactly."""

    before: Money
    after: Money
    price: Money
    quantity: Money
    mix: Money

    @property
    def change(self) -> Money:
        """After less before."""
        return self.after - self.before

    @property
    def parts(self) -> list[tuple[str, Money]]:
        """The effects in the order in which pages show them."""
        return [("Price", self.price), ("Quantity", self.quantity), ("Mix", self.mix)]


def exact_effects(before: Items, after: Items) -> tuple[Fraction, Fraction, Fraction]:
    """Return (price, quantity, mix) as exact fractions of the currency; they sum to the exact change."""
    price = quantity = mix = Fraction(0)
    for measure in sorted({key[0] for key in before} | {key[0] for key in after}):
        one = _of_measure(
            {key: item for key, item in before.items() if key[0] == measure},
            {key: item for key, item in after.items() if key[0] == measure},
        )
        price, quantity, mix = price + one[0], quantity + one[1], mix + one[2]
    return price / MILLISECONDS_PER_HOUR, quantity / MILLISECONDS_PER_HOUR, mix / MILLISECONDS_PER_HOUR


def _of_measure(before: Items, after: Items) -> tuple[Fraction, Fraction, Fraction]:
    cost0 = sum((Fraction(item.product) for item in before.values()), Fraction(0))
    cost1 = sum((Fraction(item.product) for item in after.values()), Fraction(0))
    all0 = sum(item.quantity_ms for item in before.values())
    all1 = sum(item.quantity_ms for item in after.values())
    price = Fraction(0)
    for key, item in after.items():
        earlier = before.get(key)
        if earlier is not None and earlier.quantity_ms:
            price += Fraction(item.product) - Fraction(earlier.product) * item.quantity_ms / earlier.quantity_ms
    quantity = cost0 * (all1 - all0) / all0 if all0 else cost1
    return price, quantity, cost1 - cost0 - price - quantity


def explain(before: Items, after: Items, *, shown_before: Money, shown_after: Money) -> Effects:
    """Return the effects rounded to the minor unit so that they sum to the difference of the amounts as shown.

    Shown amounts are themselves rounded (lines to their total), so they may lie a few minor units from the exact ones;
    that rest goes, by largest remainder, where rounding left most. Raises CurrencyMismatch for two currencies.
    """
    change = shown_after - shown_before
    parts = exact_effects(before, after)
    unit = Fraction(1, 10 ** minor_units(change.currency))
    floors = [part // unit for part in parts]
    rests = [part / unit - floor for part, floor in zip(parts, floors, strict=True)]
    left = int(Fraction(change.amount) / unit) - sum(floors)
    order = sorted(range(3), key=lambda index: (-rests[index], -abs(parts[index]), index))
    nonzero = [index for index in order if parts[index]] or order
    step = 1 if left > 0 else -1
    for number in range(abs(left)):
        floors[nonzero[number % len(nonzero)]] += step
    price, quantity, mix = (_money(floor, change.currency) for floor in floors)
    return Effects(shown_before, shown_after, price, quantity, mix)


def _money(minor: int, currency: str) -> Money:
    return Money(Decimal(minor).scaleb(-minor_units(currency)), currency)


def merged(parts: Iterable[Items]) -> dict[ItemKey, Item]:
    """Return the items of several owners (teams of a unit) added up."""
    found: dict[ItemKey, Item] = {}
    for items in parts:
        for key, item in items.items():
            found.setdefault(key, Item()).add(item.quantity_ms, item.product)
    return found
