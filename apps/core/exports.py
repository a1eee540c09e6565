"""CSV and XLSX of any list. Written to a temporary file within the read transaction and streamed from there: one
state of the books, flat memory, an error is a page instead of half a file, and no transaction waits for a slow client.

Lists of millions of rows stream instead (`streamed_csv`): the first rows leave before the last are read.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import IO, Any

import xlsxwriter
from django.db import transaction
from django.http import FileResponse, StreamingHttpResponse
from django.utils.http import content_disposition_header

from apps.core import clock, formats, row_security
from apps.core.events import declare, private
from apps.core.money import Money

Cell = str | int | Decimal | date | datetime | None
FORMATS = ("csv", "xlsx")
#: Excel's own limit of rows in a sheet, header included.
XLSX_MAX_ROWS = 1_048_576
_SPOOL_BYTES, _PIECE_BYTES = 2 * 1024 * 1024, 32 * 1024
# A cell that begins so is run as a formula by spreadsheet programs (OWASP, "CSV injection").
_FORMULA = re.compile(r"^[=+\-@\t\r\n]")
# XML 1.0 has no place for these, and Excel refuses a file that holds them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class TooManyRows(Exception):
    """The list is longer than a file of this kind can be; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Payload of a room's export event: which list left the portal, as what, how many rows, filtered by what."""

    listing: str
    format: str
    rows: int
    query: str = private(default="")


#: What a list that declares no event of its own records when it leaves the portal as a file.
LIST_EXPORTED = declare("audit.list.exported", Exported, audience="auditors")


def neutralise(cell: Any) -> Cell:
    """Return a cell that no spreadsheet program runs as a formula; numbers and dates stay what they are.

    Text beginning with = + - @ tab or a line break gets an apostrophe before it. Money becomes its rounded amount.
    """
    if cell is None or isinstance(cell, bool):
        return None if cell is None else ("yes" if cell else "no")
    if isinstance(cell, Money):
        return cell.quantized().amount
    if isinstance(cell, int | Decimal | date):
        return cell
    text = _CONTROL.sub("", str(cell))
    return f"'{text}" if _FORMULA.match(text) else text


def _csv_cell(cell: Cell) -> str:
    if isinstance(cell, datetime):
        return formats.rfc3339(cell)
    if isinstance(cell, date):
        return cell.isoformat()
    return "" if cell is None else str(cell)


class Written(str):
    """A cell as it stands in a CSV file: made harmless already, by `written` or because it is a number."""

    __slots__ = ()


def written(cell: Any) -> Written:
    """Return a cell as it stands in a CSV file, for files of millions of rows in which the same cells come again."""
    return Written(_csv_cell(neutralise(cell)))


def csv_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield the lines of an RFC 4180 file (CRLF, header first); every cell is neutralised, times are RFC 3339."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for row in _with_header(header, rows):
        writer.writerow([cell if type(cell) is Written else _csv_cell(neutralise(cell)) for cell in row])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _with_header(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield header
    yield from rows


def write_csv(file: IO[bytes], header: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a CSV file as UTF-8 with a byte order mark (Excel reads it so) and return the number of rows."""
    file.write("\ufeff".encode())
    count = -1
    for line in csv_rows(header, rows):
        file.write(line.encode())
        count += 1
    return count


def write_xlsx(
    file: IO[bytes], header: Sequence[str], rows: Iterable[Sequence[Any]], *, created: datetime | None = None
) -> int:
    """Write one sheet in constant memory and return the number of rows. Raises TooManyRows beyond Excel's row limit.

    `created` is written into the file instead of now, so that the same rows give the same bytes.
    """
    book = xlsxwriter.Workbook(
        file,
        {"constant_memory": True, "remove_timezone": True, "strings_to_formulas": False, "strings_to_urls": False},
    )
    if created is not None:
        book.set_properties({"created": created.replace(tzinfo=None)})
    try:
        sheet = book.add_worksheet("Export")
        bold = book.add_format({"bold": True})
        moment_format = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        day_format = book.add_format({"num_format": "yyyy-mm-dd"})
        sheet.freeze_panes(1, 0)
        for column, title in enumerate(header):
            sheet.write_string(0, column, str(neutralise(title)), bold)
            sheet.set_column(column, column, max(12, min(40, len(title) + 4)))
        count = 0
        for row in rows:
            count += 1
            if count >= XLSX_MAX_ROWS:
                raise TooManyRows(f"a sheet holds {XLSX_MAX_ROWS - 1:,} rows at most: filter the list or take CSV")
            for column, raw in enumerate(row):
                cell = neutralise(raw)
                if cell is None:
                    continue
                if isinstance(cell, datetime):
                    sheet.write_datetime(count, column, cell, moment_format)
                elif isinstance(cell, date):
                    sheet.write_datetime(count, column, datetime(cell.year, cell.month, cell.day), day_format)  # noqa: DTZ001 (a day has no zone)
                elif isinstance(cell, int | Decimal) and -(10**15) < cell < 10**15:
                    sheet.write_number(count, column, cell)
                else:
                    sheet.write_string(count, column, str(cell))
    finally:
        book.close()
    return count


def export_response(
    name: str, kind: str, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> tuple[FileResponse, int]:
    """Return the file as a download `name-YYYY-MM-DD.kind` and its number of rows.

    Raises ValueError for another kind, TooManyRows for more rows than it holds.
    """
    if kind not in FORMATS:
        raise ValueError(f"exports are {' or '.join(FORMATS)}, not {kind!r}")
    file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 (closed by the response)
    count = (write_csv if kind == "csv" else write_xlsx)(file, header, rows)
    file.seek(0)
    content_type = (
        "text/csv; charset=utf-8"
        if kind == "csv"
        else "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    )
    filename = f"{name}-{formats.rfc3339(clock.now())[:10]}.{kind}"
    response = FileResponse(file, as_attachment=True, filename=filename, content_type=content_type)
    response["Cache-Control"] = "no-store"
    return response, count


def streamed_csv(
    name: str, header: Sequence[str], rows: Callable[[], Iterable[Sequence[Any]]], *, user_id: int | None
) -> StreamingHttpResponse:
    """Return a CSV download `name-YYYY-MM-DD.csv` that is read while it is sent, in constant memory.

    `rows` is called when sending begins, in a transaction of its own behind the person's wall; it should read a
    server-side cursor (`iterator()`), which is one state of the books. What fails on the way breaks the transfer off,
    which the client is told by the missing last chunk. A client that takes nothing for a minute is given up by the
    database (`idle_in_transaction_session_timeout`), so that none holds a transaction for long.
    """
    filename = f"{name}-{formats.rfc3339(clock.now())[:10]}.csv"
    return StreamingHttpResponse(
        _pieces(header, rows, user_id),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": content_disposition_header(True, filename) or "", "Cache-Control": "no-store"},
    )


def _pieces(header: Sequence[str], rows: Callable[[], Iterable[Sequence[Any]]], user_id: int | None) -> Iterator[bytes]:
    """Yield the file in pieces of some size: a piece a row would be a packet a row."""
    piece, size = ["\ufeff"], 0
    with row_security.walled(user_id), transaction.atomic():
        for line in csv_rows(header, rows()):
            piece.append(line)
            size += len(line)
            if size >= _PIECE_BYTES:
                yield "".join(piece).encode()
                piece, size = [], 0
    yield "".join(piece).encode()


__all__ = [
    "Cell",
    "Exported",
    "TooManyRows",
    "Written",
    "csv_rows",
    "export_response",
    "neutralise",
    "streamed_csv",
    "write_csv",
    "write_xlsx",
    "written",
]
