"""What waits in the queues that we own on a cluster, and how long what was admitted had waited.

Every cluster with Kueue is looked at every 15 seconds: Workloads are listed page by page, then the queues in which
something waits are asked for positions (visibility API), a few at a time. No transaction is open meanwhile.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max

from apps.clusters import capabilities
from apps.clusters.choices import KueueMode
from apps.clusters.clients.calling import IN_FLIGHT
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Forbidden, NotFound
from apps.clusters.health import record_contact, record_throttle
from apps.clusters.models import Cluster
from apps.clusters.selectors import callable_now
from apps.core import clock, leases
from apps.provisioning import queue_reading
from apps.provisioning.choices import Removal
from apps.provisioning.models import DeclaredObject, QueueEntry, QueueWait
from apps.provisioning.queue_reading import Admitted, Pending

logger = logging.getLogger(__name__)

#: History of waits is kept for so long.
KEPT = timedelta(days=90)
_LEASE_SECONDS = 60.0
_PAGE = 1000
_BATCH = 500
#: Admissions are looked for from a little before the newest that is known: clocks differ, lists are not instants.
_OVERLAP = timedelta(minutes=10)
_VISIBILITY = "/apis/visibility.kueue.x-k8s.io/v1beta2/clusterqueues/{name}/pendingworkloads"
#: What is compared to tell whether an entry changed.
_FIELDS = (
    "local_queue",
    "cluster_queue",
    "workload_uid",
    "priority",
    "position_cluster",
    "position_local",
    "requests",
    "reason",
    "message",
    "queued_at",
)


def clusters_with_queues() -> list[Cluster]:
    """Return the clusters on which we own queues and that may be called now."""
    rows = Cluster.objects.exclude(kueue_mode=KueueMode.OFF).order_by("pk")
    return [cluster for cluster in rows if callable_now(cluster)]


def owned_queues(cluster_id: int) -> dict[tuple[str, str], str]:
    """Return (namespace, LocalQueue) → ClusterQueue of the queues that we declared on a cluster. One query."""
    rows = DeclaredObject.objects.filter(cluster_id=cluster_id, kind="LocalQueue", removal=Removal.NONE)
    found: dict[tuple[str, str], str] = {}
    for namespace, name, body in rows.values_list("namespace", "name", "body"):
        queue = (json.loads(bytes(body)).get("spec") or {}).get("clusterQueue")
        if queue:
            found[namespace, name] = str(queue)
    return found


def observe_queues(cluster_id: int) -> int:
    """Look at one cluster's queues and write down what waits and what was admitted; returns rows changed.

    Left alone where another worker is at it, where Kueue is off, and where the cluster is paused or rests. A cluster
    that does not answer leaves what is known, with its age.
    """
    no_transaction("observing queues")
    cluster = Cluster.objects.get(pk=cluster_id)
    if cluster.kueue_mode == KueueMode.OFF or not callable_now(cluster):
        return 0
    queues = owned_queues(cluster_id)
    if not queues and not QueueEntry.objects.filter(cluster_id=cluster_id).exists():
        return 0
    token = leases.claim(name := f"queues:{cluster.uid}", seconds=_LEASE_SECONDS)
    if token is None:
        return 0
    moved = 0
    try:
        client = KubernetesClient.for_cluster(cluster)
        at = clock.now()
        waiting, admitted = _look(client, queues)
        waiting = _place(client, cluster, waiting)
        with transaction.atomic():
            leases.require(name, token)
            moved = _record_waiting(cluster_id, waiting, at) + _record_admitted(cluster_id, admitted, at)
        record_contact(cluster_id, True)
    except ClusterError as error:
        _note(cluster, error)
    finally:
        leases.release(name, token)
    return moved


def _note(cluster: Cluster, error: ClusterError) -> None:
    retry_after = getattr(error, "retry_after", 0.0)
    if error.cluster_wide and retry_after:
        record_throttle(cluster.pk, retry_after)
        return
    record_contact(cluster.pk, not error.cluster_wide, error)
    if not error.cluster_wide:
        logger.warning("queues cannot be read", extra={"cluster": cluster.slug, "error": error.message})


def _look(client: KubernetesClient, queues: queue_reading.Queues) -> tuple[list[Pending], list[Admitted]]:
    """List all Workloads page by page and keep what concerns our queues."""
    waiting: list[Pending] = []
    admitted: list[Admitted] = []
    for page in client.pages("Workload"):
        if page.restarted:
            waiting.clear()
            admitted.clear()
        for item in page.items:
            found = queue_reading.read(item, queues)
            if isinstance(found, Pending):
                waiting.append(found)
            elif found is not None:
                admitted.append(found)
    return waiting, admitted


def _place(client: KubernetesClient, cluster: Cluster, waiting: Sequence[Pending]) -> list[Pending]:
    """Give the waiting workloads their positions: as the cluster tells, else by priority and age."""
    if not capabilities.of(cluster).kueue.visibility:
        return queue_reading.order_by_age(waiting)
    by_queue: dict[str, list[Pending]] = {}
    for one in waiting:
        by_queue.setdefault(one.cluster_queue, []).append(one)

    def ask(name: str) -> list[Pending]:
        try:
            return queue_reading.order_as_told(by_queue[name], _positions(client, name))
        except (NotFound, Forbidden) as error:
            # Not served after all, not to us, or the queue went a moment ago: its order is still known.
            logger.info("positions are not told", extra={"cluster": cluster.slug, "queue": name, "why": error.message})
            return queue_reading.order_by_age(by_queue[name])

    if not by_queue:
        return []
    with ThreadPoolExecutor(max_workers=IN_FLIGHT, thread_name_prefix="queues") as pool:
        return [one for placed in pool.map(ask, sorted(by_queue)) for one in placed]


def _positions(client: KubernetesClient, name: str) -> dict[tuple[str, str], int]:
    """Return the positions in one ClusterQueue, page by page. Raises NotFound where nobody serves them."""
    found: dict[tuple[str, str], int] = {}
    offset = 0
    while True:
        query = [("limit", str(_PAGE)), ("offset", str(offset))]
        summary = client.get_path(_VISIBILITY, {"name": name}, query=query)
        page = queue_reading.positions_in(summary)
        found.update(page)
        if len(summary.get("items") or []) < _PAGE or not page:
            return found
        offset += _PAGE


def _record_waiting(cluster_id: int, waiting: Iterable[Pending], at: datetime) -> int:
    """Make the cluster's entries what was found: new and changed ones written, others touched, gone ones deleted."""
    held = {(row.namespace, row.name): row for row in QueueEntry.objects.filter(cluster_id=cluster_id)}
    made: list[QueueEntry] = []
    changed: list[QueueEntry] = []
    same: list[int] = []
    for one in waiting:
        was = held.pop(one.place, None)
        values = {
            "local_queue": one.local_queue[:253],
            "cluster_queue": one.cluster_queue[:253],
            "workload_uid": one.uid[:64],
            "priority": one.priority,
            "position_cluster": one.position_cluster,
            "position_local": one.position_local,
            "requests": one.requests,
            "reason": one.reason[:100],
            "message": queue_reading.without_others(one.message)[:2000],
            "queued_at": one.queued_at,
        }
        if was is None:
            made.append(
                QueueEntry(cluster_id=cluster_id, namespace=one.namespace, name=one.name, observed_at=at, **values)
            )
        elif all(getattr(was, field) == values[field] for field in _FIELDS):
            same.append(was.pk)
        else:
            for field, value in values.items():
                setattr(was, field, value)
            was.observed_at = at
            changed.append(was)
    QueueEntry.objects.bulk_create(made, batch_size=_BATCH)
    QueueEntry.objects.bulk_update(changed, [*_FIELDS, "observed_at"], batch_size=_BATCH)
    QueueEntry.objects.filter(pk__in=same).update(observed_at=at)
    gone = [row.pk for row in held.values()]
    QueueEntry.objects.filter(pk__in=gone).delete()
    return len(made) + len(changed) + len(gone)


