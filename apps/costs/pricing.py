"""Turns facts and capacity lines of cluster-hours into charges: quantity and rate, never an amount.

Most hours lie inside one rate and are priced by one INSERT … SELECT; an hour in which a rate of a flavour begins or
ends is split at that second from the spans that the fact keeps.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.db import connection

from apps.core import clock
from apps.core.money import largest_remainder
from apps.core.partitions import ensure_month, months_between
from apps.costs.models import PricedHour
from apps.metering import billing
from apps.metering.engine import HOUR_MS
from apps.metering.models import HourStatus
from apps.metering.ports import Written
from apps.metering.rows import copy_line
from apps.metering.sources.base import ms
from apps.rates.models import Rate
from apps.rates.selectors import rates_between

HOUR = timedelta(hours=1)
#: An hour within one rate: one statement for all of them. `whole` is a table of (flavour, rate, from, until).
_WHOLE_FACTS = """
INSERT INTO costs_charge (hour, uid, kind, cluster_id, team_id, unit_id, unit_path, cost_centre, team_name, unit_name,
  workspace_id, flavour_id, gpu_model, rate_id, quantity_ms, gpu_ms, fact_uid, revision)
SELECT f.hour, f.uid, CASE WHEN f.team_id IS NULL THEN 'unattributed' ELSE 'allocated' END, f.cluster_id, f.team_id,
  f.unit_id, f.unit_path, f.cost_centre, f.team_name, f.unit_name, f.workspace_id, f.flavour_id, f.gpu_model, r.id,
  f.allocated_unit_ms, f.allocated_gpu_ms, f.uid, f.revision
FROM metering_hourfact f
LEFT JOIN rates_rate r ON r.cluster_id = f.cluster_id AND r.flavour_id = f.flavour_id
  AND r.valid @> tstzrange(f.hour, f.hour + interval '1 hour', '[)')
WHERE f.cluster_id = %(cluster)s AND f.hour >= %(low)s AND f.hour <= %(high)s AND f.hour = ANY(%(hours)s)
"""
_WHOLE_LINES = """
INSERT INTO costs_charge (hour, uid, kind, cluster_id, team_id, unit_id, unit_path, cost_centre, team_name, unit_name,
  workspace_id, flavour_id, gpu_model, rate_id, quantity_ms, gpu_ms, fact_uid, revision)
SELECT l.hour, l.uid, l.kind, l.cluster_id, l.team_id, l.unit_id, l.unit_path, l.cost_centre, l.team_name, l.unit_name,
  l.workspace_id, l.flavour_id, l.gpu_model, r.id, coalesce(l.gpu_ms * v.denominator / v.numerator, l.gpu_ms), l.gpu_ms,
  l.uid, l.revision
FROM metering_capacityline l
LEFT JOIN clusters_flavour v ON v.id = l.flavour_id
LEFT JOIN rates_rate r ON r.cluster_id = l.cluster_id AND r.flavour_id = l.flavour_id
  AND r.valid @> tstzrange(l.hour, l.hour + interval '1 hour', '[)')
WHERE l.cluster_id = %(cluster)s AND l.hour >= %(low)s AND l.hour <= %(high)s AND l.hour = ANY(%(hours)s)
  AND l.kind IN ('reserved_unused', 'unsold', 'stranded', 'maintenance')
"""
_COLUMNS = (
    "hour", "uid", "kind", "cluster_id", "team_id", "unit_id", "unit_path", "cost_centre", "team_name", "unit_name",
    "workspace_id", "flavour_id", "gpu_model", "rate_id", "quantity_ms", "gpu_ms", "fact_uid", "revision",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cut:
    """A rate in force in part of an hour: milliseconds from the hour's start; `rate_id` None: no rate."""

    start: int
    end: int
    rate_id: int | None


def cuts_of_hour(hour: int, rates: Sequence[tuple[int, int, int]]) -> list[Cut]:
    """Return the pieces of the hour beginning at `hour` (ms) by rate; `rates`: (from ms, until ms, id)."""
    found: list[Cut] = []
    at = hour
    for start, end, rate_id in sorted(rates):
        low, high = max(start, hour), min(end, hour + HOUR_MS)
        if low >= high:
            continue
        if low > at:
            found.append(Cut(at - hour, low - hour, None))
        found.append(Cut(low - hour, high - hour, rate_id))
        at = high
    if at < hour + HOUR_MS:
        found.append(Cut(at - hour, HOUR_MS, None))
    return found


