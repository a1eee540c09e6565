"""Workloads over a time, from hourly facts and their charges: what they held, used and cost, and what was idle.

An hour of a workload is idle where its use is known from at least 90 % of the samples of everything it held, and is
below the threshold. Idle hours without a gap are a run; what was held in a run after its first N hours is what
stopping the workload after N idle hours saves, each hour at the price that it was charged at (cost.md G5). A run that
began before the time looked at counts its first hours anew: never too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db import connection, transaction

from apps.core import clock
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.costs.models import MonthTotal
from apps.insights.idle_use import MIN_COVERAGE_PERMILLE
from apps.insights.report_models import WorkloadMonth
from apps.metering import billing
from apps.quotas.idle_policy import IdlePolicy

#: What a workspace without a policy of its own is judged by, and what is proposed to it.
PROPOSED = IdlePolicy(enabled=True)
#: Until this day of the month late hours of the month before may still arrive.
_SETTLED_ON = 5

# One row a workload and flavour. `nth` counts the hours of a run of idle hours without a gap (gaps and islands).
_WORKLOADS = """
WITH charge AS (
  SELECT c.hour, c.fact_uid, sum(c.quantity_ms * r.amount) AS product, max(r.currency) AS currency,
    coalesce(sum(c.quantity_ms) FILTER (WHERE r.id IS NULL), 0) AS unpriced
  FROM costs_charge c LEFT JOIN rates_rate r ON r.id = c.rate_id
  WHERE c.cluster_id = %(cluster)s AND c.hour >= %(start)s AND c.hour < %(end)s
    AND c.kind IN ('allocated', 'unattributed')
  GROUP BY 1, 2
), hourly AS (
  SELECT f.team_id, f.unit_id, f.workspace_id, f.namespace, f.workload_kind, f.workload_name, f.flavour_id, f.hour,
    max(f.team_name) AS team_name, max(f.flavour_name) AS flavour_name, max(f.project) AS project,
    max(f.purpose) AS purpose, max(f.environment) AS environment,
    sum(f.allocated_gpu_ms) AS gpu, sum(f.allocated_unit_ms) AS unit, sum(f.used_gpu_ms) AS seen,
    CASE WHEN bool_or(f.used_gpu_ms IS NULL OR f.coverage_permille < %(coverage)s) THEN NULL
      ELSE sum(f.used_gpu_ms) END AS used,
    CASE WHEN bool_or(f.gpu_memory_mib IS NULL) THEN NULL ELSE sum(f.gpu_memory_mib) END AS memory,
    coalesce(sum(c.product), 0) AS product, max(c.currency) AS currency,
    coalesce(sum(coalesce(c.unpriced, f.allocated_unit_ms)), 0) AS unpriced
  FROM metering_hourfact f LEFT JOIN charge c ON c.hour = f.hour AND c.fact_uid = f.uid
  WHERE f.cluster_id = %(cluster)s AND f.hour >= %(start)s AND f.hour < %(end)s AND f.allocated_gpu_ms > 0
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
), marked AS (
  SELECT *, coalesce(used * 100 < gpu * %(threshold)s, false) AS idle FROM hourly
), island AS (
  SELECT *, hour - row_number() OVER (
    PARTITION BY team_id, unit_id, workspace_id, namespace, workload_kind, workload_name, flavour_id, idle
    ORDER BY hour) * interval '1 hour' AS began FROM marked
), ranked AS (
  SELECT *, row_number() OVER (
    PARTITION BY team_id, unit_id, workspace_id, namespace, workload_kind, workload_name, flavour_id, idle, began
    ORDER BY hour) AS nth FROM island
)
SELECT team_id, unit_id, workspace_id, namespace, workload_kind, workload_name, flavour_id, max(team_name) AS team_name,
  max(flavour_name) AS flavour_name, max(project) AS project, max(purpose) AS purpose,
  max(environment) AS environment, count(*) AS hours, sum(gpu) AS allocated_gpu_ms, sum(unit) AS allocated_unit_ms,
  sum(seen) AS used_gpu_ms, coalesce(sum(gpu) FILTER (WHERE used IS NOT NULL), 0) AS covered_gpu_ms,
  coalesce(sum(gpu) FILTER (WHERE idle), 0) AS idle_gpu_ms,
  coalesce(sum(gpu) FILTER (WHERE idle AND nth > %(hours)s), 0) AS savable_gpu_ms,
  count(*) FILTER (WHERE idle) AS idle_hours, coalesce(max(currency), '') AS currency, sum(product) AS product,
  coalesce(sum(product) FILTER (WHERE idle AND nth > %(hours)s), 0) AS savable_product, sum(unpriced) AS unpriced_ms,
  CASE WHEN bool_or(memory IS NULL) THEN NULL ELSE max(memory) END AS most_memory_mib,
  percentile_disc(0.95) WITHIN GROUP (ORDER BY (used * 1000 / gpu)::integer) AS use_p95_permille,
  max(hour) AS last_hour
