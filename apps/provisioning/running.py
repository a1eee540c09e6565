"""Applying to one cluster under its lease: five lanes, newly approved first, in slices of ten seconds.

The task's own thread reads and writes the database; the lanes do network only. Between two declarations it looks for
due rows again, so an approval in the middle of a mass apply waits for one declaration and not for the queue.
"""

from __future__ import annotations

import contextvars
import logging
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from django.db.models import F, Q

from apps.clusters import kinds
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Throttled
from apps.clusters.health import record_contact, record_throttle
from apps.clusters.models import Cluster
from apps.clusters.selectors import callable_now
from apps.core import clock, leases
from apps.core.errors import Conflict
from apps.provisioning import applier, recording
from apps.provisioning.applier import Outcome, Target, Work
from apps.provisioning.choices import DeclarationStatus, Removal
from apps.provisioning.models import ApplyRun, Declaration
from apps.provisioning.ordering import Key, key_of
from apps.provisioning.planner import Client
from apps.provisioning.querysets import DeclarationQuerySet

logger = logging.getLogger(__name__)

#: Calls in flight per cluster.
LANES = 5
#: How long one slice of work takes at most before others get their turn.
SLICE_SECONDS = 10.0
#: A worker that dies holds its cluster up for at most so long.
LEASE_SECONDS = 30.0
#: From so many due declarations on, live objects are read by LIST instead of one by one.
LIST_FROM = 20
#: How often the task looks for newly declared work while lanes are free.
_LOOK_SECONDS = 0.05


def due(cluster_id: int | None = None) -> DeclarationQuerySet:
    """Return the declarations that are to be applied now."""
    rows: DeclarationQuerySet = Declaration.objects.filter(
        Q(retry_at__isnull=True) | Q(retry_at__lte=clock.now()),
        generation__gt=F("observed_generation"),
        status=DeclarationStatus.APPLYING,
    )
    return rows.filter(cluster_id=cluster_id) if cluster_id is not None else rows


def clusters_due() -> list[Cluster]:
    """Return the clusters that have something due and may be called."""
    ids = due().values_list("cluster_id", flat=True).distinct()
    return [cluster for cluster in Cluster.objects.filter(pk__in=list(ids)).order_by("pk") if callable_now(cluster)]


def apply_cluster(cluster_id: int, *, seconds: float = SLICE_SECONDS) -> tuple[int, bool]:
    """Apply what is due on one cluster; returns (attempts recorded, whether work is left for another slice).

    Returns at once where another worker holds the cluster's lease. Raises TransactionOpen inside a transaction.
    """
    no_transaction("applying")
    done = 0
    deadline = time.monotonic() + seconds
    while True:
        cluster = Cluster.objects.filter(pk=cluster_id).first()
        if cluster is None or not callable_now(cluster) or not due(cluster_id).exists():
            return done, False
        token = leases.claim(recording.lease_name(cluster), seconds=LEASE_SECONDS)
        if token is None:
            return done, False
        piece = _Slice(cluster, token, deadline)
        try:
            done += piece.run()
        except Exception:
            leases.release(recording.lease_name(cluster), token)
            raise
        # On anything else (the process is going down) calls may still be in flight: the lease runs out by itself.
        leases.release(recording.lease_name(cluster), token)
        if piece.lost or time.monotonic() >= deadline:
            return done, True
        # Once more round: what was declared after the last look saw the lease held and left.


