"""What contact with a cluster told, and the breaker that keeps a dead one from costing anybody time."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from django.db import transaction

from apps import audit
from apps.clusters import events
from apps.clusters.choices import Health
from apps.clusters.errors import ClusterError, Unauthorised
from apps.clusters.models import Cluster
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.events import EventType

#: A contact older than this is no health any more.
STALE_AFTER = timedelta(minutes=3)
#: The breaker's pauses: 1, 2, 4 … 60 seconds, each shortened by up to a quarter so that workers do not march in step.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
#: A good contact is written at most this often: a thousand calls are not a thousand writes.
_WRITE_EVERY = timedelta(seconds=5)


def pause_seconds(failures: int, *, spread: float | None = None) -> float:
    """Return how long to wait after `failures` failures in a row. `spread` in [0, 1) replaces the random part."""
    spread = random.random() if spread is None else spread  # noqa: S311 (jitter, no secret)
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(max(0, failures - 1), 10))
    return longest * (1.0 - 0.25 * spread)


def record_contact(
    cluster_id: int, ok: bool, error: ClusterError | str | None = None, *, spread: float | None = None
) -> datetime | None:
    """Record that a cluster answered, or did not; returns when to call it again (None: at any time).

    The first failure opens the breaker and marks the cluster; losing it and having it back are audited and told to
    the platform admins. Any answer counts as contact, a refusal of a single object too.
    """
    now = clock.now()
    if ok:
        _answered(cluster_id, now)
        return None
    with transaction.atomic():
        cluster = Cluster.objects.select_for_update(no_key=True).filter(pk=cluster_id).first()
        if cluster is None:
            return None
        was = cluster.health
        cluster.health = Health.REFUSED if isinstance(error, Unauthorised) else Health.UNREACHABLE
        cluster.consecutive_failures += 1
        cluster.last_error = str(error or "no answer")[:2000]
        cluster.retry_at = now + timedelta(seconds=pause_seconds(cluster.consecutive_failures, spread=spread))
        if cluster.unreachable_since is None:
            cluster.unreachable_since = now
        cluster.save(
            update_fields=[
                "health",
                "consecutive_failures",
                "last_error",
                "retry_at",
                "unreachable_since",
                "updated_at",
            ]
        )
        if was not in (Health.UNREACHABLE, Health.REFUSED):
            _tell(events.CLUSTER_UNREACHABLE, cluster, cluster.last_error)
        return cluster.retry_at


def record_throttle(cluster_id: int, retry_after: float) -> datetime:
    """Record that a cluster asked for `retry_after` seconds of rest: it answers, so it stays as healthy as it was."""
    until = clock.now() + timedelta(seconds=max(0.1, retry_after))
    Cluster.objects.filter(pk=cluster_id).update(retry_at=until, last_seen_at=clock.now())
    return until


def _answered(cluster_id: int, now: datetime) -> None:
    row = (
        Cluster.objects.filter(pk=cluster_id)
        .values_list("health", "consecutive_failures", "last_seen_at", "retry_at")
        .first()
    )
    if row is None:
        return
    health, failures, seen, retry_at = row
    fine = health == Health.HEALTHY and not failures and (retry_at is None or retry_at > now)
    if fine and seen is not None and now - seen < _WRITE_EVERY:
        return
    with transaction.atomic():
        cluster = Cluster.objects.select_for_update(no_key=True).get(pk=cluster_id)
        was, since = cluster.health, cluster.unreachable_since
        cluster.health, cluster.last_seen_at, cluster.last_error = Health.HEALTHY, now, ""
        cluster.consecutive_failures, cluster.unreachable_since = 0, None
        if failures or (cluster.retry_at is not None and cluster.retry_at <= now):
            cluster.retry_at = None
        cluster.save(
            update_fields=[
                "health", "last_seen_at", "last_error", "consecutive_failures", "unreachable_since", "retry_at",
                "updated_at",
            ]
        )  # fmt: skip
        if was in (Health.UNREACHABLE, Health.REFUSED):
            _tell(events.CLUSTER_RECOVERED, cluster, "", since)


def _tell(event: EventType, cluster: Cluster, error: str, since: datetime | None = None) -> None:
    from apps.teams import scope

    payload = events.ClusterHealth(cluster.slug, cluster.name, error, since or cluster.unreachable_since)
    audit.record(
        event,
        payload,
        actor=Actor.system("clusters.health"),
        subject_type="clusters.cluster",
        subject_uid=cluster.uid,
    )
    outbox.publish(event, payload, recipients=scope.holders("clusters.cluster.manage"), subject_uid=cluster.uid)


def shown_health(cluster: Cluster, *, at: datetime | None = None) -> str:
    """Return what a page may say: never healthy once the last contact is stale, paused or archived where it is."""
    if cluster.archived_at is not None:
        return "archived"
    if cluster.paused_at is not None:
        return "paused"
    if cluster.health != Health.HEALTHY:
        return str(cluster.health)
    seen = cluster.last_seen_at
    return str(Health.HEALTHY) if seen is not None and (at or clock.now()) - seen <= STALE_AFTER else "stale"
