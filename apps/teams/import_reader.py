"""Reads CSV files of people, units, teams, memberships and roles: pure, one result or complaint per row."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

#: Per kind: the columns that must be there, and those that may.
COLUMNS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "people": (("email", "display_name"), ()),
    "units": (("slug", "name"), ("parent", "cost_centre")),
    "teams": (("slug", "name", "unit", "cost_centre"), ()),
    "memberships": (("email", "team"), ("since", "until")),
    "roles": (("email", "role", "reason"), ("unit", "team", "starts_at", "expires_at")),
}
TIMES: Final = frozenset({"since", "until", "starts_at", "expires_at"})
MAX_ROWS, MAX_BYTES = 1000, 512 * 1024


class Unreadable(Exception):
    """The file as a whole cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its number in the file (the header is line 1), its cells by column, and what is wrong with them."""

    number: int
    cells: dict[str, str]
    times: dict[str, datetime] = field(default_factory=dict)
    errors: tuple[str, ...] = ()

    def time(self, name: str) -> datetime | None:
        """Return the moment in a column, None where it is empty."""
        return self.times.get(name)


def decoded(data: bytes) -> str:
    """Return a file's text (UTF-8, with or without a byte order mark). Raises Unreadable."""
    if len(data) > MAX_BYTES:
        raise Unreadable(f"The file is larger than {MAX_BYTES // 1024} KiB: split it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("The file is not UTF-8 text: save it as “CSV UTF-8”.") from error


def read(kind: str, text: str) -> list[Line]:
    """Return the rows of a file, empty ones left out. Raises Unreadable for a wrong header or too many rows."""
    if "\x00" in text:
        raise Unreadable("The file holds bytes that are no text.")
    if len(text.encode()) > MAX_BYTES:
        raise Unreadable(f"The file is larger than {MAX_BYTES // 1024} KiB: split it.")
    required, optional = COLUMNS[kind]
    first = text.lstrip("\r\n").partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise Unreadable(f"Line {reader.line_num} cannot be read: {error}.") from error
    if not rows:
        raise Unreadable("The file is empty.")
    header = [cell.strip().casefold() for cell in rows[0][1]]
    if missing := [name for name in required if name not in header]:
        raise Unreadable(f"The header lacks {', '.join(missing)}.")
    if unknown := [name for name in header if name not in (*required, *optional)]:
        raise Unreadable(f"Unknown columns: {', '.join(name[:40] or 'one without a name' for name in unknown)}.")
    if len(set(header)) != len(header):
        raise Unreadable("A column stands twice in the header.")
    if len(rows) - 1 > MAX_ROWS:
        raise Unreadable(f"The file has more than {MAX_ROWS} rows: split it.")
    if len(rows) == 1:
        raise Unreadable("The file has a header and no rows.")
    return [_line(number, header, row, required) for number, row in rows[1:]]


def _line(number: int, header: list[str], row: list[str], required: tuple[str, ...]) -> Line:
    errors: list[str] = []
    if len(row) > len(header):
        errors.append("More cells than the header has columns.")
    cells = {name: (row[index].strip() if index < len(row) else "") for index, name in enumerate(header)}
    errors += [f"{name}: enter a value." for name in required if not cells[name]]
    times: dict[str, datetime] = {}
    for name in TIMES & set(header):
        if not cells[name]:
            continue
        try:
            found = datetime.fromisoformat(cells[name])
        except ValueError:
            errors.append(f"{name}: write a time as 2026-12-01T08:00Z, or a day as 2026-12-01.")
            continue
        times[name] = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return Line(number, cells, times, tuple(sorted(errors)))
