"""The ladder climbs by itself: a sweep over endpoints whose next move is due. Each in a transaction of its own."""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps.approvals.models import Grant
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import CommonsError, NotAllowed
from apps.deployments import ending, granting, grants, guard, guarding, rollout
from apps.deployments.choices import ON_CLUSTER, LoadState, ReleaseStatus
from apps.deployments.drafting import SUBJECT_TYPE
from apps.deployments.models import Endpoint, Release

SYSTEM = Actor.system("deployments.ladder")
logger = logging.getLogger(__name__)


def due() -> list[int]:
    """Return the ids of endpoints that may have a move to make now."""
    at = clock.now()
    starting = Q(current__status=ReleaseStatus.STARTING) | Q(candidate__status=ReleaseStatus.STARTING)
    loaded = Q(current__load_state__in=[LoadState.LOADED, LoadState.FAILED]) | Q(
        candidate__load_state__in=[LoadState.LOADED, LoadState.FAILED]
    )
    climbing = Q(candidate__status=ReleaseStatus.CANARY) & (
        Q(candidate__next_step_at__lte=at) | Q(candidate__load_state=LoadState.FAILED)
    )
    rows = Endpoint.objects.filter(removed_at__isnull=True, stopped_at__isnull=True)
    return list(rows.filter((starting & loaded) | climbing).order_by("pk").values_list("pk", flat=True))


def advance_due() -> int:
    """Make the moves that are due; returns how many were made. A refusal of one keeps no other from moving."""
    done = 0
    for endpoint_id in due():
        try:
            done += advance(endpoint_id)
        except CommonsError as error:
            logger.warning("rollout could not move", extra={"endpoint": endpoint_id, "error": str(error)})
    return done + look_at_ends()


@transaction.atomic
def advance(endpoint_id: int) -> int:
    """Make an endpoint's next move where it is due; 1 where one was made. Idempotent, and alone under its lock."""
    free = Endpoint.objects.select_for_update(of=("self",), skip_locked=True).filter(pk=endpoint_id)
    if not free.exists():
        return 0
    endpoint = rollout.locked(endpoint_id, actor=SYSTEM)
    release = endpoint.candidate or endpoint.current
    if release is None or endpoint.stopped_at is not None:
        return 0
    release.endpoint = endpoint
    at = clock.now()
    if release.load_state == LoadState.FAILED and release.status != ReleaseStatus.LIVE:
        return _failed(endpoint, release)
    if release.status == ReleaseStatus.STARTING:
        if release.load_state != LoadState.LOADED:
            return 0
        if endpoint.candidate_id is None:
            rollout.go_live(endpoint.pk, actor=SYSTEM)
            return 1
        return _climb(endpoint, release)
    if release.status != ReleaseStatus.CANARY or release.next_step_at is None or release.next_step_at > at:
        return 0
    verdict = guarding.judge(release, at)
    if verdict.bad:
        rollout.roll_back(
            endpoint.pk, actor=SYSTEM, reason=f"The guard says: {verdict.reason}", evidence=_evidence(verdict),
            failed=True,
        )  # fmt: skip
        return 1
    if verdict.status is guard.Status.UNKNOWN:
        # A canary with a guard is there to be measured: what nobody could judge takes no more traffic by itself.
        return 0
    return _climb(endpoint, release, _evidence(verdict))


def _evidence(verdict: guard.Verdict) -> dict[str, Any]:
    return {"guard": str(verdict.status), "why": verdict.reason, "figures": dict(verdict.figures)}


def _climb(endpoint: Endpoint, release: Release, evidence: dict[str, Any] | None = None) -> int:
    """Take the next rung; where a grant no longer covers it, hold and say so."""
    try:
        rollout.climb(endpoint.pk, actor=SYSTEM, reason="As the ladder has it.", evidence=evidence)
    except NotAllowed as refusal:
        if release.status == ReleaseStatus.STARTING:
            rollout.roll_back(endpoint.pk, actor=SYSTEM, reason=refusal.message)
        else:
            rollout.hold(endpoint.pk, actor=SYSTEM, reason=refusal.message)
    return 1


def _failed(endpoint: Endpoint, release: Release) -> int:
    """Take off what did not load; without an earlier release to go back to it stays, marked as failed."""
    why = "The cluster says that it failed to load."
    if endpoint.candidate_id is not None or _can_go_back(endpoint):
        rollout.roll_back(endpoint.pk, actor=SYSTEM, reason=why, failed=True)
        return 1
    if release.failure == why:
        return 0
    release.failure = why
    release.bump("failure")
    return 1


def _can_go_back(endpoint: Endpoint) -> bool:
    at = clock.now()
    return any(
        grants.standing(row, at, traffic=100).ok and not granting.unfit_now(row)
        for row in rollout.earlier_releases(endpoint)[:1]
    )


def look_at_ends() -> int:
    """Look at what serves on grants that have ended, where nobody was told yet: a listener may have missed it."""
    at = clock.now()
    ended = Grant.objects.filter(Q(expires_at__lte=at) | Q(revoked_at__lte=at))
    own = ended.filter(request__subject_type=SUBJECT_TYPE).values("request__subject_uid")
    rows = Release.objects.filter(Q(model_grant_uid__in=ended.values("uid")) | Q(uid__in=own), status__in=ON_CLUSTER)
    found = list(rows.filter(endpoint__stopped_at__isnull=True).only("pk", "uid", "endpoint_id", "model_grant_uid"))
    told = ending.told(found)
    done = 0
    for endpoint_id in sorted({row.endpoint_id for row in found if row.pk not in told}):
        done += ending.handle(endpoint_id)
    return done
