"""Maintenance windows: a time in which nothing is applied to a cluster. It is still probed and observed.

What is approved meanwhile waits; whoever waits is shown the reason and the end.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.clusters import events
from apps.clusters.access import require
from apps.clusters.models import Cluster, MaintenanceWindow
from apps.core import clock, formats, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.events import EventType

MANAGE = "clusters.cluster.manage"
#: The longest window: whoever needs more pauses the cluster, which everybody sees until a person resumes it.
LONGEST = timedelta(days=30)
#: How far ahead a window may begin.
FURTHEST = timedelta(days=366)
#: A form is filled in for longer than a minute: a beginning so long ago means now.
GRACE = timedelta(minutes=5)


@transaction.atomic
def schedule_maintenance(
    cluster_id: int,
    start: datetime,
    end: datetime,
    reason: str,
    *,
    actor: Actor,
    expected_version: int | None = None,
) -> MaintenanceWindow:
    """Plan a window `[start, end)` in which nothing is applied to a cluster.

    Raises Invalid (start, end, reason), NotAllowed, NotVisible, Conflict where the cluster row moved on.
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    now = clock.now()
    errors: dict[str, str] = {}
    if not reason.strip():
        errors["reason"] = "Say why: everybody who waits for this cluster reads it."
    if start < now - GRACE:
        errors["start"] = "A window cannot begin in the past. To stop at once, begin now or pause the cluster."
    elif start > now + FURTHEST:
        errors["start"] = "A window begins within a year from now."
    start = max(start, now)
    if end <= start:
        errors["end"] = "The end lies after the beginning and after now."
    elif end - start > LONGEST:
        errors["end"] = "A window lasts at most 30 days. Pause the cluster where you cannot say when it is back."
    if errors:
        raise Invalid(errors)
    valid = DateTimeTZRange(start, end, "[)")
    other = MaintenanceWindow.objects.filter(cluster=cluster, cancelled_at=None, valid__overlap=valid).first()
    if other is not None:
        held = f"{formats.datetime_utc(other.valid.lower)} to {formats.datetime_utc(other.valid.upper)}"
        raise Invalid({"start": f"There is a window from {held} already."})
    window = MaintenanceWindow.objects.create(cluster=cluster, valid=valid, reason=reason.strip()[:300])
    _record(events.MAINTENANCE_SCHEDULED, window, actor)
    return window


@transaction.atomic
def cancel_maintenance(window_id: int, *, actor: Actor, expected_version: int | None = None) -> MaintenanceWindow:
    """Take a window back, before or while it lasts; what waits is applied at once.

    Raises Conflict where it is cancelled or over, NotAllowed, NotVisible.
    """
    window = MaintenanceWindow.objects.locked(window_id, expected_version=expected_version)
    require(actor, MANAGE, window.cluster)
    if window.cancelled_at is not None:
        raise Conflict("This window is cancelled already.", current={"cancelled_at": window.cancelled_at.isoformat()})
    now = clock.now()
    if window.valid.upper <= now:
        raise Conflict("This window is over.", current={"end": window.valid.upper.isoformat()})
    window.cancelled_at = now
    window.bump("cancelled_at")
    _record(events.MAINTENANCE_CANCELLED, window, actor)
    return window


def _record(event: EventType, window: MaintenanceWindow, actor: Actor) -> None:
    from apps.teams import scope

    cluster = window.cluster
    payload = events.Maintenance(cluster.slug, cluster.name, window.valid.lower, window.valid.upper, window.reason)
    audit.record(
        event, payload, actor=actor, subject_type="clusters.cluster", subject_uid=cluster.uid, reason=window.reason
    )
    outbox.publish(event, payload, recipients=scope.holders(MANAGE), subject_uid=cluster.uid)
