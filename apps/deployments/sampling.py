"""Figures of each release each minute (or as often as a window holds two scrapes), with the questions that gave them.

No transaction is open while somebody is asked: read rows → ask the cluster for pods, Prometheus for figures → write.
What is not answered, or answered by no number, is null: unknown. A window is written once.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from django.db import transaction
from django.db.models import F, Q

from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError
from apps.clusters.models import Cluster
from apps.clusters.selectors import callable_now
from apps.core import clock, leases
from apps.deployments import metric_queries, metric_sources, verdicts
from apps.deployments.choices import ON_CLUSTER
from apps.deployments.live_status import ENDPOINT_LABEL, RELEASE_LABEL
from apps.deployments.metric_queries import Place
from apps.deployments.models import Endpoint, Release, ServingSample

logger = logging.getLogger(__name__)
WINDOW_SECONDS = 60
#: Samples are kept so long: as far back as an objective's window may reach, and a day.
KEPT = timedelta(days=31)
_LEASE_SECONDS = 300.0
_MOST = 2**31 - 1


class Asked(Protocol):
    """What is needed of a Prometheus client."""

    def query(self, expression: str, at: datetime) -> list[dict[str, Any]]:
        """Run an instant query. Raises clusters.errors."""


@dataclass(frozen=True, slots=True)
class Pods:
    """A release's pods as the cluster lists them."""

    namespace: str
    names: tuple[str, ...] = ()
    ready: int = 0
    verdicts: tuple[str, ...] = ()


@dataclass(slots=True)
class Figures:
    """What one release's minute came to; None: unknown."""

    values: dict[str, int | None] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    dialect: str = ""
    trouble: str = ""


def window_end(at: datetime, seconds: int = WINDOW_SECONDS) -> datetime:
    """Return the end of the last window that was whole at a time; windows lie side by side."""
    moment = int(at.timestamp())
    return datetime.fromtimestamp(moment - moment % seconds, UTC)


def due(at: datetime, seconds: int = WINDOW_SECONDS) -> dict[int, list[Release]]:
    """Return releases that serve and have no sample of the last whole window, by cluster."""
    serving = Q(pk=F("endpoint__current_id")) | Q(pk=F("endpoint__candidate_id"))
    rows = (
        Release.objects.filter(
            serving, status__in=ON_CLUSTER, endpoint__removed_at__isnull=True, endpoint__stopped_at__isnull=True
        )
        .exclude(samples__at=window_end(at, seconds))
        .select_related("endpoint__workspace__cluster")
        .order_by("pk")
    )
    found: dict[int, list[Release]] = {}
    for release in rows:
        found.setdefault(release.endpoint.workspace.cluster_id, []).append(release)
    return found


def sample_cluster(cluster_id: int) -> int:
    """Sample what serves on one cluster; returns how many samples were written. Left alone where another is at it."""
    no_transaction("sampling")
    with leases.held(f"sample:{cluster_id}", seconds=_LEASE_SECONDS) as token:
        if token is None:
            return 0
        at = clock.now()
        cluster = Cluster.objects.get(pk=cluster_id)
        source = metric_sources.prometheus_of(cluster, at)
        seconds = source.window_seconds if source is not None else WINDOW_SECONDS
        end = window_end(at, seconds)
        releases = due(at, seconds).get(cluster_id, [])
        if not releases or not callable_now(cluster):
            return 0
        pods, pods_trouble = pods_on(cluster)
        client = source.client() if source is not None else None
        try:
            done = 0
            for release in releases:
                held = pods.get(str(release.uid)) if pods is not None else None
                figures = Figures(trouble=pods_trouble or metric_sources.NONE)
                if client is not None and pods is not None:
                    matcher = source.matcher if source is not None else ""
                    figures = measure(client, held, end, seconds=seconds, matcher=matcher)
                done += _write(release, figures, held, seconds, end, listed=pods is not None)
            return done
        finally:
            if client is not None:
                client.close()


def pods_on(cluster: Cluster) -> tuple[dict[str, Pods] | None, str]:
    """Return the pods of releases by release uid, and why not where the cluster does not tell (None)."""
    try:
        client = KubernetesClient.for_cluster(cluster)
        items = client.list("Pod", label_selector=f"{ENDPOINT_LABEL},{RELEASE_LABEL}").items
    except ClusterError as error:
        return None, f"The cluster does not list its pods: {error.message}"
    return gather(items), ""


