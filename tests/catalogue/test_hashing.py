"""Hashing jobs: lease, progress, cancel, retry, take-over; nothing finished is read twice, nothing late is written."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.catalogue import actions, hash_jobs, selectors
from apps.catalogue.choices import JobStatus, VersionStatus
from apps.catalogue.models import HashJob, Model, ModelVersion
from apps.catalogue.reading import hashing
from apps.catalogue.reading.base import Changed, Entry, WrongContent
from apps.catalogue.reading.hashing import Hashed, Stopped, hash_files
from apps.clusters import crypto
from apps.clusters.errors import Unreachable
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import Lease, OutboxMessage
from apps.core.testing import settle
from tests.catalogue import doubles
from tests.catalogue.world import make_store, make_version

FILES = {"a.bin": b"a" * 1_500_000, "b.bin": b"b" * 10, "c/d.bin": b"d"}
KEYS = '{"access_key": "test-access", "secret_key": "test-secret"}'


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Shelf:
    """A reader of what is in memory; `trouble(path)` may raise."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.read, self.closed = files, list[str](), False
        self.trouble: Any = lambda path, piece: None

    def entries(self) -> list[Entry]:
        return [Entry(path, len(data), sha(data)[:8], key=path) for path, data in sorted(self.files.items())]

    @contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        self.read.append(entry.path)

        def pieces() -> Iterator[bytes]:
            data = self.files[entry.path]
            for start in range(0, len(data), 4096):
                self.trouble(entry.path, start // 4096)
                yield data[start : start + 4096]

        yield pieces()

    def probe(self) -> str:
        return "fine"

    def close(self) -> None:
        self.closed = True


# ---------------------------------------------------------------- the engine


@pytest.mark.requirement("catalogue-4.1")
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=4), st.binary(max_size=20_000), max_size=8), st.integers(1, 5)
)
def test_every_file_gets_its_own_digest(files: dict[str, bytes], parallel: int) -> None:
    found: dict[str, str] = {}
    shelf = Shelf(files)
    hash_files(
        shelf, shelf.entries(), on_file=lambda one: found.update({one.entry.path: one.sha256}),
        on_beat=lambda read: True, parallel=parallel,
    )  # fmt: skip
    assert found == {path: sha(data) for path, data in files.items()}


@pytest.mark.requirement("catalogue-4.3")
def test_one_failure_lets_others_finish_and_begins_no_more() -> None:
    files = {f"{index:02}": bytes([index]) * 9000 for index in range(20)}
    shelf = Shelf(files)

    def trouble(path: str, piece: int) -> None:
        if path == "00":
            raise Unreachable("cable cut")

    shelf.trouble = trouble
    done: list[Hashed] = []
    with pytest.raises(Unreachable, match="cable"):
        hash_files(shelf, shelf.entries(), on_file=done.append, on_beat=lambda read: True, parallel=1)
    assert done == []
    assert shelf.read == ["00"]


@pytest.mark.requirement("catalogue-4.2")
def test_stopping_ends_within_a_piece() -> None:
    shelf = Shelf({"big": b"x" * 40_000_000})
    beats: list[int] = []
    going = threading.Event()

    def trouble(path: str, piece: int) -> None:
        # The file goes on for as long as nobody stops it.
        if piece == 50:
            going.wait(10)

    def beat(read: int) -> bool:
        beats.append(read)
        going.set()
        return False

    shelf.trouble = trouble
    with pytest.raises(Stopped):
        hash_files(shelf, shelf.entries(), on_file=lambda one: None, on_beat=beat, beat_seconds=0.05)
    assert beats
    assert beats[0] < 40_000_000


@pytest.mark.requirement("catalogue-4.3")
def test_a_slice_that_is_over_begins_no_further_file() -> None:
    shelf = Shelf({"a": b"a" * 30, "b": b"b" * 20, "c": b"c" * 10})
    done: list[str] = []
    with pytest.raises(Stopped):
        hash_files(
            shelf, shelf.entries(), on_file=lambda one: done.append(one.entry.path), on_beat=lambda read: True,
            may_begin=lambda: len(done) < 2, parallel=1,
        )  # fmt: skip
    assert done == ["a", "b"]


@pytest.mark.requirement("catalogue-4.1")
@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (Entry("a", 2, key="a"), Changed),
        (Entry("a", 4, key="a"), Changed),
        (Entry("a", 3, stated="0" * 64, key="a"), WrongContent),
    ],
)
def test_a_file_that_is_not_what_was_listed_is_no_result(entry: Entry, error: type[Exception]) -> None:
    with pytest.raises(error):
        hashing.hash_file(Shelf({"a": b"abc"}), entry, hashing.Meter())


# ---------------------------------------------------------------- the rows


