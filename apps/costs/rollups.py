"""Keeps monthly and daily sums equal to the daily charges and daily usage they are made of.

Called with every change of a cluster's daily charges, in its transaction and under its cluster lock, so that a report
never lags behind the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from django.db import connection

from apps.metering import billing

_PRICED = """
  coalesce(max(r.currency), ''), sum(d.quantity_ms), sum(d.gpu_ms),
  coalesce(sum(d.quantity_ms * r.amount), 0)
FROM costs_daycharge d LEFT JOIN rates_rate r ON r.id = d.rate_id
"""
_MONTHS = f"""
INSERT INTO costs_monthtotal (month, cluster_id, kind, team_id, unit_id, flavour_id, capacity_type, service_class,
  currency, quantity_ms, gpu_ms, product)
SELECT date_trunc('month', d.day)::date, d.cluster_id, d.kind, d.team_id, d.unit_id, d.flavour_id, d.capacity_type,
  d.service_class, {_PRICED}
WHERE {{charges}}
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, r.currency
"""
_USED = """
INSERT INTO costs_monthtotal (month, cluster_id, kind, team_id, unit_id, capacity_type, service_class, currency,
  quantity_ms, gpu_ms, used_gpu_ms, measured_gpu_ms, idle_gpu_ms)
SELECT date_trunc('month', u.day)::date, u.cluster_id, 'usage', u.team_id, u.unit_id, '', '', '',
  sum(u.allocated_gpu_ms), sum(u.allocated_gpu_ms), sum(u.used_gpu_ms), sum(u.measured_gpu_ms), sum(u.idle_gpu_ms)
FROM metering_dayusage u WHERE {usage}
GROUP BY 1, 2, 4, 5
"""
_DAYS = f"""
INSERT INTO costs_daytotal (day, cluster_id, unit_id, kind, currency, quantity_ms, gpu_ms, product)
SELECT d.day, d.cluster_id, d.unit_id, d.kind, {_PRICED}
WHERE {{charges}}
GROUP BY 1, 2, 3, 4, r.currency
"""


def roll_up(cluster_id: int, days: Sequence[date]) -> None:
    """Replace the sums of a cluster's `days` (billing days) and of the months they lie in."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM costs_daytotal WHERE cluster_id = %s AND day = ANY(%s)", [cluster_id, list(days)])
        cursor.execute(_DAYS.format(charges="d.cluster_id = %s AND d.day = ANY(%s)"), [cluster_id, list(days)])
        for month in sorted({day.replace(day=1) for day in days}):
            cursor.execute("DELETE FROM costs_monthtotal WHERE cluster_id = %s AND month = %s", [cluster_id, month])
            window: tuple[int, date, date] = (cluster_id, month, billing.following(month))
            cursor.execute(_MONTHS.format(charges="d.cluster_id = %s AND d.day >= %s AND d.day < %s"), window)
            cursor.execute(_USED.format(usage="u.cluster_id = %s AND u.day >= %s AND u.day < %s"), window)
