"""Capacity lines by cluster, GPU model and hour or day: every GPU-millisecond on one line, and what contradicts it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection

from apps.metering import billing
from apps.metering.choices import LineKind

#: Flags of an hour that contradict its lines, in words.
CONTRADICTIONS = {
    "capacity_short": "more held than the nodes have; physical is raised to it",
    "capacity_unknown": "GPUs held of a model whose capacity nobody knows",
    "claims_unknown": "GPUs handed out through resource claims that no exporter tells of",
    "source_gap": "samples of the source are missing",
    "resources_unknown": "CPU, memory, storage or network not told",
    "source_unfit": "the source had failed its self-test",
}
_KINDS = tuple(kind for kind in LineKind if kind != LineKind.PHYSICAL)


@dataclass(slots=True)
class CapacityRow:
    """The lines of one cluster and model in one hour or day, in integer GPU-milliseconds."""

    cluster: str
    cluster_slug: str
    cluster_uid: uuid.UUID
    gpu_model: str
    at: Any
    hours: int
    physical: int
    attributed: int
    unattributed: int
    reserved_unused: int
    unsold: int
    stranded: int
    maintenance: int
    coverage_permille: int = 0
    flags: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Σ of all lines but physical."""
        return sum(int(getattr(self, str(kind))) for kind in _KINDS)

    @property
    def difference(self) -> int:
        """Physical minus the sum: 0."""
        return self.physical - self.total

    @property
    def contradictions(self) -> str:
        """What contradicts the lines, in words; empty: nothing."""
        said = []
        if self.difference:
            said.append(f"the lines miss physical by {self.difference} GPU-milliseconds")
        for flag, words in CONTRADICTIONS.items():
            if flag in self.flags:
                hours = f" ({self.flags[flag]} of {self.hours} hours)" if self.hours > 1 else ""
                said.append(words + hours)
        return "; ".join(said)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the lines of a page add up to."""

    physical: int
    total: int
    rows: int
    contradicted: int
    coverage_permille: int

    @property
    def equal(self) -> bool:
        """Whether the sum of all lines is what is physically there, as integers."""
        return self.physical == self.total


def capacity_rows(
    start: datetime, end: datetime, *, by_hour: bool, cluster_id: int | None = None, gpu_model: str = ""
) -> list[CapacityRow]:
    """Return the lines of [start, end), newest first, then by cluster and model: two queries.

    Raises ValueError for a reversed time.
    """
    if end <= start:
        raise ValueError("the end must lie after the beginning")
    zone = f"{int(billing.offset().total_seconds())} seconds"
    at = "l.hour" if by_hour else "((l.hour AT TIME ZONE 'UTC') + %(zone)s::interval)::date"
    sums = ", ".join(
        f"coalesce(sum(l.gpu_ms) FILTER (WHERE l.kind = '{kind}'), 0)" for kind in ("physical", *map(str, _KINDS))
    )
    parameters = {"start": start, "end": end, "cluster": cluster_id, "model": gpu_model, "zone": zone}
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT c.id, c.name, c.slug, c.uid, l.gpu_model, {at} AS at, count(DISTINCT l.hour), {sums}
            FROM metering_capacityline l JOIN clusters_cluster c ON c.id = l.cluster_id
            WHERE l.hour >= %(start)s AND l.hour < %(end)s
              AND (%(cluster)s::bigint IS NULL OR l.cluster_id = %(cluster)s)
              AND (%(model)s = '' OR l.gpu_model = %(model)s)
            GROUP BY c.id, c.name, c.slug, c.uid, l.gpu_model, at ORDER BY at DESC, c.name, c.id, l.gpu_model
            """,  # noqa: S608 (own constants)
            parameters,
        )
        found = cursor.fetchall()
        notes = _notes(cursor, at.replace("l.hour", "s.hour"), parameters)
    rows = []
    for cluster_pk, name, slug, uid, model, moment, hours, *values in found:
        coverage, flags = notes.get((cluster_pk, moment), (0, {}))
        amounts = [int(value) for value in values]
        named = dict(zip(("physical", *map(str, _KINDS)), amounts, strict=True))
        rows.append(
            CapacityRow(name, slug, uid, model, moment, hours, coverage_permille=coverage, flags=flags, **named)
        )
    return rows


def _notes(cursor: Any, at: str, parameters: dict[str, Any]) -> dict[tuple[int, Any], tuple[int, dict[str, int]]]:
    """Return the mean coverage and the hours by flag, by cluster and moment."""
    cursor.execute(
        f"""
        SELECT s.cluster_id, {at} AS at, coalesce(flag, ''), count(*), sum(s.coverage_permille)
        FROM metering_hourstatus s LEFT JOIN LATERAL unnest(s.flags || ARRAY['']::varchar[]) flag ON true
        WHERE s.hour >= %(start)s AND s.hour < %(end)s AND s.revision > 0
          AND (%(cluster)s::bigint IS NULL OR s.cluster_id = %(cluster)s)
        GROUP BY 1, 2, 3
        """,  # noqa: S608 (own constants)
        parameters,
    )
    found: dict[tuple[int, Any], tuple[int, dict[str, int]]] = {}
    for cluster_id, moment, flag, hours, covered in cursor.fetchall():
        coverage, flags = found.get((cluster_id, moment), (0, {}))
        # Every hour carries the empty flag once: its coverage is counted there.
        if flag:
            flags[flag] = hours
        else:
            coverage = int(covered) // hours
        found[(cluster_id, moment)] = (coverage, flags)
    return found


def proof_of(rows: Sequence[CapacityRow]) -> Proof:
    """Return what rows add up to."""
    hours = sum(row.hours for row in rows)
    return Proof(
        physical=sum(row.physical for row in rows),
        total=sum(row.total for row in rows),
        rows=len(rows),
        contradicted=sum(1 for row in rows if row.contradictions),
        coverage_permille=sum(row.coverage_permille * row.hours for row in rows) // hours if hours else 0,
    )
