"""Statements of placement as rows: gathered from facts and the rollout log, signed, made anew where facts changed."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Max, Q

from apps import audit
from apps.catalogue.choices import REGULATED
from apps.clusters import places
from apps.clusters.models import Cluster
from apps.core import clock, signing
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.events import declare
from apps.deployments import placement_statement as statement
from apps.deployments.models import PlacementRule, PlacementStatement, Release, ServingInterval
from apps.deployments.placement import Place, Rule
from apps.metering import billing
from apps.metering.choices import METERED
from apps.metering.models import HourStatus
from apps.quotas.models import Workspace

#: After so long a month's statement is made, hours that are still missing named as unknown.
PATIENCE = timedelta(days=10)
#: Months that are looked at again: facts may come late.
LOOK_BACK = 3
_LOCK = 0x706C6163656D6E  # "placemn"


@dataclass(frozen=True, slots=True)
class StatementMade:
    """A statement of placement was made and signed."""

    statement_uid: uuid.UUID
    month: str
    revision: int
    lines: int
    violations: int
    key_id: str


MADE = declare("deployments.placement.stated", StatementMade, audience="auditors")


@dataclass(frozen=True, slots=True)
class Gathered:
    """A month's lines, and how many serving hours have no facts yet."""

    lines: list[dict[str, Any]]
    unknown: int


def gather(month: date) -> Gathered:
    """Return where every regulated release ran in a month."""
    start, end = billing.month_bounds(month)
    span = DateTimeTZRange(start, end, "[)")
    regulated = Release.objects.filter(model_version__classification__overlap=sorted(REGULATED))
    now = clock.now()
    found: dict[tuple[uuid.UUID, int, int, places.Stated], statement.Ran] = {}
    releases: dict[uuid.UUID, Release] = {}
    clusters = {one.pk: one for one in Cluster.objects.all()}
    stood = places.History(clusters.values())
    workspaces: dict[int, Workspace] = {}

    def ran(release: Release, cluster_id: int, workspace_id: int, hour: datetime) -> statement.Ran:
        # As it was stated when the hour began: a cluster that is said to stand elsewhere now did not, then.
        there = stood.at(cluster_id, hour)
        key = (release.uid, cluster_id, workspace_id, there)
        if key not in found:
            cluster = clusters[cluster_id]
            if workspace_id and workspace_id not in workspaces:
                workspaces[workspace_id] = Workspace.objects.select_related("team").get(pk=workspace_id)
            space = workspaces.get(workspace_id)
            version = release.model_version
            found[key] = statement.Ran(
                {
                    "release": str(release.uid), "release_number": release.number, "endpoint": release.endpoint.name,
                    "model": version.model.slug, "version": version.label, "manifest": release.version_digest,
                },
                Place(cluster.slug, there.location, there.jurisdiction),
                {
                    "namespace": space.namespace if space else "", "workspace": str(space.uid) if space else "",
                    "team": space.team.slug if space else "", "environment": str(space.environment) if space else "",
                },
                tuple(sorted(set(version.classification) & REGULATED)),
            )  # fmt: skip
        return found[key]

    joined = "release__endpoint", "release__model_version__model"
    rows = ServingInterval.objects.filter(release__in=regulated, valid__overlap=span).select_related(*joined)
    for row in rows.order_by("pk"):
        releases[row.release.uid] = row.release
        until = min(end, row.valid.upper or end, now)
        for hour in statement.hours_of(max(start, row.valid.lower), until):
            ran(row.release, row.cluster_id, row.workspace_id, hour).serving.add(hour)
    facts = _facts(start, end)
    wanted = {
        one.uid: one
        for one in regulated.filter(uid__in={row["release_uid"] for row in facts}).select_related(
            "endpoint", "model_version__model"
        )
    }
    for fact in facts:
        uid = fact["release_uid"]
        release = (releases.get(uid) or wanted.get(uid)) if uid is not None else None
        if release is not None:
            one = ran(release, fact["cluster_id"], fact["workspace_id"] or 0, fact["hour"])
            one.metered[fact["hour"]] = one.metered.get(fact["hour"], 0) + int(fact["gpu_ms"])
            if fact["late"]:
                one.late.add(fact["hour"])
    complete: dict[int, set[datetime]] = defaultdict(set)
    touched = {key[1] for key in found}
    statuses = HourStatus.objects.filter(cluster_id__in=touched, hour__gte=start, hour__lt=end, state__in=METERED)
    for cluster_id, hour in statuses.values_list("cluster_id", "hour"):
        complete[cluster_id].add(hour)
    rules = [
        statement.DatedRule(
            Rule(str(one.uid), one.data_class, one.location, tuple(one.jurisdictions), one.text, one.citation),
            one.valid.lower, one.valid.upper,
        )
        for one in PlacementRule.objects.filter(valid__overlap=span).order_by("pk")
    ]  # fmt: skip
    lines = [statement.line(one, rules, complete[key[1]]) for key, one in found.items()]
    return Gathered(lines, sum(one["hours_unknown"] for one in lines))


