"""One move of an endpoint, written down whole: objects declared, shares kept, the step in the log, audit and outbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps import audit
from apps.core import outbox
from apps.core.actor import Actor
from apps.deployments import events, grants, rendering, serving
from apps.deployments.choices import RELEASE_TRANSITIONS, StepKind
from apps.deployments.models import Endpoint, Release, RolloutStep
from apps.provisioning import actions as provisioning
from apps.provisioning.choices import DeclarationKind
from apps.provisioning.models import DeclaredObject
from apps.provisioning.ordering import Key
from apps.teams import scope

_RELATED = (
    "endpoint__workspace__team", "endpoint__workspace__cluster", "model_version__model", "flavour", "approval", "plan",
)  # fmt: skip
_WORDS: Mapping[str, str] = {
    StepKind.STARTED: "is put on the cluster",
    StepKind.CANARY: "takes {traffic} % of the traffic",
    StepKind.PROMOTED: "takes all traffic",
    StepKind.HELD: "is held at {traffic} %",
    StepKind.RESUMED: "climbs on from {traffic} %",
    StepKind.ROLLED_BACK: "was rolled back",
    StepKind.FAILED: "failed and was rolled back",
    StepKind.STOPPED: "was stopped",
    StepKind.STARTED_AGAIN: "was started again",
    StepKind.SCALED_BACK: "was scaled back: its approval ended",
    StepKind.REMOVED: "was removed",
    StepKind.APPROVAL_ENDED: "has no usable approval any more",
}
_LOUD = (StepKind.ROLLED_BACK, StepKind.FAILED, StepKind.SCALED_BACK)
#: Told by an event of its own (`ending`).
_QUIET = (StepKind.APPROVAL_ENDED,)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move does. `state` "": nothing is declared anew, None: the objects go; `shares` None: they stay.

    `release` is whom the step is about, `declared` whose state is declared where that is another (a roll-back).
    """

    kind: StepKind
    release: Release
    state: str | None
    shares: Mapping[int, int] | None
    before: int
    after: int
    declared: Release | None = None


def locked_release(release_id: int | None, endpoint: Endpoint) -> Release:
    """Return a release of a locked endpoint, locked itself."""
    Release.objects.locked(release_id or 0)
    release = Release.objects.select_related(*_RELATED).get(pk=release_id or 0)
    release.endpoint = endpoint
    return release


def put_status(release: Release, action: str) -> None:
    """Move the status, unsaved. Raises Conflict where the table does not have it."""
    release.status = RELEASE_TRANSITIONS.next(release.status, action)


def leads_told(release: Release) -> list[int]:
    """Return whom a step concerns: who requested the release, and the team's leads."""
    leads = scope.holders_of_role("team_lead", team_id=release.endpoint.workspace.team_id)
    return sorted({release.requester_id, *leads})


def declared_keys(endpoint: Endpoint) -> set[Key]:
    """Return the objects that the endpoint's declaration holds now."""
    rows = DeclaredObject.objects.filter(
        declaration__kind=DeclarationKind.RELEASE, declaration__owner_uid=endpoint.uid, removal=""
    )
    return {Key(*row) for row in rows.values_list("kind", "namespace", "name")}


def move(
    endpoint: Endpoint,
    moved: Moved,
    *,
    at: datetime,
    actor: Actor,
    reason: str,
    evidence: dict[str, Any] | None = None,
    standing: grants.Standing | None = None,
) -> RolloutStep:
    """Write a move down, in the caller's transaction, under the endpoint's lock.

    What goes from the cluster (the other release's objects) is named: the approved states say when it does.
    """
    release, shown = moved.release, moved.declared or moved.release
    if standing is None:
        standing = grants.standing(shown, at, traffic=max(moved.after, 1))
    generation: int | None = None
    own = standing.release_grant
    if moved.state != "":
        manifests = [] if moved.state is None else rendering.approved(shown, moved.state)
        removes = declared_keys(endpoint) - rendering.keys(manifests)
        plan = shown.plan
        declaration = provisioning.declare(
            endpoint.workspace.cluster_id,
            DeclarationKind.RELEASE,
            endpoint.uid,
            f"Endpoint {endpoint.name} in {endpoint.workspace.namespace}",
            endpoint.workspace.team_id,
            manifests,
            grant_uid=own.uid if own is not None else None,
            plan_uid=plan.uid if plan is not None else None,
            removes=removes,
            actor=actor,
        )
        generation = declaration.generation
    if moved.shares is not None:
        standings: dict[int, grants.Standing | None] = {shown.pk: standing}
        for other in (endpoint.current, endpoint.candidate):
            if other is not None and other.pk in moved.shares and other.pk not in standings:
                other.endpoint = endpoint
                standings[other.pk] = grants.standing(other, at, traffic=max(moved.shares[other.pk], 1))
        serving.set_shares(endpoint, moved.shares, at, standings)
    endpoint.bump("current", "candidate", "traffic", "canary_mode", "stopped_at", "removed_at")
    version_grant = standing.version_grant
    if version_grant is not None and shown.model_grant_uid != version_grant.uid:
        shown.model_grant_uid = version_grant.uid
        shown.save(update_fields=["model_grant_uid"])
    step = RolloutStep.objects.create(
        endpoint=endpoint, release=release, kind=moved.kind, traffic_before=moved.before, traffic_after=moved.after,
        at=at, actor_id=actor.user_id, automatic=actor.is_system, reason=reason,
        evidence={
            **({"refusal": standing.refusal} if standing.refusal else {}),
            **({"back_to": str(shown.uid), "back_to_number": shown.number} if shown.pk != release.pk else {}),
            **(evidence or {}),
        },
        generation=generation,
        model_grant_uid=version_grant.uid if version_grant is not None else None,
        release_grant_uid=own.uid if own is not None else None,
    )  # fmt: skip
    if moved.kind not in _QUIET:
        _tell(endpoint, moved, actor=actor, reason=reason)
    return step


def payload_of(
    endpoint: Endpoint, release: Release, kind: str, traffic: int, *, automatic: bool, detail: str, what: str = ""
) -> events.RolloutEvent:
    """Return the payload of an event about a rollout."""
    words = what or _WORDS[kind].format(traffic=traffic)
    return events.RolloutEvent(
        endpoint_uid=endpoint.uid,
        release_uid=release.uid,
        workspace_uid=endpoint.workspace.uid,
        cluster=endpoint.workspace.cluster.slug,
        version_digest=release.version_digest,
        what=f"{endpoint.name} in {endpoint.workspace.namespace}: {release.model_version} {words}",
        kind=str(kind),
        traffic=traffic,
        automatic=automatic,
        detail=detail,
    )


def _tell(endpoint: Endpoint, moved: Moved, *, actor: Actor, reason: str) -> None:
    event = events.ROLLOUT_ROLLED_BACK if moved.kind in _LOUD else events.ROLLOUT_STEPPED
    payload = payload_of(
        endpoint, moved.release, moved.kind, moved.after, automatic=actor.is_system, detail=reason
    )  # fmt: skip
    audit.record(
        event,
        payload,
        actor=actor,
        subject_type="deployments.endpoint",
        subject_uid=endpoint.uid,
        team_uid=endpoint.workspace.team.uid,
        after_digest=(moved.declared or moved.release).digest,
        reason=reason,
    )
    people = [user_id for user_id in leads_told(moved.release) if user_id != actor.user_id]
    if people:
        outbox.publish(event, payload, recipients=people, subject_uid=endpoint.uid)
