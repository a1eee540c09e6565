"""From a grant to the cluster: both grants, room and placement looked at once more, then the objects are declared.

Lock order: approval request (held by the caller) → endpoint → release → workspace → declaration.
"""

from __future__ import annotations

import uuid

from apps import audit
from apps.approvals.models import Grant
from apps.approvals.ports import CannotTake
from apps.catalogue.choices import REGULATED
from apps.catalogue.manifest import BYTES
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, NotAllowed
from apps.deployments import events, grants, ladder, placement, reading, records, rendering, verifying
from apps.deployments.choices import ON_CLUSTER, CanaryMode, LoadState, ReleaseStatus, StepKind
from apps.deployments.feasibility import Fit, fit
from apps.deployments.models import Endpoint, Release
from apps.deployments.moving import Moved, leads_told, locked_release, move, put_status
from apps.provisioning import actions as provisioning
from apps.quotas.choices import Environment
from apps.quotas.models import Workspace

SYSTEM = Actor.system("deployments.granting")
#: The rule that refuses what may not be placed where it is.
PLACEMENT_RULE = "placement"
MOVED_ON = "What is live on the endpoint changed after this was requested: withdraw it and request it anew."
_CLOSING = {
    "rejected": ("reject", events.RELEASE_REJECTED),
    "withdrawn": ("withdraw", events.RELEASE_WITHDRAWN),
    "lapsed": ("lapse", events.RELEASE_LAPSED),
    "superseded": ("supersede", events.RELEASE_SUPERSEDED),
}


def _locked(uid: uuid.UUID) -> tuple[Endpoint, Release]:
    seen = Release.objects.filter(uid=uid).only("pk", "endpoint_id").first()
    if seen is None:
        raise Conflict("The release is gone.")
    Endpoint.objects.locked(seen.endpoint_id)
    endpoint = Endpoint.objects.select_related(
        "workspace__team__unit", "workspace__cluster", "model", "current__flavour", "current__model_version__model"
    ).get(pk=seen.endpoint_id)
    return endpoint, locked_release(seen.pk, endpoint)


def moved_on(release: Release) -> bool:
    """Whether another release is live now than when this one was requested."""
    before = release.change.get("before")
    current = release.endpoint.current
    was = before["release"] if before is not None else None
    stopped = bool(before and before["stopped"])
    now_stopped = release.endpoint.stopped_at is not None
    return was != (str(current.uid) if current is not None else None) or stopped != now_stopped


def fit_now(release: Release) -> Fit:
    """Return how a stored release fits as of now."""
    endpoint = release.endpoint
    workspace = endpoint.workspace
    current = endpoint.current if endpoint.stopped_at is None else None
    return fit(
        reading.size_of(release.flavour, reading.spec_of(release)),
        reading.size_of(current.flavour, reading.spec_of(current)) if current is not None else None,
        room=reading.room_of(workspace, release.flavour, clock.now()),
        held=reading.held_elsewhere(workspace, endpoint),
        cores=workspace.cpu_cores,
        memory_gib=workspace.memory_gib,
        production=workspace.environment == Environment.PRODUCTION,
        canary=bool(release.change.get("canary")),
        unit=release.flavour.unit,
    )


def placed_now(release: Release) -> placement.Verdict:
    """Return what the placement rules of now say of a stored release."""
    manifest = reading.manifest_of(release.model_version)
    return placement.judge(
        manifest.classification, reading.rules_in_force(clock.now()),
        reading.place_of(release.endpoint.workspace.cluster),
    )  # fmt: skip


def unfit_now(release: Release) -> list[str]:
    """Return why a stored release may not be placed where it is, as of now; empty: it may.

    Asked at every use (P13): a cluster's place, the rules, a workspace's data classes and what verifies bytes on a
    cluster may all have changed since the approval.
    """
    workspace = release.endpoint.workspace
    manifest = reading.manifest_of(release.model_version)
    found = list(placed_now(release).refusals)
    if classes := sorted(set(manifest.classification) - set(workspace.data_classes)):
        found.append(f"{workspace} is not for {', '.join(classes)} data, which {release.model_version} touches.")
    if REGULATED & set(manifest.classification) and verifying.bound(workspace.cluster, manifest) != BYTES:
        found.append("It touches regulated data, and nothing on this cluster verifies the bytes when they are loaded.")
    return found


