"""What pages and other rooms ask about clusters, pools and capacity."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.clusters.health import shown_health
from apps.clusters.models import Cluster, MaintenanceWindow, PoolCapacity
from apps.core import clock, formats

__all__ = [
    "callable_now",
    "capacity_steps",
    "committable_at",
    "maintenance_now",
    "maintenance_of",
    "may_apply_now",
    "shown_health",
]


def committable_at(pool_id: int, at: datetime | None = None) -> int:
    """Return the GPUs of a pool that may be promised at `at` (default: now); 0 where nobody set any."""
    row = PoolCapacity.objects.filter(pool_id=pool_id, valid__contains=at or clock.now()).first()
    return row.committable_gpus if row is not None else 0


def capacity_steps(pool_id: int, start: datetime, end: datetime | None) -> list[tuple[datetime, datetime | None, int]]:
    """Return (from, until, GPUs) covering [start, end) without a gap; where nobody set any it is 0.

    `end=None`: without end; then the last step has no end either. Raises ValueError for an empty span.
    """
    if end is not None and end <= start:
        raise ValueError("the span is empty")
    rows = PoolCapacity.objects.filter(pool_id=pool_id, valid__overlap=DateTimeTZRange(start, end, "[)"))
    steps: list[tuple[datetime, datetime | None, int]] = []
    at: datetime | None = start
    for row in rows.order_by("valid"):
        lower, upper = row.valid.lower, row.valid.upper
        begins = start if lower is None else max(lower, start)
        if at is not None and begins > at:
            steps.append((at, begins, 0))
        until = upper if end is None else (end if upper is None else min(upper, end))
        steps.append((begins, until, row.committable_gpus))
        at = until
        if until is None:
            return steps
    if at is not None and (end is None or at < end):
        steps.append((at, end, 0))
    return steps


def callable_now(cluster: Cluster, *, at: datetime | None = None) -> bool:
    """Whether the portal may call this cluster now: neither paused nor resting behind its breaker."""
    if cluster.paused_at is not None:
        return False
    return cluster.retry_at is None or cluster.retry_at <= (at or clock.now())


def maintenance_now(cluster: Cluster, at: datetime | None = None) -> MaintenanceWindow | None:
    """Return the maintenance window in which a cluster is at `at` (default: now), None outside of any."""
    rows = MaintenanceWindow.objects.filter(cluster=cluster, cancelled_at=None, valid__contains=at or clock.now())
    return rows.order_by("valid", "pk").first()


def maintenance_of(
    cluster_ids: Iterable[int] | None = None, at: datetime | None = None
) -> dict[int, MaintenanceWindow]:
    """Return cluster id → the window it is in at `at` (default: now), for those that are in one (one query).

    `cluster_ids` None: of all clusters.
    """
    rows = MaintenanceWindow.objects.filter(cancelled_at=None, valid__contains=at or clock.now())
    if cluster_ids is not None:
        rows = rows.filter(cluster_id__in=set(cluster_ids))
    return {row.cluster_id: row for row in rows}


def maintenance_on_page(cluster: Cluster) -> dict[int, MaintenanceWindow]:
    """Return `maintenance_of` one cluster, read once for all that shows this very instance (a page loads one)."""
    held: dict[int, MaintenanceWindow] | None = cluster.__dict__.get("_maintenance_read")
    if held is None:
        held = cluster.__dict__["_maintenance_read"] = maintenance_of([cluster.pk])
    return held


def know_maintenance(cluster: Cluster, window: MaintenanceWindow | None) -> None:
    """Note, for `maintenance_on_page`, the window that a page has read already."""
    cluster.__dict__["_maintenance_read"] = {cluster.pk: window} if window is not None else {}


def may_apply_now(cluster: Cluster, at: datetime | None = None) -> tuple[bool, str, datetime | None]:
    """Return whether the portal may apply to a cluster at `at` (default: now), else why not and until when.

    The end is None where nobody can say (paused). Asking costs one query. A cluster that may not be applied to because
    of maintenance may still be called (`callable_now`): probing and observing go on.
    """
    at = at or clock.now()
    if cluster.paused_at is not None:
        return False, f"{cluster} is paused: {cluster.pause_reason}", None
    if (window := maintenance_now(cluster, at)) is not None:
        until = formats.datetime_utc(window.valid.upper)
        return False, f"maintenance of {cluster} until {until}: {window.reason}", window.valid.upper
    if cluster.retry_at is not None and cluster.retry_at > at:
        return False, f"{cluster} is given a rest: {cluster.last_error or 'it asked for it'}", cluster.retry_at
    return True, "", None
