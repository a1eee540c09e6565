"""Moves the hours of open months between a team and nobody when a namespace is claimed, or a claim ends.

The rows themselves are moved, from the books and not from the source, which may have forgotten: facts, resource facts
and capacity lines of an hour are written again under a new revision, priced and rolled up as after a reading. The
content hash follows, so that reading the hour again changes nothing. Closed hours are passed over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction

from apps.core import clock
from apps.metering import context as books
from apps.metering import ports
from apps.metering.choices import LineKind
from apps.metering.context import NOBODY, Owner
from apps.metering.models import HourStatus, NamespaceOwner
from apps.metering.rows import FACT_COLUMNS, LINE_COLUMNS, RESOURCE_COLUMNS, HourRows, copy_line, row_uid, stamp
from apps.metering.sources.base import ms
from apps.metering.writer import Change, lock_cluster, replace_hours

HOUR = timedelta(hours=1)
#: Hours moved in one transaction, and seconds a round may take.
STEP = timedelta(hours=24)
SLICE_SECONDS = 20.0
_OWNER = (
    "team_id", "unit_id", "unit_path", "cost_centre", "team_name", "unit_name", "workspace_id", "environment",
)  # fmt: skip


def move_claimed() -> int:
    """Move what claims ask for, a day at a time; returns how many hours were looked at or moved (0: nothing is due)."""
    started = time.monotonic()
    moved = 0
    for pk in NamespaceOwner.objects.filter(pending_from__isnull=False).order_by("pk").values_list("pk", flat=True):
        while time.monotonic() - started < SLICE_SECONDS:
            step = move_day(pk)
            if step is None:
                break
            moved += step
    return moved


@transaction.atomic
def move_day(claim_id: int) -> int | None:
    """Move the next day of a claim's pending hours; returns hours moved, at least 1, or None when nothing is left."""
    claim = NamespaceOwner.objects.select_related("team__unit").filter(pk=claim_id).first()
    if claim is None:
        return None
    lock_cluster(claim.cluster_id)
    claim = NamespaceOwner.objects.select_for_update(of=("self",)).select_related("team__unit").get(pk=claim_id)
    start = claim.pending_from
    if start is None:
        return None
    end = start + STEP
    hours = _hours_with(claim, start, end)
    closed = ports.frozen(claim.cluster_id, hours)
    hours = [hour for hour in hours if hour not in closed]
    if hours:
        _move(claim, hours)
    claim.pending_from = end if end <= clock.hour_floor(clock.now()) + HOUR else None
    claim.save(update_fields=["pending_from", "updated_at"])
    return max(1, len(hours))


def _hours_with(claim: NamespaceOwner, start: datetime, end: datetime) -> list[datetime]:
    """Return the hours of [start, end) in which the namespace has rows."""
    parts = [
        f"SELECT hour FROM {table} WHERE cluster_id = %s AND hour >= %s AND hour < %s AND namespace = %s"  # noqa: S608 (own constants)
        for table in ("metering_hourfact", "metering_resourcefact")
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ".join(parts) + " ORDER BY hour", [claim.cluster_id, start, end, claim.namespace] * len(parts)
        )
        return [hour for (hour,) in cursor.fetchall()]


@dataclass(slots=True)
class Stored:
    """An hour's rows as they stand, as lists of values in the order of the columns, and where they come from."""

    facts: list[list[Any]]
    lines: list[list[Any]]
    resources: list[list[Any]]
    source_id: int = 0
    proof_id: int | None = None

    def rows(self, hour: datetime) -> HourRows:
        """Return them ready for COPY and for hashing."""
        return HourRows(
            ms(hour),
            facts=[copy_line(row) for row in self.facts],
            lines=[copy_line(row) for row in self.lines],
            resources=[copy_line(row) for row in self.resources],
        )


#: What holds the rows, their table, that of late rows, their columns, and how many of these the tail has.
_PARTS = (
    ("facts", "metering_hourfact", "metering_latefact", FACT_COLUMNS, 3),
    ("lines", "metering_capacityline", "metering_lateline", LINE_COLUMNS, 1),
    ("resources", "metering_resourcefact", "metering_lateresource", RESOURCE_COLUMNS, 3),
)


