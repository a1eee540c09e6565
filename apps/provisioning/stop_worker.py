"""Carrying out stop orders on one cluster, under its lease and one call after the other.

A worker holds the lease `stop:…`, calls with no transaction open, and records each order in one of its own, refused
where the lease or the order moved. What is to be restored is remembered before the call, so that a worker may die at
any point. A stopped workload is looked at every few minutes: where its owner has started it again, the order is undone
and not repeated.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet

from apps.clusters import health, kinds
from apps.clusters.clients.guard import no_transaction
from apps.clusters.errors import ClusterError, Forbidden, StaleRead
from apps.clusters.models import Cluster
from apps.clusters.selectors import may_apply_now
from apps.core import clock, leases
from apps.core.errors import Conflict
from apps.core.events import EventType
from apps.provisioning import events, levers, retries
from apps.provisioning.choices import StopStatus
from apps.provisioning.models import StopOrder
from apps.provisioning.stopping import cause_of, client_of, record_contact, tell

logger = logging.getLogger(__name__)
SLICE_SECONDS, LEASE_SECONDS = 10.0, 30.0
#: How often a stopped workload is looked at, and how long a refusal that a person has to remedy is left alone.
LOOK_EVERY = timedelta(minutes=5)
_READS = 4


def due(cluster_id: int | None = None) -> QuerySet[StopOrder]:
    """Return the orders to carry out, or to look at, now."""
    now = clock.now()
    rows = StopOrder.objects.filter(
        Q(status__in=[StopStatus.PENDING, StopStatus.UNDOING]) & (Q(retry_at__isnull=True) | Q(retry_at__lte=now))
        | Q(status=StopStatus.STOPPED, retry_at__lte=now)
    )
    return rows.filter(cluster_id=cluster_id) if cluster_id is not None else rows


def clusters_due() -> list[Cluster]:
    """Return the clusters with orders to carry out that may be applied to: not paused, resting or in maintenance."""
    ids = due().values_list("cluster_id", flat=True).distinct()
    return [c for c in Cluster.objects.filter(pk__in=list(ids)).order_by("pk") if may_apply_now(c)[0]]


def lease_name(cluster: Cluster) -> str:
    """The lease of whoever carries out a cluster's orders."""
    return f"stop:{cluster.uid}"


def run_cluster(cluster_id: int, *, seconds: float = SLICE_SECONDS) -> tuple[int, bool]:
    """Carry out one cluster's orders for one slice; returns (orders seen to, whether some are left).

    Returns at once where another worker is at it. Raises TransactionOpen inside a transaction.
    """
    no_transaction("stopping workloads")
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None or not may_apply_now(cluster)[0] or not due(cluster_id).exists():
        return 0, False
    token = leases.claim(lease_name(cluster), seconds=LEASE_SECONDS)
    if token is None:
        return 0, False
    try:
        return _Turn(cluster, token, time.monotonic() + seconds).run()
    finally:
        leases.release(lease_name(cluster), token)


