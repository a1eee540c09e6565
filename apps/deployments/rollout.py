"""What people and the ladder do with an endpoint: each a step in its log, both grants asked anew every time.

Lock order: workspace (only where a release begins) → endpoint → its releases → declaration. An emergency stop aside,
nothing here makes a release larger than what was approved: every state's objects were rendered and approved with it.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.formats import datetime_utc
from apps.deployments import granting, grants, ladder, rendering
from apps.deployments.choices import RELEASE_TRANSITIONS, ExpiryAction, LoadState, ReleaseStatus, StepKind
from apps.deployments.endpoint_lock import OPERATE, checked_reason, locked
from apps.deployments.models import Endpoint, Release
from apps.deployments.moving import Moved, leads_told, locked_release, move, put_status
from apps.deployments.reading import spec_of
from apps.quotas.choices import Environment


def binding(endpoint: Endpoint, release: Release) -> bool:
    """Whether the ladder's hours bind people, too: in production, and where the policy asks for a canary."""
    asked = release.change.get("terms", {}).get("canary_hours_min")
    return endpoint.workspace.environment == Environment.PRODUCTION or bool(asked)


def next_move(release: Release) -> ladder.Move:
    """Return the next move of a candidate: onto the ladder, up it, or off it to all traffic."""
    rungs = spec_of(release).ladder
    if release.status == ReleaseStatus.STARTING or release.step_since is None or release.endpoint.traffic == 0:
        return ladder.first(rungs, release.started_at or release.created_at)
    return ladder.following(rungs, release.ladder_step, release.step_since)


def _candidate(endpoint: Endpoint) -> Release:
    if endpoint.candidate_id is None:
        raise Conflict("No canary is under way.", current={"version": endpoint.version})
    if endpoint.stopped_at is not None:
        raise Conflict("The endpoint is stopped.", current={"version": endpoint.version})
    return locked_release(endpoint.candidate_id, endpoint)


def _refuse(refused: ladder.Refused | None) -> None:
    if refused is None:
        return
    when = f" At the earliest {datetime_utc(refused.until)}." if refused.until is not None else ""
    raise Conflict(f"{refused.why}{when}")


def _loaded(release: Release) -> None:
    if release.load_state == LoadState.FAILED:
        raise Conflict("The cluster says that this release failed to load: roll it back.")
    if release.load_state != LoadState.LOADED:
        raise Conflict("The cluster has not said yet that this release has loaded: it would answer nobody.")


@transaction.atomic
def step(endpoint_id: int, *, actor: Actor, reason: str = "", expected_version: int | None = None) -> Endpoint:
    """Give the candidate the share of the next rung; from the last one, promote it.

    Raises NotVisible, NotAllowed (also where a grant is no longer usable), Conflict (no canary, not loaded, too early).
    """
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    release = _candidate(endpoint)
    return _step(endpoint, release, next_move(release), actor=actor, reason=checked_reason(reason, required=False))


@transaction.atomic
def climb(endpoint_id: int, *, actor: Actor, reason: str, evidence: dict[str, Any] | None = None) -> Endpoint:
    """Take the candidate's next rung because the ladder says so; `evidence`: what the guard saw. Raises as `step`."""
    endpoint = locked(endpoint_id, actor=actor)
    release = _candidate(endpoint)
    return _step(endpoint, release, next_move(release), actor=actor, reason=reason, evidence=evidence)


@transaction.atomic
def promote(endpoint_id: int, *, actor: Actor, reason: str, expected_version: int | None = None) -> Endpoint:
    """Give the candidate all traffic. In production not before its ladder's hours have passed.

    Raises NotVisible, NotAllowed, Invalid (no reason), Conflict.
    """
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    text = checked_reason(reason)
    release = _candidate(endpoint)
    return _step(endpoint, release, promotion(release), actor=actor, reason=text)


def promotion(release: Release) -> ladder.Move:
    """Return the move to all traffic, with the time when the ladder ends."""
    rungs = spec_of(release).ladder
    since = release.step_since or clock.now()
    return ladder.Move(None, ladder.ALL, ladder.earliest_promotion(rungs, release.ladder_step, since))


