"""The probe: is it there, which version, which nodes. Network first, then recorded."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import Q

from apps.clusters import capacity, checking, detecting
from apps.clusters.capabilities import Capabilities
from apps.clusters.clients import tls
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Forbidden, Throttled
from apps.clusters.health import record_contact, record_throttle
from apps.clusters.inventory import NodeFacts, read_node
from apps.clusters.models import Cluster, Node
from apps.core import clock, leases

logger = logging.getLogger(__name__)

#: How often each cluster is asked.
EVERY = timedelta(seconds=30)
#: Clusters probed at once: a dead one costs three seconds of one of these.
PARALLEL = 8
#: What an observation replaces of a node.
_OBSERVED = [
    "gpu_model", "sharing", "physical_gpus", "schedulable", "ready", "allocatable", "capacity", "mig_strategy",
    "replicas", "gpu_memory_mib", "slices", "labels", "taints", "problem", "observed_at",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Probe:
    """What one cluster answered."""

    version: str = ""
    groups: list[str] = field(default_factory=list)
    nodes: list[NodeFacts] | None = None
    found: Capabilities | None = None
    certificate_ends: datetime | None = None
    error: ClusterError | None = None


def probe_due() -> int:
    """Probe every cluster that is due; returns how many. A cluster under another worker's lease is left to it."""
    no_transaction("probing clusters")
    now = clock.now()
    due = Cluster.objects.filter(paused_at__isnull=True).filter(
        (Q(probed_at__isnull=True) | Q(probed_at__lte=now - EVERY)) & (Q(retry_at__isnull=True) | Q(retry_at__lte=now))
    )
    claimed = [
        (cluster, token) for cluster in due.order_by("pk") if (token := leases.claim(_lease(cluster), seconds=60))
    ]
    if not claimed:
        return 0
    with ThreadPoolExecutor(max_workers=min(PARALLEL, len(claimed)), thread_name_prefix="probe") as pool:
        asked: list[Future[Probe]] = [
            pool.submit(contextvars.copy_context().run, ask, cluster) for cluster, _ in claimed
        ]
    for (cluster, token), answer in zip(claimed, asked, strict=True):
        record(cluster, answer.result())
        leases.release(_lease(cluster), token)
    return len(claimed)


def _lease(cluster: Cluster) -> str:
    return f"probe:{cluster.uid}"


def ask(cluster: Cluster) -> Probe:
    """Ask one cluster (network only, no database)."""
    try:
        client = KubernetesClient.for_cluster(cluster)
        version = str(client.version().get("gitVersion", ""))
        try:
            nodes: list[NodeFacts] | None = [read_node(node) for node in client.list("Node").items]
        except Forbidden as error:
            logger.warning("no right to list nodes", extra={"cluster": cluster.slug, "error": error.message})
            nodes = None
        found, certificate_ends = _look_again(cluster, client, version, nodes)
        return Probe(version, nodes=nodes, found=found, certificate_ends=certificate_ends)
    except ClusterError as error:
        return Probe(error=error)


def _look_again(
    cluster: Cluster, client: KubernetesClient, version: str, nodes: list[NodeFacts] | None
) -> tuple[Capabilities | None, datetime | None]:
    """Return what the cluster can do and when its certificate ends, where that was not looked at for a while."""
    if not checking.refresh_due(cluster):
        return None, None
    found, ends = None, None
    parts = urlsplit(cluster.api_url)
    try:
        found = detecting.detect(client, version=version, nodes=nodes)
        if parts.scheme == "https" and parts.hostname:
            ends = tls.look(parts.hostname, parts.port or 443, ca_pem=cluster.ca_certificate).not_after
    except ClusterError as error:  # it answered a moment ago: the next probe looks again
        logger.warning("what a cluster can do is not known", extra={"cluster": cluster.slug, "error": error.message})
    return found, ends


def record(cluster: Cluster, probe: Probe) -> None:
    """Write down what a probe found."""
    if isinstance(probe.error, Throttled):
        record_throttle(cluster.pk, probe.error.retry_after)
    elif probe.error is not None:
        record_contact(cluster.pk, False, probe.error)
    else:
        record_contact(cluster.pk, True)
        with transaction.atomic():
            Cluster.objects.filter(pk=cluster.pk).update(kubernetes_version=probe.version[:60])
            if probe.certificate_ends is not None:
                Cluster.objects.filter(pk=cluster.pk).update(certificate_expires_at=probe.certificate_ends)
            if probe.nodes is not None:
                _record_nodes(cluster, probe.nodes)
        if probe.found is not None:
            checking.remember(cluster.pk, probe.found)
    Cluster.objects.filter(pk=cluster.pk).update(probed_at=clock.now())


def _record_nodes(cluster: Cluster, nodes: Iterable[NodeFacts]) -> None:
    now = clock.now()
    rows = [
        Node(
            cluster=cluster, name=node.name, gpu_model=node.gpu_model[:120], sharing=node.sharing,
            physical_gpus=node.physical_gpus, schedulable=node.schedulable, ready=node.ready,
            allocatable=node.allocatable, capacity=node.capacity, mig_strategy=node.mig_strategy[:10],
            replicas=node.replicas, gpu_memory_mib=node.gpu_memory_mib, slices=node.slices, labels=node.labels,
            taints=node.taints, problem=node.problem, observed_at=now,
        )
        for node in nodes
    ]  # fmt: skip
    Node.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["cluster", "name"],
        update_fields=_OBSERVED,
        batch_size=500,
    )
    Node.objects.filter(cluster=cluster, observed_at__lt=now).delete()
    if rows:
        capacity.refresh_observed(cluster.pk)
    else:
        cluster.pools.update(observed_gpus=0, observed_at=now)
