"""Month partitions: how a room's table gets the partition of a month without the portal owning any table.

A room makes its parent in a migration (`CREATE TABLE metering_fact (…) PARTITION BY RANGE (hour)`, unique keys with the
partition key in them) and names it beside that: `month_partitioned("metering_fact")`. From then on `ensure_month()`,
run as the portal's plain role, makes `metering_fact_2026_11` through the SECURITY DEFINER function
`commons.ensure_month(parent, month)`, owned by `commons_owner`; that function refuses any table not so named. There is
no default partition: a row of a month nobody ensured is refused. Indexes, checks and triggers are taken over from the
parent; attaching takes no lock that would stop readers or writers. The sweep `core.ensure_months` keeps
`MONTHS_AHEAD` months ready. Months are UTC months, whatever the billing zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

from django.db import connection
from django.db.migrations.operations.special import RunSQL

from apps.core import clock

MONTHS_AHEAD = 3


def month_start(at: datetime | date) -> date:
    """Return the first day of the UTC month that `at` lies in. Raises ValueError for a naive time."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("a month needs a timezone-aware time")
        at = at.astimezone(UTC).date()
    return at.replace(day=1)


def months_between(first: datetime | date, last: datetime | date) -> Iterator[date]:
    """Yield the first days of the UTC months from that of `first` to that of `last`, both included."""
    month, end = month_start(first), month_start(last)
    while month <= end:
        yield month
        month = next_month(month)


def next_month(month: date, by: int = 1) -> date:
    """Return the first day of the month `by` months after `month`."""
    index = month.year * 12 + month.month - 1 + by
    return date(index // 12, index % 12 + 1, 1)


def month_partitioned(parent: str) -> RunSQL:
    """Return the migration operation that lets `ensure_month` make partitions of `parent` (a table in `public`)."""
    return RunSQL(
        sql=[("INSERT INTO commons.partitioned_table (parent) VALUES (%s) ON CONFLICT DO NOTHING", [parent])],
        reverse_sql=[("DELETE FROM commons.partitioned_table WHERE parent = %s", [parent])],
    )


def partitioned_tables() -> list[str]:
    """Return the tables that migrations have named as partitioned by month."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT parent FROM commons.partitioned_table ORDER BY parent")
        return [parent for (parent,) in cursor.fetchall()]


def ensure_month(parent: str, at: datetime | date) -> bool:
    """Make the partition of `parent` for the UTC month of `at`; True where it had to be made.

    Safe to call at any time by any number of processes. Raises django.db.ProgrammingError for a table that no
    migration has named, ValueError for a naive time.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT commons.ensure_month(%s, %s)", [parent, month_start(at)])
        return bool(cursor.fetchone()[0])


def ensure_months_ahead() -> int:
    """Make this month's and the next `MONTHS_AHEAD` months' partitions of every such table; returns how many."""
    this = month_start(clock.now())
    return sum(
        ensure_month(parent, month)
        for parent in partitioned_tables()
        for month in months_between(this, next_month(this, MONTHS_AHEAD))
    )
