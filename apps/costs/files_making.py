"""Makes queued files: reads closed months only, so that it may be done twice, at any time, with the same result."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from django.db import transaction

from apps.core.exports import TooManyRows, write_csv, write_xlsx
from apps.costs import files, files_pdf, files_rows, focus, journal, journal_books
from apps.costs.choices import FileKind, PeriodStatus
from apps.costs.models import Period, StatementFile

logger = logging.getLogger(__name__)
_SPOOL_BYTES = 8 * 1024 * 1024
#: Rows between two signs of life.
_STEP = 5000


class _OpenedAgain(Exception):
    """The month of a file is not closed any more."""


class _Digest(io.RawIOBase):
    """Passes bytes on and keeps their SHA-256 and number."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._sha, self.size = target, hashlib.sha256(), 0

    def writable(self) -> bool:
        """It is written to only."""
        return True

    def write(self, data: Any) -> int:
        """Count, hash and pass on."""
        chunk = bytes(data)
        self._sha.update(chunk)
        self.size += len(chunk)
        self._target.write(chunk)
        return len(chunk)

    @property
    def sha256(self) -> str:
        """The digest so far, in hexadecimal."""
        return self._sha.hexdigest()


def make_due() -> int:
    """Make the files that are due; returns how many were made or failed."""
    return sum(make(file_id) for file_id in files.due())


def make(file_id: int) -> bool:
    """Make one file; False where another worker has it or nothing is left to do.

    What cannot be made says why and waits for somebody to try again; it never stops the others.
    """
    row = files.claim(file_id)
    if row is None:
        return False
    try:
        _still_closed(row)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            sha256, size, report = _write(row, spool)
            spool.seek(0)
            body = spool.read()
        _still_closed(row)
        return files.finish(row, body, sha256, size, report)
    except journal.Incomplete as error:
        message = "The journal cannot be written before this is set: " + "; ".join(error.missing) + "."
    except (_OpenedAgain, files_pdf.Unavailable, TooManyRows) as error:
        message = str(error)
    except Exception as error:
        logger.exception("a file could not be made", extra={"file": str(row.uid), "kind": row.kind})
        message = (
            f"It could not be made ({type(error).__name__}). Try again; if it fails again, ask the platform admins."
        )
    with transaction.atomic():
        files.fail(row, message)
    return True


def _still_closed(row: StatementFile) -> None:
    """Raise _OpenedAgain where a month's file was read while the month was opened again: it has no statements then."""
    if (
        row.statement is None
        and not Period.objects.filter(pk=row.period_id, digest=row.period.digest, status=PeriodStatus.CLOSED).exists()
    ):
        raise _OpenedAgain(
            f"{row.period.month:%B %Y} was opened again before this file was made. Ask for it once the month is closed."
        )


def _write(row: StatementFile, spool: IO[bytes]) -> tuple[str, int, dict[str, Any]]:
    """Write the file's bytes (compressed where kept so) and return SHA-256, size and report of the plain file."""
    if row.kind not in files.COMPRESSED:
        plain = io.BytesIO()
        report = _content(row, plain)
        body = plain.getvalue()
        spool.write(body)
        return hashlib.sha256(body).hexdigest(), len(body), report
    with gzip.GzipFile(fileobj=spool, mode="wb", mtime=0) as packed:
        digest = _Digest(packed)  # type: ignore[arg-type]  # a gzip file is IO[bytes]
        buffered = io.BufferedWriter(digest, 1 << 16)
        report = _content(row, buffered)
        buffered.flush()
    return digest.sha256, digest.size, report


def _content(row: StatementFile, file: Any) -> dict[str, Any]:
    if row.kind == FileKind.FOCUS:
        return focus.write(row.period, file, progress=lambda done, total: files.progress(row, done, total))
    if row.kind == FileKind.PDF:
        if row.statement is None:
            raise ValueError("a PDF is of one statement")
        files.progress(row, 0, row.statement.line_count)
        file.write(files_pdf.render(row.statement))
        return {}
    if row.kind == FileKind.JOURNAL:
        found = journal_books.rows_of(row.period)
        write_csv(file, journal.HEADER, found)
        return {"rows": len(found)}
    if row.kind == FileKind.XLSX:
        created = row.statement.issued_at if row.statement is not None else row.period.closed_at
        return {"rows": write_xlsx(file, files_rows.HEADER, _cells(row), created=created or row.period.end)}
    return {"rows": write_csv(file, files_rows.HEADER, _cells(row))}


def _cells(row: StatementFile) -> Iterator[list[Any]]:
    total = files_rows.lines_of(row.period, row.statement).count()
    files.progress(row, 0, total)
    for done, one in enumerate(files_rows.rows(row.period, row.statement), start=1):
        if done % _STEP == 0:
            files.progress(row, done, total)
        yield one.cells


def opened(row: StatementFile) -> IO[bytes]:
    """Return a finished file's plain bytes, for reading in pieces."""
    body = io.BytesIO(bytes(row.body or b""))
    return gzip.GzipFile(fileobj=body, mode="rb") if row.kind in files.COMPRESSED else body  # type: ignore[return-value]  # IO[bytes]