def gather(items: Iterable[Mapping[str, Any]]) -> dict[str, Pods]:
    """Return pods that are not ending, by the release they bear the label of."""
    found: dict[str, Pods] = {}
    for item in items:
        meta, status = item.get("metadata") or {}, item.get("status") or {}
        uid = str((meta.get("labels") or {}).get(RELEASE_LABEL, ""))
        if meta.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed"):
            continue
        component = (meta.get("labels") or {}).get("component", "predictor")
        if component != "predictor":
            continue
        ready = any(
            each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or []
        )
        was = found.get(uid, Pods(str(meta.get("namespace", ""))))
        told = tuple(verdicts.messages(item))
        found[uid] = Pods(was.namespace, (*was.names, str(meta["name"])), was.ready + ready, (*was.verdicts, *told))
    return found


def measure(
    client: Asked, pods: Pods | None, at: datetime, *, seconds: int = WINDOW_SECONDS, matcher: str = ""
) -> Figures:
    """Ask for one release's figures of the window before `at`. Never raises for what a server answers."""
    figures = Figures()
    if pods is None or not pods.names:
        figures.trouble = "It has no pods that could be asked about."
        return figures
    place = Place(pods.namespace, metric_queries.workloads_of(pods.names), matcher)
    try:
        question = metric_queries.marks(place)
        figures.queries["dialect"] = question
        names = [str((row.get("metric") or {}).get("__name__", "")) for row in client.query(question, at)]
        figures.dialect = metric_queries.dialect_of(names)
    except (ClusterError, ValueError) as error:
        figures.trouble = f"Prometheus: {getattr(error, 'message', error)}"
        return figures
    if not figures.dialect:
        figures.trouble = "Prometheus has no figures of these pods in the names of vLLM, Triton or KServe."
        return figures
    for name, question in metric_queries.queries(figures.dialect, place, seconds).items():
        figures.queries[name] = question
        try:
            figures.values[name] = number(client.query(question, at))
        except ClusterError as error:
            figures.values[name] = None
            figures.trouble = f"Prometheus: {error.message}"
    _agree(figures.values)
    return figures


def number(rows: list[dict[str, Any]]) -> int | None:
    """Return the one number of an answer, rounded; None: no series, several, or no finite number."""
    if len(rows) != 1:
        return None
    try:
        value = float(rows[0]["value"][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return min(_MOST, round(value)) if math.isfinite(value) and value >= 0 else None


def _agree(values: dict[str, int | None]) -> None:
    """Never more failures than requests: rates of two counters are rounded apart."""
    requests, errors = values.get("requests"), values.get("errors")
    if requests is not None and errors is not None and errors > requests:
        values["errors"] = requests


def _write(release: Release, figures: Figures, pods: Pods | None, seconds: int, at: datetime, *, listed: bool) -> int:
    """Write one sample; 0 where the window has one already."""
    ready = (pods.ready if pods is not None else 0) if listed else None
    values = {name: figures.values.get(name) for name in metric_queries.FIGURES}
    with transaction.atomic():
        _, made = ServingSample.objects.get_or_create(
            release=release,
            at=at,
            defaults={
                "endpoint_id": release.endpoint_id,
                "window_seconds": seconds,
                "ready_replicas": ready,
                "dialect": figures.dialect,
                "queries": figures.queries | ({"trouble": figures.trouble} if figures.trouble else {}),
                **values,
            },
        )
        if pods is not None:
            verdicts.note(release, pods.verdicts)
    return int(made)


def sample_all(nudge_each: Callable[[int], None] | None = None) -> int:
    """Sample every cluster where something is due; with `nudge_each` each is left to a task of its own."""
    clusters = sorted(due(clock.now()))
    if nudge_each is not None:
        for cluster_id in clusters:
            nudge_each(cluster_id)
        return len(clusters)
    return sum(sample_cluster(cluster_id) for cluster_id in clusters)


def forget(at: datetime | None = None) -> int:
    """Remove samples that are older than they are kept; returns how many."""
    before = (at or clock.now()) - KEPT
    return ServingSample.objects.filter(at__lt=before).delete()[0]


def latest(endpoint: Endpoint) -> dict[uuid.UUID, ServingSample]:
    """Return the newest sample of each side of an endpoint."""
    sides = [pk for pk in (endpoint.current_id, endpoint.candidate_id) if pk is not None]
    rows = (
        ServingSample.objects.filter(release_id__in=sides)
        .order_by("release_id", "-at")
        .distinct("release_id")
        .select_related("release")
    )
    return {row.release.uid: row for row in rows}
