"""Writing down what an attempt did, in one transaction: refused where the lease or the generation has moved."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import F

from apps import audit
from apps.clusters import health
from apps.clusters.errors import ClusterError, Throttled
from apps.clusters.models import Cluster
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.events import EventType
from apps.provisioning import events, landing, ports, retries
from apps.provisioning.actions import declaration_event, team_uid_of
from apps.provisioning.among import Among
from apps.provisioning.applier import Outcome
from apps.provisioning.choices import DeclarationStatus, RunOutcome
from apps.provisioning.models import ApplyRun, Declaration

logger = logging.getLogger(__name__)
ACTOR_NAME = "provisioning.apply"


def lease_name(cluster: Cluster) -> str:
    """The lease of whoever applies to a cluster."""
    return f"apply:{cluster.uid}"


def begin(cluster: Cluster, token: uuid.UUID, declaration: Declaration) -> ApplyRun:
    """Write down that an attempt begins. Raises Conflict where the lease moved."""
    return begin_many(cluster, token, [declaration])[0]


def begin_many(cluster: Cluster, token: uuid.UUID, declarations: Sequence[Declaration]) -> list[ApplyRun]:
    """Write down that attempts begin, in the order given. Raises Conflict where the lease moved."""
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        Declaration.objects.filter(pk__in=[row.pk for row in declarations]).update(attempts=F("attempts") + 1)
        now = clock.now()
        return ApplyRun.objects.bulk_create(
            [
                ApplyRun(declaration=row, generation=row.generation, lease_token=token, started_at=now)
                for row in declarations
            ]
        )


def give_back(cluster: Cluster, token: uuid.UUID, runs: Sequence[ApplyRun]) -> None:
    """Take back attempts that were written down but never begun: time was up. Raises Conflict where the lease moved."""
    if not runs:
        return
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        ApplyRun.objects.filter(pk__in=[run.pk for run in runs], outcome=RunOutcome.RUNNING).delete()
        Declaration.objects.filter(pk__in=[run.declaration_id for run in runs], attempts__gt=0).update(
            attempts=F("attempts") - 1
        )


def finish(cluster: Cluster, token: uuid.UUID, run: ApplyRun, outcome: Outcome) -> None:
    """Record an attempt. Raises Conflict where the lease moved: then its work is another's to record."""
    finish_many(cluster, token, [(run, outcome)])


def finish_many(cluster: Cluster, token: uuid.UUID, finished: Sequence[tuple[ApplyRun, Outcome]]) -> None:
    """Record attempts in one transaction, all or none. Raises Conflict where the lease moved."""
    waits = [_contact(cluster, outcome.error) for _, outcome in _telling(finished)]
    wait_until = next((at for at in waits if at is not None), None)
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        for run, _ in finished:
            owner = ports.owner_of(run.declaration.kind)
            if owner.lock is not None:
                owner.lock(run.declaration)
        rows = Declaration.objects.select_for_update(of=("self",)).select_related("cluster", "team").order_by("pk")
        declarations = {row.pk: row for row in rows.filter(pk__in=[run.declaration_id for run, _ in finished])}
        now = clock.now()
        applied: list[tuple[Declaration, Outcome]] = []
        for run, outcome in finished:
            declaration = declarations[run.declaration_id]
            run.results, run.finished_at = outcome.results, now
            if outcome.began is not None:
                run.started_at, run.finished_at = outcome.began, max(outcome.began, outcome.ended or now)
            if declaration.generation != run.generation:
                # A newer generation was declared meanwhile: it is applied next, and compares with what lives by then.
                run.outcome = RunOutcome.SUPERSEDED
            elif outcome.succeeded:
                run.outcome = RunOutcome.SUCCEEDED
                applied.append((declaration, outcome))
            elif outcome.stop:
                run.outcome, run.error_class, run.error = RunOutcome.STOPPED, outcome.stop_class, outcome.stop
                _stopped(declaration, outcome)
            elif outcome.error is not None:
                run.outcome, run.error_class, run.error = RunOutcome.FAILED, outcome.error.code, outcome.error.message
                later = (wait_until if outcome.error.cluster_wide else None) or _later(declaration, outcome.error)
                _failed(declaration, outcome.error.code, outcome.error.message, later)
        landing.record(cluster, applied, now)
        _save_runs([run for run, _ in finished])


def record_unchanged(cluster: Cluster, token: uuid.UUID, alike: Sequence[tuple[Declaration, Outcome]]) -> int:
    """Record that declarations live as declared by a list just read: nothing is sent, so attempts begin and end here.

    Returns how many; one that was declared anew since it was read is left to its own attempt. Raises Conflict where
    the lease moved.
    """
    health.record_contact(cluster.pk, True)
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        for row, _ in alike:
            if (lock := ports.owner_of(row.kind).lock) is not None:
                lock(row)
        locked = Declaration.objects.select_for_update(of=("self",)).filter(Among("pk", [row.pk for row, _ in alike]))
        versions = dict(locked.order_by("pk").values_list("pk", "version"))
        same = [(row, outcome) for row, outcome in alike if versions.get(row.pk) == row.version]
        now = clock.now()
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO provisioning_applyrun (uid, declaration_id, generation, outcome, lease_token, started_at,"
                " finished_at, results, error_class, error) SELECT gen_random_uuid(), new.declaration, new.generation,"
                " %s, %s, %s, %s, '[]', '', '' FROM unnest(%s::bigint[], %s::integer[]) AS new(declaration, generation)"
                " ORDER BY new.declaration",
                [
                    RunOutcome.SUCCEEDED, token, now, now, [row.pk for row, _ in same],
                    [row.generation for row, _ in same],
                ],
            )  # fmt: skip
        landing.record(cluster, same, now)
    return len(same)


