"""What people ask for: a release on an endpoint, new or existing. What follows from a decision is in `granting`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max

from apps import audit
from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.choices import RequestKind
from apps.approvals.models import ApprovalRequest
from apps.catalogue.models import ModelVersion
from apps.clusters.models import Flavour
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.deployments import events, records, rendering
from apps.deployments.choices import OPEN_RELEASES, ReleaseKind, ReleaseStatus
from apps.deployments.drafting import POLICY, SUBJECT_TYPE, Assessment, Draft, assess, check_shape
from apps.deployments.models import Endpoint, Release
from apps.deployments.spec import Spec, Unreadable, name_problem
from apps.provisioning import actions as provisioning
from apps.provisioning.choices import DeclarationKind
from apps.quotas.models import Workspace

CREATE = "deployments.release.create"
EMERGENCY = "approvals.emergency.request"
MIN_REASON = 10


def _user(actor: Actor) -> User:
    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if user is None:
        raise NotAllowed("Only a person can do this.")
    return user


def read_spec(spec: Any) -> Spec:
    """Return a spec from plain data or as it is. Raises Invalid naming fields."""
    if isinstance(spec, Spec):
        return spec
    try:
        return Spec.from_json(spec)
    except Unreadable as error:
        raise Invalid(error.errors) from error


def drafted(
    workspace_id: int, name: str, version_id: int, flavour_id: int, spec: Any, *, user: User, emergency: bool = False
) -> Draft:
    """Return a person's draft, what it names loaded within their scope. Raises NotVisible, NotAllowed, Invalid."""
    workspace = (
        Workspace.objects.visible_to(user).select_related("team__unit", "cluster").filter(pk=workspace_id).first()
    )
    if workspace is None:
        raise NotVisible
    needed = EMERGENCY if emergency else CREATE
    if not (may(user, CREATE, workspace) or (emergency and may(user, needed, workspace))):
        raise NotAllowed("Releases are requested by the team's leads.", rule=CREATE)
    if emergency and not may(user, EMERGENCY, workspace):
        raise NotAllowed("You may not ask for an emergency here.", rule=EMERGENCY)
    version = ModelVersion.objects.visible_to(user).select_related("model").filter(pk=version_id).first()
    if version is None:
        raise Invalid({"model_version": "Choose a version."})
    flavour = Flavour.objects.filter(pk=flavour_id).first()
    if flavour is None:
        raise Invalid({"flavour": "Choose a flavour."})
    endpoint = _endpoint(workspace, name)
    return Draft(workspace, name, endpoint, version, flavour, read_spec(spec), emergency)


def _endpoint(workspace: Workspace, name: str) -> Endpoint | None:
    rows = Endpoint.objects.filter(workspace=workspace, name=name, removed_at__isnull=True)
    return rows.select_related(
        "workspace__cluster", "workspace__team", "model", "current__flavour", "current__model_version__model"
    ).first()


def assessed(draft: Draft) -> Assessment:
    """Return what a draft means now. Raises Invalid where it has not even a shape."""
    return assess(draft, clock.now())


def checked_reason(reason: str) -> str:
    """Return a reason without blanks around it. Raises Invalid."""
    text = reason.strip()
    if len(text) < MIN_REASON:
        raise Invalid({"reason": f"Say in a sentence what it is for (at least {MIN_REASON} characters)."})
    if len(text) > 4000:
        raise Invalid({"reason": "At most 4,000 characters."})
    return text


@transaction.atomic
def request_release(
    workspace_id: int,
    name: str,
    version_id: int,
    flavour_id: int,
    spec: Any,
    reason: str,
    *,
    actor: Actor,
    emergency: bool = False,
) -> Release:
    """Ask that a version serve on an endpoint of a workspace, as `spec` says; the releases policy decides who is asked.

    A name that the workspace does not know makes a new endpoint. `emergency`: the policy's break-glass path, without a
    version's grant. Raises NotVisible, NotAllowed, Invalid per field, Conflict where another release of the endpoint is
    open (`current["release"]` is its uid).
    """
    user = _user(actor)
    text = checked_reason(reason)
    draft = drafted(workspace_id, name.strip(), version_id, flavour_id, spec, user=user, emergency=emergency)
    if problem := name_problem(draft.name):
        raise Invalid({"name": problem})
    if draft.endpoint is None and (wrong := check_shape(draft)):
        raise Invalid(wrong)
    endpoint = _locked_endpoint(draft)
    draft = replace(draft, endpoint=endpoint)
    _refuse_second(endpoint)
    assessment = assessed(draft)
    if assessment.problems:
        raise Invalid({field: [message] for field, message in assessment.problems.items()})
    release = _create(assessment.draft, assessment, endpoint, text, user)
    audit.record(
        events.RELEASE_SUBMITTED,
        records.event_of(release),
        actor=actor,
        subject_type=SUBJECT_TYPE,
        subject_uid=release.uid,
        team_uid=draft.workspace.team.uid,
        after_digest=release.digest,
        reason=text,
    )
    approval = approvals.submit(
        SUBJECT_TYPE,
        release.uid,
        actor=actor,
        policy_slug=POLICY,
        team_id=draft.workspace.team_id,
        unit_id=draft.workspace.team.unit_id,
        kind=RequestKind.EMERGENCY if emergency else RequestKind.NORMAL,
        reason=text if emergency else "",
    )
    # A policy may have granted it at once, which has changed the row.
    release.refresh_from_db()
    if release.approval_id is None:
        release.approval = approval
        release.save(update_fields=["approval"])
    if release.status in (ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING):
        plan_release(release)
    return release


