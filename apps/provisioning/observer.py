"""The observer: watches every kind we own on a cluster and writes down what changes within a second.

A thread per kind lists and watches (network only); the cluster's own thread records in batches. It resumes from the
last resource version, lists again only where that has expired, and once every ten minutes to be sure.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import Error as DatabaseError
from django.db import close_old_connections, transaction

from apps.clusters import kinds
from apps.clusters.clients.kubernetes import KubernetesClient, Page
from apps.clusters.clients.watching import WatchEvent, WatchStream
from apps.clusters.errors import ClusterError, Gone, NotFound, Throttled, Unreachable
from apps.clusters.health import pause_seconds, record_contact
from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.core.errors import Conflict
from apps.provisioning import observing
from apps.provisioning.models import WatchCursor
from apps.provisioning.ordering import Key, key_of

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
#: Everything is listed again this often, whatever the watch told.
FULL_SWEEP = timedelta(minutes=10)
#: The server ends a watch after so long (with jitter, so that not all end at once).
WATCH_SECONDS = (300.0, 540.0)
#: Changes are gathered for so long before they are written.
DEBOUNCE_SECONDS = 0.2
#: Reports that may wait for the writer, and pages of lists (500 objects each) that may be in memory at once.
REPORTS, PAGES = 2000, 4


@dataclass(frozen=True, slots=True)
class Report:
    """What a watching thread tells the writer: a page of a list, an event, or an error."""

    kind: str
    at: datetime
    page: Page | None = None
    event: WatchEvent | None = None
    error: ClusterError | None = None
    #: Where a watch resumes after this report ("": it says nothing about that).
    version: str = ""


class KindWatcher(threading.Thread):
    """Lists and watches one kind on one cluster; touches no database."""

    def __init__(
        self,
        client: KubernetesClient,
        kind: str,
        reports: queue.Queue[Report],
        stop: threading.Event,
        *,
        resource_version: str = "",
        listed_at: datetime | None = None,
        pages: threading.Semaphore | None = None,
    ) -> None:
        super().__init__(name=f"watch-{kind}", daemon=True)
        self._client, self._kind, self._reports, self._stopping = client, kind, reports, stop
        self._version, self._listed_at = resource_version, listed_at
        self._pages = pages or threading.Semaphore(PAGES)
        self._failures = self._cuts = 0
        self._stream: WatchStream | None = None
        #: Lists made: a test looks here to see that a resumed watch does not list.
        self.lists = 0

    def run(self) -> None:
        """Watch until told to stop."""
        while not self._stopping.is_set():
            try:
                self._once()
                self._failures = 0
            except Gone:
                self._version = ""
            except ClusterError as error:
                self._failures += 1
                self._tell(error=error)
                asked = error.retry_after if isinstance(error, Throttled) else 0.0
                self._stopping.wait(max(asked, pause_seconds(self._failures)))

    def end(self) -> None:
        """Wake a thread that waits for events."""
        if self._stream is not None:
            self._stream.close()

    def _once(self) -> None:
        now = clock.now()
        if not self._version or self._listed_at is None or now - self._listed_at >= FULL_SWEEP:
            self._list(now)
            if self._listed_at is None:  # told to stop meanwhile
                return
        left = (FULL_SWEEP - (clock.now() - self._listed_at)).total_seconds()
        seconds = min(random.uniform(*WATCH_SECONDS), max(1.0, left))  # noqa: S311 (jitter, no secret)
        self._stream = stream = self._client.watch(
            self._kind, self._version, label_selector=kinds.MANAGED_SELECTOR, seconds=seconds
        )
        if self._stopping.is_set():  # told to stop while the watch was being opened
            stream.close()
        opened = time.monotonic()
        try:
            for event in stream:
                self._version = event.resource_version or self._version
                event.object.setdefault("kind", self._kind)
                told = self._checked(event) if event.type == "DELETED" else event
                self._tell(event=told, version=event.resource_version)
                if self._stopping.is_set():
                    stream.close()
                    return
        except Unreachable:
            # Proxies and restarts cut watches all the time. Only where it cannot be opened again is something wrong.
            logger.info("a watch was cut", extra={"kind": self._kind})
        # A server that ends every watch at once must not be asked without a pause.
        self._cuts = self._cuts + 1 if time.monotonic() - opened < 1.0 else 0
        if self._cuts:
            self._stopping.wait(min(1.0, 0.1 * 2.0**self._cuts))

    def _list(self, now: datetime) -> None:
        self.lists += 1
        pages = self._client.pages(self._kind, label_selector=kinds.MANAGED_SELECTOR, limit=observing.PAGE)
        while not self._stopping.is_set():
            if not self._pages.acquire(timeout=0.5):
                continue
            try:
                page = next(pages)
            except BaseException:
                self._pages.release()
                raise
            self._tell(page=page, at=now, version=page.resource_version if page.last else "")
            if page.last:
                self._version, self._listed_at = page.resource_version, now
                return

    def _checked(self, event: WatchEvent) -> WatchEvent:
        """An object that loses the portal's label is told as deleted, too: look before it is called gone."""
        key = key_of(event.object)
        try:
            live = self._client.get(key.kind, key.name, key.namespace)
        except NotFound:
            return event
        return WatchEvent("MODIFIED", live)

    def _tell(self, *, at: datetime | None = None, **what: Any) -> None:
        report = Report(self._kind, at or clock.now(), **what)
        while not self._stopping.is_set():
            try:
                self._reports.put(report, timeout=0.5)
            except queue.Full:
                continue
            return