def split_quantity(
    spans: Sequence[int], unit_ms: int, gpu_ms: int, cuts: Sequence[Cut]
) -> list[tuple[int | None, int, int]]:
    """Split one fact over the rates of its hour: (rate id, unit ms, GPU ms) per piece with any quantity.

    Where the fact keeps its spans (start, end, units, … in ms of the hour) and they make up `unit_ms`, each piece gets
    exactly what was held in it; otherwise the quantity is spread by time. GPU time follows by largest remainder.
    """
    held = [0] * len(cuts)
    for start, end, units in zip(spans[0::3], spans[1::3], spans[2::3], strict=True):
        for index, cut in enumerate(cuts):
            overlap = min(end, cut.end) - max(start, cut.start)
            if overlap > 0:
                held[index] += overlap * units
    if sum(held) != unit_ms:
        held = largest_remainder(unit_ms, [cut.end - cut.start for cut in cuts])
    physical = largest_remainder(gpu_ms, held) if any(held) else [0] * len(cuts)
    return [
        (cut.rate_id, quantity, gpu) for cut, quantity, gpu in zip(cuts, held, physical, strict=True) if quantity or gpu
    ]


def price_hours(written: Written) -> None:
    """Replace the charges of the hours written, and the daily charges of their days; in the caller's transaction."""
    if not written.hours:
        return
    hours = sorted(written.hours)
    low, high = hours[0], hours[-1]
    for month in months_between(low, high):
        ensure_month("costs_charge", month)
    rates = rates_between(written.cluster_id, low, high + HOUR)
    crossed = _crossed(rates, hours)
    whole = [hour for hour in hours if hour not in crossed]
    with connection.cursor() as cursor:
        parameters: dict[str, Any] = {"cluster": written.cluster_id, "low": low, "high": high, "hours": hours}
        cursor.execute(
            "DELETE FROM costs_charge WHERE cluster_id = %(cluster)s AND hour >= %(low)s AND hour <= %(high)s"
            " AND hour = ANY(%(hours)s)",
            parameters,
        )
        if whole:
            parameters["hours"] = whole
            cursor.execute(_WHOLE_FACTS, parameters)
            cursor.execute(_WHOLE_LINES, parameters)
    if crossed:
        _price_split(written.cluster_id, sorted(crossed), rates)
    roll_up(written.cluster_id, written.days)
    _remember(written, hours)


def _crossed(rates: Iterable[Rate], hours: Sequence[datetime]) -> set[datetime]:
    """Return the hours inside which a rate begins or ends."""
    wanted = set(hours)
    edges = (edge for rate in rates for edge in (rate.valid.lower, rate.valid.upper) if edge is not None)
    return {hour for edge in edges if (hour := clock.hour_floor(edge)) != edge and hour in wanted}


def _price_split(cluster_id: int, hours: Sequence[datetime], rates: Iterable[Rate]) -> None:
    by_flavour: dict[int | None, list[tuple[int, int, int]]] = {}
    for rate in rates:
        start = ms(rate.valid.lower) if rate.valid.lower else 0
        end = ms(rate.valid.upper) if rate.valid.upper else 1 << 60
        by_flavour.setdefault(rate.flavour_id, []).append((start, end, rate.pk))
    lines: list[str] = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT hour, uid, CASE WHEN team_id IS NULL THEN 'unattributed' ELSE 'allocated' END, cluster_id, team_id,"
            " unit_id, unit_path, cost_centre, team_name, unit_name, workspace_id, flavour_id, gpu_model, spans,"
            " allocated_unit_ms, allocated_gpu_ms, revision FROM metering_hourfact"
            " WHERE cluster_id = %s AND hour = ANY(%s)"
            " UNION ALL SELECT l.hour, l.uid, l.kind, l.cluster_id, l.team_id, l.unit_id, l.unit_path, l.cost_centre,"
            " l.team_name, l.unit_name, l.workspace_id, l.flavour_id, l.gpu_model, '{}'::integer[],"
            " coalesce(l.gpu_ms * v.denominator / v.numerator, l.gpu_ms), l.gpu_ms, l.revision"
            " FROM metering_capacityline l LEFT JOIN clusters_flavour v ON v.id = l.flavour_id"
            " WHERE l.cluster_id = %s AND l.hour = ANY(%s)"
            " AND l.kind IN ('reserved_unused', 'unsold', 'stranded', 'maintenance') ORDER BY 1, 2",
            [cluster_id, list(hours), cluster_id, list(hours)],
        )
        for row in cursor.fetchall():
            lines.extend(_split_row(row, by_flavour))
        with cursor.copy(f"COPY costs_charge ({', '.join(_COLUMNS)}) FROM STDIN") as copy:
            if lines:
                copy.write("\n".join(lines) + "\n")


