"""Reads the lines of an invoice from CSV. Pure, no ORM: every wrong line is told by its number, and none is taken then.

Columns (header line required, names in any case): `amount` (a number with a point, at most six decimals; a credit is
negative), `currency` (the ledger's on every line), `description` and `day` (yyyy-mm-dd within the month) optional.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

MAX_BYTES = 1024 * 1024
MAX_LINES = 20_000
MAX_ERRORS = 50
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "day": ("day", "date", "usage_date", "charge_date"),
    "description": ("description", "item", "service", "text"),
    "amount": ("amount", "cost", "billed_cost", "billedcost", "total"),
    "currency": ("currency", "billing_currency", "billingcurrency"),
}
REQUIRED = ("amount", "currency")
_AMOUNT = re.compile(r"[+-]?\d{1,14}(\.\d{1,6})?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class Unusable(ValueError):
    """The file as a whole cannot be taken; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice; `day` None: of the month as a whole."""

    number: int
    day: date | None
    description: str
    amount: Decimal


@dataclass(slots=True)
class Parsed:
    """What a file holds: its lines, or what is wrong with them as (line, reason)."""

    sha256: str
    lines: list[Line] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)

    @property
    def total(self) -> Decimal:
        """The sum of the lines, exact."""
        return sum((line.amount for line in self.lines), Decimal(0))


def parse(content: bytes, month: date, currency: str) -> Parsed:
    """Read a file for a month (its first day) in the ledger currency. Raises Unusable for what is no such file."""
    if len(content) > MAX_BYTES:
        raise Unusable(f"The file is larger than {MAX_BYTES // 1024:,} KiB: import it in parts.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable("The file is no UTF-8 text. Save it as CSV (UTF-8).") from error
    if "\0" in text:
        raise Unusable("The file is no text. Save it as CSV (UTF-8).")
    reader = csv.reader(text.splitlines(), strict=True)
    parsed = Parsed(hashlib.sha256(content).hexdigest())
    places: dict[str, int] | None = None
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if places is None:
                places = _header(row)
                continue
            if len(parsed.lines) >= MAX_LINES:
                raise Unusable(f"The file has more than {MAX_LINES:,} lines: import it in parts.")
            _take(parsed, reader.line_num, row, places, month, currency)
            if len(parsed.errors) >= MAX_ERRORS:
                break
    except csv.Error as error:
        raise Unusable(f"Line {reader.line_num} is no CSV: {error}.") from error
    if places is None:
        raise Unusable("The file is empty. It begins with a header line that names the columns.")
    if not parsed.lines and not parsed.errors:
        raise Unusable("The file has a header and no lines.")
    return parsed


def _header(row: list[str]) -> dict[str, int]:
    names = [cell.strip().lower().replace(" ", "_").replace("-", "_") for cell in row]
    places: dict[str, int] = {}
    for column, aliases in COLUMNS.items():
        found = [index for index, name in enumerate(names) if name in aliases]
        if len(found) > 1:
            raise Unusable(f"The header names the column {column} twice.")
        if found:
            places[column] = found[0]
    if missing := [column for column in REQUIRED if column not in places]:
        raise Unusable(f"The header names no column {' and no column '.join(missing)}.")
    return places


def _take(parsed: Parsed, number: int, row: list[str], places: Mapping[str, int], month: date, currency: str) -> None:
    """Read one line, or note why it cannot be taken."""

    def cell(column: str) -> str:
        place = places.get(column)
        return row[place].strip() if place is not None and place < len(row) else ""

    reasons = []
    amount, day = cell("amount"), cell("day")
    if not _AMOUNT.fullmatch(amount):
        reasons.append(f"“{amount[:40]}” is no amount; write it like 1234.56, with six decimals at most")
    if cell("currency").upper() != currency:
        reasons.append(f"the currency is “{cell('currency')[:10]}”; this ledger is kept in {currency}")
    read: date | None = None
    if day:
        try:
            read = date.fromisoformat(day) if _DAY.fullmatch(day) else None
        except ValueError:
            read = None
        if read is None:
            reasons.append(f"“{day[:40]}” is no day; write it like {month:%Y-%m}-09")
        elif read.replace(day=1) != month:
            reasons.append(f"{day} lies outside {month:%Y-%m}")
    if len(cell("description")) > 300:
        reasons.append("the description is longer than 300 characters")
    if reasons:
        parsed.errors.append((number, "; ".join(reasons)))
    else:
        parsed.lines.append(Line(number, read, cell("description"), Decimal(amount)))
