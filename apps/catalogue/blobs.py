"""The content-addressed store: bytes under their SHA-256, kept once, looked at by the scanner before anybody gets them.

    received = blobs.receive(pieces, max_bytes=…)   # streams to disk, hashing on the way; no transaction
    blob = blobs.keep(received)                     # scans, publishes, writes the row; in a transaction of its own
    blobs.open_blob(blob), blobs.download(blob, name)

Layout: COMMONS_BLOB_DIR/ab/cd/<sha256>; `incoming/` holds what is on its way. A file appears under its digest by an
atomic rename, so a crash leaves either all of it or nothing; what stays in `incoming` is swept away after a day.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from django.conf import settings
from django.db import transaction
from django.http import FileResponse

from apps import audit
from apps.catalogue import events, scanner, sniffing
from apps.catalogue.choices import ScanStatus
from apps.catalogue.models import Blob
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid

PIECE = 1024 * 1024
#: What nobody finished is thrown away after so many seconds.
ABANDONED_SECONDS = 24 * 3600
_FOLDER_MODE, _FILE_MODE = 0o750, 0o640


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes that have arrived whole, still in `incoming`."""

    path: Path
    sha256: str
    size: int
    content_type: str
    #: Sent in pieces: kept where it is while the scanner is away, so that nobody has to send it again.
    in_pieces: bool = False

    def discard(self) -> None:
        """Throw the bytes away."""
        self.path.unlink(missing_ok=True)


def root() -> Path:
    """Return the folder of all bytes, made where it is missing."""
    folder = Path(settings.COMMONS_BLOB_DIR)
    (folder / "incoming").mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    return folder


def path_of(sha256: str) -> Path:
    """Return where the bytes of a digest are kept."""
    return root() / sha256[:2] / sha256[2:4] / sha256


def incoming(name: str) -> Path:
    """Return the place of something on its way; `name` is a uid of ours."""
    return root() / "incoming" / str(uuid.UUID(name))


