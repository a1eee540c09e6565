"""The audit tables' month partitions, made through `audit.ensure_month()` (owned by `commons_audit`)."""

from __future__ import annotations

from datetime import date, datetime

from django.db import connection, transaction

from apps.core import clock
from apps.core.partitions import MONTHS_AHEAD, month_start, months_between, next_month

# Months known to be committed, so that recording an event costs no extra statement; and months this process made in a
# transaction that may yet roll back, which are not to be trusted until their commit.
_known: set[date] = set()
_made: set[date] = set()


def ensure(at: datetime | date) -> bool:
    """Make the partitions of the UTC month of `at` where they are missing; True where they were."""
    month = month_start(at)
    if month in _known:
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit.ensure_month(%s)", [month])
        made = bool(cursor.fetchone()[0])
    if made:
        _made.add(month)
        transaction.on_commit(lambda: _known.add(month))
    elif month not in _made:
        _known.add(month)
    return made


def ensure_range(first: datetime | date, last: datetime | date) -> int:
    """Make the partitions of every month from that of `first` to that of `last`; returns how many were made."""
    return sum(ensure(month) for month in months_between(first, last))


def ensure_ahead() -> int:
    """Make this month's partitions and those of the next `MONTHS_AHEAD`; returns how many were made."""
    this = month_start(clock.now())
    return ensure_range(this, next_month(this, MONTHS_AHEAD))