class _Turn:
    """One worker's turn on one cluster, one call after the other: stopping is rare and never urgent to the second."""

    def __init__(self, cluster: Cluster, token: uuid.UUID, deadline: float) -> None:
        self.cluster, self.token, self.deadline = cluster, token, deadline
        self.seen: list[int] = []

    def run(self) -> tuple[int, bool]:
        """Work until nothing is due, time is up, the lease has moved or the cluster fails."""
        try:
            client = client_of(self.cluster)
        except ClusterError as error:
            record_contact(self.cluster, error)
            return 0, False
        while True:
            order = due(self.cluster.pk).exclude(pk__in=self.seen).order_by(
                F("retry_at").asc(nulls_first=True), "pk"
            ).first()  # fmt: skip
            if order is None:
                if self.seen:
                    health.record_contact(self.cluster.pk, True)
                return len(self.seen), False
            if time.monotonic() >= self.deadline:
                return len(self.seen), True
            if not leases.extend(lease_name(self.cluster), self.token, seconds=LEASE_SECONDS):
                return len(self.seen), False
            self.seen.append(order.pk)
            try:
                if not self._see_to(client, order):
                    return len(self.seen), False
            except Conflict:  # the lease has moved on: the rest is another worker's
                return len(self.seen), False

    def _see_to(self, client: levers.Client, order: StopOrder) -> bool:
        """Carry out one order and record it; False where the cluster as a whole fails."""
        try:
            self._try(client, order)
        except levers.Ended as ended:
            self._record(order, StopStatus.GONE, str(ended))
        except levers.Refusal as refusal:
            self._record(order, StopStatus.REFUSED, str(refusal))
        except ClusterError as error:
            return self._failed(order, error)
        except Conflict:
            raise
        except Exception as error:
            logger.exception("an order could not be carried out", extra={"order": str(order.uid)})
            self._later(order, LOOK_EVERY, f"{type(error).__name__}: {error}"[:2000], order.attempts + 1)
        return True

    def _try(self, client: levers.Client, order: StopOrder) -> None:
        if order.status == StopStatus.STOPPED:
            if levers.look(client, order.namespace, order.before):
                self._later(order, LOOK_EVERY)
            else:
                self._record(order, StopStatus.UNDONE, "Started by its owner.")
        elif order.status == StopStatus.UNDOING:
            reached = "kind" in order.before
            note = levers.release(client, order.namespace, order.before) if reached else "It was not stopped yet."
            self._record(order, StopStatus.UNDONE, note)
        elif self._stop(client, order):
            self._record(order, StopStatus.STOPPED, "")

    def _stop(self, client: levers.Client, order: StopOrder) -> bool:
        """Stop it; False where somebody changed the order in between."""
        before: dict[str, Any] = dict(order.before)
        for attempt in range(_READS):
            target = levers.prepare(client, order.kind, order.namespace, order.name, before)
            if (remembered := {**before, **target.before}) != before:
                before = remembered
                if not self._remember(order, before):
                    return False
            try:
                levers.pull(client, target)
            except StaleRead:
                if attempt == _READS - 1:
                    raise
                continue
            return True
        return False

    # -- recording

    def _locked(self, order: StopOrder) -> StopOrder | None:
        """Lock the order in the recording transaction; None where it is no longer what we acted upon."""
        leases.require(lease_name(self.cluster), self.token)
        row = StopOrder.objects.locked(order.pk)
        return row if row.status == order.status else None

    @transaction.atomic
    def _remember(self, order: StopOrder, before: dict[str, Any]) -> bool:
        row = self._locked(order)
        if row is None:
            return False
        row.before = before
        row.save(update_fields=["before", "updated_at"])
        return True

    @transaction.atomic
    def _record(self, order: StopOrder, status: StopStatus, note: str) -> None:
        row = self._locked(order)
        if row is None:
            return
        now = clock.now()
        row.status, row.attempts, row.retry_at, row.last_error = status, 0, None, note
        if status == StopStatus.STOPPED:
            row.stopped_at, row.retry_at = now, now + LOOK_EVERY
        elif status == StopStatus.UNDONE:
            row.undone_at = now
        row.bump("status", "attempts", "retry_at", "last_error", "stopped_at", "undone_at")
        tell(_EVENTS[status], row, note=note)
        cause = cause_of(row.cause)
        hook = {StopStatus.STOPPED: cause.on_stopped, StopStatus.UNDONE: cause.on_undone}.get(status, cause.on_ended)
        if hook is not None:
            hook(row)

    @transaction.atomic
    def _later(self, order: StopOrder, pause: timedelta, note: str = "", attempts: int = 0) -> None:
        row = self._locked(order)
        if row is None:
            return
        row.retry_at, row.last_error, row.attempts = clock.now() + pause, note, attempts
        row.save(update_fields=["retry_at", "last_error", "attempts", "updated_at"])

    def _failed(self, order: StopOrder, error: ClusterError) -> bool:
        record_contact(self.cluster, error)
        if error.cluster_wide:
            # The breaker, or the rest the cluster asked for, holds the order up; it need not wait longer than that.
            self._later(order, timedelta(0), error.message, order.attempts)
            return False
        text = self._permission(order, error) if isinstance(error, Forbidden) else error.message
        if error.retryable:
            when = retries.retry_at(error, order.attempts + 1, clock.now())
            self._later(order, when - clock.now(), text, order.attempts + 1)
        elif order.status == StopStatus.PENDING:
            self._record(order, StopStatus.REFUSED, text)
        else:  # it is stopped: somebody has to remedy this, and then it goes on
            self._later(order, LOOK_EVERY, text, order.attempts + 1)
        return True

    def _permission(self, order: StopOrder, error: Forbidden) -> str:
        kind = kinds.KINDS[str(order.before.get("kind") or order.kind)]
        group = kind.api_version.rpartition("/")[0] or "core"
        return (
            f"The cluster refuses: {error.message} If this is a missing permission, the portal's ClusterRole needs the "
            f"verbs get, list and patch on {kind.plural} (API group {group})."
        )


_EVENTS: dict[StopStatus, EventType] = {
    StopStatus.STOPPED: events.STOP_DONE,
    StopStatus.UNDONE: events.STOP_UNDONE,
    StopStatus.GONE: events.STOP_ENDED,
    StopStatus.REFUSED: events.STOP_REFUSED,
}
