"""Register sources, read hours, ask for hours again."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from django.db import IntegrityError, connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.accounts.models import User
from apps.clusters import crypto
from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.core.sweeps import nudge
from apps.metering import context as books
from apps.metering import fitness, source_exclusive, source_options
from apps.metering.choices import METERED, POLLED, HourState, RunStatus, SourceKind, Trigger
from apps.metering.events import HOURS_RETRIED, SOURCE_REGISTERED, HoursRetried, SourceRegistered
from apps.metering.models import HourStatus, IngestRun, Source
from apps.metering.rows import HourRows, build_hours
from apps.metering.source_stream import many_rows
from apps.metering.sources.base import Reading, SourceAdapter, SourceError, at_ms, ms
from apps.metering.sources.registry import adapter_for
from apps.metering.writer import PROVISIONAL_AFTER, Outcome, lock_cluster, pause, write_hours

logger = logging.getLogger(__name__)

LEASE_SECONDS = 600.0
HOUR = timedelta(hours=1)


def require(actor: Actor, permission: str) -> None:
    """Refuse an actor who does not hold `permission` for the installation. The portal's own tasks pass."""
    if actor.user_id is None:
        return
    user = User.objects.filter(pk=actor.user_id, is_active=True).first()
    if user is None or not may(user, permission, INSTALLATION):
        raise NotAllowed("This takes a platform admin.", rule=permission)