def _step(
    endpoint: Endpoint,
    release: Release,
    wanted: ladder.Move,
    *,
    actor: Actor,
    reason: str,
    evidence: dict[str, Any] | None = None,
) -> Endpoint:
    """Make a move of the candidate, whoever asks for it. Raises NotAllowed for its grants, Conflict for the ladder."""
    at = clock.now()
    _loaded(release)
    standing = grants.require(release, at, traffic=wanted.traffic)
    granting.require_fit(release)
    held_until = wanted.not_before if binding(endpoint, release) and wanted.not_before > at else None
    _refuse(
        ladder.refusal(wanted, at=at, traffic=endpoint.traffic, max_traffic=standing.max_traffic, held_until=held_until)
    )
    before = endpoint.traffic
    old = endpoint.current
    if wanted.rung is None:
        _promote(endpoint, release, at)
        moved = Moved(StepKind.PROMOTED, release, rendering.LIVE, {release.pk: ladder.ALL}, before, ladder.ALL)
    else:
        if old is None:
            raise Conflict("There is no other release to share the traffic with.")
        put_status(release, "start_canary" if release.status == ReleaseStatus.STARTING else "step")
        hours = spec_of(release).ladder[wanted.rung].hours
        release.ladder_step, release.step_since = wanted.rung, at
        release.next_step_at = at + timedelta(hours=hours)
        release.bump("status", "ladder_step", "step_since", "next_step_at")
        endpoint.traffic = wanted.traffic
        shares = {old.pk: ladder.ALL - wanted.traffic, release.pk: wanted.traffic}
        state = rendering.canary_state(wanted.traffic)
        moved = Moved(StepKind.CANARY, release, state, shares, before, wanted.traffic)
    move(endpoint, moved, at=at, actor=actor, reason=reason, evidence=evidence, standing=standing)
    return endpoint


def _promote(endpoint: Endpoint, release: Release, at: datetime) -> None:
    """Put the candidate in the current one's place: under the endpoint's lock there is never none and never two."""
    old = locked_release(endpoint.current_id, endpoint) if endpoint.current_id is not None else None
    if old is not None and old.pk != release.pk:
        put_status(old, "supersede")
        old.ended_at = at
        old.bump("status", "ended_at")
    put_status(release, "go_live")
    release.live_at, release.next_step_at = at, None
    release.bump("status", "live_at", "next_step_at")
    endpoint.current, endpoint.candidate, endpoint.traffic = release, None, 0


@transaction.atomic
def go_live(endpoint_id: int, *, actor: Actor) -> Endpoint:
    """Take note that a release without a canary has loaded and takes all traffic."""
    endpoint = locked(endpoint_id, actor=actor)
    if endpoint.current_id is None or endpoint.candidate_id is not None:
        raise Conflict("No release is starting there.")
    release = locked_release(endpoint.current_id, endpoint)
    _loaded(release)
    put_status(release, "go_live")
    release.live_at = clock.now()
    release.bump("status", "live_at")
    shares = {release.pk: ladder.ALL}
    found = Moved(StepKind.PROMOTED, release, "", shares, ladder.ALL, ladder.ALL)
    move(endpoint, found, at=release.live_at, actor=actor, reason="It has loaded.")
    return endpoint


@transaction.atomic
def hold(
    endpoint_id: int,
    *,
    actor: Actor,
    reason: str,
    expected_version: int | None = None,
    evidence: dict[str, Any] | None = None,
) -> Endpoint:
    """Keep the candidate at its share until somebody resumes. Raises NotVisible, NotAllowed, Invalid, Conflict."""
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    text = checked_reason(reason)
    release = _candidate(endpoint)
    if release.status == ReleaseStatus.STARTING:
        raise Conflict("It takes no traffic yet: there is nothing to hold. Roll it back where it must not go on.")
    put_status(release, "hold")
    release.next_step_at = None
    release.bump("status", "next_step_at")
    found = Moved(StepKind.HELD, release, "", None, endpoint.traffic, endpoint.traffic)
    move(endpoint, found, at=clock.now(), actor=actor, reason=text, evidence=evidence)
    return endpoint


@transaction.atomic
def resume(endpoint_id: int, *, actor: Actor, reason: str = "", expected_version: int | None = None) -> Endpoint:
    """Let a held candidate climb on; hours that it stood on its rung count. Raises as `step`."""
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    text = checked_reason(reason, required=False)
    release = _candidate(endpoint)
    at = clock.now()
    standing = grants.require(release, at, traffic=endpoint.traffic or 1)
    granting.require_fit(release)
    put_status(release, "resume")
    wanted = next_move(release)
    release.next_step_at = max(at, wanted.not_before)
    release.bump("status", "next_step_at")
    found = Moved(StepKind.RESUMED, release, "", None, endpoint.traffic, endpoint.traffic)
    move(endpoint, found, at=at, actor=actor, reason=text, standing=standing)
    return endpoint


