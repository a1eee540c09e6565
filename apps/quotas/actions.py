"""What people do with workspaces and quota requests. What follows from a decision is in `granting`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from apps import audit
from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.models import ApprovalRequest
from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.formats import datetime_utc
from apps.core.permissions import may
from apps.quotas import events
from apps.quotas.assess import MIN_REASON, Draft, Extras, assess, check
from apps.quotas.change import canonical
from apps.quotas.choices import OPEN_STATUSES, DataClass, Environment, RequestStatus
from apps.quotas.models import QuotaRequest, Workspace
from apps.quotas.records import asked_of, change_of, estimate_of, event_of, plan_request
from apps.teams.models import Team

POLICY = "quota"
SUBJECT_TYPE = "quotas.request"

_NAMESPACE = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
#: Prefixes and names that Kubernetes keeps for itself.
_RESERVED = re.compile(r"^(kube-.*|default|openshift-.*)$")


def _user(actor: Actor) -> User:
    found = User.objects.filter(pk=actor.user_id, is_active=True) if actor.user_id is not None else User.objects.none()
    user: User | None = found.first()
    if user is None:
        raise NotAllowed("Only a person can do this.")
    return user


def _require(actor: Actor, permission: str, obj: object, message: str) -> None:
    if not may(_user(actor), permission, obj):
        raise NotAllowed(message, rule=permission)


@transaction.atomic
def create_workspace(
    team_id: int, cluster_id: int, environment: str, data_classes: Sequence[str], *, actor: Actor
) -> Workspace:
    """Give a team a workspace on a cluster: the row only. Its objects reach the cluster with its first granted quota.

    The portal itself may do it, too (first set-up). Raises NotAllowed, NotVisible, Invalid.
    """
    if not actor.is_system:
        _require(actor, "quotas.workspace.manage", None, "Workspaces are made by platform admins.")
    team = Team.objects.filter(pk=team_id, archived_at__isnull=True).first()
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if team is None or cluster is None:
        raise NotVisible
    errors: dict[str, str] = {}
    if cluster.archived_at is not None:
        errors["cluster"] = f"{cluster} is archived: nothing new is offered on it."
    if environment not in Environment.values:
        errors["environment"] = "Choose development, staging or production."
    if unknown := sorted(set(data_classes) - set(DataClass.values)):
        errors["data_classes"] = f"Unknown data class: {', '.join(unknown)}."
    namespace = f"{team.slug}-{environment}"
    if not _NAMESPACE.match(namespace) or _RESERVED.match(namespace):
        errors["team"] = f"“{namespace}” cannot be the name of a namespace. Change the team's short name first."
    if errors:
        raise Invalid(errors)
    try:
        with transaction.atomic():
            workspace = Workspace.objects.create(
                team=team,
                cluster=cluster,
                environment=environment,
                namespace=namespace,
                data_classes=sorted(set(data_classes)),
            )
    except IntegrityError as error:
        raise Invalid({"environment": f"{team} already has a {environment} workspace on {cluster}."}) from error
    audit.record(
        events.WORKSPACE_CREATED,
        events.WorkspaceCreated(
            workspace.uid, cluster.uid, team.uid, environment, namespace, list(workspace.data_classes)
        ),
        actor=actor,
        subject_type="quotas.workspace",
        subject_uid=workspace.uid,
        team_uid=team.uid,
    )
    return workspace


def checked_draft(
    workspace_id: int,
    flavour_id: int,
    guaranteed: int,
    borrow_mode: str,
    borrow_limit: int,
    valid_from: datetime | None,
    valid_until: datetime | None,
    *,
    user: User,
    extras: Extras | None = None,
    corrects: Mapping[str, Any] | None = None,
) -> Draft:
    """Return the checked draft of a person's request (`corrects`: the frozen change of the one it replaces).

    Raises NotVisible, NotAllowed, Invalid.
    """
    workspace = (
        Workspace.objects.visible_to(user).select_related("team__unit", "cluster").filter(pk=workspace_id).first()
    )
    if workspace is None:
        raise NotVisible
    if not may(user, "quotas.request.create", workspace):
        raise NotAllowed("Quota is requested by the team's leads or the unit's owner.", rule="quotas.request.create")
    flavour = Flavour.objects.filter(pk=flavour_id).first()
    if flavour is None:
        raise Invalid({"flavour": "Choose a flavour."})
    return check(
        workspace,
        flavour,
        guaranteed=guaranteed,
        borrow_mode=borrow_mode,
        borrow_limit=borrow_limit,
        valid_from=valid_from,
        valid_until=valid_until,
        may_borrow_unlimited=may(user, "quotas.borrow.unlimited", workspace),
        extras=extras,
        corrects=corrects,
    )


def standing_in_the_way(draft: Draft) -> QuotaRequest | None:
    """Return the open request beside which a draft cannot be submitted; a plain renewal has a place of its own."""
    return QuotaRequest.objects.filter(
        workspace=draft.workspace, flavour=draft.flavour, status__in=OPEN_STATUSES, is_renewal=draft.is_renewal
    ).first()


def in_the_way_words(draft: Draft) -> str:
    """Say why a draft cannot be submitted beside the open request, and what can be."""
    if draft.is_renewal:
        return "A renewal of this is open already. Correct or withdraw that one."
    text = "There is already an open request for this workspace and flavour. Correct or withdraw that one."
    if draft.renews is not None:
        text += (
            f" Only a renewal may be open beside it: one that begins on {datetime_utc(draft.renews.until)} and asks "
            f"for at most {draft.renews.guaranteed:,}."
        )
    return text


def _checked_reason(reason: str) -> str:
    text = reason.strip()
    if len(text) < MIN_REASON:
        raise Invalid(
            {"reason": f"Say in a sentence what it is for (at least {MIN_REASON} characters): approvers read it."}
        )
    if len(text) > 4000:
        raise Invalid({"reason": "At most 4,000 characters."})
    return text


def _submit(
    draft: Draft, reason: str, *, actor: Actor, requester: User, supersedes: QuotaRequest | None
) -> QuotaRequest:
    """Write the request, freeze its change and estimate, and hand it to the approvals room."""
    try:
        with transaction.atomic():
            request = QuotaRequest.objects.create(
                workspace=draft.workspace,
                flavour=draft.flavour,
                guaranteed=draft.guaranteed,
                borrow_mode=draft.borrow_mode,
                borrow_limit=draft.borrow_limit,
                valid_from=draft.valid_from,
                valid_until=draft.valid_until,
                recurrence=draft.recurrence.plain() if draft.recurrence is not None else None,
                lend_mode=draft.lend_mode,
                lend_limit=draft.lend_limit,
                serving=draft.serving,
                is_renewal=draft.is_renewal,
                reason=reason,
                requester=requester,
                supersedes=supersedes,
            )
    except IntegrityError as error:
        other = standing_in_the_way(draft)
        raise Conflict(
            in_the_way_words(draft),
            current={"request": str(other.uid), "status": other.status} if other else {},
        ) from error
    assessment = assess(draft)
    request.estimate = estimate_of(assessment)
    request.change = change_of(request, assessment)
    request.digest = digest(canonical(asked_of(request), request.estimate, request.change))
    request.save(update_fields=["estimate", "change", "digest"])
    audit.record(
        events.REQUEST_SUBMITTED,
        event_of(request),
        actor=actor,
        subject_type=SUBJECT_TYPE,
        subject_uid=request.uid,
        team_uid=draft.workspace.team.uid,
        after_digest=request.digest,
        reason=reason,
    )
    approval = approvals.submit(
        SUBJECT_TYPE,
        request.uid,
        actor=actor,
        policy_slug=POLICY,
        team_id=draft.workspace.team_id,
        unit_id=draft.workspace.team.unit_id,
        supersedes=supersedes.approval_id if supersedes is not None else None,
    )
    # A policy may have granted it at once, which has changed the row.
    request.refresh_from_db()
    if request.approval_id is None:
        request.approval = approval
        request.save(update_fields=["approval"])
    if request.status in OPEN_STATUSES:
        plan_request(request)
    return request


@transaction.atomic
def request_quota(
    workspace_id: int,
    flavour_id: int,
    guaranteed: int,
    borrow_mode: str,
    borrow_limit: int,
    valid_from: datetime | None,
    valid_until: datetime | None,
    reason: str,
    *,
    actor: Actor,
    extras: Extras | None = None,
) -> QuotaRequest:
    """Ask that a workspace hold `guaranteed` units of a flavour (and may borrow) from a time on, until one or for good.

    `valid_from` None or within the last day: as soon as it is granted. `extras`: a weekly repetition (which needs an
    end), what is lent, what is kept for serving. Raises NotVisible, NotAllowed, Invalid per
    field, Conflict where a request for the same workspace and flavour is open (`current["request"]` is its uid).
    """
    user = _user(actor)
    draft = checked_draft(
        workspace_id,
        flavour_id,
        guaranteed,
        borrow_mode,
        borrow_limit,
        valid_from,
        valid_until,
        user=user,
        extras=extras,
    )
    return _submit(draft, _checked_reason(reason), actor=actor, requester=user, supersedes=None)


def _locked_open(request_id: int, action: str, *, actor: Actor, expected_version: int | None) -> QuotaRequest:
    """Return an open request locked after its approval request, the person's permission checked. Raises core errors."""
    user = _user(actor)
    seen = QuotaRequest.objects.visible_to(user).select_related("workspace").filter(pk=request_id).first()
    if seen is None:
        raise NotVisible
    if not may(user, "quotas.request.withdraw", seen):
        raise NotAllowed(
            "Only the team's leads and the unit's owner may change its requests.", rule="quotas.request.withdraw"
        )
    if seen.approval_id is not None:
        ApprovalRequest.objects.locked(seen.approval_id)
    request = QuotaRequest.objects.locked(request_id, expected_version=expected_version)
    if request.status not in OPEN_STATUSES:
        raise Conflict(
            f"This request is {RequestStatus(request.status).label.lower()}: it can no longer be {action}.",
            current={"version": request.version, "status": request.status},
        )
    return request


