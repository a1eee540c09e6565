"""Whether the books of a month agree with each other: one statement per question, over whole cluster-hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from apps.core.canonical import digest_of
from apps.costs.models import Period
from apps.metering import billing

#: How many differences are named; all are counted.
NAMED = 20
#: Invariant 6: what a cluster's GPU time of a model and hour falls on is what is physically there.
_CAPACITY = """
SELECT cluster_id, hour, gpu_model, sum(gpu_ms) FILTER (WHERE kind <> 'physical') AS ours,
  sum(gpu_ms) FILTER (WHERE kind = 'physical') AS theirs
FROM metering_capacityline WHERE hour >= %(start)s AND hour < %(end)s
GROUP BY cluster_id, hour, gpu_model
HAVING coalesce(sum(gpu_ms) FILTER (WHERE kind <> 'physical'), 0)
  <> coalesce(sum(gpu_ms) FILTER (WHERE kind = 'physical'), 0)
"""
#: Charges are read once for both comparisons: a month has millions. Per cluster, hour and class of rows: what is
#: charged is what was metered, in GPU time, and of resources in quantity. Per cluster and kind: the daily charges,
#: which statements are made of, are the charges.
_CHARGES = """
WITH sold AS (
  -- A resource is charged from its first price on: what was metered before that is no difference.
  SELECT cluster_id, resource, min(coalesce(lower(valid), '-infinity')) AS since FROM rates_rate
  WHERE flavour_id IS NULL GROUP BY cluster_id, resource
), charge AS MATERIALIZED (
  SELECT cluster_id, hour, kind, coalesce(rate_id, 0) AS rate, sum(gpu_ms) AS gpu, sum(quantity_ms) AS quantity
  FROM costs_charge WHERE hour >= %(start)s AND hour < %(end)s GROUP BY 1, 2, 3, 4
), charged AS (
  SELECT cluster_id, hour, CASE WHEN kind IN ('allocated', 'unattributed') THEN 'facts' ELSE 'capacity' END AS class,
    sum(gpu) AS total
  FROM charge WHERE kind NOT IN ('cpu', 'memory', 'storage', 'egress') GROUP BY 1, 2, 3
  UNION ALL
  SELECT c.cluster_id, c.hour, c.kind, sum(c.quantity) FROM charge c
  JOIN sold ON sold.cluster_id = c.cluster_id AND sold.resource = c.kind AND c.hour >= sold.since
  GROUP BY 1, 2, 3
), metered AS (
  SELECT cluster_id, hour, 'facts' AS class, sum(allocated_gpu_ms) AS total FROM metering_hourfact
  WHERE hour >= %(start)s AND hour < %(end)s GROUP BY 1, 2
  UNION ALL
  SELECT cluster_id, hour, 'capacity', sum(gpu_ms) FROM metering_capacityline
  WHERE hour >= %(start)s AND hour < %(end)s AND kind IN ('reserved_unused', 'unsold', 'stranded', 'maintenance')
  GROUP BY 1, 2
  UNION ALL
  SELECT f.cluster_id, f.hour, f.resource, sum(f.quantity_ms) FROM metering_resourcefact f
  JOIN sold ON sold.cluster_id = f.cluster_id AND sold.resource = f.resource AND f.hour >= sold.since
  WHERE f.hour >= %(start)s AND f.hour < %(end)s GROUP BY 1, 2, 3
), found AS (
  SELECT 'charged' AS book, cluster_id, hour, class AS what, coalesce(c.total, 0) AS ours,
    coalesce(m.total, 0) AS theirs
  FROM charged c FULL JOIN metered m USING (cluster_id, hour, class)
  WHERE coalesce(c.total, 0) <> coalesce(m.total, 0)
  UNION ALL
  SELECT 'daily', cluster_id, CAST(%(start)s AS timestamptz), kind, coalesce(d.total, 0), coalesce(c.total, 0)
  FROM (SELECT cluster_id, kind, coalesce(rate_id, 0) AS rate, sum(quantity_ms) AS total FROM costs_daycharge
        WHERE day >= %(first)s AND day < %(next)s GROUP BY 1, 2, 3) d
  FULL JOIN (SELECT cluster_id, kind, rate, sum(quantity) AS total FROM charge GROUP BY 1, 2, 3) c
    USING (cluster_id, kind, rate)
  WHERE coalesce(d.total, 0) <> coalesce(c.total, 0)
)
SELECT cluster_id, hour, what, ours, theirs, book, total FROM (
  SELECT found.*, count(*) OVER (PARTITION BY book) AS total,
    row_number() OVER (PARTITION BY book ORDER BY hour, cluster_id, what) AS place FROM found
) placed WHERE place <= %(named)s ORDER BY book, place
"""
#: Hours whose charges stand on other facts than the present ones.
_STALE = """
SELECT s.cluster_id, s.hour, '', coalesce(p.revision, 0), s.revision FROM metering_hourstatus s
LEFT JOIN costs_pricedhour p ON p.cluster_id = s.cluster_id AND p.hour = s.hour
WHERE s.hour >= %(start)s AND s.hour < %(end)s AND s.revision > 0 AND coalesce(p.revision, 0) <> s.revision
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two books say different things of one cluster-hour."""

    cluster_id: int
    hour: datetime
    what: str
    ours: int
    theirs: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison came to: all differences counted, the first few named."""

    count: int
    differences: Sequence[Difference]