@transaction.atomic
def roll_back(
    endpoint_id: int,
    *,
    actor: Actor,
    reason: str,
    to: uuid.UUID | None = None,
    expected_version: int | None = None,
    evidence: dict[str, Any] | None = None,
    failed: bool = False,
) -> Endpoint:
    """Take the candidate off, or go from the current release back to an earlier one (`to`; by default the last).

    Taking a candidate off needs no grant: the current release never left. An earlier release is declared exactly as it
    was approved, and only where both its grants are usable (P12); otherwise NotAllowed names the emergency path.
    `failed`: the release did not load or broke its guard. Raises NotVisible, NotAllowed, Invalid, Conflict.
    """
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    text = checked_reason(reason)
    if endpoint.stopped_at is not None:
        raise Conflict("The endpoint is stopped.", current={"version": endpoint.version})
    at = clock.now()
    if endpoint.candidate_id is not None:
        _take_off(endpoint, at, actor=actor, reason=text, evidence=evidence, failed=failed)
    else:
        _go_back(endpoint, at, to=to, actor=actor, reason=text, evidence=evidence, failed=failed)
    return endpoint


def _take_off(
    endpoint: Endpoint,
    at: datetime,
    *,
    actor: Actor,
    reason: str,
    evidence: dict[str, Any] | None = None,
    failed: bool = False,
    declares: bool = True,
) -> None:
    release = _candidate_row(endpoint)
    before = endpoint.traffic
    _end(release, "fail" if failed else "roll_back", at, reason)
    endpoint.candidate, endpoint.traffic = None, 0
    current = endpoint.current
    shares = {current.pk: ladder.ALL} if current is not None else {}
    kind = StepKind.FAILED if failed else StepKind.ROLLED_BACK
    state = ""
    if current is not None and declares:
        current.endpoint = endpoint
        state = state_left(current, at)
    found = Moved(kind, release, state, shares if declares else None, before, 0, current)
    move(endpoint, found, at=at, actor=actor, reason=reason, evidence=evidence)
    _tell_failure(release, reason, actor)


def state_left(current: Release, at: datetime) -> str:
    """Return the state of the current release without a canary: small where its approval ended and it says so."""
    ended = not grants.standing(current, at, traffic=1).ok
    back = ended and spec_of(current).expiry_action == ExpiryAction.SCALE_BACK
    return rendering.SMALLEST if back else rendering.LIVE


def _candidate_row(endpoint: Endpoint) -> Release:
    if endpoint.candidate_id is None:
        raise Conflict("No canary is under way.")
    return locked_release(endpoint.candidate_id, endpoint)


def _end(release: Release, action: str, at: datetime, why: str) -> None:
    put_status(release, action)
    release.ended_at, release.next_step_at = at, None
    release.failure = why if action == "fail" else release.failure
    release.bump("status", "ended_at", "next_step_at", "failure")


def earlier_releases(endpoint: Endpoint) -> list[Release]:
    """Return the releases that one could go back to, the latest first: each took all traffic once."""
    rows = Release.objects.filter(endpoint=endpoint, status=ReleaseStatus.SUPERSEDED, started_at__isnull=False)
    return list(
        rows.exclude(pk=endpoint.current_id or 0)
        .select_related("endpoint__workspace__team", "endpoint__workspace__cluster", "model_version__model", "flavour")
        .order_by("-ended_at", "-pk")
    )


def _go_back(
    endpoint: Endpoint,
    at: datetime,
    *,
    to: uuid.UUID | None,
    actor: Actor,
    reason: str,
    evidence: dict[str, Any] | None,
    failed: bool,
) -> None:
    if endpoint.current_id is None:
        raise Conflict("Nothing is deployed there.")
    rows = earlier_releases(endpoint)
    target = next((row for row in rows if to is None or row.uid == to), None)
    if target is None:
        raise Conflict("There is no earlier release to go back to.", current={"version": endpoint.version})
    target = locked_release(target.pk, endpoint)
    standing = grants.require(target, at, traffic=ladder.ALL)
    granting.require_fit(target)
    old = locked_release(endpoint.current_id, endpoint)
    _end(old, "fail" if failed else "roll_back", at, reason)
    _return(endpoint, target, at)
    found = Moved(
        StepKind.FAILED if failed else StepKind.ROLLED_BACK, old, rendering.LIVE, {target.pk: ladder.ALL},
        ladder.ALL, 0, target,
    )  # fmt: skip
    move(endpoint, found, at=at, actor=actor, reason=reason, evidence=evidence, standing=standing)
    _tell_failure(old, reason, actor)


