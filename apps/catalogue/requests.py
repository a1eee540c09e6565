"""Asking that a sealed version be approved in a scope: submit, withdraw, correct, renew."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from apps import audit
from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.choices import RequestKind
from apps.approvals.models import ApprovalRequest
from apps.catalogue import checking, controls_state, recertifying
from apps.catalogue import evidence_events as events
from apps.catalogue.access import locked_version, person
from apps.catalogue.choices import REGULATED, AskStatus, VersionStatus
from apps.catalogue.controls_checks import VERSIONS_POLICY
from apps.catalogue.models import Model, ModelRequest, ModelVersion
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import canonical_bytes, digest
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may
from apps.quotas.choices import DataClass, Environment
from apps.quotas.models import Workspace

SUBJECT_TYPE = "catalogue.version"
SUBMIT = "catalogue.version.submit"
MAX_DAYS = 3660
MOST = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: where, how much of the traffic, from when, for how long."""

    workspaces: Sequence[int]
    max_traffic: int
    valid_days: int
    reason: str
    not_before: datetime | None = None


def usable_workspaces(user: Any, version: ModelVersion) -> Any:
    """Return the workspaces a person may ask for: of teams for which they may submit; they see them anyway."""
    from apps.teams import scope

    rows = Workspace.objects.filter(archived_at__isnull=True).select_related("team", "cluster")
    return rows.filter(scope.of(user).team_filter(SUBMIT, field="team")).order_by("cluster__slug", "namespace", "pk")


def scope_of(workspaces: Sequence[Workspace], max_traffic: int) -> dict[str, Any]:
    """Return the scope of a grant for these workspaces; each list as a set, in one order."""
    return {
        "environments": sorted({str(one.environment) for one in workspaces}),
        "clusters": sorted({one.cluster.slug for one in workspaces}),
        "workspaces": sorted(str(one.uid) for one in workspaces),
        "max_traffic": max_traffic,
    }


def _checked(version: ModelVersion, asked: Asked, *, actor: Actor, urgent: bool = False) -> dict[str, Any]:
    """Return the scope that is asked for. Raises Invalid by field, Conflict for a version that cannot be asked for."""
    if version.status != VersionStatus.SEALED or not version.digest:
        word = "is retired" if version.status == VersionStatus.RETIRED else "is not sealed, so it has no digest"
        raise Conflict(f"This version {word}: there are no bytes to approve.", current={"status": version.status})
    errors: dict[str, list[str]] = {}
    try:
        checking.reason(asked.reason)
    except Invalid as invalid:
        errors |= invalid.errors
    rows = Workspace.objects.filter(pk__in=asked.workspaces, archived_at__isnull=True)
    if not actor.is_system:
        rows = rows.filter(pk__in=usable_workspaces(person(actor), version).values("pk"))
    found = list(rows.select_related("cluster").order_by("pk"))
    if not found or len(found) != len(set(asked.workspaces)):
        errors["workspaces"] = ["Choose workspaces of teams for which you may ask."]
    elif len(found) > MOST:
        errors["workspaces"] = [f"At most {MOST} workspaces in a request."]
    elif urgent and len(found) > 1:
        errors["workspaces"] = ["An emergency is for one workspace: choose the one that cannot wait."]
    else:
        regulated = [one for one in version.classification if one in REGULATED]
        wrong = [
            f"{one.namespace} on {one.cluster.name} does not allow "
            + ", ".join(str(DataClass(lack).label).lower() for lack in lacks) + " data."
            for one in found
            if (lacks := [data for data in regulated if data not in one.data_classes])
        ]  # fmt: skip
        if wrong:
            errors["workspaces"] = wrong[:5]
    if not 1 <= asked.max_traffic <= 100:
        errors["max_traffic"] = ["Between 1 and 100 per cent of an endpoint's traffic."]
    if not 1 <= asked.valid_days <= MAX_DAYS:
        errors["valid_days"] = [f"Between 1 and {MAX_DAYS:,} days."]
    if asked.not_before is not None and asked.not_before < clock.now():
        errors["not_before"] = ["It cannot begin in the past; leave it empty to begin with the approval."]
    if errors:
        raise Invalid(errors)
    return scope_of(found, asked.max_traffic)


