"""Billing months as rows: which month a moment lies in, which are frozen, where a correction goes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from apps import audit
from apps.core import clock
from apps.core.actor import Actor
from apps.costs.choices import PeriodStatus
from apps.costs.models import DayCharge, Period
from apps.costs.period_events import PERIOD_MADE, PeriodMade
from apps.metering import billing

HOUR = timedelta(hours=1)


def ensure_period(month: date) -> Period:
    """Return the period of a billing month (any day of it), made where it is missing."""
    first = month.replace(day=1)
    start, end = billing.month_bounds(first)
    values = {"start": start, "end": end, "currency": str(settings.COMMONS_CURRENCY)}
    # Two workers may want the same month at once: the unique month lets one of them make it.
    with transaction.atomic():
        period, made = Period.objects.get_or_create(month=first, defaults=values)
        if made:
            audit.record(
                PERIOD_MADE,
                PeriodMade(month=f"{first:%Y-%m}", currency=period.currency),
                actor=Actor.system("costs.period"),
                subject_type="costs.period",
                subject_uid=period.uid,
            )
    return period


def period_of(at: datetime) -> Period:
    """Return the period that `at` lies in, made where it is missing."""
    return ensure_period(billing.month_of(at))


def open_period_for(at: datetime) -> Period:
    """Return the earliest open period at or after the month of `at`: where something is billed that comes at `at`."""
    month = billing.month_of(at)
    later = dict(Period.objects.filter(month__gte=month).values_list("month", "status"))
    while later.get(month, PeriodStatus.OPEN) != PeriodStatus.OPEN:
        month = billing.following(month)
    return ensure_period(month)


def frozen_hours(cluster_id: int, hours: Iterable[datetime]) -> set[datetime]:
    """Return those of a cluster's `hours` that lie in a closed month, of whichever cluster: a month closes as a whole.

    Waits for a freeze under way (share lock on the period's row), so that inside a transaction the answer stands until
    its end.
    """
    wanted = set(hours)
    if not wanted:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            'SELECT start, "end", status FROM costs_period WHERE start <= %s AND "end" > %s FOR SHARE',
            [max(wanted), min(wanted)],
        )
        closed = [(start, end) for start, end, status in cursor.fetchall() if status == PeriodStatus.CLOSED]
    return {hour for hour in wanted if any(start <= hour < end for start, end in closed)}


def months_with_charges() -> list[date]:
    """Return the billing months that have charges, earliest first (one index look-up per month)."""
    first = DayCharge.objects.order_by("day").values_list("day", flat=True).first()
    if first is None:
        return []
    found, month, last = [], first.replace(day=1), billing.month_of(clock.now())
    while month <= last:
        if DayCharge.objects.filter(day__gte=month, day__lt=billing.following(month)).exists():
            found.append(month)
        month = billing.following(month)
    return found


def make_periods() -> int:
    """Make the missing periods of months with charges and of the present month; returns how many."""
    wanted = {*months_with_charges(), billing.month_of(clock.now())}
    missing = sorted(wanted - set(Period.objects.filter(month__in=wanted).values_list("month", flat=True)))
    for month in missing:
        ensure_period(month)
    return len(missing)


__all__ = ["ensure_period", "frozen_hours", "make_periods", "months_with_charges", "open_period_for", "period_of"]