def _return(endpoint: Endpoint, target: Release, at: datetime) -> None:
    """Make an earlier release the current one again."""
    target.status = RELEASE_TRANSITIONS.next(target.status, "return")
    target.live_at, target.ended_at, target.load_state = at, None, LoadState.UNKNOWN
    target.bump("status", "live_at", "ended_at", "load_state")
    endpoint.current, endpoint.candidate, endpoint.traffic = target, None, 0
    endpoint.canary_mode = target.change.get("mode", endpoint.canary_mode)


def _tell_failure(release: Release, why: str, actor: Actor) -> None:
    """A release that did not last: a standard change that let it through loses its status."""
    if release.approval is None or not actor.is_system:
        return
    from apps.approvals import standing

    standing.report_failure(release.approval.uid, why, actor=actor)


@transaction.atomic
def stop(endpoint_id: int, *, actor: Actor, reason: str, expected_version: int | None = None) -> Endpoint:
    """Stop serving: nothing answers any more. A canary under way is rolled back first. Its place in the quota stays.

    Raises NotVisible, NotAllowed, Invalid, Conflict.
    """
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    text = checked_reason(reason)
    if endpoint.current_id is None or endpoint.stopped_at is not None:
        raise Conflict("Nothing runs there.", current={"version": endpoint.version})
    at = clock.now()
    if endpoint.candidate_id is not None:
        _take_off(endpoint, at, actor=actor, reason=text, declares=False)
    endpoint.stopped_at = at
    release = locked_release(endpoint.current_id, endpoint)
    found = Moved(StepKind.STOPPED, release, rendering.STOPPED, {}, ladder.ALL, 0)
    move(endpoint, found, at=at, actor=actor, reason=text)
    return endpoint


@transaction.atomic
def start_again(endpoint_id: int, *, actor: Actor, reason: str, expected_version: int | None = None) -> Endpoint:
    """Serve again, exactly as approved, where both grants are usable. Raises as `step`, and Invalid."""
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    text = checked_reason(reason)
    if endpoint.current_id is None or endpoint.stopped_at is None:
        raise Conflict("It is not stopped.", current={"version": endpoint.version})
    release = locked_release(endpoint.current_id, endpoint)
    at = clock.now()
    standing = grants.require(release, at, traffic=ladder.ALL)
    granting.require_fit(release)
    endpoint.stopped_at = None
    release.load_state = LoadState.UNKNOWN
    release.bump("load_state")
    found = Moved(StepKind.STARTED_AGAIN, release, rendering.LIVE, {release.pk: ladder.ALL}, 0, ladder.ALL)
    move(endpoint, found, at=at, actor=actor, reason=text, standing=standing)
    return endpoint


@transaction.atomic
def remove(endpoint_id: int, *, actor: Actor, reason: str, expected_version: int | None = None) -> Endpoint:
    """Take a stopped (or never used) endpoint and its objects off the cluster, for good.

    Raises NotVisible, NotAllowed, Invalid, Conflict where it still serves or a release is under way.
    """
    endpoint = locked(endpoint_id, actor=actor, expected_version=expected_version)
    text = checked_reason(reason)
    if endpoint.current_id is not None and endpoint.stopped_at is None:
        raise Conflict("It serves: stop it first.", current={"version": endpoint.version})
    waiting = (ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING)
    if Release.objects.filter(endpoint=endpoint, status__in=waiting).exists():
        raise Conflict("A release is in review or waits for capacity: withdraw it first.")
    at = clock.now()
    endpoint.removed_at = at
    release = locked_release(endpoint.current_id, endpoint) if endpoint.current_id is not None else None
    if release is None:
        endpoint.bump("removed_at")
        return endpoint
    _end(release, "end", at, text)
    move(endpoint, Moved(StepKind.REMOVED, release, None, {}, 0, 0), at=at, actor=actor, reason=text)
    return endpoint


__all__ = [
    "OPERATE", "binding", "checked_reason", "climb", "earlier_releases", "go_live", "hold", "leads_told", "locked",
    "next_move", "promote", "promotion", "remove", "resume", "roll_back", "start_again", "step", "stop",
]  # fmt: skip