def _locked_endpoint(draft: Draft) -> Endpoint:
    """Return the draft's endpoint locked, made where there is none."""
    found = draft.endpoint
    if found is None:
        try:
            with transaction.atomic():
                found = Endpoint.objects.create(workspace=draft.workspace, name=draft.name, model=draft.version.model)
        except IntegrityError as error:
            raise Conflict("Somebody made this endpoint just now. Look at it and try again.") from error
    Endpoint.objects.locked(found.pk)
    fresh = _endpoint(draft.workspace, draft.name)
    if fresh is None:
        raise Conflict("The endpoint was removed just now.")
    return fresh


def _refuse_second(endpoint: Endpoint) -> None:
    other = Release.objects.filter(endpoint=endpoint, status__in=OPEN_RELEASES).first()
    if other is not None:
        raise Conflict(
            f"Release {other.number} of {endpoint.name} is {ReleaseStatus(other.status).label.lower()}: one release at"
            " a time. Withdraw it, promote it or roll it back first.",
            current={"release": str(other.uid), "status": other.status},
        )


def _create(draft: Draft, assessment: Assessment, endpoint: Endpoint, reason: str, user: User) -> Release:
    last = Release.objects.filter(endpoint=endpoint).aggregate(last=Max("number"))["last"] or 0
    earlier = Release.objects.filter(endpoint=endpoint, version_digest=draft.version.digest, live_at__isnull=False)
    kind = draft.kind
    if kind == ReleaseKind.DEPLOY and endpoint.current_id is not None and earlier.exists():
        kind = str(ReleaseKind.ROLL_BACK)
    release = Release(
        endpoint=endpoint,
        number=last + 1,
        kind=kind,
        model_version=draft.version,
        version_digest=draft.version.digest,
        flavour=draft.flavour,
        tier=draft.spec.tier,
        spec=draft.spec.to_json(),
        reason=reason,
        estimate=assessment.costs.plain(),
        requester=user,
        model_grant_uid=assessment.grant.uid if assessment.grant is not None else None,
        name_bound=assessment.name_bound,
    )
    release.change = records.change_of(assessment, endpoint, release.uid, release.number)
    release.digest = digest(records.canonical(release))
    release.save(force_insert=True)
    return release


def plan_release(release: Release) -> None:
    """Ask for the cluster's dry run of what the release comes to, as evidence beside its approval."""
    workspace = release.endpoint.workspace
    plan = provisioning.request_plan(
        workspace.cluster_id,
        DeclarationKind.RELEASE,
        release.endpoint.uid,
        release.uid,
        workspace.team_id,
        rendering.approved(release, rendering.LIVE),
    )
    if release.plan_id != plan.pk:
        release.plan = plan
        release.save(update_fields=["plan"])


@transaction.atomic
def withdraw_release(
    release_id: int, *, actor: Actor, expected_version: int | None = None, reason: str = ""
) -> Release:
    """Take an open request back, before anything of it is on the cluster.

    Raises NotVisible, NotAllowed, Conflict (decided meanwhile, or a stale form).
    """
    user = _user(actor)
    seen = Release.objects.visible_to(user).select_related("endpoint__workspace").filter(pk=release_id).first()
    if seen is None:
        raise NotVisible
    if not may(user, CREATE, seen):
        raise NotAllowed("Only the team's leads may withdraw its releases.", rule=CREATE)
    if seen.approval_id is not None:
        ApprovalRequest.objects.locked(seen.approval_id)
    release = Release.objects.locked(release_id, expected_version=expected_version)
    if release.status not in (ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING) or release.approval_id is None:
        raise Conflict(
            f"This release is {ReleaseStatus(release.status).label.lower()}: it can no longer be withdrawn.",
            current={"version": release.version, "status": release.status},
        )
    approvals.withdraw(release.approval_id, reason or "Withdrawn by the requesting team.", actor=actor)
    release.refresh_from_db()
    return release
