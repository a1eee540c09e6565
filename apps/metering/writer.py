"""Replaces the rows of cluster-hours in one transaction; hours whose content did not change are not touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import connection

from apps.core import clock
from apps.core.partitions import ensure_month, months_between
from apps.metering import billing, ports
from apps.metering.choices import METERED, HourState
from apps.metering.models import HourStatus, IngestRun, Source, SourceProof
from apps.metering.rows import FACT_COLUMNS, LINE_COLUMNS, RESOURCE_COLUMNS, HourRows
from apps.metering.sources.base import Proof, at_ms

#: A new reading of an hour stands as provisional from this long after its end, as final from that long.
PROVISIONAL_AFTER = timedelta(minutes=10)
FINAL_AFTER = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What writing a window did; `late` hours are closed ones whose other content was put beside what was billed."""

    written: int
    unchanged: int
    facts: int
    open: int
    late: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """Rows of one hour that are to stand under `revision`, with where they come from."""

    hour: datetime
    rows: HourRows
    revision: int
    source_id: int
    proof_id: int | None


def idle_permille() -> int:
    """Return the used share below which allocated GPU time counts as idle, per mille (default 20: 2 %)."""
    return int(settings.COMMONS_IDLE_PERMILLE)


def lock_cluster(cluster_id: int) -> None:
    """Let only one transaction write a cluster's books at a time: its daily roll-ups span hours."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('metering.cluster'), %s)", [cluster_id % 2**31])


def state_for(hour: datetime, rows: HourRows | None, at: datetime) -> str:
    """Return the state of an hour read at `at`: missing, incomplete, provisional or final."""
    if rows is None:
        return HourState.MISSING
    if not rows.complete:
        return HourState.INCOMPLETE
    return HourState.FINAL if at >= hour + timedelta(hours=1) + FINAL_AFTER else HourState.PROVISIONAL


def write_hours(
    source: Source,
    hours: Mapping[int, HourRows],
    *,
    proof: Proof | None,
    run: IngestRun | None,
    window: tuple[datetime, datetime],
) -> Outcome:
    """Replace the rows of `hours` (hour ms → rows) of the source's cluster, in the caller's transaction.

    Raises RuntimeError outside a transaction.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("hours are written inside a transaction only")
    if not hours:
        return Outcome(0, 0, 0, 0)
    cluster_id, now = source.cluster_id, clock.now()
    lock_cluster(cluster_id)
    known = {
        status.hour: status
        for status in HourStatus.objects.filter(
            cluster_id=cluster_id, hour__gte=at_ms(min(hours)), hour__lte=at_ms(max(hours))
        )
    }
    frozen = ports.frozen(cluster_id, [at_ms(key) for key in sorted(hours)])
    changed: list[tuple[HourStatus, HourRows]] = []
    late: list[tuple[HourStatus, HourRows]] = []
    statuses: list[HourStatus] = []
    for key in sorted(hours):
        hour, rows = at_ms(key), hours[key]
        content = rows.content_hash()
        status = known.get(hour) or HourStatus(cluster_id=cluster_id, hour=hour)
        statuses.append(status)
        forgotten = status.revision and rows.coverage_permille < status.coverage_permille
        if not rows.complete and (forgotten or hour in frozen):
            # The source has forgotten what it once told, or tells only part of a closed hour: what stands, stands.
            status.read_at, status.reason = now, rows.reason
            if status.state not in METERED:
                status.attempts += 1
                status.retry_at = now + pause(status.attempts)
            continue
        if hour in frozen:
            if content != (status.late_hash or status.inputs_hash):
                status.late_revision = max(status.revision, status.late_revision) + 1
                status.late_hash = content
                late.append((status, rows))
        elif status.inputs_hash != content or status.late_hash:
            # Where late rows stand, the hour was closed once and is open again: it is written anew, too.
            status.revision = max(status.revision, status.late_revision) + 1
            status.inputs_hash, status.late_hash = content, ""
            status.facts = len(rows.facts)
            status.written_at = now
            changed.append((status, rows))
        _read(status, rows, source, now)
    kept = _keep_proof(source, proof, run, window) if changed or late else None
    proof_id = kept.pk if kept else None
    for status, _ in changed:
        status.proof_id = proof_id
    HourStatus.objects.bulk_create([status for status in statuses if status.hour not in known], batch_size=2000)
    HourStatus.objects.bulk_update(
        [status for status in statuses if status.hour in known],
        ["state", "source", "coverage_permille", "inputs_hash", "revision", "facts", "flags", "reason", "attempts",
         "retry_at", "read_at", "written_at", "late_revision", "late_hash", "proof_id"],
        batch_size=1000,
    )  # fmt: skip
    facts = 0
    if changed or late:
        facts = replace_hours(
            cluster_id, [Change(s.hour, rows, s.revision, source.pk, proof_id) for s, rows in changed]
        )
        facts += add_late(cluster_id, [Change(s.hour, rows, s.late_revision, source.pk, proof_id) for s, rows in late])
    open_hours = sum(1 for status in statuses if status.state not in METERED)
    unchanged = len(statuses) - len(changed) - len(late)
    return Outcome(len(changed), unchanged, facts, open_hours, len(late))


def _read(status: HourStatus, rows: HourRows, source: Source, now: datetime) -> None:
    """Note on the hour how well it could be read this time."""
    state = state_for(status.hour, rows, now)
    status.state, status.source, status.read_at = state, source, now
    status.coverage_permille, status.flags, status.reason = rows.coverage_permille, sorted(rows.flags), rows.reason
    if state in METERED:
        status.attempts, status.retry_at = 0, None
    else:
        status.attempts += 1
        status.retry_at = now + pause(status.attempts)


