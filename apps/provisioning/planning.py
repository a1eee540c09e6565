"""Making plans that were requested: claim, ask the cluster, record."""

from __future__ import annotations

import json
from datetime import timedelta

from django.db import transaction
from django.db.models import Q

from apps.clusters import health
from apps.clusters.access import require
from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Throttled
from apps.clusters.selectors import callable_now
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.sweeps import nudge
from apps.provisioning import planner, retries, takeover
from apps.provisioning.choices import PlanStatus, Removal
from apps.provisioning.models import Declaration, DeclaredObject, Plan
from apps.provisioning.ordering import Key, key_of

LEASE_SECONDS = 120.0


def plans_due() -> list[int]:
    """Return the plans to be made now, on clusters that may be called, oldest first."""
    rows = Plan.objects.filter(
        Q(retry_at__isnull=True) | Q(retry_at__lte=clock.now()),
        status__in=[PlanStatus.PENDING, PlanStatus.STALE],
        closed_at__isnull=True,
    ).select_related("cluster")
    return [plan.pk for plan in rows.order_by("created_at", "pk")[:500] if callable_now(plan.cluster)]


def make_plan(plan_id: int) -> bool:
    """Make one plan; False where it is not due or another worker is at it. Raises TransactionOpen in a transaction."""
    no_transaction("planning")
    plan = Plan.objects.select_related("cluster").filter(pk=plan_id, closed_at__isnull=True).first()
    if plan is None or plan.status not in (PlanStatus.PENDING, PlanStatus.STALE) or not callable_now(plan.cluster):
        return False
    token = leases.claim(name := f"plan:{plan.uid}", seconds=LEASE_SECONDS)
    if token is None:
        return False
    declaration = _declaration(plan)
    base = declaration.generation if declaration else 0
    manifests = json.loads(bytes(plan.manifest))
    kept = {key_of(manifest) for manifest in manifests}
    removed = (
        [body for row in declaration.declared_objects.filter(removal=Removal.NONE)
         if key_of(body := json.loads(bytes(row.body))) not in kept]
        if declaration
        else []
    )  # fmt: skip
    entries: list[planner.Entry] = []
    error: ClusterError | None = None
    try:
        entries = planner.make(KubernetesClient.for_cluster(plan.cluster), manifests, removed, _last(declaration))
    except ClusterError as caught:
        error = caught
    _contact(plan, error)
    try:
        with transaction.atomic():
            leases.require(name, token)
            _record(plan, base, entries, error)
    except Conflict:
        return False  # slower than the lease: whoever holds it now makes the plan
    leases.release(name, token)
    return True


def _declaration(plan: Plan) -> Declaration | None:
    return Declaration.objects.filter(
        kind=plan.declaration_kind, owner_uid=plan.owner_uid, cluster_id=plan.cluster_id
    ).first()


def _last(declaration: Declaration | None) -> dict[Key, takeover.Last]:
    """Return what was last applied of a declaration's objects."""
    if declaration is None:
        return {}
    rows = DeclaredObject.objects.filter(declaration=declaration)
    applied = {Key(row.kind, row.namespace, row.name): row.last_applied for row in rows}
    return {key: last for key, last in applied.items() if last is not None}


def _contact(plan: Plan, error: ClusterError | None) -> None:
    if isinstance(error, Throttled):
        health.record_throttle(plan.cluster_id, error.retry_after)
    else:
        health.record_contact(plan.cluster_id, not (error is not None and error.cluster_wide), error)


def _record(plan: Plan, base: int, entries: list[planner.Entry], error: ClusterError | None) -> None:
    row = Plan.objects.locked(plan.pk)
    if row.closed_at is not None:
        return
    row.attempts += 1
    now = clock.now()
    if error is None:
        declaration = _declaration(row)
        moved = declaration is not None and declaration.generation != base
        # What was read and what holds now differ: this plan is out of date the moment it is made.
        row.status = PlanStatus.STALE if moved else PlanStatus.READY
        row.entries, row.base_generation, row.made_at = entries, base, now
        row.error_class, row.last_error, row.retry_at, row.attempts = "", "", None, 0
    elif error.retryable:
        row.error_class, row.last_error = error.code, error.message[:4000]
        row.retry_at = max(retries.retry_at(error, row.attempts, now), now + timedelta(seconds=0.5))
    else:
        row.status, row.retry_at = PlanStatus.FAILED, None
        row.error_class, row.last_error = error.code, error.message[:4000]
    row.bump("attempts", "status", "entries", "base_generation", "made_at", "error_class", "last_error", "retry_at")


def may_be_remade(plan: Plan) -> bool:
    """Whether asking the cluster once more can help: an open plan that failed, or that shows somebody else's fields."""
    if plan.closed_at is not None:
        return False
    if plan.status == PlanStatus.FAILED:
        return True
    return plan.status == PlanStatus.READY and any(entry.get("conflicts") for entry in plan.entries)


@transaction.atomic
def remake_failed(plan_id: int, *, actor: Actor) -> Plan:
    """Put a plan that failed or shows a conflict back in line: somebody changed something on the cluster.

    Raises NotVisible, NotAllowed, Conflict where it did neither or is decided.
    """
    plan = Plan.objects.locked(plan_id)
    require(actor, "provisioning.run.retry", plan)
    if not may_be_remade(plan):
        raise Conflict("This plan neither failed nor shows a conflict.", current={"status": plan.status})
    plan.status, plan.retry_at, plan.attempts = PlanStatus.PENDING, None, 0
    plan.bump("status", "retry_at", "attempts")
    from apps.provisioning import tasks

    nudge(tasks.make_plan, plan.pk)
    return plan
