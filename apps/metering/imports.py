"""Reads a CSV of usage intervals: pure, no ORM. Every refused row is reported by line with its reason.

Columns (header line required; names in any case, `-` and space as `_`; aliases in `ALIASES`):

| column | meaning |
|---|---|
| workload | name of the job |
| namespace | where it ran: attributed through the workspace of that namespace, or an owner given with the import |
| gpus | whole number of units of the flavour, at least 1 |
| flavour | slug, name or GPU model of a flavour of the cluster; may be empty where the cluster has one only |
| start, end | ISO 8601 (without zone: UTC), or seconds since 1970; with an epoch: seconds after it |
| utilisation | optional, per cent of the GPUs in use, 0 to 100; empty: unknown |
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from apps.metering.source_stream import many_rows
from apps.metering.sources.base import ms

ALIASES: dict[str, tuple[str, ...]] = {
    "workload": ("workload", "job", "job_id", "jobid", "job_name", "name", "pod"),
    "namespace": ("namespace", "account", "project", "virtual_cluster", "vc", "team"),
    "gpus": ("gpus", "gpu", "gpu_count", "num_gpus", "units", "alloc_gpus"),
    "flavour": ("flavour", "flavor", "gpu_type", "gpu_model"),
    "start": ("start", "started", "start_time", "started_at"),
    "end": ("end", "ended", "end_time", "ended_at", "finish", "finished_at"),
    "utilisation": ("utilisation", "utilization", "util", "gpu_utilisation", "gpu_utilization", "gpu_util"),
}
REQUIRED = ("workload", "namespace", "gpus", "start", "end")
MAX_UNITS = 100_000
MAX_LENGTH = timedelta(days=366)
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, tzinfo=UTC)
_NUMBER = re.compile(r"-?\d{1,12}(\.\d+)?")


class Unusable(ValueError):
    """The file as a whole cannot be taken; the message says why and what to do."""


class RowError(ValueError):
    """One row cannot be taken."""


@dataclass(frozen=True, slots=True)
class Interval:
    """One row: `units` held in [start_ms, end_ms), milliseconds since the epoch; `used_permille` None: unknown."""

    line: int
    key: str
    workload: str
    namespace: str
    units: int
    flavour: str
    start_ms: int
    end_ms: int
    used_permille: int | None

    @property
    def gpu_ms(self) -> int:
        """Units × milliseconds."""
        return self.units * (self.end_ms - self.start_ms)


@dataclass(slots=True)
class Parsed:
    """What a file holds: good rows, and (line, reason) of the others."""

    intervals: list[Interval] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    rows: int = 0
    sha256: str = ""

    @property
    def start_ms(self) -> int:
        """The earliest start."""
        return min(interval.start_ms for interval in self.intervals)

    @property
    def end_ms(self) -> int:
        """The latest end."""
        return max(interval.end_ms for interval in self.intervals)


def parse(chunks: Iterable[bytes], *, now: datetime, epoch: datetime | None = None) -> Parsed:
    """Read a CSV file given in pieces of bytes; `epoch`: numbers in start and end count seconds from there.

    Raises Unusable where there is no header with the required columns or the file is not UTF-8 text.
    """
    with many_rows():
        return _parse(chunks, now, epoch)


def _parse(chunks: Iterable[bytes], now: datetime, epoch: datetime | None) -> Parsed:
    digest = hashlib.sha256()
    parsed = Parsed()
    try:
        reader = csv.reader(_lines(chunks, digest), strict=True)
        header = next(reader, None)
        columns = _columns(header or [])
        seen: dict[tuple[str, str, str, int], int] = {}
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                parsed.rows += 1
                parsed.errors.append((reader.line_num, f"not readable as CSV: {error}"))
                continue
            if row is None:
                break
            if not row or not any(cell.strip() for cell in row):
                continue
            parsed.rows += 1
            try:
                parsed.intervals.append(_interval(reader.line_num, row, columns, len(header or []), seen, now, epoch))
            except RowError as error:
                parsed.errors.append((reader.line_num, str(error)))
    except UnicodeDecodeError as error:
        raise Unusable("The file is not UTF-8 text. Save it as CSV with UTF-8 encoding.") from error
    parsed.sha256 = digest.hexdigest()
    return parsed


def _lines(chunks: Iterable[bytes], digest: hashlib._Hash) -> Iterator[str]:
    rest = b""
    first = True
    for chunk in chunks:
        digest.update(chunk)
        data = rest + chunk
        if b"\x00" in chunk:
            raise Unusable("The file holds binary data, not text. Save it as CSV with UTF-8 encoding.")
        *whole, rest = data.split(b"\n")
        if len(rest) > 1_000_000:
            raise Unusable("The file has a line of more than a million bytes: this is no CSV of usage intervals.")
        for line in whole:
            yield line.decode("utf-8-sig" if first else "utf-8") + "\n"
            first = False
    if rest:
        yield rest.decode("utf-8-sig" if first else "utf-8") + "\n"


def _columns(header: list[str]) -> dict[str, int]:
    names = [cell.strip().casefold().replace("-", "_").replace(" ", "_") for cell in header]
    columns: dict[str, int] = {}
    for column, aliases in ALIASES.items():
        found = [names.index(alias) for alias in aliases if alias in names]
        if found:
            columns[column] = found[0]
    if missing := [column for column in REQUIRED if column not in columns]:
        raise Unusable(f"The first line must name the columns {', '.join(REQUIRED)}; missing: {', '.join(missing)}.")
    return columns


def _interval(
    line: int,
    row: list[str],
    columns: dict[str, int],
    width: int,
    seen: dict[tuple[str, str, str, int], int],
    now: datetime,
    epoch: datetime | None,
) -> Interval:
    if len(row) != width:
        raise RowError(f"{len(row)} fields where the header has {width}")
    cells = {column: row[index].strip() for column, index in columns.items()}
    workload, namespace, flavour = cells["workload"], cells["namespace"], cells.get("flavour", "")
    for name, value, longest in (("workload", workload, 253), ("namespace", namespace, 120), ("flavour", flavour, 120)):
        if not value and name != "flavour":
            raise RowError(f"{name} is empty")
        if len(value) > longest:
            raise RowError(f"{name} is longer than {longest} characters")
    if not cells["gpus"].isdecimal() or not cells["gpus"].isascii() or not 1 <= int(cells["gpus"][:12]) <= MAX_UNITS:
        raise RowError(f"gpus must be a whole number from 1 to {MAX_UNITS}, not “{cells['gpus'][:40]}”")
    start, end = _time("start", cells["start"], epoch), _time("end", cells["end"], epoch)
    if end <= start:
        raise RowError("end must be after start")
    if end > ms(now):
        raise RowError("end lies in the future: import what has ended")
    if end - start > MAX_LENGTH // timedelta(milliseconds=1):
        raise RowError(f"longer than {MAX_LENGTH.days} days")
    identity = (workload, namespace, flavour, start)
    ordinal = seen.get(identity, 0)
    seen[identity] = ordinal + 1
    text = "\x1f".join((workload, namespace, flavour, str(start), str(ordinal)))
    return Interval(
        line=line,
        key=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        workload=workload,
        namespace=namespace,
        units=int(cells["gpus"]),
        flavour=flavour,
        start_ms=start,
        end_ms=end,
        used_permille=_permille(cells.get("utilisation", "")),
    )


def _time(name: str, text: str, epoch: datetime | None) -> int:
    if not text:
        raise RowError(f"{name} is empty")
    if _NUMBER.fullmatch(text):
        value = int(Decimal(text) * 1000) + (ms(epoch) if epoch else 0)
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise RowError(f"{name} is no ISO 8601 time and no number of seconds: “{text[:40]}”") from None
        value = ms(at if at.tzinfo else at.replace(tzinfo=UTC))
    if not ms(_FIRST) <= value <= ms(_LAST):
        raise RowError(f"{name} lies outside the years 2000 to 2199")
    return value


def _permille(text: str) -> int | None:
    if not text:
        return None
    try:
        value = Decimal(text.rstrip("% "))
    except InvalidOperation:
        raise RowError(f"utilisation is no percentage: “{text[:40]}”") from None
    if not value.is_finite() or not 0 <= value <= 100:
        raise RowError("utilisation must lie between 0 and 100 per cent, or be empty if unknown")
    return int(value * 10)


def describe(errors: list[tuple[int, str]], *, first: int = 50) -> list[str]:
    """Return the first errors as people read them, and how many more there are."""
    shown = [f"Line {line}: {reason}." for line, reason in errors[:first]]
    if len(errors) > first:
        shown.append(f"… and {len(errors) - first} more.")
    return shown
