"""What observers report of endpoints, kept on their rows; and how old and how true it is when it is shown."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps.clusters.choices import Health
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.sweeps import nudge
from apps.deployments import live_status
from apps.deployments.choices import ON_CLUSTER, CanaryMode, LoadState
from apps.deployments.live_status import SERVICE
from apps.deployments.models import Endpoint, Release
from apps.provisioning.models import WatchCursor
from apps.provisioning.ordering import Key

Object = Mapping[str, Any]
#: A report that is older, where the cluster is watched, is shown as stale: the full sweep comes every ten minutes.
STALE_AFTER = timedelta(minutes=15)


class Truth(enum.StrEnum):
    """How far what is held of an endpoint may be believed."""

    NEVER = "never"
    FRESH = "fresh"
    STALE = "stale"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Seen:
    """When an endpoint was last known, and how far that holds now."""

    truth: Truth
    at: datetime | None
    why: str = ""

    @property
    def believed(self) -> bool:
        """Whether a green state may be shown as green."""
        return self.truth is Truth.FRESH


def later(cluster_id: int, objects: Sequence[tuple[Key, Object | None]], at: datetime) -> None:
    """Take note of a report once the observer's own transaction has committed: it holds other rows by then."""
    transaction.on_commit(partial(take, cluster_id, list(objects), at))


def take(cluster_id: int, objects: Sequence[tuple[Key, Object | None]], at: datetime) -> int:
    """Keep what a cluster reports of endpoints' objects (None: gone) at `at`; returns how many endpoints changed.

    An object counts for an endpoint only in its workspace's namespace and under a name that the endpoint renders: a
    label alone can be written by anybody.
    """
    touched: dict[int, list[tuple[Key, Object | None]]] = {}
    for endpoint_id, key, obj in _concerned(cluster_id, objects):
        touched.setdefault(endpoint_id, []).append((key, obj))
    return sum(_record(endpoint_id, rows, at) for endpoint_id, rows in sorted(touched.items()))


def _concerned(cluster_id: int, objects: Sequence[tuple[Key, Object | None]]) -> list[tuple[int, Key, Object | None]]:
    rows = [(key, obj) for key, obj in objects if key.kind in live_status.KINDS]
    if not rows:
        return []
    namespaces = {key.namespace for key, _ in rows}
    endpoints = Endpoint.objects.filter(
        workspace__cluster_id=cluster_id, workspace__namespace__in=namespaces, removed_at__isnull=True
    )
    known = {
        (namespace, name): (pk, str(uid))
        for pk, uid, namespace, name in endpoints.values_list("pk", "uid", "workspace__namespace", "name")
    }
    found = []
    for key, obj in rows:
        held = known.get((key.namespace, endpoint_name(key.name))) or known.get((key.namespace, key.name))
        if held is None:
            continue
        if obj is not None and live_status.labels_of(obj).get(live_status.ENDPOINT_LABEL) != held[1]:
            continue
        found.append((held[0], key, obj))
    return found


def endpoint_name(name: str) -> str:
    """Return the endpoint's name in that of one of its objects: `<name>-r<number>` beside a route, else the same."""
    base, dash, number = name.rpartition("-r")
    return base if dash and number.isdigit() else name


@transaction.atomic
def _record(endpoint_id: int, rows: Sequence[tuple[Key, Object | None]], at: datetime) -> int:
    endpoint = Endpoint.objects.select_for_update(no_key=True).get(pk=endpoint_id)
    held: dict[str, Any] = dict(endpoint.live.get("objects") or {})
    before = dict(held)
    for key, obj in rows:
        place = f"{key.kind}/{key.name}"
        was = held.get(place)
        if was is not None and datetime.fromisoformat(was["at"]) > at:
            continue
        if obj is None:
            held.pop(place, None)
        else:
            held[place] = {**live_status.condense(obj), "at": at.isoformat()}
    parts = list(held.values())
    fields = {
        "live": {**endpoint.live, "objects": held},
        "live_at": max(at, endpoint.live_at or at),
        "url": live_status.address(parts)[:500],
        "ready_replicas": live_status.copies(parts),
    }
    # Not `bump`: what is observed is nobody's edit, and must not refuse an edit that is under way.
    Endpoint.objects.filter(pk=endpoint.pk).update(**fields)
    _releases(endpoint, parts)
    return int(_meaning(before) != _meaning(held))


def _meaning(objects: Mapping[str, Any]) -> dict[str, Any]:
    return {place: {name: each for name, each in one.items() if name != "at"} for place, one in objects.items()}


def _releases(endpoint: Endpoint, parts: Sequence[Mapping[str, Any]]) -> None:
    """Write the load states that follow; a change is told to the ladder at once."""
    services = {str(each["release"]): each for each in parts if each.get("kind") == SERVICE}
    sides = Release.objects.select_for_update(no_key=True).filter(
        Q(pk=endpoint.current_id) | Q(pk=endpoint.candidate_id), status__in=ON_CLUSTER
    )
    moved = False
    for release in sides.order_by("pk"):
        service = services.get(str(release.uid))
        if service is not None:
            state = live_status.load_state(service)
            failure = service.get("failure") or {}
            why = str(failure.get("message") or failure.get("reason") or "") if state is LoadState.FAILED else ""
        elif endpoint.canary_mode == CanaryMode.KNATIVE and services:
            state, why = live_status.earlier_state(next(iter(services.values()))), ""
        else:
            state, why = LoadState.UNKNOWN, ""
        if state is LoadState.UNKNOWN and service is None and release.load_state != LoadState.UNKNOWN and services:
            continue  # its object has not been reported yet, or speaks of the other side only
        if release.load_state != state or (why and release.failure != why):
            moved = moved or release.load_state != state
            Release.objects.filter(pk=release.pk).update(load_state=state, failure=why or release.failure)
    if moved:
        from apps.deployments import core_tasks, watch_tasks

        nudge(watch_tasks.guard_rollouts)
        nudge(core_tasks.advance_rollouts)


def seen(endpoint: Endpoint, at: datetime | None = None) -> Seen:
    """Return how far what is held of an endpoint (with its workspace's cluster) holds now."""
    now = at or clock.now()
    cluster = endpoint.workspace.cluster
    if endpoint.live_at is None:
        return Seen(Truth.NEVER, None, "The cluster has not reported this endpoint yet.")
    if cluster.health != Health.HEALTHY:
        since = cluster.unreachable_since
        return Seen(Truth.UNREACHABLE, endpoint.live_at, _lost(cluster, since))
    cursor = WatchCursor.objects.filter(cluster=cluster, kind=SERVICE).values_list("seen_at", flat=True).first()
    as_of = max(endpoint.live_at, cursor) if cursor is not None else endpoint.live_at
    if now - as_of > STALE_AFTER:
        return Seen(Truth.STALE, as_of, "Nothing has been heard of it for longer than a full look takes.")
    return Seen(Truth.FRESH, as_of)


def _lost(cluster: Cluster, since: datetime | None) -> str:
    from apps.core.formats import datetime_utc

    return f"{cluster.name} cannot be reached" + (f" since {datetime_utc(since)}." if since is not None else ".")
