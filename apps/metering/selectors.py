"""What pages, the API and other rooms read of metering."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Sum

from apps.clusters.models import Cluster
from apps.core import clock
from apps.metering import billing
from apps.metering.choices import METERED, HourState, LineKind
from apps.metering.models import (
    CapacityLine,
    DayUsage,
    HourFact,
    HourStatus,
    IngestRun,
    ResourceFact,
    Source,
    SourceProof,
)
from apps.metering.sources.base import about
from apps.metering.writer import PROVISIONAL_AFTER


@dataclass(frozen=True, slots=True)
class OpenHour:
    """An hour that no figure should be trusted for yet."""

    cluster_id: int
    cluster: str
    hour: datetime
    state: str
    reason: str = ""


@dataclass(slots=True)
class Completeness:
    """How many of the hours that should be metered are; hours that have not ended are not expected."""

    expected: int = 0
    final: int = 0
    provisional: int = 0
    incomplete: int = 0
    missing: int = 0
    coverage_permille: int = 1000
    #: Samples present in the hours whose facts stand: what figures of this time stand on.
    metered_coverage_permille: int = 1000
    open_hours: list[OpenHour] = field(default_factory=list)

    @property
    def metered(self) -> int:
        """Hours whose facts stand."""
        return self.final + self.provisional

    @property
    def open(self) -> int:
        """Hours that are missing or incomplete: unknown, not zero."""
        return self.incomplete + self.missing

    @property
    def complete(self) -> bool:
        """Whether every expected hour stands, and there is at least one."""
        return self.expected > 0 and self.open == 0

    @property
    def permille(self) -> int:
        """Hours metered of those expected, rounded down: 1000 only when complete."""
        return self.metered * 1000 // self.expected if self.expected else 0


def completeness(
    cluster_id: int | Sequence[int] | None, start: datetime, end: datetime, *, named: int = 20
) -> Completeness:
    """Return the completeness of [start, end) over one, several or (None) all clusters with a source: one query.

    Expected are the ended hours inside the time of a source of record. `named` open hours are listed, earliest first.
    """
    clusters = [cluster_id] if isinstance(cluster_id, int) else cluster_id
    # Hours begin on the hour; a window that begins within one does not shift them.
    if (first := clock.hour_floor(start)) != start:
        start = first + timedelta(hours=1)
    latest = clock.hour_floor(clock.now() - PROVISIONAL_AFTER)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH spans AS (
              SELECT src.cluster_id, unnest(range_agg(tstzrange(
                greatest(coalesce(lower(src.valid), %(start)s), %(start)s),
                least(coalesce(upper(src.valid), %(end)s), %(end)s, %(latest)s)))) AS span
              FROM metering_source src
              WHERE (%(all)s OR src.cluster_id = ANY(%(clusters)s))
                AND greatest(coalesce(lower(src.valid), %(start)s), %(start)s)
                  <= least(coalesce(upper(src.valid), %(end)s), %(end)s, %(latest)s)
              GROUP BY src.cluster_id
            ), wanted AS (
              -- The whole hours of a span.
              SELECT cluster_id, date_trunc('hour', lower(span) + interval '1 hour' - interval '1 microsecond', 'UTC')
                  AS first, date_trunc('hour', upper(span), 'UTC') AS last
              FROM spans
            ), known AS (
              SELECT w.cluster_id, s.state, count(*) AS hours, sum(s.coverage_permille) AS coverage
              FROM wanted w JOIN metering_hourstatus s ON s.cluster_id = w.cluster_id
                AND s.hour >= w.first AND s.hour < w.last
              -- No span lies outside, which the planner cannot know: without it, it reads every hour there ever was.
              WHERE s.hour >= %(start)s AND s.hour < %(end)s
              GROUP BY w.cluster_id, s.state
            ), told AS (
              -- Named are the first open hours; thousands of final ones need no order.
              SELECT k.*, o.named, o.reasons FROM known k LEFT JOIN LATERAL (
                SELECT array_agg(h.hour ORDER BY h.hour) AS named, array_agg(h.reason ORDER BY h.hour) AS reasons
                FROM (SELECT s.hour, s.reason FROM wanted w JOIN metering_hourstatus s ON s.cluster_id = w.cluster_id
                    AND s.hour >= w.first AND s.hour < w.last
                  WHERE k.state IN ('missing', 'incomplete') AND w.cluster_id = k.cluster_id AND s.state = k.state
                    AND s.hour >= %(start)s AND s.hour < %(end)s ORDER BY s.hour LIMIT %(named)s) h
              ) o ON true
            ), absent AS (
              -- Hours that nothing is written of are counted; which they are is looked up only where there are any.
              SELECT e.cluster_id, 'missing' AS state, e.hours - coalesce(k.hours, 0) AS hours, 0 AS coverage,
                CASE WHEN e.hours > coalesce(k.hours, 0) THEN ARRAY(
                  SELECT g.hour FROM wanted w
                  CROSS JOIN LATERAL generate_series(w.first, w.last - interval '1 hour', interval '1 hour') AS g(hour)
                  WHERE w.cluster_id = e.cluster_id AND NOT EXISTS (SELECT FROM metering_hourstatus s
                    WHERE s.cluster_id = e.cluster_id AND s.hour = g.hour)
                  ORDER BY g.hour LIMIT %(named)s) END AS named
              FROM (SELECT cluster_id, sum(greatest(extract(epoch FROM last - first), 0) / 3600)::bigint AS hours
                FROM wanted GROUP BY cluster_id) e
              LEFT JOIN (SELECT cluster_id, sum(hours)::bigint AS hours FROM known GROUP BY cluster_id) k
                ON k.cluster_id = e.cluster_id
            )
            SELECT f.cluster_id, c.name, f.state, f.hours, f.coverage, f.named, f.reasons
            FROM (SELECT * FROM told UNION ALL
              SELECT cluster_id, state, hours, coverage, named, array_fill(''::text, ARRAY[cardinality(named)])
              FROM absent WHERE hours > 0) f
            JOIN clusters_cluster c ON c.id = f.cluster_id ORDER BY 1, 3
            """,
            {
                "start": start,
                "end": end,
                "latest": latest,
                "all": clusters is None,
                "clusters": list(clusters or []),
                "named": named,
            },
        )
        found = Completeness()
        coverage = stands = 0
        for cluster, name, state, count, covered, hours, reasons in cursor.fetchall():
            found.expected += count
            setattr(found, state, getattr(found, state) + count)
            coverage += int(covered)
            stands += int(covered) if state in METERED else 0
            for hour, reason in zip(hours or [], reasons or [], strict=True):
                found.open_hours.append(OpenHour(cluster, name, hour, state, reason))
    found.open_hours = sorted(found.open_hours, key=lambda item: (item.hour, item.cluster_id))[:named]
    found.coverage_permille = coverage // found.expected if found.expected else 0
    found.metered_coverage_permille = stands // found.metered if found.metered else 0
    return found