def _telling(finished: Sequence[tuple[ApplyRun, Outcome]]) -> Sequence[tuple[ApplyRun, Outcome]]:
    """Return what the breaker has to hear of: every failure of the cluster, else one answer for all."""
    bad = [pair for pair in finished if pair[1].error is not None and pair[1].error.cluster_wide]
    return bad or finished[:1]


def _save_runs(runs: Sequence[ApplyRun]) -> None:
    """Write finished runs in one statement: a CASE per column and row costs more than the calls it describes."""
    data = [
        {
            "id": run.pk, "outcome": run.outcome, "started_at": run.started_at.isoformat(),
            "finished_at": run.finished_at.isoformat() if run.finished_at else None, "results": run.results,
            "error_class": run.error_class, "error": run.error,
        }
        for run in runs
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE provisioning_applyrun AS run SET outcome = new.outcome, started_at = new.started_at,"
            " finished_at = new.finished_at, results = new.results, error_class = new.error_class, error = new.error"
            " FROM jsonb_to_recordset(%s::jsonb) AS new(id bigint, outcome text, started_at timestamptz,"
            " finished_at timestamptz, results jsonb, error_class text, error text) WHERE run.id = new.id",
            [json.dumps(data)],
        )


def crashed(cluster: Cluster, token: uuid.UUID, run: ApplyRun, error: Exception) -> None:
    """Record that the portal itself failed on a declaration, so that the others of its cluster go on."""
    text = f"{type(error).__name__}: {error}"[:2000]
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        declaration = Declaration.objects.locked(run.declaration_id)
        ApplyRun.objects.filter(pk=run.pk).update(
            outcome=RunOutcome.FAILED, error_class="internal", error=text, finished_at=clock.now()
        )
        if declaration.generation == run.generation:
            _failed(declaration, "internal", text, _later(declaration, ClusterError(text)))


def abandon_dead_runs(cluster: Cluster, token: uuid.UUID) -> int:
    """Mark what earlier holders of the lease left behind; returns how many. The caller holds the lease."""
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        dead = list(
            ApplyRun.objects.select_for_update(of=("self",))
            .filter(declaration__cluster=cluster, outcome=RunOutcome.RUNNING)
            .exclude(lease_token=token)
            .select_related("declaration")
            .order_by("pk")
        )
        for run in dead:
            run.outcome, run.finished_at = RunOutcome.ABANDONED, clock.now()
            run.error = "Its worker went away before it could say what it did; the next run completes it."
            run.save(update_fields=["outcome", "finished_at", "error"])
            audit.record(
                events.RUN_ABANDONED,
                events.RunAbandoned(str(run.uid), str(run.declaration.uid), cluster.slug, run.generation),
                actor=Actor.system(ACTOR_NAME),
                subject_type="provisioning.declaration",
                subject_uid=run.declaration.uid,
                team_uid=team_uid_of(run.declaration.team_id),
            )
    return len(dead)


def _contact(cluster: Cluster, error: ClusterError | None) -> datetime | None:
    """Tell the breaker; returns until when this cluster rests."""
    if isinstance(error, Throttled):
        return health.record_throttle(cluster.pk, error.retry_after)
    if error is not None and error.cluster_wide:
        return health.record_contact(cluster.pk, False, error)
    return health.record_contact(cluster.pk, True)


def _later(declaration: Declaration, error: ClusterError) -> datetime:
    return retries.retry_at(error, declaration.attempts, clock.now())


def _stopped(declaration: Declaration, outcome: Outcome) -> None:
    declaration.status, declaration.retry_at = DeclarationStatus.STOPPED, None
    declaration.error_class, declaration.last_error = outcome.stop_class, outcome.stop
    declaration.failing_since = declaration.failing_since or clock.now()
    declaration.take_over = False
    declaration.bump("status", "retry_at", "error_class", "last_error", "failing_since", "take_over")
    _tell(events.STOPPED, declaration, detail=outcome.stop, error_class=outcome.stop_class, publish=True)
    if (hook := ports.owner_of(declaration.kind).on_stopped) is not None:
        hook(declaration)


def _failed(declaration: Declaration, code: str, message: str, retry_at: datetime) -> None:
    first = declaration.failing_since is None
    declaration.retry_at, declaration.error_class, declaration.last_error = retry_at, code, message[:4000]
    declaration.failing_since = declaration.failing_since or clock.now()
    declaration.bump("retry_at", "error_class", "last_error", "failing_since")
    if first:  # once per row of failures: the runs keep every attempt
        _tell(events.FAILING, declaration, detail=message[:1000], error_class=code)


def _tell(
    event: EventType, declaration: Declaration, *, detail: str = "", error_class: str = "", publish: bool = False
) -> None:
    payload = declaration_event(declaration, detail=detail, error_class=error_class)
    audit.record(
        event,
        payload,
        actor=Actor.system(ACTOR_NAME),
        subject_type="provisioning.declaration",
        subject_uid=declaration.uid,
        team_uid=team_uid_of(declaration.team_id),
    )
    if publish:
        from apps.teams import scope

        recipients = scope.holders("provisioning.run.retry")
        outbox.publish(event, payload, recipients=recipients, subject_uid=declaration.uid)
