"""Postings of the metric port: how inputs and predictions of an endpoint moved, computed here or told."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from apps import audit
from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.deployments import drift, watch_events
from apps.deployments.models import DriftReading, Endpoint, Release

#: Whoever may use the workspace may tell how its models fare.
POST = "quotas.workspace.use"
MAX_BINS, MAX_SAMPLES, MAX_FEATURES = 1000, 100_000, 500
_FEATURE = re.compile(r"[^\s\x00-\x1f][^\x00-\x1f]{0,98}[^\s\x00-\x1f]|[^\s\x00-\x1f]")
#: The clock of who posts may be ahead by so much.
_AHEAD = timedelta(minutes=5)
_FIELDS = {"feature", "at", "bins", "samples", "values", "count"}


@transaction.atomic
def post(
    endpoint_uid: uuid.UUID,
    readings: Sequence[Mapping[str, Any]],
    source: str,
    *,
    actor: Actor,
    release_uid: uuid.UUID | None = None,
) -> list[DriftReading]:
    """Keep drift readings of an endpoint; each names a feature and one of `bins`, `samples` or `values`.

    `bins` and `samples` are {"expected": […], "actual": […]}; PSI and KS are computed of them. `values` is {"psi": x,
    "ks": y}, computed elsewhere. The same feature, kind and time again changes nothing. Returns the rows as they stand.
    Raises NotVisible, NotAllowed, Invalid naming the field.
    """
    endpoint = _endpoint(endpoint_uid, actor)
    release = _release(endpoint, release_uid)
    if not source.strip() or len(source) > 100:
        raise Invalid({"source": "Say in 1 to 100 characters what measured this."})
    if not 1 <= len(readings) <= MAX_FEATURES:
        raise Invalid({"readings": f"Post 1 to {MAX_FEATURES} readings at once."})
    wanted: list[DriftReading] = []
    for index, reading in enumerate(readings):
        wanted += _rows(endpoint, release, reading, f"readings[{index}]", source.strip())
    DriftReading.objects.bulk_create(wanted, ignore_conflicts=True)
    stored = list(
        DriftReading.objects.filter(
            endpoint=endpoint, at__in={row.at for row in wanted}, feature__in={row.feature for row in wanted}
        ).order_by("feature", "kind", "at")
    )
    new = {row.uid for row in wanted} & {row.uid for row in stored}
    if new:
        audit.record(
            watch_events.DRIFT_POSTED, watch_events.DriftEvent(endpoint.uid, len(new), source.strip()), actor=actor,
            subject_type="deployments.endpoint", subject_uid=endpoint.uid, team_uid=endpoint.workspace.team.uid,
        )  # fmt: skip
    return stored


def _endpoint(endpoint_uid: uuid.UUID, actor: Actor) -> Endpoint:
    user = User.objects.filter(pk=actor.user_id or 0, is_active=True).first()
    found = (
        Endpoint.objects.visible_to(user)
        .select_related("workspace__team", "current", "candidate")
        .filter(uid=endpoint_uid, removed_at__isnull=True)
        .first()
    )
    if user is None or found is None:
        raise NotVisible
    if not may(user, POST, found):
        raise NotAllowed("Drift is posted by members of the endpoint's team.", rule=POST)
    return found


def _release(endpoint: Endpoint, release_uid: uuid.UUID | None) -> Release | None:
    if release_uid is None:
        return endpoint.current
    found = Release.objects.filter(endpoint=endpoint, uid=release_uid).first()
    if found is None:
        raise Invalid({"release": "This endpoint has no such release."})
    return found


def _rows(
    endpoint: Endpoint, release: Release | None, reading: Mapping[str, Any], place: str, source: str
) -> list[DriftReading]:
    if unknown := sorted(set(reading) - _FIELDS):
        raise Invalid({f"{place}.{unknown[0]}": "Unknown field."})
    feature = reading.get("feature")
    if not isinstance(feature, str) or not _FEATURE.fullmatch(feature):
        raise Invalid({f"{place}.feature": "Name the feature (or “prediction”) in 1 to 100 characters."})
    at = reading.get("at")
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise Invalid(
            {f"{place}.at": "Give the end of the window with its time zone, for example 2026-11-22T10:00:00Z."}
        )
    if at > clock.now() + _AHEAD:
        raise Invalid({f"{place}.at": "The window's end lies ahead."})
    forms = [name for name in ("bins", "samples", "values") if reading.get(name) is not None]
    if len(forms) != 1:
        raise Invalid({place: "Give exactly one of bins, samples and values."})
    figures, count, detail = _figures(forms[0], reading[forms[0]], reading.get("count"), f"{place}.{forms[0]}")
    return [
        DriftReading(
            endpoint=endpoint, release=release, feature=feature, kind=kind, at=at, source=source, samples=count,
            value=Decimal(f"{value:.9f}"), detail=detail,
        )
        for kind, value in sorted(figures.items())
    ]  # fmt: skip


def _figures(form: str, told: Any, count: Any, place: str) -> tuple[dict[str, float], int | None, dict[str, Any]]:
    if not isinstance(told, Mapping):
        raise Invalid({place: "Give an object."})
    if form == "values":
        return _told(told, place), count if isinstance(count, int) and count >= 0 else None, {}
    if set(told) != {"expected", "actual"}:
        raise Invalid({place: "Give expected and actual."})
    most = MAX_BINS if form == "bins" else MAX_SAMPLES
    expected, actual = (_numbers(told[side], most, f"{place}.{side}") for side in ("expected", "actual"))
    try:
        if form == "bins":
            detail: dict[str, Any] = {"expected": expected, "actual": actual}
            return (
                {"psi": drift.psi(expected, actual), "ks": drift.ks_of_bins(expected, actual)},
                int(sum(actual)),
                detail,
            )
        edges = drift.quantile_edges(expected)
        first, second = drift.counts(expected, edges), drift.counts(actual, edges)
        figures = {"ks": drift.ks_of_samples(expected, actual)}
        if len(first) > 1:
            figures["psi"] = drift.psi(first, second)
        return figures, len(actual), {"edges": edges, "expected": first, "actual": second}
    except drift.Unusable as error:
        raise Invalid({place: f"{str(error)[0].upper()}{str(error)[1:]}."}) from error


def _told(told: Mapping[str, Any], place: str) -> dict[str, float]:
    if not told or set(told) - {"psi", "ks"}:
        raise Invalid({place: "Give psi, ks or both."})
    found = {}
    for kind, value in told.items():
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not math.isfinite(number) or number < 0 or (kind == "ks" and number > 1) or number > 1000:
            raise Invalid({f"{place}.{kind}": "PSI is 0 or more, KS lies between 0 and 1."})
        found[kind] = number
    return found


def _numbers(values: Any, most: int, place: str) -> list[float]:
    if not isinstance(values, list) or not 1 <= len(values) <= most:
        raise Invalid({place: f"Give a list of 1 to {most:,} numbers."})
    if any(
        isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) for value in values
    ):
        raise Invalid({place: "Every entry is a finite number."})
    return [float(value) for value in values]