FROM ranked GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY sum(product) DESC, 4, 6, 7
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload over a time; fields as of `WorkloadMonth`."""

    team_id: int | None
    unit_id: int | None
    workspace_id: int | None
    namespace: str
    workload_kind: str
    workload_name: str
    flavour_id: int | None
    team_name: str
    flavour_name: str
    project: str
    purpose: str
    environment: str
    hours: int
    allocated_gpu_ms: int
    allocated_unit_ms: int
    used_gpu_ms: int | None
    covered_gpu_ms: int
    idle_gpu_ms: int
    savable_gpu_ms: int
    idle_hours: int
    currency: str
    product: Decimal
    savable_product: Decimal
    unpriced_ms: int
    most_memory_mib: int | None
    use_p95_permille: int | None
    last_hour: datetime

    @property
    def coverage_permille(self) -> int:
        """The part of what it held whose use is known."""
        return self.covered_gpu_ms * 1000 // self.allocated_gpu_ms if self.allocated_gpu_ms else 0

    @property
    def amount(self) -> Decimal | None:
        """What it cost; None: none of it has a price."""
        return self.product / MILLISECONDS_PER_HOUR if self.currency else None


_NUMBERS = (
    "hours", "allocated_gpu_ms", "allocated_unit_ms", "used_gpu_ms", "covered_gpu_ms", "idle_gpu_ms", "savable_gpu_ms",
    "idle_hours", "unpriced_ms", "most_memory_mib", "use_p95_permille",
)  # fmt: skip


def workloads_of(cluster_id: int, start: datetime, end: datetime, policy: IdlePolicy = PROPOSED) -> list[Workload]:
    """Return what ran on a cluster in a time, dearest first, judged by threshold and idle hours of a policy."""
    with connection.cursor() as cursor:
        cursor.execute(
            _WORKLOADS,
            {
                "cluster": cluster_id, "start": start, "end": end, "coverage": MIN_COVERAGE_PERMILLE,
                "threshold": policy.threshold_percent, "hours": policy.idle_hours,
            },
        )  # fmt: skip
        names = [column.name for column in cursor.description or ()]
        return [Workload(**_typed(dict(zip(names, row, strict=True)))) for row in cursor.fetchall()]


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    return {key: int(value) if key in _NUMBERS and value is not None else value for key, value in row.items()}


@transaction.atomic
def remember_month(cluster_id: int, month: date) -> int:
    """Replace the workloads kept of a cluster's billing month; returns how many there are."""
    start, end = billing.month_bounds(month)
    now = clock.now()
    with connection.cursor() as cursor:  # two workers at the same time write the same rows one after the other
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('insights.workloads'), %s)", [cluster_id])
    found = workloads_of(cluster_id, start, end)
    WorkloadMonth.objects.filter(cluster_id=cluster_id, month=month).delete()
    columns = [name for name in Workload.__dataclass_fields__ if name not in ("amount", "coverage_permille")]
    WorkloadMonth.objects.bulk_create(
        [
            WorkloadMonth(
                month=month, cluster_id=cluster_id, made_at=now,
                amount=None if one.amount is None else one.amount.quantize(Decimal("0.000001")),
                **{name: getattr(one, name) for name in columns},
            )
            for one in found
        ],
        batch_size=2000,
    )  # fmt: skip
    return len(found)


def remember_all(at: datetime) -> int:
    """Rebuild what is kept of the running month (and the one before, until five days after it), fill what is missing.

    Returns how many cluster-months were written.
    """
    month = billing.month_of(at)
    fresh = {month} | ({billing.previous(month)} if billing.day_of(at).day <= _SETTLED_ON else set())
    charged = set(MonthTotal.objects.order_by().values_list("cluster_id", "month").distinct())
    known = set(WorkloadMonth.objects.order_by().values_list("cluster_id", "month").distinct())
    due = sorted(pair for pair in charged if pair[1] in fresh or pair not in known)
    for cluster_id, one in due:
        remember_month(cluster_id, one)
    return len(due)
