"""Writing down that generations live on their cluster: many at once, in a fixed number of statements.

Called in the transaction that records the attempts, with the declarations locked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import F, Q

from apps import audit
from apps.audit import Record
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.sweeps import nudge
from apps.provisioning import drifting, events, observing, ports
from apps.provisioning.among import Among
from apps.provisioning.applier import Outcome
from apps.provisioning.choices import DeclarationStatus, Handling, PlanStatus, Removal
from apps.provisioning.models import Declaration, DeclaredObject, Plan

ACTOR_NAME = "provisioning.apply"
_OPEN_PLANS = timedelta(days=180)
#: A plan that shows fields of another manager: any entry with any conflict.
_FOUGHT = Q(entries__contains=[{"conflicts": [{}]}])
#: What an applied declaration forgets of its failures.
_CLEAN = {
    "attempts": 0, "retry_at": None, "error_class": "", "last_error": "", "failing_since": None, "take_over": False,
}  # fmt: skip


def record(cluster: Cluster, applied: Sequence[tuple[Declaration, Outcome]], now: datetime) -> None:
    """Record that every one of `applied` lives as declared, tell its owner, and have open plans made anew."""
    if not applied:
        return
    declarations = [declaration for declaration, _ in applied]
    pks = [declaration.pk for declaration in declarations]
    Declaration.objects.filter(Among("pk", pks)).update(
        observed_generation=F("generation"), status=DeclarationStatus.APPLIED, applied_at=now, updated_at=now,
        version=F("version") + 1, **_CLEAN,
    )  # fmt: skip
    for declaration in declarations:
        declaration.observed_generation, declaration.status = declaration.generation, DeclarationStatus.APPLIED
        declaration.applied_at, declaration.updated_at, declaration.version = now, now, declaration.version + 1
        for name, value in _CLEAN.items():
            setattr(declaration, name, value)
    _settle(applied)
    told = [(row, outcome.live, outcome.removed) for row, outcome in applied if outcome.live or outcome.removed]
    observing.record_applied(cluster.pk, told, now)
    drifting.applied({row.pk: {*outcome.live, *outcome.as_seen} for row, outcome in applied}, now)
    _audit(cluster, applied)
    _tell_owners(declarations)
    _make_plans_anew(cluster, declarations)


def _audit(cluster: Cluster, applied: Sequence[tuple[Declaration, Outcome]]) -> None:
    """Write down every generation that came to live on the cluster; what had been looked at again, in one event.

    A reconcile of a whole cluster changes nothing: a thousand events would say so, each holding up everybody's trail.
    """
    audit.record_many(
        events.APPLIED,
        [
            Record(
                events.DeclarationEvent(
                    str(row.uid),
                    cluster.slug,
                    row.title,
                    row.generation,
                    f"taken over: {'; '.join(outcome.taken)}"[:1000] if outcome.taken else "",
                ),
                row.uid,
                row.team.uid if row.team is not None else None,
            )
            for row, outcome in applied
            if not outcome.confirmed
        ],
        actor=Actor.system(ACTOR_NAME),
        subject_type="provisioning.declaration",
    )
    if again := [row for row, outcome in applied if outcome.confirmed]:
        looked = [f"{row.uid} {row.generation}" for row in again]
        audit.record(
            events.RECONCILED,
            events.Reconciled(cluster.slug, len(again), looked),
            actor=Actor.system(ACTOR_NAME),
            subject_type="clusters.cluster",
            subject_uid=cluster.uid,
        )


def _tell_owners(declarations: Sequence[Declaration]) -> None:
    for kind in sorted({row.kind for row in declarations}):
        owner = ports.owner_of(kind)
        if owner.on_applied is None:
            continue
        alike = [row for row in declarations if row.kind == kind]
        concerned = {row.pk for row in alike} if owner.concerned is None else owner.concerned(alike)
        for row in alike:
            if row.pk in concerned:
                owner.on_applied(row)


def _settle(applied: Sequence[tuple[Declaration, Outcome]]) -> None:
    """Keep what was applied and what the server made of it; forget what has been removed or decided for once."""
    pks = [declaration.pk for declaration, outcome in applied if not outcome.reconciled]
    if pks:
        objects = DeclaredObject.objects.filter(Among("declaration_id", pks))
        objects.filter(removal__in=[Removal.PLANNED, Removal.UNPLANNED]).delete()
        objects.exclude(handling=Handling.NORMAL).update(handling=Handling.NORMAL)
    answers = [
        {
            "declaration": declaration.pk, "kind": key.kind, "namespace": key.namespace, "name": key.name,
            "settled": json.dumps(answer, separators=(",", ":"), ensure_ascii=False),
        }
        for declaration, outcome in applied
        for key, answer in outcome.settled.items()
    ]  # fmt: skip
    if answers:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE provisioning_declaredobject AS object SET applied_body = object.body,"
                " settled = convert_to(new.settled, 'UTF8')"
                " FROM jsonb_to_recordset(%s::jsonb) AS new(declaration bigint, kind text, namespace text, name text,"
                " settled text) WHERE object.declaration_id = new.declaration AND object.kind = new.kind"
                " AND object.namespace = new.namespace AND object.name = new.name AND object.removal = ''",
                [json.dumps(answers)],
            )


def _make_plans_anew(cluster: Cluster, declarations: Sequence[Declaration]) -> None:
    """Open plans of these owners were made against what lived before (design §5).

    That holds for a conflict, too: applying the same generation once more may have taken the fields over.
    """
    generations = {(row.kind, row.owner_uid): row.generation for row in declarations}
    open_plans = Plan.objects.filter(
        Among("owner_uid", [owner for _, owner in generations]),
        cluster=cluster,
        closed_at__isnull=True,
        created_at__gte=clock.now() - _OPEN_PLANS,
    ).exclude(status=PlanStatus.PENDING)
    rows = open_plans.annotate(fought=_FOUGHT).values_list(
        "pk", "declaration_kind", "owner_uid", "base_generation", "fought"
    )
    pks = [
        pk
        for pk, kind, owner, base, fought in rows
        if (kind, owner) in generations and (fought or base < generations[kind, owner])
    ]
    if pks:
        Plan.objects.filter(pk__in=pks).update(
            status=PlanStatus.STALE, retry_at=None, attempts=0, version=F("version") + 1
        )
        from apps.provisioning import tasks

        for pk in pks:
            nudge(tasks.make_plan, pk)
