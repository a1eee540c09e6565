"""Files of drafts: added from stored bytes, sent in pieces, taken away."""

from __future__ import annotations

import os
import uuid

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from apps import audit
from apps.catalogue import blobs, checking, events
from apps.catalogue.access import person
from apps.catalogue.choices import ScanStatus, Scheme
from apps.catalogue.models import Blob, ModelVersion, Upload, VersionFile
from apps.catalogue.version_actions import locked_draft, touch
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.events import EventType

MAX_FILES = 20_000
#: The largest piece that is taken at once.
MAX_PIECE = 16 * 1024 * 1024


@transaction.atomic
def add_file(
    version_id: int, path: str, blob_id: int, *, actor: Actor, expected_version: int | None = None
) -> VersionFile:
    """Give a draft a file whose bytes are stored; a file of the same path is replaced.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    version = _uploading(version_id, actor=actor, expected_version=expected_version)
    name = checking.file_path(path)
    blob = Blob.objects.filter(pk=blob_id).first()
    if blob is None:
        raise NotVisible
    if blob.scan == ScanStatus.INFECTED:
        raise Invalid({"file": f"The virus scanner refused this file: {blob.scan_detail}."})
    if version.files.exclude(path=name).count() >= MAX_FILES:
        raise Invalid({"file": f"A version has at most {MAX_FILES:,} files. Put them into a store instead."})
    version.files.filter(path=name).delete()
    file = VersionFile.objects.create(
        model_version=version, path=name, size=blob.size, sha256=blob.sha256, etag="", blob=blob
    )
    _total(version, actor)
    _record(events.FILE_ADDED, version, file, actor)
    return file


@transaction.atomic
def remove_file(version_id: int, file_id: int, *, actor: Actor, expected_version: int | None = None) -> ModelVersion:
    """Take a file away from a draft. Raises NotVisible, NotAllowed, Conflict."""
    version = locked_draft(version_id, actor=actor, expected_version=expected_version)
    file = version.files.filter(pk=file_id).first()
    if file is None:
        raise NotVisible
    _record(events.FILE_REMOVED, version, file, actor)
    file.delete()
    _total(version, actor)
    return version


@transaction.atomic
def begin_upload(version_id: int, path: str, size: int, *, actor: Actor) -> Upload:
    """Announce a file that comes in pieces; one of the same path and size begun before goes on where it stopped.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    version = _uploading(version_id, actor=actor)
    name = checking.file_path(path)
    if not 0 < size <= settings.COMMONS_UPLOAD_MAX_BYTES:
        limit = blobs.mib(settings.COMMONS_UPLOAD_MAX_BYTES)
        raise Invalid({"size": f"A file has 1 byte to {limit}. Larger ones belong into a store."})
    upload = Upload.objects.select_for_update().filter(model_version=version, path=name).first()
    if upload is not None and (upload.size != size or upload.author_id != actor.user_id):
        blobs.incoming(str(upload.uid)).unlink(missing_ok=True)
        upload.delete()
        upload = None
    if upload is None:
        upload = Upload.objects.create(model_version=version, path=name, size=size, author=person(actor))
    return upload


def append_piece(upload_uid: uuid.UUID, offset: int, piece: bytes, *, actor: Actor) -> Upload:
    """Write a piece at `offset`, which must be where the last one ended; sending one twice is harmless.

    Raises NotVisible, NotAllowed, Invalid (too large), Conflict with `received` where another offset is due.
    """
    if not piece or len(piece) > MAX_PIECE:
        raise Invalid({"piece": f"A piece has 1 byte to {blobs.mib(MAX_PIECE)}."})
    with transaction.atomic():
        upload = _own(upload_uid, actor)
        locked_draft(upload.model_version_id, actor=actor)
        path = blobs.incoming(str(upload.uid))
        if upload.received and not path.exists():  # swept away, or another machine's disk
            upload.received = 0
            upload.bump("received")
        if offset + len(piece) <= upload.received:
            return upload
        if offset != upload.received:
            raise Conflict("Another piece is due.", current={"received": upload.received})
        if offset + len(piece) > upload.size:
            raise Invalid({"piece": "More bytes than announced."})
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
        try:
            # What a crashed request wrote beyond the known end is written over.
            os.ftruncate(handle, offset)
            written = 0
            while written < len(piece):
                written += os.pwrite(handle, piece[written:], offset + written)
        finally:
            os.close(handle)
        upload.received = offset + len(piece)
        upload.bump("received")
        return upload


def finish_upload(upload_uid: uuid.UUID, *, actor: Actor, sha256: str = "") -> VersionFile:
    """Take the whole file: hash it, have it scanned, keep it and give it to the draft. `sha256`: as the sender says.

    Raises NotVisible, NotAllowed, Conflict (bytes missing, scanner away), Invalid (digest differs, infected).
    """
    with transaction.atomic():
        upload = _own(upload_uid, actor)
        if upload.received != upload.size:
            raise Conflict("Bytes are missing.", current={"received": upload.received, "size": upload.size})
    path = blobs.incoming(str(upload.uid))
    if not path.exists():
        raise Conflict("The bytes are gone: send the file again.", current={"received": 0})
    received = blobs.adopt(path)
    if sha256 and received.sha256 != sha256.lower():
        _drop(upload)
        raise Invalid({"sha256": f"What arrived has another digest ({received.sha256}). Send the file again."})
    try:
        blob = blobs.keep(received, actor=actor)
    except Invalid:
        _drop(upload)
        raise
    file = add_file(upload.model_version_id, upload.path, blob.pk, actor=actor)
    _drop(upload)
    return file


def _drop(upload: Upload) -> None:
    Upload.objects.filter(pk=upload.pk).delete()
    blobs.incoming(str(upload.uid)).unlink(missing_ok=True)


def _own(upload_uid: uuid.UUID, actor: Actor) -> Upload:
    """Return the actor's own upload, locked. Somebody else's is as good as none."""
    upload = Upload.objects.select_for_update().filter(uid=upload_uid, author_id=actor.user_id).first()
    if upload is None:
        raise NotVisible
    return upload


def _uploading(version_id: int, *, actor: Actor, expected_version: int | None = None) -> ModelVersion:
    version = locked_draft(version_id, actor=actor, expected_version=expected_version)
    if version.scheme != Scheme.UPLOAD:
        raise Invalid(
            {"file": f"This version's files are elsewhere ({version.get_scheme_display()}): hash them there."}
        )
    return version


def _total(version: ModelVersion, actor: Actor) -> None:
    version.total_bytes = version.files.aggregate(total=Sum("size"))["total"] or 0
    touch(version, actor, "total_bytes")


def _record(event: EventType, version: ModelVersion, file: VersionFile, actor: Actor) -> None:
    audit.record(
        event,
        events.FileEvent(version.uid, path=file.path, size=file.size, sha256=file.sha256),
        actor=actor, subject_type="catalogue.version", subject_uid=version.uid, team_uid=version.model.team.uid,
    )  # fmt: skip
