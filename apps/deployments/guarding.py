"""What the guard does: a canary that is judged bad is taken off by the portal, once, with the figures in its step."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db.models import F, Q

from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import CommonsError
from apps.deployments import guard, rollout
from apps.deployments.choices import LoadState, ReleaseStatus
from apps.deployments.models import Release, ServingSample
from apps.deployments.spec import Spec

SYSTEM = Actor.system("deployments.guard")
#: Candidates that may be on the cluster: on trial, held on it, or only starting.
WATCHED = (ReleaseStatus.STARTING, ReleaseStatus.CANARY, ReleaseStatus.HELD)
logger = logging.getLogger(__name__)


def samples_of(release: Release, at: datetime, minutes: int) -> list[ServingSample]:
    """Return a release's samples of the last `minutes`, none of before it stood on its present rung."""
    since = at - timedelta(minutes=minutes)
    if release.step_since is not None:
        since = max(since, release.step_since)
    return list(ServingSample.objects.filter(release=release, at__gt=since, at__lte=at).order_by("at"))


def judge(release: Release, at: datetime | None = None) -> guard.Verdict:
    """Judge a release now, by the guard that was approved with it."""
    now = at or clock.now()
    wanted = Spec.from_json(release.spec).guard
    return guard.verdict(samples_of(release, now, wanted.window_minutes), wanted, release.load_state, at=now)


def watched() -> list[Release]:
    """Return the candidates that may have to be taken off."""
    rows = Release.objects.filter(
        Q(pk=F("endpoint__candidate_id")), status__in=WATCHED,
        endpoint__stopped_at__isnull=True, endpoint__removed_at__isnull=True,
    )  # fmt: skip
    return list(rows.select_related("endpoint").order_by("pk"))


def guard_all() -> int:
    """Take off every candidate that is judged bad; returns how many. A refusal of one keeps no other from going."""
    done = 0
    for release in watched():
        if release.status == ReleaseStatus.STARTING and release.load_state != LoadState.FAILED:
            continue  # it takes no traffic yet
        verdict = judge(release)
        if not verdict.bad:
            continue
        try:
            _take_off(release, verdict)
            done += 1
        except CommonsError as error:
            # Somebody moved the endpoint meanwhile: what stands then is judged the next time.
            logger.warning("canary not taken off", extra={"release": str(release.uid), "error": str(error)})
    return done


def _take_off(release: Release, verdict: guard.Verdict) -> None:
    rollout.roll_back(
        release.endpoint_id,
        actor=SYSTEM,
        reason=f"Rolled back by the portal. {verdict.reason}",
        expected_version=release.endpoint.version,
        evidence={"verdict": str(verdict.status), "reason": verdict.reason, **verdict.figures},
        failed=True,
    )
