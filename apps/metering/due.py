"""Finds the hours that are due and reads them: the guarantee behind every nudge."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Q

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import CommonsError
from apps.metering.actions import HOUR, ingest_hours
from apps.metering.choices import POLLED, SourceKind, Trigger
from apps.metering.models import Source
from apps.metering.writer import FINAL_AFTER, PROVISIONAL_AFTER

logger = logging.getLogger(__name__)

#: Every hour of the last two days is read again once it was last read this long ago: late data arrives.
TRAILING = timedelta(hours=48)
REREAD_AFTER = timedelta(hours=6)
#: Hours read per source and round, by how many one request brings.
BATCH = {
    SourceKind.PROMETHEUS: 12,
    SourceKind.ALLOCATION: 24 * 31,
    SourceKind.KUBECOST: 48,
    SourceKind.CSV: 24 * 35,
}


def due_hours(source: Source, limit: int) -> list[datetime]:
    """Return the hours of a source that are due now, newest first, at most `limit`.

    Due are: never read (polled sources), asked for, missing or incomplete after their pause, provisional and old
    enough to become final, and the trailing 48 hours once every six hours.
    """
    now = clock.now()
    low = source.valid.lower
    last = clock.hour_floor(now - PROVISIONAL_AFTER)
    high = min(source.valid.upper, last) if source.valid.upper else last
    if low is None or high <= low:
        return []
    polled = source.kind in POLLED
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT h.hour FROM generate_series(%(low)s::timestamptz, %(high)s::timestamptz - interval '1 hour',
              interval '1 hour') AS h(hour)
            LEFT JOIN metering_hourstatus s ON s.cluster_id = %(cluster)s AND s.hour = h.hour
            WHERE (s.id IS NULL AND %(polled)s)
               OR (s.requested_at IS NOT NULL AND (s.read_at IS NULL OR s.read_at < s.requested_at))
               OR (%(polled)s AND (s.retry_at IS NULL OR s.retry_at <= %(now)s) AND (
                    s.state IN ('missing', 'incomplete')
                    OR (s.state = 'provisional' AND h.hour <= %(final)s)
                    OR (h.hour > %(trailing)s AND s.read_at < %(reread)s)
                  ))
            ORDER BY h.hour DESC LIMIT %(limit)s
            """,
            {
                "low": low,
                "high": high,
                "cluster": source.cluster_id,
                "polled": polled,
                "now": now,
                "final": now - FINAL_AFTER - HOUR,
                "trailing": now - TRAILING,
                "reread": now - REREAD_AFTER,
                "limit": limit,
            },
        )
        return [hour for (hour,) in cursor.fetchall()]


def windows(hours: list[datetime]) -> list[tuple[datetime, datetime]]:
    """Return hours (newest first) as contiguous windows [start, end), newest first."""
    found: list[tuple[datetime, datetime]] = []
    for hour in hours:
        if found and found[-1][0] == hour + HOUR:
            found[-1] = (hour, found[-1][1])
        else:
            found.append((hour, hour + HOUR))
    return found


def ingest_due(*, progress: Callable[[datetime], None] | None = None, only: int | None = None) -> int:
    """Read what is due of every source, newest hours first; returns how many hours were written or looked at.

    A source that fails, or that another worker holds, is left for the next round. `only` names one source.
    """
    now = clock.now()
    sources = Source.objects.filter(Q(retry_at__isnull=True) | Q(retry_at__lte=now), valid__startswith__lte=now)
    if only is not None:
        sources = sources.filter(pk=only)
    moved = 0
    for source in sources.order_by("pk"):
        for start, end in windows(due_hours(source, BATCH[SourceKind(source.kind)])):
            try:
                run = ingest_hours(
                    source.pk,
                    start,
                    end,
                    actor=Actor.system("metering.ingest"),
                    trigger=Trigger.SWEEP,
                    progress=progress,
                )
            except CommonsError as error:
                logger.info("hours left for the next round", extra={"source": str(source.uid), "error": error.message})
                break
            moved += run.hours_written + run.hours_unchanged
            if run.error:
                break
    return moved
