"""From a grant to the cluster: the ledger decides under lock, quotas are laid over, the objects are declared.

Lock order (design §2): approval request (held by the caller) → quota request → pool → workspace → declaration.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import F

from apps import audit
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest, Grant
from apps.approvals.ports import CannotTake
from apps.clusters.models import Pool
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict
from apps.core.formats import datetime_utc
from apps.provisioning.models import Declaration
from apps.quotas import book, events, renewal
from apps.quotas.assess import number
from apps.quotas.change import canonical, creation_leaves
from apps.quotas.change_records import replan_open
from apps.quotas.choices import OPEN_STATUSES, REQUEST_TRANSITIONS, RequestStatus, Rung
from apps.quotas.cluster_side import close_plans, declare
from apps.quotas.ledger import Holding, in_force, overlay_all
from apps.quotas.manifests import Manifest
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.quotas.records import (
    asked_of,
    describe,
    event_of,
    holdings_in,
    made_anew,
    manifests_at,
    overtaken,
    own_holdings,
    plan_request,
    windows_ahead,
    windows_left,
)
from apps.teams import scope

SYSTEM = Actor.system("quotas.granting")
OVERTAKEN = (
    "Another request of this workspace, granted since this was submitted, counts in all of its time: nothing is left "
    "to renew."
)
_CLOSING = {
    "rejected": ("reject", events.REQUEST_REJECTED),
    "withdrawn": ("withdraw", events.REQUEST_WITHDRAWN),
    "lapsed": ("lapse", events.REQUEST_LAPSED),
}


def _leads(workspace: Workspace) -> list[int]:
    return scope.holders_of_role("team_lead", team_id=workspace.team_id)


def _load(uid: uuid.UUID) -> QuotaRequest:
    request = (
        QuotaRequest.objects.select_related("workspace__team", "workspace__cluster", "flavour")
        .select_for_update(of=("self",))
        .filter(uid=uid)
        .first()
    )
    if request is None:
        raise Conflict("The quota request is gone.")
    return request


def _verify(request: QuotaRequest, grant: Grant) -> None:
    """Make sure that the grant is about the request as it stands. Raises Conflict otherwise (invariant 3)."""
    found = digest(canonical(asked_of(request), request.estimate, request.change))
    if not grant.subject_digest == request.digest == found:
        raise Conflict("The request is no longer what was approved: submit it again.")


def verify_creation(request: QuotaRequest, manifests: Sequence[Manifest]) -> None:
    """For a workspace's first quota: its objects are those that were approved. Raises Conflict otherwise."""
    approved = {leaf["path"]: leaf["digest"] for leaf in request.change["leaves"]}
    for leaf in creation_leaves(request.workspace.cluster.slug, manifests):
        if approved.get(leaf["path"]) != leaf["digest"]:
            raise Conflict(
                f"{leaf['path']} would no longer be made as approved: correct the request to have it approved anew."
            )


def lay_over(request: QuotaRequest, windows: Sequence[tuple[datetime, datetime | None]]) -> list[Holding]:
    """Write the request's quota over the existing rows (shorten, split, replace) and return all holdings."""
    new = holdings_in(request, windows)
    rows = {row.pk: row for row in Quota.objects.filter(workspace=request.workspace, flavour=request.flavour)}
    before = [book.holding(row) for row in rows.values()]
    after = overlay_all(before, new)
    kept = {item.key: item for item in after if item.key is not None}
    # Remove and shorten before inserting: the exclusion constraint is checked row by row.
    Quota.objects.filter(pk__in=rows.keys() - kept.keys()).delete()
    for key, item in kept.items():
        row = rows[key]
        if (row.valid.lower, row.valid.upper) != (item.start, item.end):
            row.valid = DateTimeTZRange(item.start, item.end, "[)")
            row.save(update_fields=["valid"])
    mine = {item.start for item in new}
    made = []
    for item in after:
        if item.key is not None:
            continue
        below = in_force(before, item.start)
        source = rows[below.key] if item.start not in mine and below is not None and below.key is not None else None
        made.append(_row_of(item, request, source.request if source is not None else request))
    Quota.objects.bulk_create(made)
    return after


