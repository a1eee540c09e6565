"""From a grant to the cluster: what was approved is proposed once more, compared leaf by leaf, and declared.

Lock order (design §2): approval request (held by the caller) → change request → workspaces (by id) → declarations.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F

from apps import audit
from apps.approvals.engine import usable
from apps.approvals.models import Grant
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.sweeps import nudge
from apps.provisioning import actions as provisioning
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import Declaration, Plan
from apps.quotas import change_events as events
from apps.quotas import change_records as records
from apps.quotas.changes import SUBJECT_TYPE, Concluding, Proposed, Staged, change_leads, handler_of
from apps.quotas.choices import OPEN_STATUSES, REQUEST_TRANSITIONS, RequestStatus
from apps.quotas.models import ChangeRequest, QuotaRequest, Workspace

SYSTEM = Actor.system("quotas.changes")
PORTION = records.PORTION
MOVED = "The cluster's declared state moved since this was requested: withdraw it and request it anew."
_CLOSING = {
    "rejected": ("reject", events.CHANGE_REJECTED),
    "withdrawn": ("withdraw", events.CHANGE_WITHDRAWN),
    "lapsed": ("lapse", events.CHANGE_LAPSED),
}


def _load(uid: uuid.UUID) -> ChangeRequest:
    change = (
        ChangeRequest.objects.select_related("workspace__team__unit", "receiver__unit", "cluster")
        .select_for_update(of=("self",))
        .filter(uid=uid)
        .first()
    )
    if change is None:
        raise Conflict("The change request is gone.")
    return change


def on_granted(uid: uuid.UUID, grant: Grant) -> None:
    """Put an approved change into force, in the deciding transaction.

    Raises Conflict where the request is not what was approved, or would no longer change exactly what was approved.
    """
    change = _load(uid)
    if not grant.subject_digest == change.digest == records.digest_of_change(change):
        raise Conflict("The change is no longer what was approved: request it again.")
    at = clock.now()
    handler = handler_of(change.kind)
    _lock_workspaces(change)
    try:
        frozen = records.freeze(handler, change.cluster, change.workspace, change.values, at)
    except Invalid as invalid:
        raise Conflict(f"{MOVED} {' '.join(text for texts in invalid.errors.values() for text in texts)}") from invalid
    if frozen.leaves != change.change["leaves"]:
        raise Conflict(MOVED)
    change.status = REQUEST_TRANSITIONS.next(change.status, "grant")
    change.approval = grant.request
    change.granted_at = at
    handler.on_granted(change, at)
    ordered = _in_order(frozen.proposed)
    # What one portion does not hold is the sweep's; the decision that somebody waits for makes the cluster's own alone.
    staged = isinstance(handler, Staged) and len(ordered) > PORTION
    first, later = (ordered[:1], ordered[1:]) if staged else (ordered, [])
    change.generations = _declare(change, first, grant)
    change.change = change.change | {"pending": [str(item.owner_uid) for item in later]}
    change.objects_after = records.objects_bytes(frozen.proposed)
    change.bump("status", "approval", "granted_at", "generations", "objects_after", "change")
    payload = records.event_of(change, "It is being applied now." if change.generations else "It is in force.")
    _audit(events.CHANGE_GRANTED, change, payload, decided=True)
    others = [user_id for user_id in change_leads(change.team) if user_id != change.requester_id]
    if others:
        outbox.publish(events.CHANGE_GRANTED, payload, recipients=others, subject_uid=change.uid)
    if later:
        from apps.quotas import tasks

        nudge(tasks.carry_out_changes)
    provisioning.close_plans(change.uid)
    _replan_others(change)
    if not change.generations:
        _applied(change, at)


def _lock_workspaces(change: ChangeRequest) -> None:
    """Lock every workspace that the change touches, by id: quotas are laid over under the same locks."""
    touched = [
        uuid.UUID(item["owner_uid"])
        for item in change.change.get("declarations", [])
        if item["kind"] == DeclarationKind.WORKSPACE
    ]
    rows = Workspace.objects.filter(uid__in=touched)
    if change.workspace_id is not None:
        rows |= Workspace.objects.filter(pk=change.workspace_id)
    list(rows.order_by("pk").select_for_update(of=("self",)).values_list("pk", flat=True))


def _declare(change: ChangeRequest, proposed: Sequence[Proposed], grant: Grant) -> dict[str, int]:
    """Declare everything that changes, one generation each. Returns declaration uid → generation."""
    plans: dict[tuple[str, uuid.UUID], uuid.UUID] = {}
    for plan in Plan.objects.filter(subject_uid=change.uid, cluster_id=change.cluster_id).order_by("pk"):
        plans[(str(plan.declaration_kind), plan.owner_uid)] = plan.uid
    generations: dict[str, int] = {}
    for item in proposed:
        declaration = provisioning.declare(
            change.cluster_id,
            item.declaration_kind,
            item.owner_uid,
            item.title,
            item.team_id,
            item.manifests,
            grant_uid=grant.uid,
            plan_uid=plans.get((str(item.declaration_kind), item.owner_uid)),
            actor=SYSTEM,
        )
        generations[str(declaration.uid)] = declaration.generation
    return generations


def _in_order(proposed: Sequence[Proposed]) -> list[Proposed]:
    """The cluster's own first, workspaces by id: everybody who locks several declarations does so in this order."""
    rows = Workspace.objects.filter(uid__in=[item.owner_uid for item in proposed])
    order = {uid: pk for pk, uid in rows.values_list("pk", "uid")}
    return sorted(proposed, key=lambda one: order.get(one.owner_uid, 0))


