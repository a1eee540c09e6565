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
#: One row a team, cluster and month out of the monthly sums; the kinds are those of `choices`, and USAGE.
_TEAM_MONTHS = """
INSERT INTO costs_teammonth (month, cluster_id, team_id, unit_id, currency, priced_ms, unpriced_ms, gpu_ms,
  unpriced_gpu_ms, product, resource_priced_ms, resource_unpriced_ms, resource_product, allocated_gpu_ms, used_gpu_ms,
  measured_gpu_ms, idle_gpu_ms, spare_priced_ms, spare_unpriced_ms, spare_gpu_ms, spare_unpriced_gpu_ms, spare_product)
SELECT m.month, m.cluster_id, m.team_id, m.unit_id,
  CASE WHEN min(nullif(m.currency, '')) < max(m.currency) THEN min(nullif(m.currency, '')) || ',' || max(m.currency)
    ELSE max(m.currency) END,
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.paid AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.paid AND m.currency = ''), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.paid), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.paid AND m.currency = ''), 0),
  coalesce(sum(m.product) FILTER (WHERE k.paid AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.resource AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.resource AND m.currency = ''), 0),
  coalesce(sum(m.product) FILTER (WHERE k.resource AND m.currency <> ''), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.usage), 0), sum(m.used_gpu_ms), sum(m.measured_gpu_ms), sum(m.idle_gpu_ms),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.spare AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.spare AND m.currency = ''), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.spare), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.spare AND m.currency = ''), 0),
  coalesce(sum(m.product) FILTER (WHERE k.spare AND m.currency <> ''), 0)
FROM costs_monthtotal m JOIN (VALUES
  ('allocated', true, false, false, false), ('unattributed', true, false, false, false),
  ('cpu', true, true, false, false), ('memory', true, true, false, false), ('storage', true, true, false, false),
  ('egress', true, true, false, false), ('usage', false, false, true, false),
  ('reserved_unused', false, false, false, true)
) AS k (kind, paid, resource, usage, spare) ON k.kind = m.kind
WHERE m.cluster_id = %s AND m.month = %s
GROUP BY 1, 2, 3, 4
"""
_UNIT_MONTHS = """
INSERT INTO costs_unitmonth (month, cluster_id, unit_id, kind, flavour_id, capacity_type, service_class, currency,
  quantity_ms, gpu_ms, product)
SELECT m.month, m.cluster_id, m.unit_id, m.kind, m.flavour_id, m.capacity_type, m.service_class, m.currency,
  sum(m.quantity_ms), sum(m.gpu_ms), sum(m.product)
FROM costs_monthtotal m
WHERE m.cluster_id = %s AND m.month = %s AND m.kind <> 'usage'
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
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
            for table, statement in (("costs_teammonth", _TEAM_MONTHS), ("costs_unitmonth", _UNIT_MONTHS)):
                cursor.execute(f"DELETE FROM {table} WHERE cluster_id = %s AND month = %s", [cluster_id, month])  # noqa: S608 (names of this file)
                cursor.execute(statement, [cluster_id, month])