def _row_of(item: Holding, request: QuotaRequest, source: QuotaRequest | None) -> Quota:
    return Quota(
        workspace=request.workspace,
        flavour=request.flavour,
        guaranteed=item.guaranteed,
        borrow_mode=item.borrow_mode,
        borrow_limit=item.borrow_limit,
        lend_mode=item.lend_mode,
        lend_limit=item.lend_limit,
        serving=item.serving,
        valid=DateTimeTZRange(item.start, item.end, "[)"),
        request=source,
    )


def on_granted(uid: uuid.UUID, grant: Grant) -> None:
    """Put an approved request into force, in the deciding transaction.

    Raises CannotTake where the pool has no room over the whole time (the request then waits), Conflict where the
    request is not what was approved or its time has passed.
    """
    request = _load(uid)
    _verify(request, grant)
    at = clock.now()
    if not windows_ahead(request, at):
        raise Conflict("The end of the requested time has passed: correct the request or let it go.")
    pool = book.pool_of(request.workspace.cluster_id, request.flavour_id)
    if pool is None:
        raise CannotTake(f"{request.workspace.cluster} no longer offers {request.flavour}.")
    pool = Pool.objects.locked(pool.pk)
    workspace = Workspace.objects.locked(request.workspace_id)
    # Read under lock: what a plain renewal gives way to may have been granted a moment ago.
    windows = windows_left(request, at)
    if not windows:
        raise CannotTake(OVERTAKEN)
    start = windows[0][0]
    _check_room(request, pool, windows)
    _check_distinguishable(request, start)
    lay_over(request, windows)
    later = start > at
    request.status = REQUEST_TRANSITIONS.next(request.status, "schedule" if later else "grant")
    request.approval = grant.request
    request.granted_at = at
    if not later:
        request.generation = _declare(request, workspace, at, grant_uid=grant.uid)
    request.bump("status", "approval", "granted_at", "generation")
    payload = event_of(request, f"It begins on {datetime_utc(start)}." if later else "It is being applied now.")
    audit.record(
        events.REQUEST_GRANTED,
        payload,
        actor=SYSTEM,
        subject_type="quotas.request",
        subject_uid=request.uid,
        team_uid=request.workspace.team.uid,
        after_digest=request.digest,
    )
    # The requester hears from the approvals room that it is approved, and from here when it is applied.
    others = [user_id for user_id in _leads(workspace) if user_id != request.requester_id]
    if others:
        outbox.publish(events.REQUEST_GRANTED, payload, recipients=others, subject_uid=request.uid)
    close_plans(request.uid)
    replan_others(request)


def _check_room(request: QuotaRequest, pool: Pool, windows: Sequence[tuple[datetime, datetime | None]]) -> None:
    view = book.load(pool, windows[0][0])
    place = renewal.place_of(request)
    room = view.room_in(request.workspace_id, request.flavour, request.guaranteed, windows, asked_at=place)
    if not room.fits:
        when = f" It would fit from {datetime_utc(room.first_fit_from)}." if room.first_fit_from else ""
        raise CannotTake(
            f"{pool} is full: at its tightest moment ({datetime_utc(room.worst_at)}) this workspace could have "
            f"{number(max(room.free_at_worst, Fraction(0)))} GPUs.{when}"
        )


def _check_distinguishable(request: QuotaRequest, start: datetime) -> None:
    other = book.indistinguishable(request.workspace, request.flavour, start, request.valid_until)
    if other is not None and request.maximum != 0:
        raise CannotTake(f"The workspace meanwhile holds {other}, which the cluster could not tell apart.")


def _declare(request: QuotaRequest, workspace: Workspace, at: datetime, *, grant_uid: uuid.UUID) -> int:
    """Declare the workspace's objects as approved and return the generation that carries them."""
    anew = made_anew(request.workspace)
    manifests = manifests_at(request.workspace, at, resources=[request.flavour.resource_name], anew=anew)
    if anew:
        verify_creation(request, manifests)
        revive(workspace)
    plan_uid = request.plan.uid if request.plan is not None else None
    declaration = declare(request.workspace, manifests, grant_uid=grant_uid, plan_uid=plan_uid, actor=SYSTEM)
    workspace.rolled_at = at
    workspace.save(update_fields=["rolled_at"])
    return declaration.generation