@dataclass(frozen=True, slots=True)
class CalendarDay:
    """One billing day of a cluster's completeness calendar."""

    day: Any
    expected: int
    final: int
    provisional: int
    open: int

    @property
    def state(self) -> str:
        """The day in one word: none (nothing expected), open, provisional or final."""
        if not self.expected:
            return "none"
        if self.open:
            return "missing" if self.open == self.expected else "incomplete"
        return "provisional" if self.provisional else "final"


def calendar(cluster_id: int, start: datetime, end: datetime) -> list[CalendarDay]:
    """Return the completeness of a cluster by billing day of [start, end): one query."""
    latest = clock.hour_floor(clock.now() - PROVISIONAL_AFTER)
    zone = f"{int(billing.offset().total_seconds())} seconds"
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT ((h.hour AT TIME ZONE 'UTC') + %(zone)s::interval)::date AS day,
              count(*) FILTER (WHERE src.id IS NOT NULL AND h.hour < %(latest)s),
              count(*) FILTER (WHERE src.id IS NOT NULL AND s.state = 'final'),
              count(*) FILTER (WHERE src.id IS NOT NULL AND s.state = 'provisional'),
              count(*) FILTER (WHERE src.id IS NOT NULL AND h.hour < %(latest)s
                AND coalesce(s.state, 'missing') IN ('missing', 'incomplete'))
            FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 hour',
              interval '1 hour') h(hour)
            LEFT JOIN metering_source src ON src.cluster_id = %(cluster)s AND src.valid @> h.hour
            LEFT JOIN metering_hourstatus s ON s.cluster_id = %(cluster)s AND s.hour = h.hour
            GROUP BY 1 ORDER BY 1
            """,
            {"zone": zone, "start": start, "end": end, "cluster": cluster_id, "latest": latest},
        )
        return [CalendarDay(*row) for row in cursor.fetchall()]


def open_hours(cluster_id: int, *, limit: int = 50) -> list[HourStatus]:
    """Return the missing and incomplete hours of a cluster, newest first."""
    states = [HourState.MISSING, HourState.INCOMPLETE]
    found = HourStatus.objects.filter(cluster_id=cluster_id, state__in=states).select_related("source")
    return list(found.order_by("-hour")[:limit])


def gpu_ms_by_team(start: datetime, end: datetime) -> dict[int | None, int]:
    """Return allocated GPU-milliseconds of [start, end) by team id (None: no owner known), from the facts."""
    rows = (
        HourFact.objects.filter(hour__gte=start, hour__lt=end).values("team_id").annotate(total=Sum("allocated_gpu_ms"))
    )
    return {row["team_id"]: int(row["total"]) for row in rows.order_by("team_id")}


def idle_gpu_ms_by_team(month: Any) -> dict[int | None, int]:
    """Return idle GPU-milliseconds (use below the threshold) of a billing month by team id."""
    first = month.replace(day=1)
    rows = DayUsage.objects.filter(day__gte=first, day__lt=billing.following(first)).values("team_id")
    return {row["team_id"]: int(row["total"]) for row in rows.annotate(total=Sum("idle_gpu_ms")).order_by("team_id")}


def facts(start: datetime, end: datetime, *, user: Any, **filters: Any) -> Any:
    """Return the facts of [start, end) that a person may see, in total order."""
    return HourFact.objects.visible_to(user).filter(hour__gte=start, hour__lt=end, **filters).order_by("hour", "uid")


def capacity_lines(cluster_id: int, gpu_model: str, start: datetime, end: datetime) -> dict[str, int]:
    """Return the sum of capacity lines by kind over [start, end); the lines without `physical` sum to it exactly."""
    rows = CapacityLine.objects.filter(cluster_id=cluster_id, gpu_model=gpu_model, hour__gte=start, hour__lt=end)
    found = {str(kind): 0 for kind in LineKind.values}
    for row in rows.values("kind").annotate(total=Sum("gpu_ms")).order_by("kind"):
        found[row["kind"]] = int(row["total"])
    return found


@dataclass(frozen=True, slots=True)
class ProofView:
    """A source proof as a page shows it beside a fact."""

    proof: SourceProof
    exchanges: list[dict[str, Any]]


def proof_of(fact: HourFact | ResourceFact) -> ProofView | None:
    """Return the proof of a fact, each exchange with what its response says of the fact's workload.

    The response holds a whole cluster's readings, so only the piece about this fact is cut out; where a response does
    not name the workload no excerpt of it is shown.
    """
    words = [getattr(fact, "pod", ""), fact.workload_key, fact.workload_name]
    return proof_view(fact.proof_id, words, beside=fact.namespace)


def proof_view(proof_id: int | None, words: Sequence[str] = (), *, beside: str = "") -> ProofView | None:
    """Return a kept proof, each exchange with what it says of the first of `words` that it names; None: none is kept.

    Without words no excerpt of any response is shown. `beside`: the namespace that an excerpt has to name, too.
    """
    if proof_id is None:
        return None
    proof = SourceProof.objects.select_related("source", "run").filter(pk=proof_id).first()
    if proof is None:
        return None
    body = zlib.decompress(proof.body) if any(words) else b""
    shown = []
    for exchange in proof.exchanges:
        response = body[exchange["offset"] : exchange["offset"] + exchange["bytes"]]
        found = (about(response, word, beside=beside) for word in words if word)
        shown.append({**exchange, "excerpt": next((text for text in found if text), "")})
    return ProofView(proof, shown)


def clusters_with_sources() -> list[Cluster]:
    """Return the clusters that have or had a usage source, by name."""
    return list(Cluster.objects.filter(pk__in=Source.objects.values("cluster_id")).order_by("name", "pk"))


def last_run(source: Source) -> IngestRun | None:
    """Return the latest run of a source."""
    return IngestRun.objects.filter(source=source).order_by("-created_at", "-pk").first()
