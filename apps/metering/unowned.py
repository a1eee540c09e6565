"""Namespaces without an owner: what they held in the open months, and what that costs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.money import Money
from apps.metering import billing, ports
from apps.metering.models import Source
from apps.quotas.models import Workspace
from apps.rates.choosing import SQL_ORDER
from apps.teams.models import Team

#: Months back that can still be open.
MONTHS = 13


@dataclass(frozen=True, slots=True)
class Unowned:
    """One namespace without an owner."""

    cluster: str
    cluster_slug: str
    cluster_uid: uuid.UUID
    namespace: str
    workloads: int
    hours: int
    gpu_ms: int
    amount: Decimal | None
    currency: str
    unpriced_gpu_ms: int
    first_hour: datetime
    last_hour: datetime
    coverage_permille: int
    #: The one team that it can be claimed for without asking more, and the words that say why; None: somebody chooses.
    claimant: Team | None = None
    because: str = ""

    @property
    def cost(self) -> Money | None:
        """What it costs at the rates of each hour; None: no rate applies."""
        return None if self.amount is None else Money(self.amount, self.currency)


def open_since(cluster_id: int) -> datetime:
    """Return the beginning of the first of the open months that end with this one; 13 months back at most."""
    month = billing.month_of(clock.now())
    opened: datetime = billing.month_bounds(billing.following(month))[0]
    starts = [billing.month_bounds(month)[0]]
    for _ in range(MONTHS - 1):
        month = billing.previous(month)
        starts.append(billing.month_bounds(month)[0])
    closed = ports.frozen(cluster_id, starts)
    for start in starts:
        if start in closed:
            break
        opened = start
    return opened


def unowned(*, cluster_id: int | None = None) -> list[Unowned]:
    """Return the namespaces whose facts in open months name no team, the most GPU-hours first.

    One query for all clusters that have a source, besides the question which of their months are closed.
    """
    clusters = Cluster.objects.filter(pk__in=Source.objects.values("cluster_id"))
    if cluster_id is not None:
        clusters = clusters.filter(pk=cluster_id)
    since = {pk: open_since(pk) for pk in clusters.values_list("pk", flat=True)}
    if not since:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH held AS (
              SELECT f.cluster_id, f.namespace, f.flavour_id, f.capacity_type, f.service_class, f.hour,
                sum(f.allocated_unit_ms) AS unit_ms, sum(f.allocated_gpu_ms) AS gpu_ms
              FROM metering_hourfact f
              JOIN unnest(%(clusters)s::bigint[], %(since)s::timestamptz[]) o(cluster_id, since)
                ON o.cluster_id = f.cluster_id AND f.hour >= o.since
              WHERE f.team_id IS NULL AND f.hour >= %(first)s
              GROUP BY 1, 2, 3, 4, 5, 6
            ), names AS (
              SELECT f.cluster_id, f.namespace, count(DISTINCT f.workload_name) AS workloads
              FROM metering_hourfact f
              JOIN unnest(%(clusters)s::bigint[], %(since)s::timestamptz[]) o(cluster_id, since)
                ON o.cluster_id = f.cluster_id AND f.hour >= o.since
              WHERE f.team_id IS NULL AND f.hour >= %(first)s GROUP BY 1, 2
            )
            SELECT c.name, c.slug, c.uid, h.namespace, n.workloads, count(DISTINCT h.hour), sum(h.gpu_ms),
              sum(h.unit_ms * p.amount) / 3600000, coalesce(max(p.currency), ''),
              coalesce(sum(h.gpu_ms) FILTER (WHERE p.amount IS NULL), 0), min(h.hour), max(h.hour),
              coalesce(avg(s.coverage_permille), 0)
            FROM held h
            JOIN names n USING (cluster_id, namespace)
            JOIN clusters_cluster c ON c.id = h.cluster_id
            LEFT JOIN metering_hourstatus s ON s.cluster_id = h.cluster_id AND s.hour = h.hour
            LEFT JOIN LATERAL (
              SELECT r.amount, r.currency FROM rates_rate r
              WHERE r.cluster_id = h.cluster_id AND r.flavour_id = h.flavour_id AND r.valid @> h.hour
                AND r.capacity_type IN ('', h.capacity_type) AND r.service_class IN ('', h.service_class)
              ORDER BY {SQL_ORDER} LIMIT 1
            ) p ON true
            GROUP BY c.name, c.slug, c.uid, h.namespace, n.workloads
            ORDER BY sum(h.gpu_ms) DESC, c.name, h.namespace
            """,  # noqa: S608 (own constants)
            {
                "clusters": list(since),
                "since": list(since.values()),
                "first": min(since.values()),
            },
        )
        return [_row(row) for row in cursor.fetchall()]


def with_claimants(rows: Sequence[Unowned], teams: QuerySet[Team]) -> list[Unowned]:
    """Return the rows with the team that may claim each in one click, out of `teams`, those the person may claim for.

    Clear is the only team that there is; else the only one that has, or had, a workspace by that name on any cluster.
    Two queries at any number of rows.
    """
    first = list(teams[:2])
    if len(first) == 1:
        return [replace(row, claimant=first[0], because=f"{first[0].name} takes it as its own.") for row in rows]
    named: dict[str, set[Team]] = {}
    if first and rows:
        places = Workspace.objects.filter(namespace__in={row.namespace for row in rows}, team__in=teams)
        for place in places.select_related("team"):
            named.setdefault(place.namespace, set()).add(place.team)
    found = []
    for row in rows:
        owners = named.get(row.namespace, set())
        team = next(iter(owners)) if len(owners) == 1 else None
        because = f"{team.name} has or had a workspace by this name." if team is not None else ""
        found.append(replace(row, claimant=team, because=because))
    return found


def _row(row: tuple[Any, ...]) -> Unowned:
    cluster, slug, uid, namespace, workloads, hours, gpu_ms, amount, currency, unpriced, first, last, coverage = row
    return Unowned(
        cluster=cluster,
        cluster_slug=slug,
        cluster_uid=uid,
        namespace=namespace,
        workloads=workloads,
        hours=hours,
        gpu_ms=int(gpu_ms),
        amount=amount,
        currency=currency,
        unpriced_gpu_ms=int(unpriced),
        first_hour=first,
        last_hour=last,
        coverage_permille=int(coverage),
    )