def revive(workspace: Workspace) -> None:
    """Take a locked workspace's row off the ladder: a granted quota brings its objects back whole."""
    workspace.archived_at, workspace.rung, workspace.rung_at = None, Rung.NONE, None
    workspace.bump("archived_at", "rung", "rung_at")


def replan_others(request: QuotaRequest) -> None:
    """One request landed: the open plans of the same workspace are made anew (design §5)."""
    others = QuotaRequest.objects.filter(workspace=request.workspace, status__in=OPEN_STATUSES).exclude(pk=request.pk)
    for other in others.select_related("workspace__team", "workspace__cluster", "flavour").order_by("pk"):
        plan_request(other)
    replan_open(request.workspace)


def close_overtaken() -> int:
    """Withdraw plain renewals that another granted request has overtaken altogether; returns how many.

    A sweep does it, not the grant: that holds the locks of the other approval already.
    """
    at = clock.now()
    rows = QuotaRequest.objects.filter(is_renewal=True, status__in=OPEN_STATUSES, approval__isnull=False)
    rows = rows.filter(
        workspace__quotas__flavour=F("flavour"), workspace__quotas__request__granted_at__gt=F("approval__submitted_at")
    )
    closed = 0
    for row in rows.select_related("approval").distinct().order_by("pk"):
        closed += _close_overtaken(row, at)
    return closed


@transaction.atomic
def _close_overtaken(seen: QuotaRequest, at: datetime) -> int:
    if seen.approval_id is None:
        return 0
    approval = ApprovalRequest.objects.locked(seen.approval_id)
    row = QuotaRequest.objects.select_for_update(of=("self",)).select_related("approval").get(pk=seen.pk)
    if row.status not in OPEN_STATUSES or not overtaken(row, at):
        return 0
    approvals.withdraw(approval.pk, OVERTAKEN, actor=SYSTEM)
    return 1


def on_concluded(uid: uuid.UUID, status: str, reason: str) -> None:
    """Take note of how the approval request ended, or that it waits for capacity; called in its transaction."""
    request = _load(uid)
    if status == RequestStatus.WAITING:
        if request.status == RequestStatus.WAITING:
            return
        action, event = "hold", events.REQUEST_WAITING
    elif status in _CLOSING:
        action, event = _CLOSING[status]
    else:
        # Superseded: the correcting action has already closed the row. Approved: on_granted did the work.
        return
    request.status = REQUEST_TRANSITIONS.next(request.status, action)
    request.bump("status")
    payload = event_of(request, reason)
    audit.record(
        event,
        payload,
        actor=SYSTEM,
        subject_type="quotas.request",
        subject_uid=request.uid,
        team_uid=request.workspace.team.uid,
        before_digest=request.digest,
    )
    if action != "hold":
        close_plans(request.uid)


def on_applied(declaration: Declaration) -> None:
    """A workspace's declaration is on its cluster: its requests are applied. In the recording transaction."""
    requests = (
        QuotaRequest.objects.select_for_update(of=("self",))
        .select_related("workspace__team", "workspace__cluster", "flavour")
        .filter(
            workspace__uid=declaration.owner_uid,
            status=RequestStatus.APPLYING,
            generation__lte=declaration.observed_generation,
        )
        .order_by("pk")
    )
    for request in requests:
        request.status = REQUEST_TRANSITIONS.next(request.status, "applied")
        request.applied_at = clock.now()
        request.bump("status", "applied_at")
        payload = event_of(request)
        audit.record(
            events.REQUEST_APPLIED,
            payload,
            actor=SYSTEM,
            subject_type="quotas.request",
            subject_uid=request.uid,
            team_uid=request.workspace.team.uid,
            after_digest=request.digest,
        )
        outbox.publish(
            events.REQUEST_APPLIED,
            payload,
            recipients=[request.requester_id, *_leads(request.workspace)],
            subject_uid=request.uid,
        )


__all__ = [
    "OVERTAKEN",
    "close_overtaken",
    "describe",
    "lay_over",
    "on_applied",
    "on_concluded",
    "on_granted",
    "own_holdings",
    "replan_others",
    "revive",
    "verify_creation",
]