def pause(attempts: int) -> timedelta:
    """Return how long to wait before reading an hour again: 2, 4, 8 … minutes, at most six hours."""
    return min(timedelta(minutes=2 ** min(attempts, 9)), timedelta(hours=6))


def _keep_proof(
    source: Source, proof: Proof | None, run: IngestRun | None, window: tuple[datetime, datetime]
) -> SourceProof | None:
    if proof is None or not proof.exchanges:
        return None
    return SourceProof.objects.create(
        cluster_id=source.cluster_id,
        source=source,
        run=run,
        window_start=window[0],
        window_end=window[1],
        read_at=clock.now(),
        exchanges=proof.exchanges,
        body=proof.body(),
        body_bytes=proof.size,
    )


#: The tables of an hour, those of late rows, what holds the rows in `HourRows`, and their columns.
_TABLES: tuple[tuple[str, str, str, Sequence[str]], ...] = (
    ("metering_hourfact", "metering_latefact", "facts", FACT_COLUMNS),
    ("metering_capacityline", "metering_lateline", "lines", LINE_COLUMNS),
    ("metering_resourcefact", "metering_lateresource", "resources", RESOURCE_COLUMNS),
)


def replace_hours(cluster_id: int, changes: Sequence[Change]) -> int:
    """Replace the rows of hours, roll up their days and tell the rooms above; returns how many facts stand now.

    In the caller's transaction, which holds the cluster's lock (`lock_cluster`).
    """
    if not changes:
        return 0
    hours = [change.hour for change in changes]
    first, last = hours[0], hours[-1]
    for table, _, held, columns in _TABLES:
        _months(table, first, last)
        with connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {table} WHERE cluster_id = %s AND hour >= %s AND hour <= %s AND hour = ANY(%s)",  # noqa: S608 (own constants)
                [cluster_id, first, last, hours],
            )
        _copy(table, held, columns, changes)
    days = sorted({billing.day_of(hour) for hour in hours})
    roll_up(cluster_id, days)
    ports.tell(ports.Written(cluster_id, hours, days, [change.revision for change in changes]))
    return sum(len(change.rows.facts) for change in changes)


def add_late(cluster_id: int, changes: Sequence[Change]) -> int:
    """Keep what is now told of closed hours beside what was billed, append-only, and tell the rooms above."""
    if not changes:
        return 0
    hours = [change.hour for change in changes]
    for _, table, held, columns in _TABLES:
        _months(table, hours[0], hours[-1])
        _copy(table, held, columns, changes)
    ports.tell_late(ports.Late(cluster_id, hours, [change.revision for change in changes]))
    return sum(len(change.rows.facts) for change in changes)


def _months(table: str, first: datetime, last: datetime) -> None:
    for month in months_between(first, last):
        ensure_month(table, month)


def _copy(table: str, held: str, columns: Sequence[str], changes: Sequence[Change]) -> None:
    sourced = "source_id" in columns
    if not any(getattr(change.rows, held) for change in changes):
        return
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for change in changes:
            lines: list[str] = getattr(change.rows, held)
            if not lines:
                continue
            proof = change.proof_id if change.proof_id is not None else "\\N"
            origin = f"\t{change.source_id}\t{proof}" if sourced else ""
            tail = f"{origin}\t{change.revision}\n"
            copy.write(tail.join(lines) + tail)


def roll_up(cluster_id: int, days: Sequence[date]) -> None:
    """Replace the daily usage of `days` (billing days) of a cluster from its facts."""
    start, _ = billing.day_bounds(days[0])
    _, end = billing.day_bounds(days[-1])
    zone = f"{int(billing.offset().total_seconds())} seconds"
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM metering_dayusage WHERE cluster_id = %s AND day = ANY(%s)", [cluster_id, list(days)]
        )
        cursor.execute(
            """
            INSERT INTO metering_dayusage (day, cluster_id, team_id, unit_id, workspace_id, cost_centre, team_name,
              unit_name, flavour_id, gpu_model, allocated_gpu_ms, used_gpu_ms, measured_gpu_ms, idle_gpu_ms, workloads)
            SELECT day, cluster_id, team_id, unit_id, workspace_id, cost_centre, max(team_name), max(unit_name),
              flavour_id, gpu_model, sum(allocated_gpu_ms), coalesce(sum(used_gpu_ms), 0),
              coalesce(sum(allocated_gpu_ms * coverage_permille / 1000) FILTER (WHERE used_gpu_ms IS NOT NULL), 0),
              coalesce(sum(allocated_gpu_ms) FILTER (WHERE used_gpu_ms IS NOT NULL AND coverage_permille > 0
                AND used_gpu_ms::numeric * 1000000 < allocated_gpu_ms::numeric * %s * coverage_permille), 0),
              count(DISTINCT workload_name)
            FROM (
              SELECT ((hour AT TIME ZONE 'UTC') + %s::interval)::date AS day, f.* FROM metering_hourfact f
              WHERE cluster_id = %s AND hour >= %s AND hour < %s
            ) fact
            WHERE day = ANY(%s)
            GROUP BY day, cluster_id, team_id, unit_id, workspace_id, cost_centre, flavour_id, gpu_model
            """,
            [idle_permille(), zone, cluster_id, start, end, list(days)],
        )