def changes_to_carry_out() -> list[int]:
    """Return the ids of granted changes of which some declarations are still to be made."""
    rows = ChangeRequest.objects.filter(status=RequestStatus.APPLYING, change__has_key="pending")
    return list(rows.exclude(change__pending=[]).order_by("pk").values_list("pk", flat=True))


@transaction.atomic
def carry_out(change_id: int) -> int:
    """Declare the next portion of a granted change; returns how many declarations it made or found made. Idempotent.

    The grant is asked again at every portion (invariant 3), and so is every leaf. Raises Conflict where the grant is
    no longer usable, or a workspace would no longer change exactly as approved.
    """
    change = (
        ChangeRequest.objects.select_for_update(of=("self",))
        .select_related("cluster", "workspace__team__unit", "approval")
        .filter(pk=change_id, status=RequestStatus.APPLYING)
        .first()
    )
    if change is None or not change.change.get("pending"):
        return 0
    at = clock.now()
    grant = Grant.objects.filter(request=change.approval).first()
    if grant is None or not usable(grant, change.digest, {"subject_uid": str(change.uid)}, at):
        raise Conflict(f"The grant behind “{change.title}” is not usable any more: the rest is not declared.")
    owners = [uuid.UUID(item) for item in change.change["pending"][:PORTION]]
    locked = Workspace.objects.filter(uid__in=owners).order_by("pk").select_for_update(of=("self",))
    list(locked.values_list("pk", flat=True))
    frozen = records.freeze(handler_of(change.kind), change.cluster, change.workspace, change.values, at, owners=owners)
    approved = {(leaf["path"], leaf["digest"]) for leaf in change.change["leaves"]}
    if any((leaf["path"], leaf["digest"]) not in approved for leaf in frozen.leaves):
        raise Conflict(f"{change.title}: {MOVED}")
    change.generations = change.generations | _declare(change, _in_order(frozen.proposed), grant)
    change.change = change.change | {"pending": change.change["pending"][PORTION:]}
    change.bump("generations", "change")
    if not change.change["pending"] and not missing_declarations(change):
        _applied(change, at)
    return len(owners)


def _audit(event: object, change: ChangeRequest, payload: events.ChangeEvent, *, decided: bool) -> None:
    audit.record(
        event,  # type: ignore[arg-type]  # one of the declared events above
        payload,
        actor=SYSTEM,
        subject_type=SUBJECT_TYPE,
        subject_uid=change.uid,
        team_uid=change.team.uid if change.team is not None else None,
        **({"after_digest": change.digest} if decided else {"before_digest": change.digest}),
    )


def _replan_others(change: ChangeRequest) -> None:
    """One change landed: what is open on the same workspace is planned anew (design §5)."""
    from apps.quotas.records import plan_request

    if change.workspace is None:
        return  # the sweep looks after what a whole cluster's change touches
    others = QuotaRequest.objects.filter(workspace=change.workspace, status__in=OPEN_STATUSES)
    for other in others.select_related("workspace__team", "workspace__cluster", "flavour").order_by("pk"):
        plan_request(other)
    records.replan_open(change.workspace, but=change)


def on_concluded(uid: uuid.UUID, status: str, reason: str) -> None:
    """Take note of how the approval request ended, or that it cannot be granted yet; called in its transaction."""
    change = _load(uid)
    if status == RequestStatus.WAITING:
        if change.status == RequestStatus.WAITING:
            return
        action, event = "hold", events.CHANGE_WAITING
    elif status in _CLOSING:
        action, event = _CLOSING[status]
    else:
        return
    change.status = REQUEST_TRANSITIONS.next(change.status, action)
    change.bump("status")
    _audit(event, change, records.event_of(change, reason), decided=False)
    if action == "hold":
        return
    handler = handler_of(change.kind)
    if isinstance(handler, Concluding):
        handler.on_concluded(change, status)
    provisioning.close_plans(change.uid)


