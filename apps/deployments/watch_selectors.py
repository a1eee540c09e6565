"""What the live part of an endpoint's page shows, and the page of its objectives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import OuterRef, Subquery

from apps.catalogue.manifest import parse as parse_manifest
from apps.core import charts, clock, formats
from apps.deployments import (
    guard,
    guarding,
    live_status,
    manifests,
    metric_sources,
    objectives,
    sampling,
    watch_advice,
    watching,
)
from apps.deployments.choices import LoadState, ReleaseStatus
from apps.deployments.models import DriftReading, Endpoint, Objective, ObjectiveReading, Release, ServingSample

#: What the chart looks back, and how many rows its table has.
LOOK_BACK = timedelta(hours=3)
ROWS = 20
#: A figure that is older is shown as stale.
STALE_AFTER = timedelta(minutes=5)
_STATES = {
    LoadState.LOADED: "positive", LoadState.FAILED: "critical", LoadState.LOADING: "info", LoadState.PENDING: "info",
}  # fmt: skip


def live_context(endpoint: Endpoint) -> dict[str, Any]:
    """Return the live part: state and its age, shares, releases with figures, chart with table, what is wrong."""
    now = clock.now()
    seen = watching.seen(endpoint, now)
    objects: dict[str, Any] = endpoint.live.get("objects") or {}
    sides = [release for release in (endpoint.candidate, endpoint.current) if release is not None]
    newest = sampling.latest(endpoint)
    samples = list(
        ServingSample.objects.filter(endpoint=endpoint, at__gt=now - LOOK_BACK).select_related("release").order_by("at")
    )
    numbers = {str(release.uid): release.number for release in sides}
    troubles = watch_advice.troubles(objects, numbers)
    troubles += [found for release in sides if (found := _bytes(release)) is not None]
    return {
        "endpoint": endpoint,
        "seen": seen,
        "shares": live_status.shares(list(objects.values())),
        "sides": [_side(release, newest.get(release.uid), endpoint, seen, now) for release in sides],
        "troubles": troubles,
        "charts": _charts(samples),
        "samples": list(reversed(samples))[:ROWS],
        "figures_from": _source(endpoint, newest),
        "simulated": endpoint.workspace.cluster.simulated,
        "now": now,
    }


def _bytes(release: Release) -> watch_advice.Trouble | None:
    if not release.observed_digest:
        return None
    manifest = parse_manifest(bytes(release.model_version.manifest))
    return watch_advice.bytes_trouble(release.observed_digest, manifests.files_digest(manifest), release.number)


def _side(
    release: Release, sample: ServingSample | None, endpoint: Endpoint, seen: watching.Seen, now: datetime
) -> dict[str, Any]:
    is_candidate = release.pk == endpoint.candidate_id
    verdict = guarding.judge(release, now) if is_candidate and release.status != ReleaseStatus.STARTING else None
    stale = sample is not None and now - sample.at > STALE_AFTER
    return {
        "release": release,
        "role": "Canary" if is_candidate else "Current",
        "traffic": endpoint.traffic if is_candidate else 100 - endpoint.traffic,
        # A state that cannot be believed is never drawn in green.
        "tone": _STATES.get(LoadState(release.load_state), "neutral") if seen.believed else "neutral",
        "sample": sample,
        "stale": stale or not seen.believed,
        "per_minute": _per_minute(sample) if sample is not None else None,
        "error_rate": error_rate(sample) if sample is not None else None,
        "verdict": verdict,
        "verdict_tone": ("critical" if verdict.bad else _verdict_tone(verdict, seen)) if verdict is not None else "",
    }


def _verdict_tone(verdict: guard.Verdict, seen: watching.Seen) -> str:
    return "positive" if verdict.status is guard.Status.OK and seen.believed else "neutral"


def _per_minute(sample: ServingSample) -> int | None:
    return None if sample.requests is None else round(sample.requests * 60 / sample.window_seconds)


def error_rate(sample: ServingSample) -> Decimal | None:
    """Return the share of requests that failed; None: unknown, or nothing was asked."""
    if sample.errors is None or not sample.requests:
        return None
    return Decimal(sample.errors) / Decimal(sample.requests)


def _source(endpoint: Endpoint, newest: dict[Any, ServingSample]) -> str:
    """Return why figures are missing; "" where they are there."""
    if metric_sources.prometheus_of(endpoint.workspace.cluster) is None:
        return metric_sources.NONE
    return next((str(row.queries["trouble"]) for row in newest.values() if row.queries.get("trouble")), "")


_LINES = (
    ("latency", "95th percentile latency", "ms", lambda row: row.latency_p95_ms),
    ("errors", "Failed requests", "%", lambda row: None if (rate := error_rate(row)) is None else rate * 100),
    ("queue", "Waiting requests", "requests", lambda row: row.queue_depth),
    ("ttft", "Time to first token, 95th percentile", "ms", lambda row: row.ttft_p95_ms),
)


def _charts(samples: Sequence[ServingSample]) -> list[dict[str, Any]]:
    """Return a line chart of each figure that anything is known of; a gap is unknown."""
    points = sorted({row.at for row in samples})
    releases = {row.release_id: row.release for row in samples}
    found = []
    for name, title, unit, value in _LINES:
        series = []
        for pk, release in sorted(releases.items(), key=lambda pair: pair[1].number):
            at = {row.at: value(row) for row in samples if row.release_id == pk}
            if any(each is not None for each in at.values()):
                # By its number: a release keeps its colour while others come and go, and neighbours differ.
                drawn = [at.get(point) for point in points]
                series.append(charts.Series(f"Release {release.number}", drawn, release.number))
        if series:
            figure = charts.lines([formats.rfc3339(point) for point in points], series, unit=unit, title=title)
            figure["layout"]["xaxis"] = {"type": "date"}
            found.append({"id": f"live-{name}", "title": title, "unit": unit, "figure": figure})
    return found


# -- objectives --------------------------------------------------------------------------------------------------------


def objectives_context(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint's objectives with their newest readings, and its newest drift by feature."""
    last = ObjectiveReading.objects.filter(objective=OuterRef("pk")).order_by("-at").values("pk")[:1]
    rows = list(
        Objective.objects.filter(endpoint=endpoint, archived_at__isnull=True)
        .annotate(last_reading=Subquery(last))
        .order_by("kind", "feature", "pk")
    )
    readings = ObjectiveReading.objects.in_bulk([row.last_reading for row in rows if row.last_reading])  # type: ignore[attr-defined]  # annotated
    drift = (
        DriftReading.objects.filter(endpoint=endpoint)
        .select_related("release")
        .order_by("feature", "kind", "-at")
        .distinct("feature", "kind")[:100]
    )
    return {
        "objectives": [_objective(row, readings.get(row.last_reading or 0)) for row in rows],  # type: ignore[attr-defined]  # as above
        "drift": list(drift),
    }


def _objective(row: Objective, reading: ObjectiveReading | None) -> dict[str, Any]:
    value = reading.value if reading is not None else None
    if row.breached_since is not None:
        state, tone = "Breached", "critical"
    elif reading is None or reading.breached is None:
        state, tone = "Unknown", "neutral"
    else:
        state, tone = "Holds", "positive"
    return {
        "row": row,
        "title": objectives.title(row),
        "value": objectives.shown(row.kind, value),
        "state": state,
        "tone": tone,
        "reading": reading,
        "done": (reading.detail.get("done") or reading.detail.get("why") or "") if reading is not None else "",
    }
