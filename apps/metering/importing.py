"""Takes a parsed file of usage intervals into the books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotVisible
from apps.core.sweeps import nudge
from apps.metering import context as books
from apps.metering.actions import HOUR, request_hours, require
from apps.metering.choices import RunStatus, SourceKind, Trigger
from apps.metering.engine import Span, merge
from apps.metering.events import USAGE_IMPORTED, UsageImported
from apps.metering.imports import Interval, Parsed, describe
from apps.metering.models import IngestRun, Source
from apps.metering.rows import copy_line
from apps.metering.sources.base import at_ms, ms
from apps.metering.writer import lock_cluster
from apps.teams.models import Team

DEFAULT_NAME = "Imported usage"


def check_flavours(parsed: Parsed, cluster: Cluster) -> Parsed:
    """Return the parsed file with rows of flavours that the cluster does not offer moved to the errors."""
    context = books.load(cluster.pk, clock.now(), clock.now())
    good: list[Interval] = []
    errors = list(parsed.errors)
    offered = ", ".join(sorted(flavour.slug for flavour in context.flavours)) or "none"
    reasons: dict[str, str] = {}
    for interval in parsed.intervals:
        if interval.flavour not in reasons:
            known = context.flavour_for("", "", interval.flavour) is not None
            if interval.flavour:
                reason = f"“{interval.flavour}” is no flavour of this cluster (offered: {offered})"
            else:
                reason = f"flavour is empty, and the cluster has not exactly one GPU model (offered: {offered})"
            reasons[interval.flavour] = "" if known else reason
        if reason := reasons[interval.flavour]:
            errors.append((interval.line, reason))
        else:
            good.append(interval)
    return replace(parsed, intervals=good, errors=sorted(errors))


@transaction.atomic
def import_intervals(
    cluster_id: int,
    parsed: Parsed,
    *,
    actor: Actor,
    strict: bool = False,
    source_name: str = "",
    team_map: Mapping[str, str] | None = None,
    file_name: str = "",
) -> IngestRun:
    """Take the good rows of a parsed file (see `imports.parse`) and mark their hours to be metered.

    Everything in one transaction: a refused file leaves nothing. The hours are metered by `metering.ingest_due` (or at
    once by the command). Raises Invalid where the file is strict and has bad rows, has no good row, names an unknown
    team, or overlaps the time of another source of record; NotVisible for an unknown cluster.
    """
    require(actor, "metering.import.create")
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    parsed = check_flavours(parsed, cluster)
    if strict and parsed.errors:
        raise Invalid(
            {"file": [f"{len(parsed.errors)} rows are wrong; nothing was imported.", *describe(parsed.errors)]}
        )
    if not parsed.intervals:
        raise Invalid({"file": ["No row can be imported.", *describe(parsed.errors)]})
    owners = dict(team_map or {})
    unknown = set(owners.values()) - set(Team.objects.filter(slug__in=owners.values()).values_list("slug", flat=True))
    if unknown:
        raise Invalid({"team_map": f"There is no team with the short name {', '.join(sorted(unknown))}."})
    lock_cluster(cluster_id)
    source = _source(cluster, parsed, source_name or DEFAULT_NAME, owners)
    _store(source, parsed.intervals)
    first, end = _window(parsed)
    request_hours(cluster_id, first, end)
    gpu_ms = sum(interval.gpu_ms for interval in parsed.intervals)
    run = IngestRun.objects.create(
        source=source,
        window_start=first,
        window_end=end,
        trigger=Trigger.IMPORT,
        status=RunStatus.PARTIAL if parsed.errors else RunStatus.SUCCEEDED,
        started_by_id=actor.user_id,
        finished_at=clock.now(),
        report={
            "file": file_name[:200],
            "sha256": parsed.sha256,
            "rows": parsed.rows,
            "taken": len(parsed.intervals),
            "refused": len(parsed.errors),
            "gpu_ms": str(gpu_ms),
            "errors": describe(parsed.errors),
        },
    )
    audit.record(
        USAGE_IMPORTED,
        UsageImported(run.uid, cluster.uid, parsed.sha256, len(parsed.intervals), len(parsed.errors), gpu_ms),
        actor=actor,
        subject_type="metering.run",
        subject_uid=run.uid,
    )
    from apps.metering.tasks import ingest_due

    nudge(ingest_due)
    return run


def _window(parsed: Parsed) -> tuple[datetime, datetime]:
    """Return the whole hours that a file speaks of; hours between two files stay unknown."""
    return clock.hour_floor(at_ms(parsed.start_ms)), clock.hour_floor(at_ms(parsed.end_ms - 1)) + HOUR


def _source(cluster: Cluster, parsed: Parsed, name: str, owners: Mapping[str, str]) -> Source:
    """Return the import source of the cluster under `name`, its time widened to the file's."""
    first, end = low, high = _window(parsed)
    source = Source.objects.select_for_update().filter(cluster=cluster, kind=SourceKind.CSV, name=name).first()
    if source is not None:
        low, high = min(low, source.valid.lower), max(high, source.valid.upper)
    others = Source.objects.filter(cluster=cluster, valid__overlap=DateTimeTZRange(low, high, "[)"))
    if source is not None:
        others = others.exclude(pk=source.pk)
    other = others.order_by("valid").first()
    if other is not None:
        since = f"{other.valid.lower:%Y-%m-%d %H:%M}" if other.valid.lower else "always"
        until = f"{other.valid.upper:%Y-%m-%d %H:%M}" if other.valid.upper else "further notice"
        raise Invalid(
            {
                "file": f"The file covers {low:%Y-%m-%d %H:%M} to {high:%Y-%m-%d %H:%M} UTC, but “{other.name}” is the"
                f" source of record of this cluster from {since} until {until}. End that source first, or import"
                " what lies outside it."
            }
        )
    if source is None:
        return Source.objects.create(
            cluster=cluster,
            kind=SourceKind.CSV,
            name=name,
            valid=DateTimeTZRange(low, high, "[)"),
            options={"team_map": dict(owners), "windows": [[ms(first), ms(end)]]},
        )
    source.valid = DateTimeTZRange(low, high, "[)")
    windows = [Span(window[0], window[1], 1) for window in source.options.get("windows") or []]
    source.options = {
        **source.options,
        "team_map": {**(source.options.get("team_map") or {}), **owners},
        "windows": [[span.start, span.end] for span in merge([*windows, Span(ms(first), ms(end), 1)])],
    }
    source.bump("valid", "options")
    return source