@transaction.atomic
def submit(
    version_id: int,
    asked: Asked,
    *,
    actor: Actor,
    supersedes: int | None = None,
    renews: int | None = None,
    recertify_reason: str = "",
    kind: str = RequestKind.NORMAL,
) -> ModelRequest:
    """Ask that a sealed version be approved in a scope; freezes the checklist as it stands now.

    `supersedes`: the open request that this one corrects. `renews`: the approved one that this one looks at again.
    Raises Invalid by field, NotVisible, NotAllowed, Conflict where the version is not sealed or asked for already.
    """
    version = locked_version(version_id, SUBMIT, actor=actor)
    # What is said of the model stays as it is read here until the request is open (`model_actions.JUDGED`).
    version.model = Model.objects.select_related("team__unit").select_for_update(of=("self",)).get(pk=version.model_id)
    scope = _checked(version, asked, actor=actor, urgent=kind == RequestKind.EMERGENCY)
    earlier = _superseded(supersedes, version) if supersedes is not None else None
    renewed = _renewed(renews, version) if renews is not None else None
    if earlier is None:
        open_one = ModelRequest.objects.filter(model_version=version, status=AskStatus.IN_REVIEW).first()
        if open_one is not None:
            raise Conflict(
                "A request for this version is open already. Withdraw or correct that one.",
                current={"request": str(open_one.uid)},
            )
    else:
        earlier.status = AskStatus.SUPERSEDED
        earlier.bump("status")
    state = controls_state.standing(version, scope)
    row = ModelRequest(
        model_version=version, scope=scope, not_before=asked.not_before, valid_days=asked.valid_days,
        reason=asked.reason.strip(), requester=person(actor), supersedes=earlier,
        renews=renewed if renewed is not None else (earlier.renews if earlier is not None else None),
        recertify_reason=(recertify_reason or (earlier.recertify_reason if earlier is not None else ""))[:300],
        checklist=[plain_state(one) for one in state.applying],
    )  # fmt: skip
    row.digest = digest_of_request(row)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict("A request for this version is open already. Withdraw or correct that one.") from error
    record(events.REQUEST_SUBMITTED, row, actor, reason=row.reason)
    approval = approvals.submit(
        SUBJECT_TYPE,
        row.uid,
        actor=actor,
        policy_slug=VERSIONS_POLICY,
        team_id=version.model.team_id,
        unit_id=version.model.team.unit_id,
        supersedes=earlier.approval_id if earlier is not None else None,
        kind=kind,
        reason=row.reason if kind != RequestKind.NORMAL else "",
    )
    row.refresh_from_db()
    if row.approval_id is None:
        row.approval = approval
        row.bump("approval")
    if row.status == AskStatus.IN_REVIEW:
        recertifying.asked(row)
    return row


def _superseded(request_id: int, version: ModelVersion) -> ModelRequest:
    row = ModelRequest.objects.filter(pk=request_id).first()
    if row is None:
        raise NotVisible
    # Approvals first: whoever decides holds that lock before this row's (design §2).
    if row.approval_id is not None:
        ApprovalRequest.objects.locked(row.approval_id)
    row = ModelRequest.objects.locked(row.pk)
    if row.model_version_id != version.pk:
        raise Invalid({"": "A correction is for the same version."})
    if row.status != AskStatus.IN_REVIEW:
        raise Conflict("Only an open request can be corrected.", current={"status": row.status})
    return row


def _renewed(request_id: int, version: ModelVersion) -> ModelRequest:
    row = ModelRequest.objects.filter(pk=request_id, model_version=version).first()
    if row is None or row.status != AskStatus.APPROVED:
        raise Conflict("Only an approved request of the same version can be looked at again.")
    return row


def plain_state(state: Any) -> dict[str, Any]:
    """Return a control's state as it is frozen in a request."""
    plain: dict[str, Any] = state.plain()
    until = plain["valid_until"]
    return plain | {"valid_until": until.strftime("%Y-%m-%dT%H:%M:%SZ") if until is not None else None}


def canonical(row: ModelRequest) -> bytes:
    """Return the exact bytes that are approved: the manifest's digest, the scope, the validity, the checklist."""
    return canonical_bytes(
        {
            "v": 1,
            "request": row.uid,
            "version": row.model_version.uid,
            "manifest": row.model_version.digest,
            "scope": row.scope,
            "not_before": row.not_before,
            "valid_days": row.valid_days,
            "reason": row.reason,
            "checklist": row.checklist,
            "renews": row.renews.uid if row.renews is not None else None,
            "recertify_reason": row.recertify_reason,
        }
    )