def stored(
    cluster_id: int, hours: Sequence[datetime], late: Mapping[datetime, int] | None = None
) -> dict[datetime, Stored]:
    """Return the rows of hours as they stand in the books, equal to what was once copied into them.

    Of the hours in `late` (hour → revision) it is what came late, while their month was closed: the newest truth.
    """
    found = {hour: Stored([], [], []) for hour in hours}
    revisions = late or {}
    standing = [hour for hour in hours if hour not in revisions]
    with connection.cursor() as cursor:
        for part, table, late_table, columns, tail in _PARTS:
            names = ", ".join(f"x.{name}" for name in columns)
            cursor.execute(
                f"SELECT {names} FROM {table} x"  # noqa: S608 (own constants)
                " WHERE x.cluster_id = %s AND x.hour >= %s AND x.hour <= %s AND x.hour = ANY(%s)"
                f" UNION ALL SELECT {names} FROM {late_table} x"
                " JOIN unnest(%s::timestamptz[], %s::integer[]) w(hour, revision)"
                " ON w.hour = x.hour AND w.revision = x.revision WHERE x.cluster_id = %s ORDER BY hour, uid",
                [cluster_id, min(hours), max(hours), standing, list(revisions), list(revisions.values()), cluster_id],
            )
            for row in cursor.fetchall():
                one = found[row[0]]
                if tail == 3:
                    one.source_id, one.proof_id = row[-3], row[-2]
                getattr(one, part).append([stamp(ms(row[0])), *(_plain(value) for value in row[1:-tail])])
    return found


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _move(claim: NamespaceOwner, hours: list[datetime]) -> None:
    statuses = {s.hour: s for s in HourStatus.objects.filter(cluster_id=claim.cluster_id, hour__in=hours)}
    claims = books.claims_of(claim.cluster_id, hours[0], hours[-1] + HOUR)
    context = books.ClusterContext(claim.cluster_id, claims=claims, former=books.former_places(hours[0]))
    changes: list[Change] = []
    now = clock.now()
    # In a month that was opened again, what came late is not read anew yet; the source may have forgotten it.
    late = {hour: status.late_revision for hour, status in statuses.items() if status.late_hash}
    for hour, one in stored(claim.cluster_id, hours, late).items():
        owner = context.as_of(ms(hour), context.claimed(ms(hour), claim.namespace)) or NOBODY
        if not _moved(one, claim, hour, owner):
            continue
        status = statuses[hour]
        rows = one.rows(hour)
        status.revision = max(status.revision, status.late_revision) + 1
        status.inputs_hash, status.late_hash, status.written_at = rows.content_hash(), "", now
        changes.append(Change(hour, rows, status.revision, one.source_id, one.proof_id))
    HourStatus.objects.bulk_update(
        [statuses[change.hour] for change in changes], ["revision", "inputs_hash", "late_hash", "written_at"]
    )
    replace_hours(claim.cluster_id, changes)


def _moved(one: Stored, claim: NamespaceOwner, hour: datetime, owner: Owner) -> bool:
    """Give the namespace's rows to `owner` where they are nobody's or this claim's; returns whether any changed."""
    changed = False
    delta: dict[str, int] = {}
    for rows, columns in ((one.facts, FACT_COLUMNS), (one.resources, RESOURCE_COLUMNS)):
        at = {name: index for index, name in enumerate(columns)}
        values = (
            owner.team_id, owner.unit_id, owner.unit_path, owner.cost_centre, owner.team_name, owner.unit_name,
            owner.workspace_id, owner.environment,
        )  # fmt: skip
        for row in rows:
            holder = row[at["team_id"]]
            ours = holder is None or (holder == claim.team_id and row[at["workspace_id"]] is None)
            if row[at["namespace"]] != claim.namespace or not ours:
                continue
            before = [row[at[name]] for name in _OWNER]
            if before == list(values):
                continue
            for name, value in zip(_OWNER, values, strict=True):
                row[at[name]] = value
            changed = True
            if columns is FACT_COLUMNS and (holder is None) != (owner.team_id is None):
                model, gpu_ms = row[at["gpu_model"]], row[at["allocated_gpu_ms"]]
                delta[model] = delta.get(model, 0) + (gpu_ms if holder is None else -gpu_ms)
    for model, gpu_ms in delta.items():
        _shift(one, claim.cluster_id, hour, model, gpu_ms)
    return changed


def _shift(one: Stored, cluster_id: int, hour: datetime, model: str, gpu_ms: int) -> None:
    """Move GPU time of a model between the lines of what is attributed and what is not; where there are lines."""
    at = {name: index for index, name in enumerate(LINE_COLUMNS)}
    lines = {row[at["kind"]]: row for row in one.lines if row[at["gpu_model"]] == model}
    physical = lines.get(LineKind.PHYSICAL)
    if physical is None:
        return
    for kind, value in ((LineKind.ATTRIBUTED, gpu_ms), (LineKind.UNATTRIBUTED, -gpu_ms)):
        row = lines.get(kind)
        if row is None:
            row = list(physical)
            row[at["uid"]] = row_uid(cluster_id, ms(hour), "line", model, kind, "")
            row[at["kind"]], row[at["gpu_ms"]] = str(kind), 0
            one.lines.append(row)
        row[at["gpu_ms"]] += value
    one.lines = [row for row in one.lines if row[at["gpu_ms"]]]
