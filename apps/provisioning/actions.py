"""What rooms and people do here: request a plan, declare, retry. Network work is done by workers afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q

from apps import audit
from apps.clusters import kinds
from apps.clusters.access import require
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.sweeps import nudge
from apps.provisioning import events, planner
from apps.provisioning.choices import DeclarationKind, DeclarationStatus, Handling, PlanStatus, Removal
from apps.provisioning.manifests import Rendered, Unfit, joined, render
from apps.provisioning.models import Declaration, DeclarationRevision, DeclaredObject, Plan
from apps.provisioning.ordering import Key
from apps.teams.models import Team

RETRY = "provisioning.run.retry"


@transaction.atomic
def request_plan(
    cluster_id: int,
    kind: str,
    owner_uid: uuid.UUID,
    subject_uid: uuid.UUID,
    team_id: int | None,
    manifests: Sequence[Mapping[str, Any]],
) -> Plan:
    """Ask for the server's diff of `manifests`; a worker makes it. Earlier open plans of the subject for it are closed.

    A subject that changes several declarations on a cluster has one plan for each of them.

    Raises Invalid for objects that could not be declared.
    """
    rendered = _rendered(manifests)
    Plan.objects.filter(
        subject_uid=subject_uid,
        cluster_id=cluster_id,
        declaration_kind=DeclarationKind(kind),
        owner_uid=owner_uid,
        closed_at__isnull=True,
    ).update(closed_at=clock.now())
    body = joined(rendered)
    plan = Plan.objects.create(
        cluster_id=cluster_id,
        team_id=team_id,
        subject_uid=subject_uid,
        declaration_kind=DeclarationKind(kind),
        owner_uid=owner_uid,
        manifest=body,
        digest=digest(body),
    )
    from apps.provisioning import tasks

    nudge(tasks.make_plan, plan.pk)
    return plan


@transaction.atomic
def close_plans(subject_uid: uuid.UUID) -> int:
    """Close a subject's open plans: it is decided, they are evidence now. Returns how many."""
    return Plan.objects.filter(subject_uid=subject_uid, closed_at__isnull=True).update(closed_at=clock.now())


