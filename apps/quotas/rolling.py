"""Dated quotas begin and end by themselves: the limits that an approval set for now are declared at each switch-over.

Lock order (design §2): workspace → declaration. Nothing here decides: every switch-over was approved with its request.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import F, Q

from apps import audit
from apps.approvals.engine import usable
from apps.approvals.models import Grant
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.quotas import book, events
from apps.quotas.choices import REQUEST_TRANSITIONS, RequestStatus
from apps.quotas.cluster_side import declare
from apps.quotas.granting import revive, verify_creation
from apps.quotas.models import Quota, QuotaRequest, Workspace
from apps.quotas.records import event_of, made_anew, manifests_at
from apps.teams import scope

SYSTEM = Actor.system("quotas.rolling")
_RELATED = ("workspace__team", "workspace__cluster", "flavour", "approval__grant", "plan")


def due_to_roll(at: datetime) -> list[int]:
    """Return the ids of workspaces in which a quota began or ended since their limits were last declared."""
    began = Q(quotas__request__isnull=False, quotas__valid__startswith__lte=at) & (
        Q(rolled_at__isnull=True) | Q(quotas__valid__startswith__gt=F("rolled_at"))
    )
    ended = Q(quotas__request__isnull=False, quotas__valid__endswith__lte=at) & (
        Q(rolled_at__isnull=True) | Q(quotas__valid__endswith__gt=F("rolled_at"))
    )
    found = Workspace.objects.filter(began | ended).order_by("pk").values_list("pk", flat=True)
    return list(dict.fromkeys(found))


@transaction.atomic
def roll_workspace(workspace_id: int) -> bool:
    """Declare a workspace's GPU limits as its dated quotas have them now; True where something began or ended.

    Every switch-over is a leaf of the approval that granted the quota; nothing but the limits changes. Idempotent.
    """
    workspace = Workspace.objects.select_for_update(of=("self",)).select_related("team", "cluster").get(pk=workspace_id)
    at = clock.now()
    if workspace.pk not in due_to_roll(at):
        return False
    end_unusable(workspace, at)
    starting = list(
        QuotaRequest.objects.select_related(*_RELATED)
        .filter(workspace=workspace, status=RequestStatus.SCHEDULED, valid_from__lte=at)
        .order_by("pk")
    )
    starting = [request for request in starting if _has_begun(request, at)]
    generation, limits = _declare_roll(workspace, starting, at)
    for request in starting:
        request.status = REQUEST_TRANSITIONS.next(request.status, "grant")
        request.generation = generation
        request.bump("status", "generation")
    payload = events.QuotaRolled(workspace.uid, limits, f"{workspace.namespace} on {workspace.cluster}")
    audit.record(
        events.QUOTA_ROLLED,
        payload,
        actor=SYSTEM,
        subject_type="quotas.workspace",
        subject_uid=workspace.uid,
        team_uid=workspace.team.uid,
    )
    return True


def _has_begun(request: QuotaRequest, at: datetime) -> bool:
    """Whether the first window of a scheduled request has begun; without a repetition its start is that moment.

    A plain renewal begins where what another request was granted meanwhile ends, if anything of it is left.
    """
    if request.recurrence is None and not request.is_renewal:
        return True
    laid = Quota.objects.filter(request=request)
    if laid.filter(valid__startswith__lte=at).exists():
        return True
    return request.recurrence is None and not laid.exists()


def _covered(request: QuotaRequest, at: datetime) -> bool:
    """Whether the grant behind a request may be used at `at` (invariant 3: asked at every use)."""
    grant = Grant.objects.filter(request=request.approval_id).first()
    return grant is not None and usable(grant, request.digest, {"subject_uid": str(request.uid)}, at)


def end_unusable(workspace: Workspace, at: datetime) -> int:
    """End recurring quotas of which a window begins now under a grant that is no longer usable; returns how many.

    Every window is a use of the grant. What has begun before runs to the end of its window; later windows are let go,
    and the team's leads are told. Called with the workspace locked.
    """
    since = workspace.rolled_at
    begun = Quota.objects.filter(workspace=workspace, valid__contains=at, request__recurrence__isnull=False)
    if since is not None:
        begun = begun.filter(valid__startswith__gt=since)
    ended = 0
    ids = begun.values("request")
    active = [RequestStatus.SCHEDULED, RequestStatus.APPLYING, RequestStatus.ACTIVE]
    for request in QuotaRequest.objects.select_related(*_RELATED).filter(pk__in=ids, status__in=active).order_by("pk"):
        if request.status == RequestStatus.SCHEDULED or _covered(request, at):
            continue
        later = Quota.objects.filter(request=request, flavour=request.flavour, valid__endswith__gt=at)
        if since is not None:
            later = later.filter(valid__startswith__gt=since)
        later.delete()
        payload = event_of(request, "Its approval is no longer valid, so no further window begins. Request it anew.")
        audit.record(
            events.REQUEST_EXPIRED,
            payload,
            actor=SYSTEM,
            subject_type="quotas.request",
            subject_uid=request.uid,
            team_uid=workspace.team.uid,
        )
        leads = scope.holders_of_role("team_lead", team_id=workspace.team_id)
        outbox.publish(events.REQUEST_EXPIRED, payload, recipients=leads, subject_uid=request.uid)
        ended += 1
    return ended


def _declare_roll(workspace: Workspace, starting: list[QuotaRequest], at: datetime) -> tuple[int, dict[str, int]]:
    """Declare what is in force at `at` and return the generation with its limits."""
    row = (
        Quota.objects.select_related("request__approval__grant")
        .filter(workspace=workspace, request__isnull=False)
        .filter(Q(valid__startswith__lte=at))
        .order_by("-valid")
        .first()
    )
    source = starting[0] if starting else (row.request if row is not None else None)
    approval = source.approval if source is not None else None
    if source is None or approval is None:
        raise Conflict(f"{workspace} has quotas without an approval: nothing is declared.")
    grant = Grant.objects.filter(request=approval).first()
    # A quota that begins needs a grant in force; one that ends falls back whatever became of its grant.
    if grant is None or (starting and not usable(grant, source.digest, {"subject_uid": str(source.uid)}, at)):
        raise Conflict(f"The grant behind the quota that begins in {workspace} is not usable.")
    # Only a quota that begins brings a workspace (back); one that ends moves limits and nothing else.
    anew = bool(starting) and made_anew(workspace)
    resources = [request.flavour.resource_name for request in starting]
    manifests = manifests_at(workspace, at, resources=resources, anew=anew)
    if anew:
        verify_creation(source, manifests)
        revive(workspace)
    declaration = declare(workspace, manifests, grant_uid=grant.uid, plan_uid=None, actor=SYSTEM)
    workspace.rolled_at = at
    workspace.save(update_fields=["rolled_at"])
    return declaration.generation, book.gpu_limits(workspace, at)


__all__ = ["due_to_roll", "end_unusable", "roll_workspace"]