def receive(
    pieces: Iterable[bytes],
    *,
    max_bytes: int | None = None,
    allowed: Collection[str] | None = None,
    field: str = "file",
) -> Received:
    """Write a stream to disk, hashing on the way. `allowed`: the content types taken, as found from the bytes.

    Raises Invalid (beside `field`) for too many bytes, none, or a type that is not allowed; then nothing stays behind.
    """
    limit = settings.COMMONS_UPLOAD_MAX_BYTES if max_bytes is None else max_bytes
    path = incoming(uuid.uuid4().hex)
    digest, size, head = hashlib.sha256(), 0, b""
    try:
        with path.open("xb") as out:
            os.chmod(path, _FILE_MODE)
            for piece in pieces:
                size += len(piece)
                if size > limit:
                    raise Invalid({field: f"The file is larger than {mib(limit)}."})
                if len(head) < sniffing.HEAD_BYTES:
                    head += piece[: sniffing.HEAD_BYTES - len(head)]
                digest.update(piece)
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        return _checked(Received(path, digest.hexdigest(), size, sniffing.sniff(head)), allowed, field)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def adopt(path: Path, *, allowed: Collection[str] | None = None, field: str = "file") -> Received:
    """Hash what was written to `incoming` piece by piece. Raises Invalid as `receive` does; the file stays then."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        head = file.read(sniffing.HEAD_BYTES)
        file.seek(0)
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
        os.fsync(file.fileno())
    return _checked(Received(path, digest.hexdigest(), size, sniffing.sniff(head), in_pieces=True), allowed, field)


def _checked(received: Received, allowed: Collection[str] | None, field: str) -> Received:
    if received.size == 0:
        raise Invalid({field: "The file is empty."})
    if allowed is not None and received.content_type not in allowed:
        kinds = ", ".join(sorted(allowed))
        raise Invalid({field: f"The file's bytes are {received.content_type}. What is taken here: {kinds}."})
    return received


def keep(received: Received, *, actor: Actor, field: str = "file") -> Blob:
    """Have the bytes scanned, publish them under their digest and return their row; the same bytes are kept once.

    Raises Invalid for an infected file (its digest is recorded, its bytes are gone), Conflict where the scanner is
    away: then nothing is taken. Call it outside transactions.
    """
    try:
        known = Blob.objects.filter(sha256=received.sha256).first()
        if known is not None and known.scan == ScanStatus.INFECTED:
            raise Invalid({field: f"The virus scanner refused this file before: {known.scan_detail}."})
        if (
            known is not None
            and path_of(known.sha256).exists()
            and (known.scan == ScanStatus.CLEAN or not scanner.configured())
        ):
            received.discard()
            return known
        status, detail = _scanned(received)
        blob = _published(received, status, detail, actor)
    except Conflict:
        if not received.in_pieces:
            received.discard()
        raise
    except BaseException:
        received.discard()
        raise
    received.discard()
    if blob.scan == ScanStatus.INFECTED:
        raise Invalid({field: f"The virus scanner found {blob.scan_detail} in this file: it is not kept."})
    return blob


def _scanned(received: Received) -> tuple[str, str]:
    if not scanner.configured():
        return ScanStatus.OFF, ""
    try:
        finding = scanner.scan(read(received.path))
    except scanner.ScannerAway as error:
        raise Conflict(f"The file could not be scanned, so it was not taken: {error}. Try again later.") from error
    return (ScanStatus.INFECTED, finding.signature) if finding.infected else (ScanStatus.CLEAN, "")


def _published(received: Received, status: str, detail: str, actor: Actor) -> Blob:
    target = path_of(received.sha256)
    if status != ScanStatus.INFECTED and not target.exists():
        target.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        os.replace(received.path, target)
        _sync(target.parent)
    with transaction.atomic():
        # Scanned again after the scanner came: what it says now counts.
        blob, _ = Blob.objects.update_or_create(
            sha256=received.sha256,
            defaults={
                "size": received.size,
                "content_type": received.content_type,
                "scan": status,
                "scanned_at": None if status == ScanStatus.OFF else clock.now(),
                "scan_detail": detail,
            },
        )
        if status == ScanStatus.INFECTED:
            audit.record(
                events.BLOB_REFUSED,
                events.BlobRefused(blob.sha256, blob.size, detail),
                actor=actor, subject_type="catalogue.blob", subject_uid=blob.uid,
            )  # fmt: skip
    if status == ScanStatus.INFECTED:
        target.unlink(missing_ok=True)
    return blob


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put(
    pieces: Iterable[bytes],
    *,
    actor: Actor,
    max_bytes: int | None = None,
    allowed: Collection[str] | None = None,
    field: str = "file",
) -> Blob:
    """Receive and keep in one step. Raises Invalid, Conflict as they do."""
    return keep(receive(pieces, max_bytes=max_bytes, allowed=allowed, field=field), actor=actor, field=field)


def read(path: Path) -> Iterator[bytes]:
    """Yield a file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def open_blob(blob: Blob) -> BinaryIO:
    """Open the bytes for reading. Raises Conflict where they are refused or missing."""
    if blob.scan == ScanStatus.INFECTED:
        raise Conflict("The virus scanner refused this file: its bytes are not kept.")
    try:
        return path_of(blob.sha256).open("rb")
    except FileNotFoundError as error:
        raise Conflict("The bytes of this file are missing in the portal's store. Tell a platform admin.") from error


def download(blob: Blob, file_name: str) -> FileResponse:
    """Return the bytes as an attachment that no browser opens or guesses the type of. Raises Conflict."""
    name = "".join(one if one.isprintable() and one not in '/\\"' else "_" for one in file_name)[-200:] or blob.sha256
    response = FileResponse(open_blob(blob), as_attachment=True, filename=name, content_type=sniffing.UNKNOWN)
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["Cache-Control"] = "no-store, private"
    response["Digest"] = f"sha-256={blob.sha256}"
    return response


def sweep_incoming(*, now: float | None = None) -> int:
    """Throw away what nobody finished within a day; returns how many files."""
    limit = (time.time() if now is None else now) - ABANDONED_SECONDS
    gone = 0
    for path in (root() / "incoming").iterdir():
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
                gone += 1
        except FileNotFoundError:
            continue  # finished or thrown away meanwhile
    return gone


def mib(size: int) -> str:
    """Write a number of bytes for people: 5 GiB, 12.5 MiB, 300 bytes."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} bytes"
