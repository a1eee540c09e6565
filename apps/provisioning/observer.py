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
from apps.clusters.clients.kubernetes import KubernetesClient, Listing
from apps.clusters.clients.watching import WatchEvent, WatchStream
from apps.clusters.errors import ClusterError, Gone, Throttled, Unreachable
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


@dataclass(frozen=True, slots=True)
class Report:
    """What a watching thread tells the writer: a listing, an event, or an error."""

    kind: str
    at: datetime
    listing: Listing | None = None
    event: WatchEvent | None = None
    error: ClusterError | None = None


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
    ) -> None:
        super().__init__(name=f"watch-{kind}", daemon=True)
        self._client, self._kind, self._reports, self._stopping = client, kind, reports, stop
        self._version, self._listed_at = resource_version, listed_at
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
            listing = self._client.list(self._kind, label_selector=kinds.MANAGED_SELECTOR)
            self.lists += 1
            self._version, self._listed_at = listing.resource_version, now
            self._tell(listing=listing, at=now)
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
                self._tell(event=event)
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

    def _tell(self, *, at: datetime | None = None, **what: Any) -> None:
        self._reports.put(Report(self._kind, at or clock.now(), **what))


class ClusterObserver:
    """Observes one cluster while it holds its lease."""

    def __init__(self, cluster: Cluster, token: uuid.UUID) -> None:
        self.cluster, self.token = cluster, token
        self.stop = threading.Event()
        self.reports: queue.Queue[Report] = queue.Queue()
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
                listed_at=cursor.listed_at if cursor else None,
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
        while len(batch) < 5000 and (left := until - time.monotonic()) > 0:
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
        answered = [report for report in batch if report.error is None]
        if answered:
            with transaction.atomic():
                leases.require(self._lease, self.token)
                for kind in sorted({report.kind for report in answered}):
                    moved += self._record_kind(kind, [report for report in answered if report.kind == kind])
        last = max(batch, key=lambda report: report.at).error
        record_contact(self.cluster.pk, last is None or not last.cluster_wide, last)
        return moved

    def _record_kind(self, kind: str, reports: list[Report]) -> int:
        moved, version, at, listed = 0, "", reports[-1].at, False
        latest: dict[Key, tuple[dict[str, Any] | None, datetime]] = {}
        for report in reports:
            if report.listing is not None:
                latest.clear()
                moved += observing.record_listing(self.cluster.pk, kind, report.listing, report.at)
                version, listed = report.listing.resource_version, True
                observing.touch_cursor(self.cluster.pk, kind, version, report.at, listed=True)
            elif report.event is not None:
                version = report.event.resource_version or version
                if report.event.type != "BOOKMARK":
                    gone = report.event.type == "DELETED"
                    latest[key_of(report.event.object)] = (None if gone else report.event.object, report.at)
        if latest:
            moved += observing.record_objects(self.cluster.pk, [(key, obj) for key, (obj, _) in latest.items()], at)
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