def _parameters(period: Period) -> dict[str, Any]:
    return {
        "start": period.start, "end": period.end, "first": period.month, "next": billing.following(period.month),
    }  # fmt: skip


def _compared(rows: Sequence[Any], count: int) -> Compared:
    found = [Difference(row[0], row[1], row[2], int(row[3] or 0), int(row[4] or 0)) for row in rows]
    return Compared(int(rows[0][count]) if rows else 0, found)


def _compare(query: str, period: Period) -> Compared:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT *, count(*) OVER () FROM ({query}) found ORDER BY 2, 1, 3 LIMIT {NAMED}",  # noqa: S608 (own constants)
            _parameters(period),
        )
        return _compared(cursor.fetchall(), 5)


def capacity(period: Period) -> Compared:
    """Compare the capacity lines with what is physically there, per cluster, GPU model and hour."""
    return _compare(_CAPACITY, period)


def charges(period: Period) -> tuple[Compared, Compared]:
    """Compare the charges with what was metered and the daily charges with the charges: (charged, daily).

    The first per cluster and hour with facts, capacity lines and resource facts; the second per cluster, kind and rate.
    """
    with connection.cursor() as cursor:
        cursor.execute(_CHARGES, {**_parameters(period), "named": NAMED})
        rows = cursor.fetchall()
    one, other = ([row for row in rows if row[5] == book] for book in ("charged", "daily"))
    return _compared(one, 6), _compared(other, 6)


def charged(period: Period) -> Compared:
    """Compare the charges with facts, capacity lines and resource facts, per cluster and hour."""
    return charges(period)[0]


def daily(period: Period) -> Compared:
    """Compare the daily charges with the charges, per cluster, kind and rate."""
    return charges(period)[1]


def stale(period: Period) -> Compared:
    """Find hours whose charges do not stand on their present facts."""
    return _compare(_STALE, period)


def digest_of_hours(period: Period) -> str:
    """Return the SHA-256 over every hour's cluster, revision and content hash: which facts the statements stand on."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.slug, to_char(s.hour AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24'), s.revision, s.inputs_hash"
            " FROM metering_hourstatus s JOIN clusters_cluster c ON c.id = s.cluster_id"
            " WHERE s.hour >= %s AND s.hour < %s AND s.revision > 0 ORDER BY 1, 2",
            [period.start, period.end],
        )
        return digest_of([list(row) for row in cursor.fetchall()])


__all__ = ["Compared", "Difference", "capacity", "charged", "charges", "daily", "digest_of_hours", "stale"]
