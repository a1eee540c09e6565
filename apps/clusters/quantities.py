"""Kubernetes quantities as exact numbers ("500m", "2Ti", "1e3"): pure, no client library."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_SUFFIXES = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15, "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30, "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50, "Ei": Decimal(2) ** 60,
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))((?:[eE][+-]?\d{1,2})|[numkMGTPE]|[KMGTPE]i)?")


def parse(value: object) -> Decimal:
    """Return a quantity's number (bytes, cores, counts). Raises ValueError for what is none.

    Grammar: apimachinery `resource.Quantity` (decimal and binary suffixes, decimal exponents).
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"{value!r} is no quantity")
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is no quantity")
    number, suffix = match.group(1), match.group(2) or ""
    try:
        if suffix[:1] in ("e", "E") and suffix not in _SUFFIXES:
            return Decimal(number + suffix)
        return Decimal(number) * _SUFFIXES[suffix]
    except InvalidOperation as error:  # pragma: no cover (the pattern admits only numbers)
        raise ValueError(f"{value!r} is no quantity") from error


def same(one: object, other: object) -> bool:
    """Whether two values are the same quantity however written; False where one is none."""
    try:
        return parse(one) == parse(other)
    except ValueError:
        return False