def _facts(start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Return GPU-milliseconds by release, cluster, workspace and hour.

    What came after a period was closed is kept beside what was billed (metering.writer.add_late). A bill stays; where
    something ran is told by what is known now, so of such an hour the late rows speak.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT x.release_uid, x.cluster_id, x.workspace_id, x.hour, sum(x.allocated_gpu_ms), false
              FROM metering_hourfact x
             WHERE x.hour >= %(start)s AND x.hour < %(end)s AND x.release_uid IS NOT NULL
               AND NOT EXISTS (SELECT FROM metering_hourstatus s
                                WHERE s.cluster_id = x.cluster_id AND s.hour = x.hour AND s.late_hash <> '')
             GROUP BY 1, 2, 3, 4
             UNION ALL
            SELECT x.release_uid, x.cluster_id, x.workspace_id, x.hour, sum(x.allocated_gpu_ms), true
              FROM metering_hourstatus s
              JOIN metering_latefact x
                ON x.cluster_id = s.cluster_id AND x.hour = s.hour AND x.revision = s.late_revision
             WHERE s.hour >= %(start)s AND s.hour < %(end)s AND s.late_hash <> '' AND x.release_uid IS NOT NULL
             GROUP BY 1, 2, 3, 4
             ORDER BY 1, 2, 4
            """,
            {"start": start, "end": end},
        )
        names = ("release_uid", "cluster_id", "workspace_id", "hour", "gpu_ms", "late")
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def corrections(month: date) -> list[dict[str, Any]]:
    """Return the revisions of earlier months' statements since the statement before `month`'s: what came late."""
    before = billing.month_of(billing.month_bounds(month)[0] - timedelta(hours=1))
    since = (
        PlacementStatement.objects.filter(month=before).order_by("revision").values_list("made_at", flat=True).first()
    )
    rows = PlacementStatement.objects.filter(month__lt=month, revision__gt=1)
    if since is not None:
        rows = rows.filter(made_at__gt=since)
    return [
        {
            "month": f"{row.month:%Y-%m}", "revision": row.revision, "statement": row.digest,
            "replaces": json.loads(bytes(row.body))["replaces"], "lines": row.lines, "violations": row.violations,
        }
        for row in rows.order_by("month", "revision")
    ]  # fmt: skip


@transaction.atomic
def make(month: date, *, patience: timedelta = PATIENCE) -> PlacementStatement | None:
    """Make a month's statement, or a further revision where facts changed; None: nothing to do yet.

    Raises CannotSign where this process has no signing key.
    """
    _, end = billing.month_bounds(month)
    now = clock.now()
    if now < end:
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    gathered = gather(month)
    last = PlacementStatement.objects.filter(month=month).order_by("-revision").first()
    if last is None and gathered.unknown and now < end + patience:
        return None
    revision = last.revision + 1 if last is not None else 1
    raw = statement.body_of(
        f"{month:%Y-%m}", billing.zone_name(), gathered.lines, made_at=now, revision=revision,
        replaces=last.digest if last is not None else "", corrections=corrections(month) if last is None else (),
    )  # fmt: skip
    body = json.loads(raw)
    if last is not None and statement.content(json.loads(bytes(last.body))) == statement.content(body):
        return None
    signature = signing.sign(raw)
    row = PlacementStatement.objects.create(
        month=month, revision=revision, body=raw, digest=digest(raw), signature=signature.value,
        key_id=signature.key_id, made_at=now, lines=body["totals"]["lines"], violations=body["totals"]["violations"],
    )  # fmt: skip
    audit.record(
        MADE,
        StatementMade(row.uid, body["month"], revision, row.lines, row.violations, row.key_id),
        actor=Actor.system("deployments.placement"), subject_type="deployments.placement_statement",
        subject_uid=row.uid, after_digest=row.digest,
    )  # fmt: skip
    return row


def months_due() -> list[date]:
    """Return the ended months to look at: the last ones, from the first month in which anything served."""
    month = billing.month_of(clock.now())
    found = []
    for _ in range(LOOK_BACK):
        month = billing.month_of(billing.month_bounds(month)[0] - timedelta(hours=1))
        found.append(month)
    oldest = billing.month_bounds(found[-1])[0]
    found += [month for month in _told_late(oldest) if month not in found]
    first = ServingInterval.objects.order_by("pk").values_list("valid", flat=True).first()
    return [one for one in sorted(found) if first is not None and billing.month_bounds(one)[1] > first.lower]


def _told_late(before: datetime) -> list[date]:
    """Return the stated months before a moment of which metering told something after their newest statement."""
    stated = PlacementStatement.objects.values_list("month").annotate(made=Max("made_at"))
    found = []
    for month, made in stated:
        start, end = billing.month_bounds(month)
        later = Q(written_at__gte=made) | (Q(read_at__gte=made) & ~Q(late_hash=""))
        hours = HourStatus.objects.filter(later, hour__gte=start, hour__lt=end)
        if start < before and hours.exists():
            found.append(month)
    return found


def make_due() -> int:
    """Make what is due; nothing without a signing key (the page says so). Returns how many were made."""
    if not signing.can_sign():
        return 0
    return sum(make(month) is not None for month in months_due())


def newest() -> Any:
    """Return the newest revision of each month."""
    return PlacementStatement.objects.values("month").annotate(revision=Max("revision"))