def require_fit(release: Release) -> None:
    """Raise NotAllowed where a release may not be placed (any more) where it is."""
    if found := unfit_now(release):
        raise NotAllowed(" ".join(found), rule=PLACEMENT_RULE)


def on_granted(uid: uuid.UUID, grant: Grant) -> None:
    """Put an approved release on its cluster, in the deciding transaction.

    Raises CannotTake where other endpoints hold the room it needs (it then waits), Conflict where it is not what was
    approved any more, or may not run there.
    """
    endpoint, release = _locked(uid)
    found = digest(records.canonical(release))
    if not grant.subject_digest == release.digest == found:
        raise Conflict("The release is no longer what was approved: request it again.")
    if moved_on(release):
        raise Conflict(MOVED_ON)
    Workspace.objects.locked(endpoint.workspace_id)
    if unfit := unfit_now(release):
        raise Conflict(" ".join(unfit))
    room = fit_now(release)
    if not room.ok:
        raise CannotTake(" ".join(room.refusals))
    begin(endpoint, release, grant)
    provisioning.close_plans(release.uid)


def begin(endpoint: Endpoint, release: Release, grant: Grant) -> None:
    """Declare a release's first state: beside the current one without traffic, or in its place."""
    at = clock.now()
    release.approval = grant.request
    canary = bool(release.change["canary"]) and endpoint.current is not None
    put_status(release, "grant")
    release.granted_at = release.started_at = at
    release.load_state, release.ladder_step, release.step_since, release.next_step_at = LoadState.UNKNOWN, 0, None, None
    release.bump(
        "status", "approval", "granted_at", "started_at", "load_state", "ladder_step", "step_since", "next_step_at"
    )
    standing = grants.require(release, at, traffic=1 if canary else ladder.ALL)
    endpoint.canary_mode = CanaryMode(release.change["mode"])
    if canary and endpoint.current is not None:
        endpoint.candidate, endpoint.traffic = release, 0
        shares = {endpoint.current.pk: ladder.ALL, release.pk: 0}
        found = Moved(StepKind.STARTED, release, rendering.canary_state(0), shares, 0, 0)
    else:
        old = locked_release(endpoint.current_id, endpoint) if endpoint.current_id is not None else None
        if old is not None and old.status in ON_CLUSTER:
            put_status(old, "supersede")
            old.ended_at = at
            old.bump("status", "ended_at")
        endpoint.current, endpoint.candidate, endpoint.traffic, endpoint.stopped_at = release, None, 0, None
        found = Moved(StepKind.STARTED, release, rendering.LIVE, {release.pk: ladder.ALL}, 0, ladder.ALL)
    move(endpoint, found, at=at, actor=SYSTEM, reason=release.reason, standing=standing)
    payload = records.event_of(release, "Its share of the traffic grows by its ladder." if canary else "")
    audit.record(
        events.RELEASE_GRANTED,
        payload,
        actor=SYSTEM,
        subject_type="deployments.release",
        subject_uid=release.uid,
        team_uid=endpoint.workspace.team.uid,
        after_digest=release.digest,
    )
    others = [user_id for user_id in leads_told(release) if user_id != release.requester_id]
    if others:
        outbox.publish(events.RELEASE_GRANTED, payload, recipients=others, subject_uid=release.uid)


def on_concluded(uid: uuid.UUID, status: str, reason: str) -> None:
    """Take note of how the approval request ended, or that it waits for capacity; called in its transaction."""
    _, release = _locked(uid)
    if status == ReleaseStatus.WAITING:
        if release.status == ReleaseStatus.WAITING:
            return
        action, event = "hold_for_capacity", events.RELEASE_WAITING
    elif status in _CLOSING:
        action, event = _CLOSING[status]
    else:
        return
    put_status(release, action)
    release.bump("status")
    audit.record(
        event,
        records.event_of(release, reason),
        actor=SYSTEM,
        subject_type="deployments.release",
        subject_uid=release.uid,
        team_uid=release.endpoint.workspace.team.uid,
        before_digest=release.digest,
    )
    if action != "hold_for_capacity":
        provisioning.close_plans(release.uid)