def declare(
    cluster_id: int,
    kind: str,
    owner_uid: uuid.UUID,
    title: str,
    team_id: int | None,
    manifests: Sequence[Mapping[str, Any]],
    *,
    grant_uid: uuid.UUID | None,
    plan_uid: uuid.UUID | None = None,
    removes: Collection[Key] = (),
    actor: Actor,
) -> Declaration:
    """Declare the objects an owner wants on a cluster, as its next generation, in the caller's transaction.

    Objects that the generation before held and this one does not are removed only where the plan `plan_uid`, made for
    exactly these bytes, names the removal, or the owner names them in `removes` (what was approved says when they go:
    a canary that is promoted or rolled back); namespaces and volume claims stay in any case. Raises Invalid for objects
    that cannot be declared, Conflict for one that belongs to another declaration, RuntimeError outside a transaction.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("declare() belongs into the transaction of the decision behind it")
    rendered = _rendered(manifests)
    body = joined(rendered)
    with transaction.atomic():
        declaration = _locked(cluster_id, kind, owner_uid, title, team_id)
        _refuse_foreign(declaration, [one.key for one in rendered])
        plan = _plan_for(declaration, plan_uid, digest(body))
        declaration.generation += 1
        declaration.title, declaration.team_id, declaration.grant_uid = title, team_id, grant_uid
        declaration.status, declaration.declared_at = DeclarationStatus.APPLYING, clock.now()
        _forget_failures(declaration)
        declaration.bump(
            "generation", "title", "team", "grant_uid", "status", "declared_at", "attempts", "retry_at", "error_class",
            "last_error", "failing_since", "take_over",
        )  # fmt: skip
        DeclarationRevision.objects.create(
            declaration=declaration, generation=declaration.generation, manifest=body, digest=digest(body),
            grant_uid=grant_uid,
        )  # fmt: skip
        _store_objects(declaration, rendered, plan, frozenset(removes))
        audit.record(
            events.DECLARED,
            declaration_event(declaration),
            actor=actor,
            subject_type="provisioning.declaration",
            subject_uid=declaration.uid,
            team_uid=team_uid_of(team_id),
            after_digest=digest(body),
        )
    from apps.provisioning import tasks

    nudge(tasks.apply_cluster, cluster_id)
    return declaration


@transaction.atomic
def retry(
    declaration_id: int,
    *,
    actor: Actor,
    take_over: bool = False,
    expected_version: int | None = None,
    reason: str = "",
) -> Declaration:
    """Apply a stopped, failing or drifted declaration again, now.

    `take_over`: this once, take declared fields over from other managers. A removal that the plan did not name is
    then left where it is. Raises NotVisible, NotAllowed, Conflict (nothing is wrong with it, or it moved on).
    """
    declaration = Declaration.objects.locked(declaration_id, expected_version=expected_version)
    require(actor, RETRY, declaration)
    drifted = declaration.drifts.filter(resolved_at__isnull=True).exists()
    if declaration.status == DeclarationStatus.APPLIED and not drifted:
        raise Conflict("It is applied and lives as declared: there is nothing to apply again.")
    if take_over:
        # Deleting what nobody approved to delete is not a decision to be made here: it stays, outside the declaration.
        declaration.declared_objects.filter(removal=Removal.UNPLANNED).update(removal=Removal.RETAINED)
    # Everything of it, whatever was decided about single objects before.
    declaration.declared_objects.exclude(handling=Handling.NORMAL).update(handling=Handling.NORMAL)
    apply_again(declaration, take_over=take_over)
    audit.record(
        events.RETRIED,
        declaration_event(declaration, detail="takes fields over from other managers" if take_over else ""),
        actor=actor,
        subject_type="provisioning.declaration",
        subject_uid=declaration.uid,
        team_uid=team_uid_of(declaration.team_id),
        reason=reason,
    )
    return declaration


def apply_again(declaration: Declaration, *, take_over: bool = False) -> Declaration:
    """Put a declaration, locked by the caller, back in line as if it had not been applied yet."""
    if declaration.observed_generation == declaration.generation:
        declaration.observed_generation = declaration.generation - 1
    declaration.status = DeclarationStatus.APPLYING
    _forget_failures(declaration)
    declaration.take_over = take_over
    declaration.bump(
        "observed_generation", "status", "attempts", "retry_at", "error_class", "last_error", "failing_since",
        "take_over",
    )  # fmt: skip
    from apps.provisioning import tasks

    nudge(tasks.apply_cluster, declaration.cluster_id)
    return declaration


def _rendered(manifests: Sequence[Mapping[str, Any]]) -> list[Rendered]:
    try:
        return render(manifests)
    except Unfit as unfit:
        raise Invalid({"": str(unfit)}) from unfit


def _locked(cluster_id: int, kind: str, owner_uid: uuid.UUID, title: str, team_id: int | None) -> Declaration:
    if not Cluster.objects.filter(pk=cluster_id).exists():
        raise NotVisible
    row, _ = Declaration.objects.get_or_create(
        cluster_id=cluster_id,
        kind=DeclarationKind(kind),
        owner_uid=owner_uid,
        defaults={"title": title, "team_id": team_id},
    )
    return Declaration.objects.locked(row.pk)


def _forget_failures(declaration: Declaration) -> None:
    declaration.attempts, declaration.retry_at, declaration.failing_since = 0, None, None
    declaration.error_class, declaration.last_error, declaration.take_over = "", "", False


def _refuse_foreign(declaration: Declaration, keys: Sequence[Key]) -> None:
    named = Q()
    for key in keys:
        named |= Q(kind=key.kind, namespace=key.namespace, name=key.name)
    if not keys:
        return
    foreign = (
        DeclaredObject.objects.filter(named, cluster_id=declaration.cluster_id).exclude(declaration=declaration).first()
    )
    if foreign is not None:
        key = Key(foreign.kind, foreign.namespace, foreign.name)
        raise Conflict(f"{key} belongs to another declaration on this cluster.", current={"object": str(key)})


def _plan_for(declaration: Declaration, plan_uid: uuid.UUID | None, body_digest: str) -> Plan | None:
    """Return the plan that was made for exactly these bytes, closed from now on; None where there is none."""
    if plan_uid is None:
        return None
    plan = (
        Plan.objects.select_for_update()
        .filter(uid=plan_uid, cluster_id=declaration.cluster_id, owner_uid=declaration.owner_uid)
        .first()
    )
    if plan is None:
        return None
    if plan.closed_at is None:
        plan.closed_at = clock.now()
        plan.bump("closed_at")
    return plan if plan.digest == body_digest and plan.status == PlanStatus.READY else None


def _store_objects(
    declaration: Declaration, rendered: Sequence[Rendered], plan: Plan | None, removes: frozenset[Key]
) -> None:
    held = {Key(row.kind, row.namespace, row.name): row for row in declaration.declared_objects.all()}
    fields = ["ordinal", "api_version", "body", "digest", "generation", "removal", "handling"]
    changed: list[DeclaredObject] = []
    made: list[DeclaredObject] = []
    for one in rendered:
        row = held.pop(one.key, None)
        if row is None:
            row = DeclaredObject(
                declaration=declaration, cluster_id=declaration.cluster_id, kind=one.key.kind,
                namespace=one.key.namespace, name=one.key.name,
            )  # fmt: skip
            made.append(row)
        else:
            changed.append(row)
        row.ordinal, row.api_version, row.body, row.digest = one.ordinal, one.api_version, one.body, one.digest
        row.generation, row.removal, row.handling = declaration.generation, Removal.NONE, Handling.NORMAL
    for key, row in held.items():
        if row.removal == Removal.RETAINED:
            continue
        if key.kind in kinds.NEVER_PRUNED:
            row.removal = Removal.RETAINED
        elif row.removal != Removal.PLANNED:
            planned = key in removes or (plan is not None and planner.plans_removal(plan.entries, key))
            row.removal = Removal.PLANNED if planned else Removal.UNPLANNED
        changed.append(row)
    DeclaredObject.objects.bulk_update(changed, fields, batch_size=200)
    try:
        with transaction.atomic():
            DeclaredObject.objects.bulk_create(made, batch_size=200)
    except IntegrityError as error:  # somebody declared it between our look and our write
        raise Conflict("One of these objects belongs to another declaration on this cluster.") from error


def declaration_event(declaration: Declaration, *, detail: str = "", error_class: str = "") -> events.DeclarationEvent:
    cluster = Cluster.objects.only("slug").get(pk=declaration.cluster_id)
    return events.DeclarationEvent(
        str(declaration.uid), cluster.slug, declaration.title, declaration.generation, detail, error_class
    )


def team_uid_of(team_id: int | None) -> uuid.UUID | None:
    return Team.objects.values_list("uid", flat=True).get(pk=team_id) if team_id is not None else None
