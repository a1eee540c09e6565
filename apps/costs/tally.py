"""Adding up quantity × rate exactly, and rounding lines to a total. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

from apps.core.money import MILLISECONDS_PER_HOUR, CurrencyMismatch, Money, minor_units

#: Sums and quotients of money, exact far beyond any ledger; one context for all, since entering one costs more than
#: the sum.
EXACT = Context(prec=60)
#: Digits behind the point of Σ quantity × rate, as the sums are kept.
_DIGITS = 8


@dataclass(slots=True)
class Tally:
    """A running Σ quantity × rate: divided once, at the end. `unpriced_ms` is quantity without a rate: unknown cost.

    `gpu_ms` and `unpriced_gpu_ms` count GPU time alone: resources are added with none.
    """

    currency: str
    product: Decimal = Decimal(0)
    priced_ms: int = 0
    unpriced_ms: int = 0
    gpu_ms: int = 0
    unpriced_gpu_ms: int = 0

    def add(self, quantity_ms: int, gpu_ms: int, hourly: Decimal | None, currency: str | None) -> None:
        """Add a quantity at an hourly rate (None: no rate). Raises CurrencyMismatch for a foreign currency."""
        self.gpu_ms += gpu_ms
        if hourly is None:
            self.unpriced_ms += quantity_ms
            self.unpriced_gpu_ms += gpu_ms
            return
        if currency != self.currency:
            raise CurrencyMismatch(f"{currency} and {self.currency} cannot be mixed")
        self.product = EXACT.fma(Decimal(quantity_ms), hourly, self.product)
        self.priced_ms += quantity_ms

    def add_product(self, quantity_ms: int, gpu_ms: int, product: Decimal, currency: str) -> None:
        """Add a sum of quantity × rate that was made before; currency "": none of it has a rate.

        Raises CurrencyMismatch for a foreign currency.
        """
        self.gpu_ms += gpu_ms
        if not currency:
            self.unpriced_ms += quantity_ms
            self.unpriced_gpu_ms += gpu_ms
            return
        if currency != self.currency:
            raise CurrencyMismatch(f"{currency} and {self.currency} cannot be mixed")
        self.product = EXACT.add(self.product, product)
        self.priced_ms += quantity_ms

    def less(self, other: Tally) -> Tally:
        """Return what is left without `other`, which is part of this."""
        return Tally(
            self.currency,
            EXACT.subtract(self.product, other.product),
            self.priced_ms - other.priced_ms,
            self.unpriced_ms - other.unpriced_ms,
            self.gpu_ms - other.gpu_ms,
            self.unpriced_gpu_ms - other.unpriced_gpu_ms,
        )

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not (self.priced_ms or self.unpriced_ms or self.gpu_ms)

    @property
    def amount(self) -> Money | None:
        """The exact cost of what is priced; None where there is a quantity and none of it has a rate."""
        if self.unpriced_ms and not self.priced_ms:
            return None
        return amount_of(self.product, self.currency)


_HOUR = Decimal(MILLISECONDS_PER_HOUR)


def amount_of(product: Decimal, currency: str) -> Money:
    """Return what Σ quantity × hourly price (ms × units × price) comes to, unrounded."""
    return Money(hours_of(product), currency)


def hours_of(product: Decimal) -> Decimal:
    """Return Σ quantity in ms × hourly price per hour, unrounded."""
    return EXACT.divide(product, _HOUR)


def round_products(
    products: Sequence[Decimal | None], currency: str, *, total: Money | None = None
) -> list[Money | None]:
    """Return Σ quantity × hourly price of each line in money, rounded such that the lines sum to their rounded sum.

    What `round_to_total` does with the amounts, in integers: for thousands of lines. None (unknown) stays unknown.
    Raises ValueError where `total` is given and is not that sum.
    """
    places = minor_units(currency)
    # A product is an integer count of 10⁻⁸; a minor unit is so many of them.
    unit = MILLISECONDS_PER_HOUR * 10 ** (_DIGITS - places)
    known = [exact_integer(product) for product in products if product is not None]
    whole = half_even(sum(known), unit)
    if total is not None and known and total.amount != Decimal(whole).scaleb(-places):
        raise ValueError("the total is not the sum of these lines")
    floors = [product // unit for product in known]
    left = whole - sum(floors)
    if left:
        order = sorted([(-(product % unit), -abs(product), at) for at, product in enumerate(known)])
        for _, _, at in order[:left]:
            floors[at] += 1
    rounded = iter(floors)
    return [None if one is None else Money(Decimal(next(rounded)).scaleb(-places), currency) for one in products]


def exact_integer(product: Decimal) -> int:
    """Return Σ quantity × hourly price as a count of 10⁻⁸, which sums are kept in."""
    return int(EXACT.scaleb(product, _DIGITS))


def part_of_product(product: int, part: int, whole: int, currency: str) -> Money:
    """Return product (an `exact_integer`) × part ÷ whole in money, rounded half-even once."""
    places = minor_units(currency)
    unit = MILLISECONDS_PER_HOUR * 10 ** (_DIGITS - places)
    return Money(Decimal(half_even(product * part, unit * whole)).scaleb(-places), currency)


def half_even(number: int, unit: int) -> int:
    """Return number ÷ unit (> 0), rounded half-even."""
    whole, rest = divmod(number, unit)
    return whole + (rest * 2 > unit or (rest * 2 == unit and whole % 2 == 1))


def total_of(lines: Iterable[Money | None]) -> Money | None:
    """Return the exact sum of the known lines; None where none is known. Raises CurrencyMismatch for a mixture."""
    known = [line for line in lines if line is not None]
    if not known:
        return None
    if len({line.currency for line in known}) > 1:
        raise CurrencyMismatch("amounts of several currencies cannot be added up")
    with localcontext() as context:
        context.prec = 60
        return Money(sum((line.amount for line in known), Decimal(0)), known[0].currency)


def round_to_total(lines: Sequence[Money | None], total: Money | None) -> list[Money | None]:
    """Return lines rounded to the minor unit so that the known ones sum to `total` (already rounded) exactly.

    Largest remainder over the minor units left after rounding down; unknown lines stay unknown. `total` None: the
    rounded exact sum. Raises ValueError where the total is more than a minor unit per line away from the sum.
    """
    known = [line for line in lines if line is not None]
    if not known:
        return list(lines)
    currency = known[0].currency
    if total is None:
        total = (total_of(known) or Money.zero(currency)).quantized()
    unit = Decimal(1).scaleb(-minor_units(currency))
    with localcontext() as context:
        context.prec = 60
        floors = [int((line.amount / unit).to_integral_value(rounding="ROUND_FLOOR")) for line in known]
        rests = [line.amount / unit - floor for line, floor in zip(known, floors, strict=True)]
    left = int(total.amount / unit) - sum(floors)
    if not 0 <= left <= len(known):
        raise ValueError("the total is not the sum of these lines")
    order = sorted(range(len(known)), key=lambda i: (-rests[i], -abs(known[i].amount), i))
    for index in order[:left]:
        floors[index] += 1
    rounded = iter(Money((floor * unit).quantize(unit), currency) for floor in floors)
    return [None if line is None else next(rounded) for line in lines]


def fitted(lines: Sequence[Money | None], total: Money | None) -> list[Money | None]:
    """Return lines rounded to `total`, the figure of the level above, or to their own sum where it is not theirs.

    The two are read by different statements: what is priced between them belongs to one alone.
    """
    try:
        return round_to_total(lines, total)
    except ValueError:
        return round_to_total(lines, None)


def share(part: int, whole: int) -> Decimal | None:
    """Return part ÷ whole as a ratio; None where there is nothing to share."""
    return Decimal(part) / Decimal(whole) if whole else None
