"""Writing copies: claim by lease → write → read back and hash → record, file by file; a dead worker's is taken over."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Collection
from datetime import timedelta

from django.db import transaction
from django.db.models import Q

from apps.catalogue import blobs, copies, events
from apps.catalogue.choices import JobStatus
from apps.catalogue.models import StoredCopy, VersionFile
from apps.catalogue.reading.base import Entry, Reader, WrongContent
from apps.catalogue.reading.hashing import Stopped
from apps.catalogue.reading.s3_writing import S3Writer
from apps.catalogue.stores import opened, place_of
from apps.clusters.errors import ClusterError
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.events import EventType

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
BEAT_SECONDS = 2.0
MAX_ATTEMPTS = 6
FIRST_WAIT = timedelta(seconds=15)
#: After so many seconds a worker gives others a turn, between two files.
SLICE_SECONDS = 600.0
SYSTEM = Actor.system("catalogue.copies")


def run_due() -> int:
    """Work on every copy that is due and not in somebody's hands; returns how many moved."""
    at = clock.now()
    due = Q(status=JobStatus.PENDING) & (Q(retry_at=None) | Q(retry_at__lte=at)) | Q(status=JobStatus.RUNNING)
    return sum(work(pk) for pk in list(StoredCopy.objects.filter(due).order_by("pk").values_list("pk", flat=True)[:20]))


def work(copy_id: int) -> int:
    """Work on one copy for at most a slice; returns 1 where it moved. Never inside a transaction."""
    uid = StoredCopy.objects.filter(pk=copy_id).values_list("uid", flat=True).first()
    name = f"catalogue.copy.{uid}"
    token = leases.claim(name, seconds=LEASE_SECONDS)
    if token is None:
        return 0
    hand = _Hand(copy_id, name, token)
    try:
        copy = hand.begin()
        if copy is None:
            return 0
        try:
            hand.copy(copy)
        except ClusterError as error:
            hand.fail(error)
        except Stopped:
            hand.pause()
        return 1
    except Conflict as conflict:
        # Cancelled, or taken over by another worker because this one was too slow: its results count.
        logger.info("a copy was given up", extra={"copy": str(uid), "why": conflict.message})
        return 1
    finally:
        leases.release(name, token)