class ClusterObserver:
    """Observes one cluster while it holds its lease."""

    def __init__(self, cluster: Cluster, token: uuid.UUID) -> None:
        self.cluster, self.token = cluster, token
        self.stop = threading.Event()
        # Bounded, so that lists and storms of events wait for the writer instead of filling the memory.
        self.reports: queue.Queue[Report] = queue.Queue(REPORTS)
        self.pages = threading.Semaphore(PAGES)
        self._client: KubernetesClient | None = None
        self._present: dict[str, set[Key]] = {}
        self.watchers: dict[str, KindWatcher] = {}
        self._lease = f"observe:{cluster.uid}"
        self._extended = 0.0

    def run(self) -> None:
        """Watch and record until stopped, the lease is lost or the cluster is paused."""
        try:
            while not self.stop.is_set() and self._step():
                pass
        finally:
            self.stop.set()
            for watcher in self.watchers.values():
                watcher.end()
            leases.release(self._lease, self.token)
            close_old_connections()

    def _step(self) -> bool:
        try:
            if time.monotonic() - self._extended > LEASE_SECONDS / 3:
                self._extended = time.monotonic()
                close_old_connections()
                if not leases.extend(self._lease, self.token, seconds=LEASE_SECONDS) or not self._refresh():
                    return False
            self.record(self.gather())
        except Conflict:
            return False
        except DatabaseError as error:
            # What was gathered is lost with the batch, so the kinds concerned start over with a list.
            logger.warning(
                "the database failed the observer", extra={"cluster": self.cluster.slug, "error": str(error)}
            )
            close_old_connections()
            self._restart()
            self.stop.wait(1.0)
        return True

    def _refresh(self) -> bool:
        """Start what is to be watched; False where the cluster is gone or paused. New credentials start over."""
        cluster = Cluster.objects.filter(pk=self.cluster.pk, paused_at__isnull=True).first()
        if cluster is None:
            return False
        try:
            client = KubernetesClient.for_cluster(cluster)
        except ClusterError as error:
            record_contact(cluster.pk, False, error)
            return True
        self._client = client
        cursors = {row.kind: row for row in WatchCursor.objects.filter(cluster=cluster)}
        for kind in observing.observed_kinds(cluster.pk):
            held = self.watchers.get(kind)
            if held is not None and held.is_alive() and held._client is client:
                continue
            if held is not None:
                held.end()
            cursor = cursors.get(kind)
            watcher = KindWatcher(
                client, kind, self.reports, self.stop,
                resource_version=cursor.resource_version if cursor else "",
                listed_at=cursor.listed_at if cursor else None, pages=self.pages,
            )  # fmt: skip
            self.watchers[kind] = watcher
            watcher.start()
        return True

    def _restart(self) -> None:
        for kind, watcher in list(self.watchers.items()):
            watcher._version = ""
            watcher.end()
            logger.info("listing again", extra={"kind": kind, "cluster": self.cluster.slug})

    def gather(self, *, wait_seconds: float = 1.0) -> list[Report]:
        """Return what came in: waits for a first report, then a moment for what comes with it."""
        try:
            batch = [self.reports.get(timeout=wait_seconds)]
        except queue.Empty:
            return []
        until = time.monotonic() + DEBOUNCE_SECONDS
        while len(batch) < REPORTS and batch[-1].page is None and (left := until - time.monotonic()) > 0:
            try:
                batch.append(self.reports.get(timeout=left))
            except queue.Empty:
                break
        return batch

    def record(self, batch: list[Report]) -> int:
        """Write a batch down; returns rows changed. Raises Conflict where the lease has moved."""
        if not batch:
            return 0
        moved = 0
        try:
            answered = [report for report in batch if report.error is None]
            lost = self._lost(answered)
            if answered:
                with transaction.atomic():
                    leases.require(self._lease, self.token)
                    for kind in sorted({report.kind for report in answered}):
                        moved += self._record_kind(kind, [r for r in answered if r.kind == kind], lost.get(kind, {}))
        finally:
            for report in batch:
                if report.page is not None:
                    self.pages.release()
        last = max(batch, key=lambda report: report.at).error
        record_contact(self.cluster.pk, last is None or not last.cluster_wide, last)
        return moved

    def _lost(self, reports: list[Report]) -> dict[str, dict[Key, Any]]:
        """Return by kind what a list that is complete now lacks, as it lives: asked for before anything is written."""
        lost: dict[str, dict[Key, Any]] = {}
        for report in reports:
            if report.page is None:
                continue
            present = self._present.setdefault(report.kind, set())
            if report.page.restarted:
                present.clear()
            present.update(key_of(item) for item in report.page.items)
            if report.page.last:
                keys = observing.absent(self.cluster.pk, report.kind, self._present.pop(report.kind), report.at)
                try:
                    lost[report.kind] = observing.look_for(self._client, keys) if self._client else dict.fromkeys(keys)
                except ClusterError as error:
                    # Not known to be gone: the next list tells.
                    logger.info("what a list lacks could not be asked for", extra={"error": error.message})
        return lost

    def _record_kind(self, kind: str, reports: list[Report], lost: dict[Key, Any]) -> int:
        moved, version, at, listed = 0, "", reports[-1].at, False
        latest: dict[Key, Any] = {}
        for report in reports:
            version = report.version or version
            if report.page is not None:
                items = [(key_of(item), item) for item in report.page.items]
                moved += observing.record_objects(self.cluster.pk, items, report.at)
                if report.page.last:
                    moved += observing.record_objects(self.cluster.pk, list(lost.items()), report.at)
                    observing.touch_cursor(self.cluster.pk, kind, report.page.resource_version, report.at, listed=True)
                    listed = True
            elif report.event is not None and report.event.type != "BOOKMARK":
                latest[key_of(report.event.object)] = None if report.event.type == "DELETED" else report.event.object
        if latest:
            moved += observing.record_objects(self.cluster.pk, list(latest.items()), at)
        if version and (latest or not listed):
            observing.touch_cursor(self.cluster.pk, kind, version, at)
        return moved


class Observers:
    """All observers of one process: one thread per cluster that it holds the lease of."""

    def __init__(self, *, at_most: int = 100) -> None:
        self._at_most = at_most
        self._running: dict[int, tuple[ClusterObserver, threading.Thread]] = {}

    def tend(self) -> int:
        """Start observers for clusters nobody observes; returns how many run here."""
        self._running = {pk: held for pk, held in self._running.items() if held[1].is_alive()}
        for cluster in Cluster.objects.filter(paused_at__isnull=True, declarations__isnull=False).distinct():
            if cluster.pk in self._running or len(self._running) >= self._at_most:
                continue
            token = leases.claim(f"observe:{cluster.uid}", seconds=LEASE_SECONDS)
            if token is None:
                continue
            observer = ClusterObserver(cluster, token)
            thread = threading.Thread(target=observer.run, name=f"observe-{cluster.slug}", daemon=True)
            self._running[cluster.pk] = (observer, thread)
            thread.start()
        return len(self._running)

    def end(self) -> None:
        """Stop all and wait a moment for their last writes."""
        for observer, _ in self._running.values():
            observer.stop.set()
        for observer, thread in self._running.values():
            for watcher in list(observer.watchers.values()):
                watcher.end()
            thread.join(timeout=5.0)
