"""Hashing jobs: claim by lease → read and hash → record. Resumable by file; a killed worker's job is taken over."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import Q, Sum
from django.urls import reverse

from apps import audit
from apps.catalogue import events
from apps.catalogue.access import EDIT, locked_version
from apps.catalogue.choices import VERSION_TRANSITIONS, JobStatus, Scheme, VersionStatus
from apps.catalogue.models import HashJob, ModelVersion, VersionFile
from apps.catalogue.reading.base import Entry
from apps.catalogue.reading.hashing import Hashed, Stopped, hash_files
from apps.catalogue.stores import opened
from apps.catalogue.version_actions import locked_draft, touch
from apps.clusters.errors import ClusterError
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.events import EventType
from apps.core.sweeps import nudge

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
BEAT_SECONDS = 2.0
MAX_ATTEMPTS = 6
FIRST_WAIT = timedelta(seconds=15)
#: After so many seconds a worker gives others a turn, between two files.
SLICE_SECONDS = 600.0
OPEN = (JobStatus.PENDING, JobStatus.RUNNING)
SYSTEM = "catalogue.hashing"


@transaction.atomic
def start_hashing(version_id: int, *, actor: Actor, expected_version: int | None = None) -> HashJob:
    """Have a draft's files hashed where they are. Files that were hashed and have not changed are not read again.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    version = locked_draft(version_id, actor=actor, expected_version=expected_version)
    if version.scheme == Scheme.UPLOAD:
        raise Invalid({"": "Uploaded files are hashed as they arrive."})
    errors: dict[str, str] = {}
    if version.store is None:
        errors["store"] = "Choose the store that its files are read from."
    elif version.store.archived_at is not None:
        errors["store"] = f"{version.store} is archived: choose another store."
    if version.scheme in (Scheme.OCI, Scheme.HF) and not version.revision:
        errors["revision"] = "Name the revision first: a digest (OCI) or a commit (Hugging Face)."
    if errors:
        raise Invalid(errors)
    version.status = VERSION_TRANSITIONS.next(version.status, "hash")
    touch(version, actor, "status")
    job = HashJob.objects.create(model_version=version, requested_by_id=actor.user_id or version.author_id)
    _record(events.HASHING_STARTED, job, version, actor)
    _nudge()
    return job


@transaction.atomic
def cancel_hashing(job_id: int, *, actor: Actor, expected_version: int | None = None) -> HashJob:
    """Stop hashing; files that are done keep their digests. Raises NotVisible, NotAllowed, Conflict."""
    found = HashJob.objects.filter(pk=job_id).values_list("model_version_id", flat=True).first()
    version = locked_version(found or 0, EDIT, actor=actor)
    job = HashJob.objects.locked(job_id, expected_version=expected_version)
    if job.status not in OPEN:
        raise Conflict(f"This is {job.get_status_display().lower()}: there is nothing to cancel.")
    _end(job, version, JobStatus.CANCELLED, "cancel", "")
    _record(events.HASHING_CANCELLED, job, version, actor)
    return job


def run_due() -> int:
    """Work on every job that is due and not in somebody's hands; returns how many moved."""
    at = clock.now()
    due = Q(status=JobStatus.PENDING) & (Q(retry_at=None) | Q(retry_at__lte=at)) | Q(status=JobStatus.RUNNING)
    return sum(work(pk) for pk in list(HashJob.objects.filter(due).order_by("pk").values_list("pk", flat=True)[:20]))


def work(job_id: int) -> int:
    """Work on one job for at most a slice; returns 1 where it moved. Never inside a transaction."""
    uid = HashJob.objects.filter(pk=job_id).values_list("uid", flat=True).first()
    name = f"catalogue.hash.{uid}"
    token = leases.claim(name, seconds=LEASE_SECONDS)
    if token is None:
        return 0
    hand = _Hand(job_id, name, token)
    try:
        version = hand.begin()
        if version is None:
            return 0
        try:
            hand.hash(version)
        except ClusterError as error:
            hand.fail(error)
        except Stopped:
            hand.pause()
        return 1
    except Conflict as conflict:
        # Cancelled, or taken over by another worker because this one was too slow: its results count.
        logger.info("hashing was given up", extra={"job": str(uid), "why": conflict.message})
        return 1
    finally:
        leases.release(name, token)


