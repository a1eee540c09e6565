"""Kubernetes quantities: parsing and the canonical form of apimachinery's `resource.Quantity`."""

from __future__ import annotations

import re
from decimal import ROUND_UP, Decimal
from functools import lru_cache

PATTERN = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
"""The expression that the API server quotes when it refuses a quantity."""

_SHAPE = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]+)?\Z")
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_NAMES = ["", *_BINARY]
_DECIMAL_NAMES = {power: name for name, power in _DECIMAL.items()}
_NANO = Decimal("1e-9")


class BadQuantity(ValueError):
    """The text is no quantity; the message is the API server's."""

    def __init__(self) -> None:
        super().__init__(f"quantities must match the regular expression '{PATTERN}'")


@lru_cache(maxsize=8192)
def _split(text: str) -> tuple[Decimal, str]:
    match = _SHAPE.match(text)
    if match is None:
        raise BadQuantity
    number, suffix = Decimal(match.group(1)), match.group(2) or ""
    if suffix in _BINARY:
        return number * 1024 ** _BINARY[suffix], "binary"
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        if len(suffix) > 4:
            raise BadQuantity
        return number.scaleb(int(suffix[1:])), "exponent"
    return number.scaleb(_DECIMAL[suffix]), "decimal"


def parse(value: object) -> Decimal:
    """Return the plain number that a quantity stands for (cores, bytes, pieces).

    Raises `BadQuantity`.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadQuantity
    return _split(str(value).strip())[0]


def canonical(value: object) -> str:
    """Return the text the API server stores: `1000m` → `1`, `1024Mi` → `1Gi`, `0.5` → `500m`.

    Finer than nano is rounded up, as apimachinery does. Raises `BadQuantity`.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadQuantity
    return _canonical(str(value).strip())


@lru_cache(maxsize=8192)
def _canonical(text: str) -> str:
    number, form = _split(text)
    return render(number, form)


def render(number: Decimal, form: str = "decimal") -> str:
    """Write a number in canonical form; `form` is decimal, binary or exponent."""
    if number == 0:
        return "0"
    if form == "binary" and number == number.to_integral_value() and abs(number) >= 1024:
        whole, power = int(number), 0
        while whole % 1024 == 0 and power < 6:
            whole //= 1024
            power += 1
        return f"{whole}{_BINARY_NAMES[power]}"
    number = number.quantize(_NANO, rounding=ROUND_UP) if number != number.to_integral_value() else number
    digits = number.normalize()
    exponent = int(digits.as_tuple().exponent)
    power = max(-9, min(18, (exponent // 3) * 3))
    mantissa = digits.scaleb(-power)
    if mantissa != mantissa.to_integral_value():
        power -= 3
        mantissa = digits.scaleb(-power)
    if form == "exponent":
        return f"{int(mantissa)}e{power}" if power else str(int(mantissa))
    return f"{int(mantissa)}{_DECIMAL_NAMES[power]}"


def add(left: str, right: str) -> str:
    """Sum of two quantities, in the form of the larger part's notation."""
    (a, form_a), (b, form_b) = _split(left), _split(right)
    form = form_a if a != 0 else form_b
    return render(a + b, form)


def form_of(text: str) -> str:
    """The notation (decimal, binary, exponent) a quantity is written in."""
    return _split(text)[1]