@transaction.atomic
def register_source(
    cluster_id: int,
    kind: str,
    name: str,
    url: str,
    valid_from: datetime,
    *,
    actor: Actor,
    valid_until: datetime | None = None,
    options: dict[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    token: str = "",
) -> Source:
    """Make `url` the source of record of a cluster from `valid_from` on.

    `settings`: options as people set them (`source_options`); `options`: as they are stored, from the portal's own
    code. Raises Invalid where another source covers part of that time, for an unknown kind, a missing address, a
    reversed time, or an option that cannot be.
    """
    require(actor, "metering.import.create")
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    errors: dict[str, str | list[str]] = {}
    kept: dict[str, object] = dict(options or {})
    if kind not in SourceKind.values:
        errors["kind"] = "Choose one of the kinds of source."
    elif kind in POLLED and not url.startswith(("http://", "https://")):
        errors["url"] = "Give the address of the server, beginning with http:// or https://."
    if kind in SourceKind.values:
        try:
            given = source_options.stored(kind, settings or {})
            kept |= {name: value for name, value in given.items() if value not in (None, "", [], {})}
        except Invalid as wrong:
            errors |= wrong.errors
    if valid_until is not None and valid_until <= valid_from:
        errors["valid_until"] = "The end must lie after the beginning."
    if reason := source_exclusive.refusal(cluster_id, kind):
        errors["kind"] = reason
    if errors:
        raise Invalid(errors)
    try:
        with transaction.atomic():
            source = Source.objects.create(
                cluster=cluster,
                kind=kind,
                name=name.strip() or SourceKind(kind).label,
                url=url.rstrip("/"),
                options=kept,
                credentials=crypto.encrypt(token),
                valid=DateTimeTZRange(clock.hour_floor(valid_from), valid_until, "[)"),
            )
    except IntegrityError as error:
        raise Invalid(
            {"valid_from": "Another source of record covers part of this time: end it first, or begin later."}
        ) from error
    audit.record(
        SOURCE_REGISTERED,
        SourceRegistered(source.uid, cluster.uid, kind, valid_from, valid_until),
        actor=actor,
        subject_type="metering.source",
        subject_uid=source.uid,
    )
    from apps.metering.tasks import check_sources

    nudge(check_sources)
    return source


@transaction.atomic
def end_source(source_id: int, at: datetime, *, actor: Actor, expected_version: int | None = None) -> Source:
    """End a source at the hour of `at`, so that another one can follow. Raises Invalid before its beginning."""
    require(actor, "metering.import.create")
    source = Source.objects.locked(source_id, expected_version=expected_version)
    end = clock.hour_floor(at)
    if source.valid.lower is not None and end <= source.valid.lower:
        raise Invalid({"at": "The end must lie after the source's beginning."})
    source.valid = DateTimeTZRange(source.valid.lower, end, "[)")
    source.bump("valid")
    audit.record(
        SOURCE_REGISTERED,
        SourceRegistered(source.uid, source.cluster.uid, source.kind, source.valid.lower, end),
        actor=actor,
        subject_type="metering.source",
        subject_uid=source.uid,
        reason="ended",
    )
    return source


def ingest_hours(
    source_id: int,
    start: datetime,
    end: datetime,
    *,
    actor: Actor,
    trigger: str = Trigger.MANUAL,
    adapter: SourceAdapter | None = None,
    progress: Callable[[datetime], None] | None = None,
) -> IngestRun:
    """Read the hours of [start, end) from a source and replace their facts; returns the run with what it did.

    Claims the cluster, reads outside any transaction, records each window in one. A failing source leaves earlier
    facts as they are. Hours that ended less than ten minutes ago are left out. Raises Conflict while another worker
    reads the cluster, Invalid for hours outside the source's time.
    """
    require(actor, "metering.run.retry")
    source = Source.objects.select_related("cluster").filter(pk=source_id).first()
    if source is None:
        raise NotVisible
    start = clock.hour_floor(start)
    latest = clock.hour_floor(clock.now() - PROVISIONAL_AFTER)
    end = min(end, latest)
    low, high = source.valid.lower, source.valid.upper
    if (low is not None and start < low) or (high is not None and end > high):
        raise Invalid({"start": "These hours lie outside the time in which this is the source of record."})
    if end <= start:
        raise Invalid({"start": "No hour in this window has ended ten minutes ago yet."})
    name = f"metering.ingest.{source.cluster_id}"
    token = leases.claim(name, seconds=LEASE_SECONDS)
    if token is None:
        raise Conflict("Another worker is reading this cluster's usage right now.")
    try:
        run = IngestRun.objects.create(
            source=source, window_start=start, window_end=end, trigger=trigger, started_by_id=actor.user_id
        )
        _read_windows(source, run, start, end, name, token, adapter, progress)
        return run
    finally:
        leases.release(name, token)


def _read_windows(
    source: Source,
    run: IngestRun,
    start: datetime,
    end: datetime,
    lease: str,
    token: uuid.UUID,
    given: SourceAdapter | None,
    progress: Callable[[datetime], None] | None,
) -> None:
    reader: SourceAdapter | None = given
    error = ""
    at = until = start
    try:
        if reader is None:
            until = start + HOUR
            reader = adapter_for(source)
        while at < end:
            until = min(end, at + reader.max_window)
            _window(source, run, reader, at, until, lease, token)
            at = until
            if progress is not None:
                progress(at)
    except SourceError as failure:
        error = str(failure)
        _failed(source, run, at, until, failure)
    except Conflict as failure:
        error = failure.message
    finally:
        if reader is not None and given is None:
            run.requests += int(getattr(reader, "requests", 0))
            reader.close()
        _finish(source, run, error)


def _window(
    source: Source, run: IngestRun, reader: SourceAdapter, start: datetime, end: datetime, lease: str, token: uuid.UUID
) -> None:
    with many_rows():
        reading = reader.read(start, end)
        hours, claims = _rows(source, reading, start, end)
    with transaction.atomic():
        leases.require(lease, token)
        lock_cluster(source.cluster_id)
        if books.claims_seen(source.cluster_id) != claims:
            # Somebody claimed or released a namespace meanwhile: the rows name its owner of now.
            hours, _ = _rows(source, reading, start, end)
        outcome = write_hours(source, hours, proof=reading.proof, run=run, window=(start, end))
        absent = _mark_absent(source, [at_ms(h) for h in range(ms(start), ms(end), 3_600_000) if h not in hours])
    _count(run, outcome, absent, reading.proof.size)
    leases.extend(lease, token, seconds=LEASE_SECONDS)


def _rows(
    source: Source, reading: Reading, start: datetime, end: datetime
) -> tuple[dict[int, HourRows], tuple[int, int]]:
    """Return a reading's hours as rows, and which claims they know of."""
    context = books.load(source.cluster_id, start, end)
    if source.kind == SourceKind.CSV:
        context.given = _imported_owners(source, context)
    hours = build_hours(context, reading)
    if fitness.unfit(source) is not None:
        for rows in hours.values():
            rows.flags.add(fitness.SOURCE_UNFIT)
    return hours, context.claims_seen


def _imported_owners(source: Source, context: books.ClusterContext) -> dict[str, books.Owner]:
    pairs = source.options.get("team_map") or {}
    return books.teams_given(pairs, context.owners.items()) if pairs else {}


def _count(run: IngestRun, outcome: Outcome, absent: int, size: int) -> None:
    run.hours_written += outcome.written + outcome.late
    if outcome.late:
        run.report = {**run.report, "late": run.report.get("late", 0) + outcome.late}
    run.hours_unchanged += outcome.unchanged
    run.hours_failed += outcome.open + absent
    run.facts += outcome.facts
    run.response_bytes += size


def _mark_absent(
    source: Source, hours: Sequence[datetime], reason: str = "The source has no data for this hour."
) -> int:
    """Record that hours could not be told; facts that stand stay. Returns how many."""
    if not hours:
        return 0
    now = clock.now()
    known = {s.hour: s for s in HourStatus.objects.filter(cluster_id=source.cluster_id, hour__in=hours)}
    fresh = []
    for hour in hours:
        status = known.get(hour) or HourStatus(cluster_id=source.cluster_id, hour=hour)
        status.attempts += 1
        status.retry_at, status.reason, status.read_at = now + pause(status.attempts), reason, now
        if status.revision == 0:
            status.state, status.source = HourState.MISSING, source
        if hour not in known:
            fresh.append(status)
    HourStatus.objects.bulk_create(fresh, batch_size=2000)
    HourStatus.objects.bulk_update(
        known.values(), ["attempts", "retry_at", "reason", "read_at", "state", "source"], batch_size=1000
    )
    return len(hours)


def _failed(source: Source, run: IngestRun, start: datetime, end: datetime, error: SourceError) -> None:
    """Record a window that could not be read, and give the source a pause that grows."""
    hours = [at_ms(hour) for hour in range(ms(start), ms(end), 3_600_000)]
    now = clock.now()
    with transaction.atomic():
        known = set(
            HourStatus.objects.filter(cluster_id=source.cluster_id, hour__in=hours, revision__gt=0).values_list(
                "hour", flat=True
            )
        )
        run.hours_failed += _mark_absent(source, hours, str(error))
        HourStatus.objects.filter(
            cluster_id=source.cluster_id, hour__in=[hour for hour in hours if hour not in known]
        ).update(state=HourState.INCOMPLETE)
        locked = Source.objects.select_for_update().get(pk=source.pk)
        locked.failures += 1
        locked.retry_at = now + max(pause(locked.failures), timedelta(seconds=error.retry_after))
        locked.save(update_fields=["failures", "retry_at"])
    logger.warning("usage not read", extra={"source": str(source.uid), "error": str(error)})


def _finish(source: Source, run: IngestRun, error: str) -> None:
    done = run.hours_written + run.hours_unchanged
    if not error and not run.hours_failed:
        run.status = RunStatus.SUCCEEDED
    else:
        run.status = RunStatus.PARTIAL if done else RunStatus.FAILED
    run.error, run.finished_at = error, clock.now()
    run.save()
    if not error:
        Source.objects.filter(pk=source.pk).exclude(failures=0).update(failures=0, retry_at=None)


@transaction.atomic
def retry_hours(source_id: int, start: datetime, end: datetime, *, actor: Actor) -> int:
    """Ask for the open hours of [start, end) to be read again now; returns how many there are.

    Raises Invalid where every hour of the window is already complete or none has ended.
    """
    require(actor, "metering.run.retry")
    source = Source.objects.locked(source_id)
    end = min(end, clock.hour_floor(clock.now() - PROVISIONAL_AFTER))
    if end <= start:
        raise Invalid({"start": "No hour in this window has ended ten minutes ago yet."})
    count = request_hours(source.cluster_id, clock.hour_floor(start), end, only_open=True)
    if not count:
        raise Invalid({"start": "Every hour of this window is complete: there is nothing to retry."})
    source.failures, source.retry_at = 0, None
    source.bump("failures", "retry_at")
    audit.record(
        HOURS_RETRIED,
        HoursRetried(source.uid, source.cluster.uid, start, end, count),
        actor=actor,
        subject_type="metering.source",
        subject_uid=source.uid,
    )
    from apps.metering.tasks import ingest_due

    nudge(ingest_due)
    return count


def request_hours(cluster_id: int, start: datetime, end: datetime, *, only_open: bool = False) -> int:
    """Mark the hours of [start, end) as due to be read again, making their rows where needed; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO metering_hourstatus (cluster_id, hour, state, coverage_permille, inputs_hash, revision, facts,
              flags, reason, attempts, requested_at)
            SELECT %(cluster)s, hour, 'missing', 0, '', 0, 0, '{}', '', 0, %(now)s
            FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 hour',
              interval '1 hour') hour
            ON CONFLICT (cluster_id, hour) DO UPDATE
              SET requested_at = EXCLUDED.requested_at, retry_at = NULL, attempts = 0
            WHERE NOT %(open)s OR metering_hourstatus.state <> ALL(%(metered)s)
            """,
            {
                "cluster": cluster_id,
                "start": start,
                "end": end,
                "now": clock.now(),
                "open": only_open,
                "metered": [str(state) for state in METERED],
            },
        )
        return int(cursor.rowcount)
