"""Billing days and months: calendar months in the installation's billing zone, whole hours from UTC (design §7)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_OFFSET = re.compile(r"([+-])(\d{2}):00")


@cache
def _parsed(text: str) -> timedelta:
    found = _OFFSET.fullmatch(text)
    if not found or int(found.group(2)) > 14:
        raise ImproperlyConfigured(f"COMMONS_BILLING_TIMEZONE is whole hours from UTC like +05:00, not {text!r}")
    hours = int(found.group(2))
    return timedelta(hours=-hours if found.group(1) == "-" else hours)


def offset() -> timedelta:
    """Return the billing zone's distance from UTC. Raises ImproperlyConfigured for anything but whole hours."""
    return _parsed(settings.COMMONS_BILLING_TIMEZONE)


def zone_name() -> str:
    """Return how pages name the zone: "UTC" or "UTC+05:00"."""
    return "UTC" if not offset() else f"UTC{settings.COMMONS_BILLING_TIMEZONE}"


def day_of(at: datetime) -> date:
    """Return the billing day that `at` lies in."""
    return (at.astimezone(UTC) + offset()).date()


def month_of(at: datetime) -> date:
    """Return the first day of the billing month that `at` lies in."""
    return day_of(at).replace(day=1)


def day_start(day: date) -> datetime:
    """Return the moment a billing day begins."""
    return datetime.combine(day, time(0), UTC) - offset()


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return [start, end) of a billing day."""
    return day_start(day), day_start(day + timedelta(days=1))


def following(month: date) -> date:
    """Return the first day of the next month."""
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


def previous(month: date) -> date:
    """Return the first day of the month before."""
    return (month.replace(day=1) - timedelta(days=1)).replace(day=1)


def month_bounds(month: date) -> tuple[datetime, datetime]:
    """Return [start, end) of a billing month."""
    first = month.replace(day=1)
    return day_start(first), day_start(following(first))


def parse_month(text: str) -> date:
    """Return the first day of a month written yyyy-mm. Raises ValueError for anything else."""
    if not re.fullmatch(r"\d{4}-\d{2}", text):
        raise ValueError(f"a month is written yyyy-mm, not {text!r}")
    return date(int(text[:4]), int(text[5:]), 1)