@transaction.atomic
def withdraw_request(
    request_id: int, *, actor: Actor, expected_version: int | None = None, reason: str = ""
) -> QuotaRequest:
    """Take an open request back. Raises NotVisible, NotAllowed, Conflict (decided meanwhile, or a stale form)."""
    request = _locked_open(request_id, "withdrawn", actor=actor, expected_version=expected_version)
    if request.approval_id is None:
        raise Conflict("This request was never submitted.", current={"status": request.status})
    approvals.withdraw(request.approval_id, reason or "Withdrawn by the requesting team.", actor=actor)
    request.refresh_from_db()
    return request


@transaction.atomic
def correct_request(
    request_id: int,
    flavour_id: int,
    guaranteed: int,
    borrow_mode: str,
    borrow_limit: int,
    valid_from: datetime | None,
    valid_until: datetime | None,
    reason: str,
    *,
    actor: Actor,
    expected_version: int | None = None,
    extras: Extras | None = None,
) -> QuotaRequest:
    """Replace an open request by a corrected one in the same workspace; earlier approvals are void.

    Raises NotVisible, NotAllowed, Invalid, Conflict.
    """
    user = _user(actor)
    old = _locked_open(request_id, "corrected", actor=actor, expected_version=expected_version)
    draft = checked_draft(
        old.workspace_id,
        flavour_id,
        guaranteed,
        borrow_mode,
        borrow_limit,
        valid_from,
        valid_until,
        user=user,
        extras=extras,
        corrects=old.change,
    )
    text = _checked_reason(reason)
    now = clock.now()
    # A start that has passed means "as soon as it is granted", whichever second it names.
    asked = [
        (
            row.flavour,
            *(row.guaranteed, row.borrow_mode, row.borrow_limit),
            *(row.lend_mode, row.lend_limit, row.serving),
            max(row.valid_from, now),
            row.valid_until,
        )
        for row in (old, draft)
    ]
    repeats = [old.recurrence, draft.recurrence.plain() if draft.recurrence is not None else None]
    if asked[0] == asked[1] and repeats[0] == repeats[1] and old.reason == text:
        raise Invalid({"": "Nothing is different from the request as it stands."})
    # Closed first: one open request per workspace and flavour. The approvals room closes its own side in `submit`.
    old.status = RequestStatus.SUPERSEDED
    old.bump("status")
    audit.record(
        events.REQUEST_SUPERSEDED,
        event_of(old),
        actor=actor,
        subject_type=SUBJECT_TYPE,
        subject_uid=old.uid,
        team_uid=draft.workspace.team.uid,
        before_digest=old.digest,
    )
    return _submit(draft, text, actor=actor, requester=user, supersedes=old)