class _Hand:
    """A worker's hold on a copy: all it records is refused once the copy or the lease is no longer its own."""

    def __init__(self, copy_id: int, name: str, token: uuid.UUID) -> None:
        self.copy_id, self.name, self.token = copy_id, name, token
        self.done_bytes = self.moved = 0
        self.began = self.beaten = time.monotonic()

    def _copy(self) -> StoredCopy:
        leases.require(self.name, self.token)
        copy = StoredCopy.objects.select_related("store").select_for_update(of=("self",)).get(pk=self.copy_id)
        if copy.status != JobStatus.RUNNING:
            raise Conflict(f"the copy is {copy.status}")
        return copy

    @transaction.atomic
    def begin(self) -> StoredCopy | None:
        """Mark the copy as running. None where it ended meanwhile."""
        copy = StoredCopy.objects.select_related("store").select_for_update(of=("self",)).get(pk=self.copy_id)
        if copy.status not in copies.OPEN:
            return None
        if why := copies.closed(copy, clock.now()):
            _end(copy, JobStatus.FAILED, why)
            return None
        taken_over = copy.status == JobStatus.RUNNING
        if taken_over and copy.attempts >= MAX_ATTEMPTS:
            _end(copy, JobStatus.FAILED, f"Workers ended {copy.attempts} times while copying: tell a platform admin.")
            return None
        copy.status = JobStatus.RUNNING
        # A slice that ended in good order is no attempt; a worker that died is.
        if taken_over or copy.retry_at is not None or copy.started_at is None:
            copy.attempts += 1
        copy.started_at = copy.started_at or clock.now()
        copy.beat_at, copy.retry_at = clock.now(), None
        copy.bump("status", "attempts", "started_at", "beat_at", "retry_at")
        return copy

    def copy(self, copy: StoredCopy) -> None:
        """Write what is missing, read everything back, and end the copy. Raises ClusterError, Stopped."""
        files = list(
            VersionFile.objects.filter(model_version_id=copy.model_version_id).select_related("blob").order_by("path")
        )
        # By code point, as `done_through` is compared: the database's collation is another order.
        files.sort(key=lambda file: file.path)
        self.done_bytes = sum(file.size for file in files if copy.done_through and file.path <= copy.done_through)
        with opened(copy.store, copy.location) as reader:
            there = {entry.path: entry for entry in reader.entries()}
            _only(there, {file.path for file in files}, copy.location)
            authority = getattr(getattr(reader, "session", None), "verify", "")
            ca_file = authority if isinstance(authority, str) else ""
            writer = S3Writer(place_of(copy.store, copy.location, "", ca_file))
            try:
                for file in files:
                    if copy.done_through and file.path <= copy.done_through:
                        continue
                    if time.monotonic() - self.began > SLICE_SECONDS:
                        raise Stopped
                    self._file(file, there.get(file.path), reader, writer)
            finally:
                writer.close()
            listed = {entry.path: entry.size for entry in reader.entries()}
        _only(listed, {file.path for file in files}, copy.location)
        if gone := sorted(file.path for file in files if listed.get(file.path) != file.size):
            raise WrongContent(f"“{gone[0]}” lay at {copy.location} and does no more: somebody writes there as well")
        self.finish()

    def _file(self, file: VersionFile, there: Entry | None, reader: Reader, writer: S3Writer) -> None:
        """Write one file unless it lies there already, read it back, and record it."""
        entry = Entry(file.path, file.size, key=writer.key_of(file.path))
        if there is None or there.size != file.size or self._read(reader, entry) != file.sha256:
            if file.blob is None:
                raise WrongContent(f"the portal has no bytes of “{file.path}”")
            try:
                source = blobs.open_blob(file.blob)
            except Conflict as conflict:
                raise WrongContent(f"“{file.path}”: {conflict.message}") from conflict
            with source:
                writer.put(file.path, source, file.size, file.sha256, self.moving)
            if self._read(reader, entry) != file.sha256:
                raise WrongContent(f"“{file.path}” was written, and the store gives other bytes than were sent")
        self.record(file)

    def _read(self, reader: Reader, entry: Entry) -> str:
        digest, size = hashlib.sha256(), 0
        with reader.open(entry) as pieces:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                if size > entry.size:
                    return ""
                self.moving(len(piece))
        return digest.hexdigest()

    def moving(self, count: int) -> None:
        """Count bytes on their way, and show every two seconds that this worker lives. Raises Conflict to stop."""
        self.moved += count
        if time.monotonic() - self.beaten < BEAT_SECONDS:
            return
        self.beaten = time.monotonic()
        held = leases.extend(self.name, self.token, seconds=LEASE_SECONDS)
        # Each byte is moved at least twice, there and back.
        so_far = self.done_bytes + self.moved // 2
        rows = StoredCopy.objects.filter(pk=self.copy_id, status=JobStatus.RUNNING)
        if not rows.update(bytes_done=so_far, beat_at=clock.now()) or not held:
            raise Conflict("it was cancelled, or another worker has it")

    @transaction.atomic
    def record(self, file: VersionFile) -> None:
        """Note that a file lies there, verified."""
        leases.extend(self.name, self.token, seconds=LEASE_SECONDS)
        copy = self._copy()
        self.done_bytes, self.moved = self.done_bytes + file.size, 0
        copy.files_done += 1
        copy.done_through, copy.bytes_done, copy.beat_at = file.path, self.done_bytes, clock.now()
        copy.bump("files_done", "done_through", "bytes_done", "beat_at")

    @transaction.atomic
    def finish(self) -> None:
        """End the copy: every file lies there, and nothing else."""
        copy = self._copy()
        copy.files_done, copy.bytes_done = copy.files_total, copy.bytes_total
        _end(copy, JobStatus.DONE, "")

    @transaction.atomic
    def fail(self, error: ClusterError) -> None:
        """Put off a failed attempt, or end the copy where another one would be in vain."""
        copy = self._copy()
        text = error.message[:1].upper() + error.message[1:] + "."
        if error.retryable and copy.attempts < MAX_ATTEMPTS:
            copy.status, copy.last_error = JobStatus.PENDING, text
            copy.retry_at = clock.now() + FIRST_WAIT * 2 ** (copy.attempts - 1)
            copy.bump("status", "last_error", "retry_at")
            return
        _end(copy, JobStatus.FAILED, text)

    @transaction.atomic
    def pause(self) -> None:
        """Lay the copy down between two slices, for whoever comes next."""
        copy = self._copy()
        copy.status = JobStatus.PENDING
        copy.bump("status")


def _only(there: Collection[str], wanted: set[str], location: str) -> None:
    """Raise WrongContent where something lies there that is not the version's: the cluster would load it as well."""
    strange = sorted(set(there) - wanted)
    if strange:
        raise WrongContent(f"“{strange[0]}” lies at {location} and is no file of this version: have it removed")


def _end(copy: StoredCopy, status: JobStatus, error: str) -> None:
    copy.status, copy.last_error, copy.finished_at, copy.retry_at = status, error, clock.now(), None
    copy.bump("status", "last_error", "finished_at", "retry_at", "files_done", "bytes_done")
    event: EventType = events.COPY_DONE if status == JobStatus.DONE else events.COPY_FAILED
    payload = copies.record(event, copy, SYSTEM, error)
    outbox.publish(event, payload, recipients=[copy.requested_by_id], subject_uid=copy.uid)