def _store(source: Source, intervals: Sequence[Interval]) -> None:
    """Write the intervals; those that are already there are updated, so that importing again changes nothing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE incoming (key text, workload text, namespace text, units integer, flavour text,"
            " start_ms bigint, end_ms bigint, used_permille smallint) ON COMMIT DROP"
        )
        with cursor.copy("COPY incoming FROM STDIN") as copy:
            lines = (
                copy_line((i.key, i.workload, i.namespace, i.units, i.flavour, i.start_ms, i.end_ms, i.used_permille))
                for i in intervals
            )
            copy.write("\n".join(lines) + "\n")
        cursor.execute(
            """
            INSERT INTO metering_usageinterval
              (source_id, key, workload, namespace, units, flavour, start_ms, end_ms, used_permille)
            SELECT %s, key, workload, namespace, units, flavour, start_ms, end_ms, used_permille FROM incoming
            ON CONFLICT (source_id, key) DO UPDATE SET units = EXCLUDED.units, end_ms = EXCLUDED.end_ms,
              used_permille = EXCLUDED.used_permille
            WHERE (metering_usageinterval.units, metering_usageinterval.end_ms, metering_usageinterval.used_permille)
              IS DISTINCT FROM (EXCLUDED.units, EXCLUDED.end_ms, EXCLUDED.used_permille)
            """,
            [source.pk],
        )
        cursor.execute("DROP TABLE incoming")