def digest_of_request(row: ModelRequest) -> str:
    """Return the digest of those bytes."""
    return digest(canonical(row))


@transaction.atomic
def withdraw(request_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> ModelRequest:
    """Take an open request back. Raises Invalid without a reason, NotVisible, NotAllowed, Conflict."""
    row = ModelRequest.objects.select_related("approval").filter(pk=request_id).first()
    if row is None or (not actor.is_system and not _sees(person(actor), row)):
        raise NotVisible
    if row.approval_id is None or row.status != AskStatus.IN_REVIEW:
        raise Conflict("Only an open request can be withdrawn.", current={"status": row.status, "version": row.version})
    if expected_version is not None and row.version != expected_version:
        raise Conflict("Somebody changed this while you were looking at it.", current={"version": row.version})
    # Approvals lock first, then tell the subject, which locks this row (design §2).
    approvals.withdraw(row.approval_id, reason, actor=actor)
    row.refresh_from_db()
    return row


def _sees(user: User, row: ModelRequest) -> bool:
    return ModelRequest.objects.visible_to(user).filter(pk=row.pk).exists()


def may_withdraw(user: Any, row: ModelRequest) -> bool:
    """Whether the person may take it back."""
    if row.status != AskStatus.IN_REVIEW or row.approval is None:
        return False
    return approvals.may_withdraw(user, row.approval)


def may_submit(user: Any, version: ModelVersion) -> bool:
    """Whether the person may ask for this version."""
    return may(user, SUBMIT, version)


@transaction.atomic
def correct(request_id: int, asked: Asked, *, actor: Actor, expected_version: int | None = None) -> ModelRequest:
    """Put another scope or validity in place of an open request's; decisions so far are void.

    Raises as `submit` does.
    """
    row = ModelRequest.objects.filter(pk=request_id).first()
    if row is None:
        raise NotVisible
    if expected_version is not None and row.version != expected_version:
        raise Conflict("Somebody changed this while you were looking at it.", current={"version": row.version})
    return submit(row.model_version_id, asked, actor=actor, supersedes=row.pk)


@transaction.atomic
def renew(request_id: int, reason: str, *, actor: Actor, valid_days: int | None = None) -> ModelRequest:
    """Ask for an approved scope again before (or after) it ends: the checklist is computed anew. Raises as `submit`."""
    row = ModelRequest.objects.select_related("model_version").filter(pk=request_id).first()
    if row is None:
        raise NotVisible
    rows = Workspace.objects.filter(uid__in=[uuid.UUID(one) for one in row.scope["workspaces"]])
    asked = Asked(
        list(rows.filter(archived_at__isnull=True).values_list("pk", flat=True)), int(row.scope["max_traffic"]),
        valid_days or row.valid_days, reason,
    )  # fmt: skip
    return submit(row.model_version_id, asked, actor=actor, renews=row.pk)


def clusters_of(scope: Mapping[str, Any]) -> list[Cluster]:
    """Return the clusters of a scope."""
    return list(Cluster.objects.filter(slug__in=scope["clusters"]).order_by("slug"))


def environments_of(scope: Mapping[str, Any]) -> list[str]:
    """Return a scope's environments as words."""
    return [str(Environment(one).label) for one in scope["environments"]]


def event_of(row: ModelRequest, *, detail: str = "", reason: str = "") -> events.ModelRequestEvent:
    """Return what events say of a request."""
    version = row.model_version
    return events.ModelRequestEvent(
        row.uid, version.uid, version.digest, list(row.scope["environments"]), list(row.scope["clusters"]),
        list(row.scope["workspaces"]), int(row.scope["max_traffic"]), f"{version.model.name} {version.label}", detail,
        reason,
    )  # fmt: skip


def record(event: EventType, row: ModelRequest, actor: Actor, *, detail: str = "", reason: str = "") -> None:
    """Write an event of a request into the audit trail."""
    audit.record(
        event,
        event_of(row, detail=detail, reason=reason),
        actor=actor,
        subject_type=SUBJECT_TYPE,
        subject_uid=row.uid,
        team_uid=row.model_version.model.team.uid,
        after_digest=row.digest,
    )
