"""What the end of a grant does to what serves: what the release says, loudly, and never a silent stop.

An ended grant is unusable by itself (`grants.standing`); this tells people, and scales back where that was chosen.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import transaction

from apps import audit
from apps.approvals.models import Grant
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotAllowed
from apps.deployments import events, grants, ladder, rendering, rollout
from apps.deployments.choices import ON_CLUSTER, ExpiryAction, ReleaseStatus, StepKind
from apps.deployments.drafting import SUBJECT_TYPE
from apps.deployments.models import Endpoint, Release, RolloutStep
from apps.deployments.moving import Moved, leads_told, locked_release, move, payload_of
from apps.deployments.reading import spec_of

SYSTEM = Actor.system("deployments.ending")


def on_release_grant_ended(grant: Grant) -> None:
    """A release's own grant has ended; called once, in the transaction that notes it."""
    release = Release.objects.filter(uid=grant.request.subject_uid).first()
    if release is not None and release.status in ON_CLUSTER:
        handle(release.endpoint_id)


def on_version_grants_changed(workspace_uids: Iterable[uuid.UUID]) -> None:
    """A version's grant began or ended in these workspaces: look at what serves there, in the same transaction."""
    rows = Endpoint.objects.filter(
        workspace__uid__in=list(workspace_uids), removed_at__isnull=True, current__isnull=False
    )
    for endpoint_id in rows.order_by("pk").values_list("pk", flat=True):
        handle(endpoint_id)


@transaction.atomic
def handle(endpoint_id: int) -> bool:
    """Do what the releases of an endpoint say for the end of their grants; True where something was done.

    Idempotent: what was told or scaled back for the same grant is not done again. A release that stands on another
    usable grant meanwhile is left alone.
    """
    endpoint = rollout.locked(endpoint_id, actor=SYSTEM)
    at = clock.now()
    done = False
    if endpoint.candidate_id is not None:
        done = _candidate(endpoint, at) or done
        endpoint = rollout.locked(endpoint_id, actor=SYSTEM)
    if endpoint.current_id is not None and endpoint.stopped_at is None:
        done = _current(endpoint, at) or done
    return done


def _candidate(endpoint: Endpoint, at: datetime) -> bool:
    """A canary does not climb without grants: it is held, or taken off where the release says scale back."""
    release = locked_release(endpoint.candidate_id, endpoint)
    found = grants.standing(release, at, traffic=max(endpoint.traffic, 1))
    if found.ok or release.status not in ON_CLUSTER:
        return False
    if _told(release, found):
        return False
    if spec_of(release).expiry_action == ExpiryAction.SCALE_BACK:
        rollout.roll_back(endpoint.pk, actor=SYSTEM, reason=found.refusal, evidence=_mark(release, found))
    elif release.status == ReleaseStatus.CANARY:
        rollout.hold(endpoint.pk, actor=SYSTEM, reason=found.refusal, evidence=_mark(release, found))
    _tell(endpoint, release, found, "its approval ended while it is a canary")
    return True


def _current(endpoint: Endpoint, at: datetime) -> bool:
    release = locked_release(endpoint.current_id, endpoint)
    found = grants.standing(release, at, traffic=1)
    if found.ok:
        if found.version_grant is not None and release.model_grant_uid != found.version_grant.uid:
            release.model_grant_uid = found.version_grant.uid
            release.save(update_fields=["model_grant_uid"])
        return False
    if _told(release, found):
        return False
    action = spec_of(release).expiry_action
    words = "its approval ended; it goes on serving, and nothing new may begin"
    if action == ExpiryAction.SCALE_BACK:
        words = _scale_back(endpoint, release, found, at)
    elif action == ExpiryAction.ALERT_ONLY:
        words = "its approval ended; it goes on serving"
    _tell(endpoint, release, found, words)
    return True


def _scale_back(endpoint: Endpoint, release: Release, found: grants.Standing, at: datetime) -> str:
    """Go back to the latest earlier release with usable grants, else to the smallest size. Returns it in words.

    Beside a canary nothing is taken away: that one is approved, and the way out. What is left without it is small.
    """
    if endpoint.candidate_id is not None:
        return "its approval ended while a canary is under way; without that canary it serves at its smallest size"
    for earlier in rollout.earlier_releases(endpoint):
        try:
            rollout.roll_back(
                endpoint.pk, actor=SYSTEM, reason=found.refusal, to=earlier.uid, evidence=_mark(release, found)
            )
        except (Conflict, NotAllowed):
            # Its grants are not usable either, or its stored objects are not those that were approved.
            continue
        return f"its approval ended; release {earlier.number} serves in its place"
    moved = Moved(StepKind.SCALED_BACK, release, rendering.SMALLEST, {release.pk: ladder.ALL}, ladder.ALL, ladder.ALL)
    move(endpoint, moved, at=at, actor=SYSTEM, reason=found.refusal, evidence=_mark(release, found), standing=found)
    return "its approval ended; it serves at its smallest size"


def _key(release: Release, own: uuid.UUID | None) -> str:
    """Name the grants whose end is told, so that it is told once."""
    return f"{own or 'none'}/{release.model_grant_uid or 'none'}"


def _mark(release: Release, found: grants.Standing) -> dict[str, str]:
    return {"ended": _key(release, found.release_grant.uid if found.release_grant is not None else None)}


def _told(release: Release, found: grants.Standing) -> bool:
    """Whether this end is in the log already."""
    rows = RolloutStep.objects.filter(release=release, kind=StepKind.APPROVAL_ENDED)
    return rows.filter(evidence__ended=_mark(release, found)["ended"]).exists()


def told(releases: Sequence[Release]) -> set[int]:
    """Return the ids of those whose grants' end is in the log already, in two queries."""
    own = dict(
        Grant.objects.filter(
            request__subject_type=SUBJECT_TYPE, request__subject_uid__in=[one.uid for one in releases]
        ).values_list("request__subject_uid", "uid")
    )
    steps = RolloutStep.objects.filter(release__in=releases, kind=StepKind.APPROVAL_ENDED)
    logged = set(steps.values_list("release_id", "evidence__ended"))
    return {one.pk for one in releases if (one.pk, _key(one, own.get(one.uid))) in logged}


def _tell(endpoint: Endpoint, release: Release, found: grants.Standing, words: str) -> None:
    endpoint = rollout.locked(endpoint.pk, actor=SYSTEM)
    noted = Moved(StepKind.APPROVAL_ENDED, release, "", None, endpoint.traffic, endpoint.traffic)
    move(
        endpoint, noted, at=clock.now(), actor=SYSTEM, reason=f"{found.refusal} What follows: {words}.",
        evidence=_mark(release, found), standing=found,
    )  # fmt: skip
    payload = payload_of(
        endpoint, release, StepKind.HELD, endpoint.traffic, automatic=True, detail=found.refusal, what=words
    )
    audit.record(
        events.GRANT_ENDED,
        payload,
        actor=SYSTEM,
        subject_type="deployments.endpoint",
        subject_uid=endpoint.uid,
        team_uid=endpoint.workspace.team.uid,
        after_digest=release.digest,
        reason=found.refusal,
    )
    people: Sequence[int] = leads_told(release)
    if people:
        outbox.publish(events.GRANT_ENDED, payload, recipients=people, subject_uid=endpoint.uid)