def _split_row(row: tuple[Any, ...], by_flavour: Mapping[int | None, list[tuple[int, int, int]]]) -> Iterable[str]:
    hour, uid, kind, cluster_id, team_id, unit_id, unit_path, centre, team, unit, workspace, flavour, model = row[:13]
    spans, unit_ms, gpu_ms, revision = row[13:]
    cuts = cuts_of_hour(ms(hour), by_flavour.get(flavour, []))
    for index, (rate_id, quantity, gpu) in enumerate(split_quantity(spans, unit_ms, gpu_ms, cuts)):
        own = uid if index == 0 else uuid.uuid5(uid, str(index))
        yield copy_line(
            (
                hour, own, kind, cluster_id, team_id, unit_id, tuple(unit_path), centre, team, unit, workspace, flavour,
                model, rate_id, quantity, gpu, uid, revision,
            )
        )  # fmt: skip


def roll_up(cluster_id: int, days: Sequence[date]) -> None:
    """Replace the daily charges of `days` (billing days) of a cluster."""
    start, _ = billing.day_bounds(min(days))
    _, end = billing.day_bounds(max(days))
    zone = f"{int(billing.offset().total_seconds())} seconds"
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM costs_daycharge WHERE cluster_id = %s AND day = ANY(%s)", [cluster_id, list(days)])
        cursor.execute(
            """
            INSERT INTO costs_daycharge (day, cluster_id, kind, team_id, unit_id, cost_centre, team_name, unit_name,
              flavour_id, gpu_model, rate_id, quantity_ms, gpu_ms)
            SELECT day, cluster_id, kind, team_id, unit_id, cost_centre, max(team_name), max(unit_name), flavour_id,
              gpu_model, rate_id, sum(quantity_ms), sum(gpu_ms)
            FROM (
              SELECT ((hour AT TIME ZONE 'UTC') + %s::interval)::date AS day, c.* FROM costs_charge c
              WHERE cluster_id = %s AND hour >= %s AND hour < %s
            ) charge
            WHERE day = ANY(%s)
            GROUP BY day, cluster_id, kind, team_id, unit_id, cost_centre, flavour_id, gpu_model, rate_id
            """,
            [zone, cluster_id, start, end, list(days)],
        )


def _remember(written: Written, hours: Sequence[datetime]) -> None:
    """Record which revisions are priced, and how much of each hour has no rate."""
    revisions = dict(zip(written.hours, written.revisions, strict=True))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT hour, sum(quantity_ms) FROM costs_charge WHERE cluster_id = %s AND hour >= %s AND hour <= %s"
            " AND hour = ANY(%s) AND rate_id IS NULL GROUP BY hour",
            [written.cluster_id, hours[0], hours[-1], list(hours)],
        )
        unpriced = dict(cursor.fetchall())
    now = clock.now()
    PricedHour.objects.bulk_create(
        [
            PricedHour(
                cluster_id=written.cluster_id,
                hour=hour,
                revision=revisions[hour],
                priced_at=now,
                unpriced_ms=int(unpriced.get(hour, 0)),
            )
            for hour in hours
        ],
        batch_size=2000,
        update_conflicts=True,
        unique_fields=["cluster", "hour"],
        update_fields=["revision", "priced_at", "unpriced_ms"],
    )


def due_hours(limit: int) -> dict[int, list[HourStatus]]:
    """Return hours whose charges do not stand on the present facts and rates, by cluster, newest first.

    Due are: facts of a revision that is not priced, and hours with unpriced quantity for which a rate of the cluster
    was published since.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT s.id FROM metering_hourstatus s
            LEFT JOIN costs_pricedhour p ON p.cluster_id = s.cluster_id AND p.hour = s.hour
            WHERE s.revision > 0 AND (p.id IS NULL OR p.revision <> s.revision OR (p.unpriced_ms > 0 AND EXISTS (
              SELECT FROM rates_rate r WHERE r.cluster_id = s.cluster_id AND r.created_at > p.priced_at
                AND r.valid && tstzrange(s.hour, s.hour + interval '1 hour', '[)'))))
            ORDER BY s.hour DESC, s.id LIMIT %s
            """,
            [limit],
        )
        ids = [pk for (pk,) in cursor.fetchall()]
    found: dict[int, list[HourStatus]] = {}
    for status in HourStatus.objects.filter(pk__in=ids).order_by("-hour"):
        found.setdefault(status.cluster_id, []).append(status)
    return found