@pytest.fixture
def version(company: Any, model: Model) -> ModelVersion:
    store = make_store(credentials=crypto.encrypt(KEYS))
    return make_version(model, company.member_finance, scheme="s3", store=store, files={})


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    found = Shelf(dict(FILES))

    @contextmanager
    def opened(*args: Any) -> Iterator[Shelf]:
        yield found

    monkeypatch.setattr(hash_jobs, "opened", opened)
    monkeypatch.setattr(hash_jobs, "BEAT_SECONDS", 0.05)
    return found


def start(version: ModelVersion, company: Any) -> HashJob:
    return actions.start_hashing(version.pk, actor=Actor.of(company.member_finance))


def again(row: Any) -> Any:
    row.refresh_from_db()
    return row


@pytest.mark.requirement("catalogue-4.1", "catalogue-4.2")
def test_a_job_hashes_over_a_real_server_and_the_version_is_sealed(company: Any, version: ModelVersion) -> None:
    with doubles.running(doubles.S3({f"fraud/v1/{path}": data for path, data in FILES.items()})) as server:
        version.store.endpoint = server.url  # type: ignore[union-attr]  # the fixture gave it one
        version.store.save()  # type: ignore[union-attr]  # it has one
        job = start(version, company)
        assert again(version).status == VersionStatus.HASHING
        settle(only=("catalogue.hash",))
    job, version = again(job), again(version)
    assert (job.status, job.files_done, job.files_total, job.bytes_done) == (JobStatus.DONE, 3, 3, 1_500_011)
    assert dict(version.files.values_list("path", "sha256")) == {path: sha(data) for path, data in FILES.items()}
    assert (version.status, version.total_bytes) == (VersionStatus.DRAFT, 1_500_011)
    told = OutboxMessage.objects.get(event="catalogue.hashing.done")
    assert told.recipient_ids == [company.member_finance.pk]
    assert not Lease.objects.filter(name__startswith="catalogue.hash").exists()
    assert actions.seal(version.pk, actor=Actor.of(company.member_finance)).digest


@pytest.mark.requirement("catalogue-4.3")
def test_a_failure_is_put_off_longer_each_time_and_goes_on_where_it_was(
    company: Any, version: ModelVersion, shelf: Shelf, frozen_clock: Any
) -> None:
    def trouble(path: str, piece: int) -> None:
        if path == "a.bin":
            raise Unreachable("cable cut")

    shelf.trouble = trouble
    job = start(version, company)
    assert hash_jobs.run_due() == 1
    job = again(job)
    assert (job.status, job.attempts, job.last_error) == (JobStatus.PENDING, 1, "Cable cut.")
    assert job.retry_at == frozen_clock + timedelta(seconds=15)
    assert hash_jobs.run_due() == 0
    waits = []
    for _ in range(2):
        clock.advance(job.retry_at - clock.now())
        assert hash_jobs.run_due() == 1
        job = again(job)
        waits.append(job.retry_at - clock.now())
    assert waits == [timedelta(seconds=30), timedelta(seconds=60)]
    shelf.trouble = lambda path, piece: None
    done = set(version.files.exclude(sha256="").values_list("path", flat=True))
    assert done == {"b.bin", "c/d.bin"}
    shelf.read.clear()
    clock.advance(timedelta(hours=1))
    assert hash_jobs.run_due() == 1
    assert again(job).status == JobStatus.DONE
    assert shelf.read == ["a.bin"]


@pytest.mark.requirement("catalogue-4.3")
def test_it_gives_up_after_six_attempts_and_tells(
    company: Any, version: ModelVersion, shelf: Shelf, frozen_clock: Any
) -> None:
    def trouble(path: str, piece: int) -> None:
        raise Unreachable("cable cut")

    shelf.trouble = trouble
    job = start(version, company)
    for _ in range(hash_jobs.MAX_ATTEMPTS):
        assert hash_jobs.run_due() == 1
        clock.advance(timedelta(hours=2))
    assert hash_jobs.run_due() == 0
    assert (again(job).status, job.attempts) == (JobStatus.FAILED, 6)
    assert again(version).status == VersionStatus.DRAFT
    assert OutboxMessage.objects.filter(event="catalogue.hashing.failed").exists()
    step = selectors.next_step(version, job)
    assert step.title.startswith("Hashing failed")
    # What was wrong is put right: a new job, the same version.
    shelf.trouble = lambda path, piece: None
    start(version, company)
    assert hash_jobs.run_due() == 1
    assert version.files.exclude(sha256="").count() == 3


@pytest.mark.requirement("catalogue-4.3")
def test_what_cannot_be_cured_by_waiting_fails_at_once(company: Any, version: ModelVersion, shelf: Shelf) -> None:
    shelf.files.clear()
    job = start(version, company)
    assert hash_jobs.run_due() == 1
    assert (again(job).status, job.attempts) == (JobStatus.FAILED, 1)
    assert "check its spelling" in job.last_error


