"""Writing down what an attempt did, in one transaction: refused where the lease or the generation has moved."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from apps import audit
from apps.clusters import health
from apps.clusters.errors import ClusterError, Throttled
from apps.clusters.models import Cluster
from apps.core import clock, leases, outbox
from apps.core.actor import Actor
from apps.core.events import EventType
from apps.core.sweeps import nudge
from apps.provisioning import events, observing, ports, retries
from apps.provisioning.actions import declaration_event, team_uid_of
from apps.provisioning.applier import Outcome
from apps.provisioning.choices import DeclarationStatus, PlanStatus, Removal, RunOutcome
from apps.provisioning.models import ApplyRun, Declaration, DeclaredObject, Plan
from apps.provisioning.ordering import Key

logger = logging.getLogger(__name__)
ACTOR_NAME = "provisioning.apply"


def lease_name(cluster: Cluster) -> str:
    """The lease of whoever applies to a cluster."""
    return f"apply:{cluster.uid}"


def begin(cluster: Cluster, token: uuid.UUID, declaration: Declaration) -> ApplyRun:
    """Write down that an attempt begins. Raises Conflict where the lease moved."""
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        Declaration.objects.filter(pk=declaration.pk).update(attempts=F("attempts") + 1)
        return ApplyRun.objects.create(
            declaration=declaration, generation=declaration.generation, lease_token=token, started_at=clock.now()
        )


def finish(cluster: Cluster, token: uuid.UUID, run: ApplyRun, outcome: Outcome) -> None:
    """Record an attempt. Raises Conflict where the lease moved: then its work is another's to record."""
    wait_until = _contact(cluster, outcome.error)
    with transaction.atomic():
        leases.require(lease_name(cluster), token)
        owner = ports.owner_of(run.declaration.kind)
        if owner.lock is not None:
            owner.lock(run.declaration)
        declaration = Declaration.objects.locked(run.declaration_id)
        now = clock.now()
        run.finished_at, run.results = now, outcome.results
        if declaration.generation != run.generation:
            # A newer generation was declared meanwhile: it is applied next, and compares with what lives by then.
            run.outcome = RunOutcome.SUPERSEDED
        elif outcome.succeeded:
            run.outcome = RunOutcome.SUCCEEDED
            _applied(declaration, outcome, now)
        elif outcome.stop:
            run.outcome, run.error_class, run.error = RunOutcome.STOPPED, outcome.stop_class, outcome.stop
            _stopped(declaration, outcome)
        elif outcome.error is not None:
            run.outcome, run.error_class, run.error = RunOutcome.FAILED, outcome.error.code, outcome.error.message
            _failed(
                declaration, outcome.error.code, outcome.error.message, wait_until or _later(declaration, outcome.error)
            )
        run.save(update_fields=["finished_at", "results", "outcome", "error_class", "error"])


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


def _applied(declaration: Declaration, outcome: Outcome, now: datetime) -> None:
    declaration.observed_generation, declaration.status = declaration.generation, DeclarationStatus.APPLIED
    declaration.applied_at, declaration.attempts, declaration.retry_at = now, 0, None
    declaration.error_class, declaration.last_error, declaration.failing_since = "", "", None
    declaration.take_over = False
    declaration.bump(
        "observed_generation", "status", "applied_at", "attempts", "retry_at", "error_class", "last_error",
        "failing_since", "take_over",
    )  # fmt: skip
    objects = DeclaredObject.objects.filter(declaration=declaration)
    objects.filter(removal__in=[Removal.PLANNED, Removal.UNPLANNED]).delete()
    objects.filter(removal=Removal.NONE).update(applied_body=F("body"))
    settled = list(objects.filter(removal=Removal.NONE))
    for row in settled:
        if (answer := outcome.settled.get(Key(row.kind, row.namespace, row.name))) is not None:
            row.settled = json.dumps(answer, separators=(",", ":")).encode()
    DeclaredObject.objects.bulk_update(settled, ["settled"], batch_size=200)
    for key in outcome.removed:
        declaration.observations.filter(kind=key.kind, namespace=key.namespace, name=key.name).delete()
    observing.record_objects(declaration.cluster_id, list(outcome.live.items()), now)
    _tell(events.APPLIED, declaration)
    if (hook := ports.owner_of(declaration.kind).on_applied) is not None:
        hook(declaration)
    _make_plans_anew(declaration)


def _make_plans_anew(declaration: Declaration) -> None:
    """Open plans of this owner were made against what lived before (design §5)."""
    open_plans = Plan.objects.filter(
        cluster_id=declaration.cluster_id,
        declaration_kind=declaration.kind,
        owner_uid=declaration.owner_uid,
        closed_at__isnull=True,
        created_at__gte=clock.now() - timedelta(days=180),
    ).exclude(status=PlanStatus.PENDING)
    pks = list(open_plans.filter(base_generation__lt=declaration.generation).values_list("pk", flat=True))
    if pks:
        Plan.objects.filter(pk__in=pks).update(
            status=PlanStatus.STALE, retry_at=None, attempts=0, version=F("version") + 1
        )
        from apps.provisioning import tasks

        for pk in pks:
            nudge(tasks.make_plan, pk)


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
