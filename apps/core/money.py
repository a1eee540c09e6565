"""Money and exact splitting. `Money` is the only money type of the portal; floats never touch it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

MILLISECONDS_PER_HOUR = 3_600_000

#: ISO 4217 minor units other than two, for the currencies an installation may keep its ledger in.
_MINOR_UNITS = {"JPY": 0, "KRW": 0, "CLP": 0, "ISK": 0, "VND": 0, "BHD": 3, "KWD": 3, "OMR": 3, "TND": 3, "JOD": 3}
#: A minor unit by its decimal places.
_QUANTA = {places: Decimal(1).scaleb(-places) for places in {2, *_MINOR_UNITS.values()}}


class CurrencyMismatch(ValueError):
    """Two currencies met in one sum: the ledger has one, so this is a defect, never a conversion."""


def minor_units(currency: str) -> int:
    """Return the number of decimal places of a currency (ISO 4217)."""
    return _MINOR_UNITS.get(currency, 2)


#: Currency codes that were looked at once, each with its minor unit.
_CODES: dict[str, Decimal] = {}


def _quantum(currency: str) -> Decimal:
    """Return a currency's minor unit. Raises ValueError for what is no ISO 4217 code."""
    found = _CODES.get(currency)
    if found is None:
        if len(currency) != 3 or not currency.isalpha() or not currency.isupper():
            raise ValueError(f"not an ISO 4217 currency code: {currency!r}")
        found = _CODES[currency] = _QUANTA[minor_units(currency)]
    return found


@dataclass(frozen=True, slots=True, order=False, init=False)
class Money:
    """An exact amount in one currency. Not rounded until `quantized()` or a statement line says so."""

    amount: Decimal
    currency: str

    def __init__(self, amount: Decimal, currency: str) -> None:
        # By hand: reports make them by the ten thousand, and a frozen dataclass's own takes three times as long.
        if not isinstance(amount, Decimal):
            raise TypeError("Money takes a Decimal amount")
        if currency not in _CODES:
            _quantum(currency)
        _put_amount(self, amount)
        _put_currency(self, currency)

    @classmethod
    def zero(cls, currency: str) -> Money:
        """Return nothing, in `currency`."""
        return cls(Decimal(0), currency)

    def _same(self, other: Money) -> None:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} cannot be mixed")

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.amount - other.amount, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.amount, self.currency)

    def __mul__(self, factor: int | Decimal) -> Money:
        return Money(self.amount * factor, self.currency)

    def __lt__(self, other: Money) -> bool:
        self._same(other)
        return self.amount < other.amount

    def __le__(self, other: Money) -> bool:
        self._same(other)
        return self.amount <= other.amount

    def __bool__(self) -> bool:
        return bool(self.amount)

    def quantized(self) -> Money:
        """Return the amount rounded half-even to the currency's minor unit."""
        unit = _CODES.get(self.currency) or _quantum(self.currency)
        return Money(self.amount.quantize(unit, ROUND_HALF_EVEN), self.currency)

    def __str__(self) -> str:
        return f"{self.quantized().amount:,} {self.currency}"


_put_amount, _put_currency = Money.__dict__["amount"].__set__, Money.__dict__["currency"].__set__


def price_gpu_ms(gpu_ms: int, hourly_rate: Money) -> Money:
    """Return `gpu_ms` GPU-milliseconds at `hourly_rate` per GPU-hour, as an exact (unrounded) amount.

    A GPU-hour has 3,600,000 GPU-milliseconds; the quotient is carried to 28 significant digits, so sum quantities
    first and price the sum (design §7: money is Σ quantity × rate, rounded once per line).
    """
    with localcontext() as context:
        context.prec = 50
        return Money(Decimal(gpu_ms) * hourly_rate.amount / MILLISECONDS_PER_HOUR, hourly_rate.currency)


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Split the integer `total` over non-negative integer `weights` so that the parts sum to it exactly.

    Method of the largest remainder (Hamilton); ties go to the larger weight, then to the earlier position, so the
    result never depends on anything but the input order. With all weights zero nothing can be split: raises
    ValueError unless `total` is 0. Negative totals split as their mirror image. Raises ValueError for negative weights.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError("weights must not be negative")
    whole = sum(weights)
    if whole == 0:
        if total:
            raise ValueError("cannot split a non-zero total over weights that are all zero")
        return [0] * len(weights)
    sign, size = (-1, -total) if total < 0 else (1, total)
    parts, remainders = [], []
    for weight in weights:
        quotient, remainder = divmod(size * weight, whole)
        parts.append(quotient)
        remainders.append(remainder)
    left = size - sum(parts)
    order = sorted(range(len(weights)), key=lambda i: (-remainders[i], -weights[i], i))
    for i in order[:left]:
        parts[i] += 1
    return [sign * part for part in parts]


def round_lines(lines: Sequence[Money]) -> list[Money]:
    """Round each line to the minor unit so that the rounded lines sum to the rounded exact total (largest remainder).

    Every line moves by less than one minor unit. Raises CurrencyMismatch for mixed currencies.
    """
    if not lines:
        return []
    currency = lines[0].currency
    total = sum(lines, Money.zero(currency)).quantized()
    unit = Decimal(1).scaleb(-minor_units(currency))
    floors = [(line.amount / unit).to_integral_value(rounding="ROUND_FLOOR") for line in lines]
    remainders = [line.amount / unit - floor for line, floor in zip(lines, floors, strict=True)]
    left = int(total.amount / unit - sum(floors))
    order = sorted(range(len(lines)), key=lambda i: (-remainders[i], -abs(lines[i].amount), i))
    for i in order[:left]:
        floors[i] += 1
    return [Money((floor * unit).quantize(unit), currency) for floor in floors]