@pytest.mark.requirement("catalogue-4.3")
def test_what_is_hashed_and_unchanged_is_not_read_again(company: Any, version: ModelVersion, shelf: Shelf) -> None:
    start(version, company)
    hash_jobs.run_due()
    assert sorted(shelf.read) == sorted(FILES)
    shelf.read.clear()
    shelf.files["b.bin"] = b"B" * 10
    del shelf.files["c/d.bin"]
    shelf.files["new.bin"] = b"n"
    job = start(version, company)
    hash_jobs.run_due()
    assert sorted(shelf.read) == ["b.bin", "new.bin"]
    assert dict(version.files.values_list("path", "sha256")) == {path: sha(data) for path, data in shelf.files.items()}
    assert again(job).bytes_total == 1_500_011


@pytest.mark.requirement("catalogue-4.3")
def test_a_dead_workers_job_is_taken_over(company: Any, version: ModelVersion, shelf: Shelf, frozen_clock: Any) -> None:
    job = start(version, company)
    name = f"catalogue.hash.{job.uid}"
    HashJob.objects.filter(pk=job.pk).update(status=JobStatus.RUNNING, attempts=1, started_at=clock.now())
    assert leases.claim(name, seconds=hash_jobs.LEASE_SECONDS) is not None
    # While its lease runs nobody interferes.
    assert hash_jobs.run_due() == 0
    clock.advance(timedelta(seconds=hash_jobs.LEASE_SECONDS + 1))
    assert hash_jobs.run_due() == 1
    assert (again(job).status, job.attempts) == (JobStatus.DONE, 2)


@pytest.mark.requirement("catalogue-4.3")
def test_a_job_that_kills_its_workers_ends(company: Any, version: ModelVersion, shelf: Shelf) -> None:
    job = start(version, company)
    HashJob.objects.filter(pk=job.pk).update(
        status=JobStatus.RUNNING, attempts=hash_jobs.MAX_ATTEMPTS, started_at=clock.now()
    )
    hash_jobs.run_due()
    assert again(job).status == JobStatus.FAILED
    assert "Workers ended" in job.last_error
    assert again(version).status == VersionStatus.DRAFT


@pytest.mark.requirement("catalogue-4.3")
def test_a_slow_worker_writes_nothing_once_its_lease_moved(
    company: Any, version: ModelVersion, shelf: Shelf, frozen_clock: Any
) -> None:
    job = start(version, company)

    def trouble(path: str, piece: int) -> None:
        Moved.due = True

    class Moved:
        due = False

    hand_file = hash_jobs._Hand.file

    def late(self: Any, hashed: Hashed) -> None:
        Lease.objects.filter(name=self.name).update(holder=job.uid)
        hand_file(self, hashed)

    shelf.trouble = trouble
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hash_jobs._Hand, "file", late)
        assert hash_jobs.run_due() == 1
    assert Moved.due
    assert not version.files.exclude(sha256="").exists()
    assert again(job).status == JobStatus.RUNNING
    clock.advance(timedelta(seconds=hash_jobs.LEASE_SECONDS + 1))
    assert hash_jobs.run_due() == 1
    assert again(job).status == JobStatus.DONE


@pytest.mark.requirement("catalogue-4.2")
def test_cancelling_keeps_what_is_done(company: Any, version: ModelVersion, shelf: Shelf) -> None:
    job = start(version, company)
    hand_file = hash_jobs._Hand.file

    def then_cancel(self: Any, hashed: Hashed) -> None:
        hand_file(self, hashed)
        if hashed.entry.path == "c/d.bin":
            actions.cancel_hashing(job.pk, actor=Actor.of(company.lead_finance))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hash_jobs._Hand, "file", then_cancel)
        assert hash_jobs.run_due() == 1
    assert again(job).status == JobStatus.CANCELLED
    assert again(version).status == VersionStatus.DRAFT
    done = set(version.files.exclude(sha256="").values_list("path", flat=True))
    assert "c/d.bin" in done
    with pytest.raises(Conflict, match="nothing to cancel"):
        actions.cancel_hashing(job.pk, actor=Actor.of(company.lead_finance))
    shelf.read.clear()
    start(version, company)
    hash_jobs.run_due()
    assert not done & set(shelf.read)
    assert version.files.exclude(sha256="").count() == 3


@pytest.mark.requirement("catalogue-4.2")
def test_only_drafts_elsewhere_are_hashed_once_at_a_time(company: Any, model: Model, version: ModelVersion) -> None:
    with pytest.raises(NotAllowed):
        actions.start_hashing(version.pk, actor=Actor.of(company.compliance))
    uploaded = make_version(model, company.member_finance)
    with pytest.raises(Invalid, match="as they arrive"):
        start(uploaded, company)
    homeless = make_version(model, company.member_finance, scheme="oci", revision="")
    with pytest.raises(Invalid) as caught:
        start(homeless, company)
    assert set(caught.value.errors) == {"store", "revision"}
    start(version, company)
    with pytest.raises(Conflict, match="being hashed"):
        start(version, company)
