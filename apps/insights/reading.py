"""What the findings stand on: quotas, metered hours, and what the books say that unused reservations cost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Q

from apps.clusters.choices import DeviceClass
from apps.clusters.models import Cluster
from apps.costs.models import PricedHour
from apps.costs.tally import Tally
from apps.insights.hoarding import Held, Rules, Use
from apps.metering.choices import METERED
from apps.metering.models import HourStatus
from apps.quotas.choices import RequestStatus
from apps.quotas.models import Quota, QuotaRequest

#: (workspace id, flavour id)
Key = tuple[int, int]

# The highest number held at once: a sweep over the edges of all spans of an hour, ends before beginnings.
_USES = """
WITH piece AS (
  SELECT workspace_id, flavour_id, hour, spans, allocated_unit_ms FROM metering_hourfact
  WHERE cluster_id = %(cluster)s AND hour >= %(start)s AND hour < %(end)s AND workspace_id = ANY(%(workspaces)s)
    AND flavour_id IS NOT NULL
), edge AS (
  SELECT workspace_id, flavour_id, hour, spans[i] AS at, spans[i + 2] AS delta
  FROM piece, generate_series(1, cardinality(spans) - 2, 3) AS i
  UNION ALL
  SELECT workspace_id, flavour_id, hour, spans[i + 1], -spans[i + 2]
  FROM piece, generate_series(1, cardinality(spans) - 2, 3) AS i
), level AS (
  SELECT workspace_id, flavour_id, hour, sum(delta) OVER (
    PARTITION BY workspace_id, flavour_id, hour ORDER BY at, delta ROWS UNBOUNDED PRECEDING) AS units FROM edge
), peak AS (
  SELECT workspace_id, flavour_id, hour, max(units) AS units FROM level GROUP BY 1, 2, 3
)
SELECT p.workspace_id, p.flavour_id, p.hour,
  greatest(coalesce(max(k.units), 0), ceil(sum(p.allocated_unit_ms) / 3600000.0)), sum(p.allocated_unit_ms)
FROM piece p LEFT JOIN peak k USING (workspace_id, flavour_id, hour) GROUP BY 1, 2, 3
"""


def rules() -> Rules:
    """Return the installation's rules."""
    return Rules(
        days=settings.COMMONS_HOARDING_DAYS,
        min_held_days=settings.COMMONS_HOARDING_MIN_HELD_DAYS,
        margin_percent=settings.COMMONS_HOARDING_MARGIN_PERCENT,
        min_units=settings.COMMONS_HOARDING_MIN_UNITS,
        min_percent=settings.COMMONS_HOARDING_MIN_PERCENT,
        max_gap_permille=settings.COMMONS_HOARDING_MAX_GAP_PERMILLE,
    )


def holders(cluster: Cluster, at: datetime, days: int) -> list[Quota]:
    """Return the quotas in force that could be given back: lasting ones. What ends soon or recurs goes by itself.

    GPUs alone: cores are not metered, so nothing could be said of how many of them lie idle.
    """
    rows = Quota.objects.filter(
        Q(valid__endswith__isnull=True) | Q(valid__endswith__gt=at + timedelta(days=days)),
        Q(request__isnull=True) | Q(request__recurrence__isnull=True),
        workspace__cluster=cluster,
        workspace__archived_at__isnull=True,
        valid__contains=at,
        guaranteed__gt=0,
        flavour__device_class=DeviceClass.GPU,
    )
    return list(rows.select_related("workspace__team", "workspace__cluster", "flavour", "request").order_by("pk"))


def held_by(cluster: Cluster, workspaces: Collection[int], start: datetime, end: datetime) -> dict[Key, list[Held]]:
    """Return what workspaces were guaranteed over a time, with the rows' own borders."""
    found: dict[Key, list[Held]] = {}
    rows = Quota.objects.filter(workspace_id__in=workspaces, workspace__cluster=cluster, valid__overlap=(start, end))
    for row in rows.order_by("valid"):
        held = Held(row.valid.lower, row.valid.upper, row.guaranteed)
        found.setdefault((row.workspace_id, row.flavour_id), []).append(held)
    return found


def uses_of(
    cluster: Cluster, workspaces: Collection[int], start: datetime, end: datetime
) -> dict[Key, dict[datetime, Use]]:
    """Return what workspaces held by hour: one query a day, so that a month of a large cluster is never in memory."""
    found: dict[Key, dict[datetime, Use]] = {}
    low = start
    while low < end:
        high = min(low + timedelta(days=1), end)
        with connection.cursor() as cursor:
            cursor.execute(_USES, {"cluster": cluster.pk, "start": low, "end": high, "workspaces": sorted(workspaces)})
            for workspace, flavour, hour, peak, unit_ms in cursor.fetchall():
                found.setdefault((workspace, flavour), {})[hour] = Use(int(peak), int(unit_ms))
        low = high
    return found


def metered_hours(cluster: Cluster, start: datetime, end: datetime) -> set[datetime]:
    """Return the hours of a cluster whose facts stand."""
    rows = HourStatus.objects.filter(cluster=cluster, hour__gte=start, hour__lt=end, state__in=METERED)
    return set(rows.values_list("hour", flat=True))


@dataclass(slots=True)
class Unused:
    """What the books say was reserved for a workspace and physically free."""

    tally: Tally = field(default_factory=lambda: Tally(str(settings.COMMONS_CURRENCY)))


def reserved_unused(cluster: Cluster, workspaces: Collection[int], start: datetime, end: datetime) -> dict[Key, Unused]:
    """Return the charges for reserved but unused GPU time by workspace and flavour, summed by rate."""
    found: dict[Key, Unused] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.workspace_id, c.flavour_id, r.amount, r.currency, sum(c.quantity_ms), sum(c.gpu_ms)"
            " FROM costs_charge c LEFT JOIN rates_rate r ON r.id = c.rate_id"
            " WHERE c.cluster_id = %s AND c.hour >= %s AND c.hour < %s AND c.kind = 'reserved_unused'"
            " AND c.workspace_id = ANY(%s) AND c.flavour_id IS NOT NULL"
            " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
            [cluster.pk, start, end, sorted(workspaces)],
        )
        for workspace, flavour, amount, currency, quantity, gpu_ms in cursor.fetchall():
            one = found.setdefault((workspace, flavour), Unused())
            one.tally.add(int(quantity), int(gpu_ms), amount, currency)
    return found


def all_priced(cluster: Cluster, start: datetime, end: datetime, hours: int) -> bool:
    """Whether the charges of a window stand for (at least) so many metered hours; else its cost is not known yet."""
    return PricedHour.objects.filter(cluster=cluster, hour__gte=start, hour__lt=end).count() >= hours


def waiting_by_model(cluster: Cluster) -> dict[str, dict[str, int]]:
    """Return by GPU model how many requests wait for capacity, of how many teams: sums only, nobody is named."""
    found: dict[str, dict[str, set[int]]] = {}
    rows = QuotaRequest.objects.filter(workspace__cluster=cluster, status=RequestStatus.WAITING)
    for model, request, team in rows.values_list("flavour__gpu_model", "pk", "workspace__team_id"):
        one = found.setdefault(model, {"requests": set(), "teams": set()})
        one["requests"].add(request)
        one["teams"].add(team)
    return {model: {name: len(ids) for name, ids in sets.items()} for model, sets in found.items()}