def _record_admitted(cluster_id: int, admitted: Sequence[Admitted], at: datetime) -> int:
    """Write down new admissions, each once; returns how many."""
    known = QueueWait.objects.filter(cluster_id=cluster_id)
    newest = known.aggregate(at=Max("admitted_at"))["at"]
    since = max(at - KEPT, newest - _OVERLAP) if newest is not None else at - KEPT
    fresh = {(one.uid, one.admitted_at): one for one in admitted if one.admitted_at > since}
    held = set(known.filter(admitted_at__gt=since).values_list("workload_uid", "admitted_at"))
    rows = [
        QueueWait(
            cluster_id=cluster_id,
            namespace=one.namespace,
            cluster_queue=one.cluster_queue[:253],
            workload_uid=one.uid[:64],
            requests=one.requests,
            queued_at=one.queued_at,
            admitted_at=one.admitted_at,
            waited_ms=round((one.admitted_at - one.queued_at).total_seconds() * 1000),
        )
        for key, one in fresh.items()
        if key not in held
    ]
    QueueWait.objects.bulk_create(rows, ignore_conflicts=True, batch_size=_BATCH)
    return len(rows)


def forget_old_waits() -> int:
    """Delete history that is older than what is kept; returns how many rows went."""
    gone, _ = QueueWait.objects.filter(admitted_at__lt=clock.now() - KEPT).delete()
    return gone


__all__ = ["KEPT", "clusters_with_queues", "forget_old_waits", "observe_queues", "owned_queues"]
