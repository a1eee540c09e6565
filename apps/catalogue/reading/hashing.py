"""Hashing of many files at the rate of disk or network: reading and hashing overlap, several files at once. No rows."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from apps.catalogue.reading.base import Changed, Entry, Reader, WrongContent
from apps.clusters.errors import ClusterError, Unreachable

#: Files read at the same time: enough to keep the network busy with many small ones.
PARALLEL = 4
#: Pieces read ahead of the hash, per file.
AHEAD = 8
_END = b""


class Stopped(Exception):
    """Somebody asked to stop; what is done is done."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file whose bytes were read to the end."""

    entry: Entry
    sha256: str


class Meter:
    """Counts bytes over all threads, and tells them to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self.stop = threading.Event()

    def add(self, count: int) -> None:
        """Count bytes. Raises Stopped where somebody asked to stop."""
        if self.stop.is_set():
            raise Stopped
        with self._lock:
            self._bytes += count

    @property
    def total(self) -> int:
        """Bytes so far."""
        with self._lock:
            return self._bytes


def hash_file(reader: Reader, entry: Entry, meter: Meter) -> Hashed:
    """Read one file to its end, hashing while the next pieces arrive.

    Raises ClusterError; Changed where the number of bytes is not the one listed; WrongContent where the store stated
    another SHA-256; Stopped.
    """
    digest, size = hashlib.sha256(), 0
    for piece in ahead(reader, entry, meter):
        digest.update(piece)
        size += len(piece)
        meter.add(len(piece))
    if size != entry.size:
        raise Changed(f"{entry.path} has {size} bytes, listed were {entry.size}")
    found = digest.hexdigest()
    if entry.stated and found != entry.stated:
        raise WrongContent(f"{entry.path} is not what the store says: its SHA-256 is {found[:12]}…")
    return Hashed(entry, found)


def ahead(reader: Reader, entry: Entry, meter: Meter) -> Iterator[bytes]:
    """Yield a file's pieces, which a thread of their own reads some ahead."""
    pieces: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
    over = threading.Event()

    def put(item: bytes | BaseException) -> bool:
        while not over.is_set():
            try:
                pieces.put(item, timeout=0.5)
            except queue.Full:
                if meter.stop.is_set():
                    return False
            else:
                return True
        return False

    def read() -> None:
        try:
            with reader.open(entry) as source:
                for piece in source:
                    if piece and not put(piece):
                        return
            put(_END)
        except BaseException as error:  # noqa: BLE001 (handed over to the thread that hashes, which raises it)
            put(error)

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = pieces.get(timeout=0.5)
            except queue.Empty:
                if meter.stop.is_set():
                    raise Stopped from None
                if not thread.is_alive() and pieces.empty():
                    raise Unreachable(f"reading {entry.path} ended without an end") from None
                continue
            if isinstance(item, BaseException):
                raise item
            if item == _END:
                return
            yield item
    finally:
        over.set()


def hash_files(
    reader: Reader,
    entries: Sequence[Entry],
    *,
    on_file: Callable[[Hashed], None],
    on_beat: Callable[[int], bool],
    may_begin: Callable[[], bool] = lambda: True,
    beat_seconds: float = 2.0,
    parallel: int = PARALLEL,
) -> None:
    """Hash files, several at once, the largest first. `on_file` gets each result; `on_beat` the bytes read so far.

    Both run in the caller's thread, which alone may use the database. `on_beat` is asked every `beat_seconds`; where it
    returns False everything stops; where `may_begin` does, no further file is begun. Raises Stopped in both cases, or
    the first ClusterError: what was handed to `on_file` stays.
    """
    meter = Meter()
    waiting = sorted(entries, key=lambda entry: (-entry.size, entry.path))
    running: dict[Future[Hashed], Entry] = {}
    failure: ClusterError | None = None
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="hash") as pool:
        beat_at = time.monotonic() + beat_seconds
        try:
            while running or (waiting and failure is None):
                while waiting and len(running) < parallel and failure is None and may_begin():
                    entry = waiting.pop(0)
                    running[pool.submit(hash_file, reader, entry, meter)] = entry
                if not running:
                    raise Stopped
                done, _ = wait(running, timeout=max(0.0, beat_at - time.monotonic()), return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    error = future.exception()
                    if error is None:
                        on_file(future.result())
                    elif isinstance(error, ClusterError):
                        # Another file's error a moment later says no more; those under way are let finish.
                        failure = failure or error
                    else:
                        raise error
                if time.monotonic() >= beat_at:
                    if not on_beat(meter.total):
                        raise Stopped
                    beat_at = time.monotonic() + beat_seconds
        except BaseException:
            meter.stop.set()
            raise
    if failure is not None:
        raise failure