class _Hand:
    """A worker's hold on a job: everything it records is refused once the job or the lease is no longer its own."""

    def __init__(self, job_id: int, name: str, token: uuid.UUID) -> None:
        self.job_id, self.name, self.token = job_id, name, token
        self.before = 0
        self.began = time.monotonic()

    def _job(self) -> HashJob:
        leases.require(self.name, self.token)
        job = HashJob.objects.select_for_update().get(pk=self.job_id)
        if job.status != JobStatus.RUNNING:
            raise Conflict(f"the job is {job.status}")
        return job

    @transaction.atomic
    def begin(self) -> ModelVersion | None:
        """Mark the job as running. None where it ended meanwhile."""
        job = HashJob.objects.select_for_update().get(pk=self.job_id)
        if job.status not in OPEN:
            return None
        taken_over = job.status == JobStatus.RUNNING
        if taken_over and job.attempts >= MAX_ATTEMPTS:
            version = ModelVersion.objects.select_related("model__team").locked(job.model_version_id)
            text = f"Workers ended {job.attempts} times while hashing: tell a platform admin."
            _end(job, version, JobStatus.FAILED, "fail", text)
            _tell(events.HASHING_FAILED, job, version, text)
            return None
        job.status = JobStatus.RUNNING
        # A slice that ended in good order is no attempt; a worker that died is.
        if taken_over or job.retry_at is not None or job.started_at is None:
            job.attempts += 1
        job.started_at = job.started_at or clock.now()
        job.beat_at, job.retry_at = clock.now(), None
        job.bump("status", "attempts", "started_at", "beat_at", "retry_at")
        return ModelVersion.objects.select_related("model__team", "store").get(pk=job.model_version_id)

    def hash(self, version: ModelVersion) -> None:
        """List, hash what is new or changed, record file by file, and end the job. Raises ClusterError, Stopped."""
        if version.store is None:
            raise Conflict("the draft has no store")
        with opened(version.store, version.location, version.revision) as reader:
            listed = reader.entries()
            self.extend()
            waiting = self.list(listed)
            hash_files(reader, waiting, on_file=self.file, on_beat=self.beat, beat_seconds=BEAT_SECONDS)
            self.finish(listed)

    @transaction.atomic
    def list(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write down what is there; return what has to be read. What is hashed and unchanged stays as it is."""
        job = self._job()
        known = {file.path: file for file in VersionFile.objects.filter(model_version_id=job.model_version_id)}
        paths = {entry.path for entry in entries}
        VersionFile.objects.filter(pk__in=[file.pk for path, file in known.items() if path not in paths]).delete()
        added, done, waiting = [], 0, []
        done_bytes = 0
        for entry in entries:
            file = known.get(entry.path)
            digest = entry.sha256
            if file is not None:
                if file.sha256 and (file.size, file.etag) == (entry.size, entry.etag):
                    digest = file.sha256
                elif (file.size, file.etag, file.sha256) != (entry.size, entry.etag, digest):
                    file.size, file.etag, file.sha256 = entry.size, entry.etag, digest
                    file.save(update_fields=["size", "etag", "sha256"])
            else:
                added.append(
                    VersionFile(
                        model_version_id=job.model_version_id, path=entry.path, size=entry.size, etag=entry.etag,
                        sha256=digest,
                    )
                )  # fmt: skip
            if digest:
                done, done_bytes = done + 1, done_bytes + entry.size
            else:
                waiting.append(entry)
        VersionFile.objects.bulk_create(added, batch_size=1000)
        if not entries:
            raise _Nothing
        job.files_total, job.files_done = len(entries), done
        job.bytes_total, job.bytes_done = sum(entry.size for entry in entries), done_bytes
        job.beat_at = clock.now()
        job.bump("files_total", "files_done", "bytes_total", "bytes_done", "beat_at")
        self.before = done_bytes
        return waiting

    @transaction.atomic
    def file(self, hashed: Hashed) -> None:
        """Record one file."""
        job = self._job()
        entry = hashed.entry
        VersionFile.objects.filter(model_version_id=job.model_version_id, path=entry.path).update(
            sha256=hashed.sha256, size=entry.size, etag=entry.etag
        )
        job.files_done += 1
        job.beat_at = clock.now()
        job.bump("files_done", "beat_at")

    def may_begin(self) -> bool:
        """Whether the slice has time left for another file."""
        return time.monotonic() - self.began <= SLICE_SECONDS

    def beat(self, read: int) -> bool:
        """Say that this worker lives and how far it is. False: stop (cancelled, or taken over)."""
        at = clock.now()
        held = self.extend()
        moved = HashJob.objects.filter(pk=self.job_id, status=JobStatus.RUNNING).update(
            bytes_done=self.before + read, beat_at=at
        )
        return held and bool(moved)

    def extend(self) -> bool:
        """Keep the lease."""
        return leases.extend(self.name, self.token, seconds=LEASE_SECONDS)

    @transaction.atomic
    def finish(self, listed: Sequence[Entry]) -> None:
        """End the job: every file has its digest."""
        job = self._job()
        version = ModelVersion.objects.select_related("model__team").locked(job.model_version_id)
        if version.files.filter(sha256="").exists():
            raise Conflict("a file is missing its digest")
        version.total_bytes = version.files.aggregate(total=Sum("size"))["total"] or 0
        version.save(update_fields=["total_bytes"])
        job.bytes_done = job.bytes_total or 0
        job.files_done = job.files_total or 0
        _end(job, version, JobStatus.DONE, "done", "")
        _tell(events.HASHING_DONE, job, version)

    @transaction.atomic
    def fail(self, error: ClusterError) -> None:
        """Put off a failed attempt, or end the job where another one would be in vain."""
        job = self._job()
        text = error.message[:1].upper() + error.message[1:] + "."
        if error.retryable and job.attempts < MAX_ATTEMPTS:
            job.status, job.last_error = JobStatus.PENDING, text
            job.retry_at = clock.now() + FIRST_WAIT * 2 ** (job.attempts - 1)
            job.bump("status", "last_error", "retry_at")
            return
        version = ModelVersion.objects.select_related("model__team").locked(job.model_version_id)
        _end(job, version, JobStatus.FAILED, "fail", text)
        _tell(events.HASHING_FAILED, job, version, text)

    @transaction.atomic
    def pause(self) -> None:
        """Lay the job down between two slices, for whoever comes next."""
        job = self._job()
        job.status = JobStatus.PENDING
        job.bump("status")
        _nudge()


class _Nothing(ClusterError):
    """The location is empty."""

    code = "nothing"
    retryable = False

    def __init__(self) -> None:
        super().__init__("nothing lies at this location: check its spelling")


def _end(job: HashJob, version: ModelVersion, status: str, action: str, error: str) -> None:
    job.status, job.last_error, job.finished_at, job.retry_at = status, error, clock.now(), None
    job.bump("status", "last_error", "finished_at", "retry_at", "bytes_done", "files_done")
    if version.status == VersionStatus.HASHING:
        version.status = VERSION_TRANSITIONS.next(version.status, action)
        version.bump("status")


def _tell(event: EventType, job: HashJob, version: ModelVersion, why: str = "") -> None:
    payload = _record(event, job, version, Actor.system(SYSTEM), why)
    outbox.publish(event, payload, recipients=[job.requested_by_id], subject_uid=version.uid)


def _record(event: EventType, job: HashJob, version: ModelVersion, actor: Actor, why: str = "") -> events.HashJobEvent:
    payload = events.HashJobEvent(
        job.uid, version.uid, job.status, job.files_done, job.bytes_done, job.attempts,
        path=reverse("catalogue:version-detail", kwargs={"version_uid": version.uid}), label=version.label,
        model_name=version.model.name, reason=why,
    )  # fmt: skip
    audit.record(
        event, payload, actor=actor, subject_type="catalogue.version", subject_uid=version.uid,
        team_uid=version.model.team.uid,
    )  # fmt: skip
    return payload


def _nudge() -> None:
    from apps.catalogue.core_tasks import hash_versions

    nudge(hash_versions)