class _Slice:
    """One turn of work on one cluster."""

    def __init__(self, cluster: Cluster, token: uuid.UUID, deadline: float) -> None:
        self.cluster = cluster
        self.token = token
        self.deadline = deadline
        self.lost = False
        self.closing = False
        self.snapshot: dict[Key, dict[str, Any] | None] = {}
        self.listed: set[int] = set()
        # A cluster that failed last time is asked by one lane before all five run into it.
        self.lanes = 1 if cluster.consecutive_failures else LANES
        self.in_flight: dict[Future[Outcome], ApplyRun] = {}
        self.picked = 0
        self._extended = time.monotonic()

    def run(self) -> int:
        """Work until nothing is due, time is up, the lease is lost or the cluster fails; returns attempts recorded."""
        recording.abandon_dead_runs(self.cluster, self.token)
        try:
            client = KubernetesClient.for_cluster(self.cluster)
        except ClusterError as error:
            record_contact(self.cluster.pk, False, error)
            return 0
        recorded = 0
        with ThreadPoolExecutor(max_workers=LANES, thread_name_prefix="apply") as pool:
            if not self._list(client):
                return 0
            while True:
                self._keep_lease()
                while not self.closing and len(self.in_flight) < self.lanes and (found := self._next()) is not None:
                    self._start(pool, client, found)
                if not self.in_flight:
                    return recorded
                finished, _ = wait(self.in_flight, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in finished:
                    recorded += self._finish(future)

    def _list(self, client: KubernetesClient) -> bool:
        """Read live objects by LIST where much is due; False where the cluster failed."""
        rows = list(due(self.cluster.pk).values_list("pk", flat=True)[: LIST_FROM * 500])
        if len(rows) < LIST_FROM:
            return True
        try:
            from apps.provisioning.models import DeclaredObject

            keys = DeclaredObject.objects.filter(declaration_id__in=rows, removal=Removal.NONE).values_list(
                "kind", "namespace", "name"
            )
            self.snapshot = {Key(*key): None for key in keys}
            for kind in sorted({key.kind for key in self.snapshot}):
                for item in client.list(kind, label_selector=kinds.MANAGED_SELECTOR).items:
                    if (key := key_of(item)) in self.snapshot:
                        self.snapshot[key] = item
                self._keep_lease()
        except ClusterError as error:
            if isinstance(error, Throttled):
                record_throttle(self.cluster.pk, error.retry_after)
            elif error.cluster_wide or error.retryable:
                record_contact(self.cluster.pk, False, error)
            else:  # no right to list: one by one, then
                self.snapshot = {}
                return True
            return False
        self.listed = set(rows)
        return True

    def _keep_lease(self) -> None:
        if time.monotonic() >= self.deadline:
            self.closing = True
        if time.monotonic() - self._extended > LEASE_SECONDS / 3:
            self._extended = time.monotonic()
            if not leases.extend(recording.lease_name(self.cluster), self.token, seconds=LEASE_SECONDS):
                self.lost = self.closing = True

    def _next(self) -> Declaration | None:
        """Return what to apply next: never tried before tried, newest first; every fifth pick takes the oldest."""
        busy = [run.declaration_id for run in self.in_flight.values()]
        rows = due(self.cluster.pk).exclude(pk__in=busy)
        self.picked += 1
        if self.picked % LANES == 0:
            return rows.order_by("declared_at", "pk").first()
        fresh = rows.filter(attempts=0).order_by("-declared_at", "-pk").first()
        return fresh or rows.order_by(F("retry_at").asc(nulls_first=True), "declared_at", "pk").first()

    def _start(self, pool: ThreadPoolExecutor, client: Client, declaration: Declaration) -> None:
        try:
            run = recording.begin(self.cluster, self.token, declaration)
        except Conflict:
            self.lost = self.closing = True
            return
        work = work_of(declaration)
        snapshot = self.snapshot if declaration.pk in self.listed else None
        context = contextvars.copy_context()
        self.in_flight[pool.submit(context.run, applier.run, client, work, snapshot)] = run

    def _finish(self, future: Future[Outcome]) -> int:
        run = self.in_flight.pop(future)
        try:
            outcome = future.result()
            recording.finish(self.cluster, self.token, run, outcome)
        except Conflict:
            self.lost = self.closing = True
            return 0
        except Exception as error:
            logger.exception("an apply run could not be recorded", extra={"run": str(run.uid)})
            try:
                recording.crashed(self.cluster, self.token, run, error)
            except Conflict:
                self.lost = self.closing = True
            return 1
        if outcome.error is not None and outcome.error.cluster_wide:
            # The breaker is open now: what else is due waits for it instead of failing one by one.
            self.closing = True
        else:
            self.lanes = LANES
        return 1


def work_of(declaration: Declaration) -> Work:
    """Return the newest generation of a declaration as work for the applier."""
    targets, remove, unplanned = [], [], []
    for row in declaration.declared_objects.order_by("ordinal", "pk"):
        key = Key(row.kind, row.namespace, row.name)
        if row.removal == Removal.NONE:
            targets.append(Target(key, bytes(row.body), bytes(row.applied_body), row.settled_object))
        elif row.removal == Removal.PLANNED:
            remove.append(key)
        elif row.removal == Removal.UNPLANNED:
            unplanned.append(key)
    return Work(targets, remove, unplanned, take_over=declaration.take_over)
