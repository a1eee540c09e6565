"""Bring the simulated cluster's past into the books, through the same ingest that every source goes through."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from apps.core.errors import Conflict
from apps.costs import actions as costs
from apps.demo import seed
from apps.metering import actions as metering
from apps.metering import billing
from apps.metering.choices import Trigger
from apps.metering.models import HourStatus, Source


def meter(context: seed.Context, at: datetime, progress: Callable[[str], None]) -> str:
    """Read every hour of history that is not in the books yet, month by month, and price it."""
    source = Source.objects.get(cluster=context.cluster, valid__contains=at)
    start, end = seed.hours_to_meter(at)
    month = billing.month_of(start)
    hours = 0
    while (span := billing.month_bounds(month))[0] < end:
        first, last = max(span[0], start), min(span[1], end)
        expected = int((last - first).total_seconds() // 3600)
        known = HourStatus.objects.filter(cluster=context.cluster, hour__gte=first, hour__lt=last).count()
        if known < expected:
            try:
                metering.ingest_hours(source.pk, first, last, actor=seed.SEEDER, trigger=Trigger.MANUAL)
            except Conflict:
                # The worker's own sweep reads the same cluster at this moment and does the same work.
                progress(f"{month:%B %Y}: the worker is at it")
            else:
                progress(f"{month:%B %Y}: {expected} hours")
            hours += expected - known
        month = billing.following(month)
    while costs.price_due():
        pass
    return f"{hours} hours" if hours else "as before"