def on_applied(declaration: Declaration) -> None:
    """A declaration is on its cluster: changes that it completes are applied. In the recording transaction."""
    changes = (
        ChangeRequest.objects.select_for_update(of=("self",))
        .select_related("workspace__team", "receiver", "cluster")
        .filter(
            cluster_id=declaration.cluster_id,
            status=RequestStatus.APPLYING,
            generations__has_key=str(declaration.uid),
        )
        .order_by("pk")
    )
    for change in changes:
        if not change.change.get("pending") and not missing_declarations(change):
            _applied(change, clock.now())


def missing_declarations(change: ChangeRequest) -> list[Declaration]:
    """Return the declarations of a granted change that are not on the cluster yet."""
    behind = Declaration.objects.filter(
        uid__in=list(change.generations), generation__gt=F("observed_generation")
    ).select_related("cluster")
    return [row for row in behind.order_by("pk") if row.observed_generation < change.generations[str(row.uid)]]


def _applied(change: ChangeRequest, at: datetime) -> None:
    change.status = REQUEST_TRANSITIONS.next(change.status, "applied")
    change.applied_at = at
    change.bump("status", "applied_at")
    payload = records.event_of(change)
    _audit(events.CHANGE_APPLIED, change, payload, decided=True)
    told = {change.requester_id, *change_leads(change.team)}
    outbox.publish(events.CHANGE_APPLIED, payload, recipients=told, subject_uid=change.uid)


@transaction.atomic
def replan_moved(change_id: int) -> bool:
    """Plan an open change of a whole cluster anew where a declaration has moved on; True where it did. Idempotent."""
    change = (
        ChangeRequest.objects.select_for_update(of=("self",))
        .select_related("cluster", "workspace__team")
        .filter(pk=change_id, status__in=OPEN_STATUSES, workspace__isnull=True)
        .first()
    )
    if change is None:
        return False
    handler = handler_of(change.kind)
    if isinstance(handler, Staged):
        return _plan_portion(change)
    if not _moved(change):
        return False
    records.replan(change)
    return True


def _plan_portion(change: ChangeRequest) -> bool:
    """Ask for plans of the next declarations that have none, or that moved on; True where some were asked for."""
    if change.change.get("outdated"):
        return False
    items = [(str(item["kind"]), uuid.UUID(item["owner_uid"])) for item in change.change.get("declarations", [])]
    planned = {(str(plan.declaration_kind), plan.owner_uid): plan.created_at for plan in records.plans_of(change)}
    rows = Declaration.objects.filter(cluster_id=change.cluster_id, owner_uid__in=[owner for _, owner in items])
    moved = {(str(row.kind), row.owner_uid): row.declared_at for row in rows}
    due = [
        key for key in items
        if key not in planned or ((at := moved.get(key)) is not None and at > planned[key])
    ]  # fmt: skip
    if any(kind == DeclarationKind.BASELINE for kind, _ in due):
        records.replan(change)
        return True
    owners = [owner for _, owner in due[: records.PORTION]]
    if not owners:
        return False
    handler, at = handler_of(change.kind), clock.now()
    frozen = records.freeze(handler, change.cluster, change.workspace, change.values, at, owners=owners)
    approved = {(leaf["path"], leaf["digest"]) for leaf in change.change["leaves"]}
    if any((leaf["path"], leaf["digest"]) not in approved for leaf in frozen.leaves):
        change.change = change.change | {"outdated": True}
        change.save(update_fields=["change"])
        return False
    for item in frozen.proposed:
        provisioning.request_plan(
            change.cluster_id, item.declaration_kind, item.owner_uid, change.uid, item.team_id, item.manifests
        )
    return bool(frozen.proposed)


def _moved(change: ChangeRequest) -> bool:
    if change.change.get("outdated"):
        return False
    declared = {
        (str(kind), owner): at
        for kind, owner, at in Declaration.objects.filter(
            cluster_id=change.cluster_id,
            owner_uid__in=[item["owner_uid"] for item in change.change.get("declarations", [])],
        ).values_list("kind", "owner_uid", "declared_at")
    }
    for plan in records.plans_of(change):
        at = declared.get((str(plan.declaration_kind), plan.owner_uid))
        if at is not None and at > plan.created_at:
            return True
    return False


def changes_to_replan() -> list[int]:
    """Return the ids of open changes of whole clusters, whose plans a sweep looks after."""
    rows = ChangeRequest.objects.filter(status__in=OPEN_STATUSES, workspace__isnull=True)
    return list(rows.order_by("pk").values_list("pk", flat=True))
