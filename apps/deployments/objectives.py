"""What endpoints are held to: set by a lead, read by a sweep, and what a breach does."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.accounts.models import User
from apps.catalogue import ports as catalogue
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import CommonsError, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.deployments import objective_readings, rollout, watch_events
from apps.deployments.choices import ObjectiveAction, ObjectiveKind, ReleaseStatus
from apps.deployments.models import DriftReading, Endpoint, Objective, ObjectiveReading, ServingSample
from apps.teams import scope

SET = "deployments.objective.set"
SYSTEM = Actor.system("deployments.objectives")
READ_EVERY = timedelta(minutes=5)
#: Readings are kept so long.
KEPT = timedelta(days=90)
MAX_WINDOW_HOURS = 24 * 30
SHARES = (ObjectiveKind.AVAILABILITY, ObjectiveKind.ERROR_RATE, ObjectiveKind.KS)
logger = logging.getLogger(__name__)


def _endpoint(endpoint_id: int, actor: Actor) -> Endpoint:
    user = User.objects.filter(pk=actor.user_id or 0, is_active=True).first()
    found = (
        Endpoint.objects.visible_to(user)
        .select_related("workspace__team")
        .filter(pk=endpoint_id, removed_at__isnull=True)
        .first()
    )
    if user is None or found is None:
        raise NotVisible
    if not may(user, SET, found):
        raise NotAllowed("Objectives are set by the team's leads.", rule=SET)
    return found


def checked(kind: str, target: Any, window_hours: Any, action: str, feature: str) -> dict[str, Any]:
    """Return the fields of an objective, checked together. Raises Invalid with every problem by field."""
    errors: dict[str, str] = {}
    found = ObjectiveKind(kind) if kind in ObjectiveKind.values else None
    if found is None:
        errors["kind"] = "Choose what the objective is about."
    try:
        number = Decimal(str(target))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        errors["target"] = "Enter a number."
    elif number < 0 or number >= Decimal(10**8):
        errors["target"] = "Enter a number of 0 or more."
    elif found in SHARES and number > 1:
        errors["target"] = "Enter a share between 0 and 1: 0.995 for 99.5 %."
    elif found in (ObjectiveKind.LATENCY_P95, ObjectiveKind.AGE) and number != int(number):
        errors["target"] = "Enter a whole number."
    if not isinstance(window_hours, int) or not 1 <= window_hours <= MAX_WINDOW_HOURS:
        errors["window_hours"] = f"Enter 1 to {MAX_WINDOW_HOURS} hours."
    if action not in ObjectiveAction.values:
        errors["action"] = "Choose what a breach does."
    drifts = found in objective_readings.DRIFT
    feature = feature.strip()
    if drifts and not feature:
        errors["feature"] = "Name the feature, or “prediction”, as it is posted to the metric port."
    elif not drifts and feature:
        errors["feature"] = "Only drift is about a feature: leave this empty."
    elif len(feature) > 100:
        errors["feature"] = "At most 100 characters."
    if errors:
        raise Invalid(errors)
    return {
        "kind": str(found), "target": number.quantize(Decimal("0.000001")), "window_hours": window_hours,
        "action": str(action), "feature": feature,
    }  # fmt: skip


@transaction.atomic
def set_objective(
    endpoint_id: int,
    kind: str,
    target: Any,
    window_hours: int,
    action: str,
    *,
    actor: Actor,
    feature: str = "",
) -> Objective:
    """Hold an endpoint to something. Raises NotVisible, NotAllowed, Invalid, Conflict (there is one of the kind)."""
    endpoint = _endpoint(endpoint_id, actor)
    values = checked(kind, target, window_hours, action, feature)
    Endpoint.objects.select_for_update(no_key=True).get(pk=endpoint.pk)
    rows = Objective.objects.filter(endpoint=endpoint, archived_at__isnull=True)
    if rows.filter(kind=values["kind"], feature=values["feature"]).exists():
        raise Conflict("This endpoint has such an objective already: edit that one.")
    objective = Objective.objects.create(endpoint=endpoint, **values)
    _record(watch_events.OBJECTIVE_SET, objective, actor)
    return objective


@transaction.atomic
def change_objective(
    objective_id: int,
    target: Any,
    window_hours: int,
    action: str,
    *,
    actor: Actor,
    expected_version: int | None = None,
) -> Objective:
    """Change what an objective asks; what it is about stays. Raises NotVisible, NotAllowed, Invalid, Conflict."""
    objective = _locked(objective_id, actor, expected_version)
    values = checked(objective.kind, target, window_hours, action, objective.feature)
    objective.target, objective.window_hours, objective.action = (
        values["target"], values["window_hours"], values["action"],
    )  # fmt: skip
    objective.bump("target", "window_hours", "action")
    _record(watch_events.OBJECTIVE_CHANGED, objective, actor)
    return objective


@transaction.atomic
def archive_objective(objective_id: int, *, actor: Actor, expected_version: int | None = None) -> Objective:
    """Hold the endpoint to it no longer; its readings stay. Raises NotVisible, NotAllowed, Conflict."""
    objective = _locked(objective_id, actor, expected_version)
    objective.archived_at, objective.breached_since = clock.now(), None
    objective.bump("archived_at", "breached_since")
    _record(watch_events.OBJECTIVE_ARCHIVED, objective, actor)
    return objective


def _locked(objective_id: int, actor: Actor, expected_version: int | None) -> Objective:
    user = User.objects.filter(pk=actor.user_id or 0, is_active=True).first()
    seen = Objective.objects.visible_to(user).select_related("endpoint__workspace").filter(pk=objective_id).first()
    if user is None or seen is None:
        raise NotVisible
    if not may(user, SET, seen):
        raise NotAllowed("Objectives are set by the team's leads.", rule=SET)
    objective = Objective.objects.locked(objective_id, expected_version=expected_version)
    if objective.archived_at is not None:
        raise Conflict("This objective was archived.", current={"version": objective.version})
    return Objective.objects.select_related("endpoint__workspace__team").get(pk=objective.pk)


def _event(objective: Objective, *, what: str = "", value: str = "", detail: str = "") -> watch_events.ObjectiveEvent:
    endpoint = objective.endpoint
    return watch_events.ObjectiveEvent(
        objective_uid=objective.uid, endpoint_uid=endpoint.uid, workspace_uid=endpoint.workspace.uid,
        kind=objective.kind, target=str(objective.target), action=objective.action, what=what or title(objective),
        value=value, detail=detail,
    )  # fmt: skip


def _record(event: Any, objective: Objective, actor: Actor, **more: str) -> None:
    audit.record(
        event, _event(objective, **more), actor=actor, subject_type="deployments.objective",
        subject_uid=objective.uid, team_uid=objective.endpoint.workspace.team.uid,
    )  # fmt: skip


def title(objective: Objective) -> str:
    """Return an objective in one line: what, of which feature, at least or most how much."""
    bound = "at least" if objective.kind in objective_readings.AT_LEAST else "at most"
    about = f" of {objective.feature}" if objective.feature else ""
    return f"{ObjectiveKind(objective.kind).label}{about}: {bound} {shown(objective.kind, objective.target)}"


def shown(kind: str, value: Decimal | None) -> str:
    """Return a value of a kind with its unit; "unknown" for none."""
    if value is None:
        return "unknown"
    if kind in (ObjectiveKind.AVAILABILITY, ObjectiveKind.ERROR_RATE):
        return f"{value * 100:,.3f}".rstrip("0").rstrip(".") + " %"
    if kind == ObjectiveKind.LATENCY_P95:
        return f"{value:,.0f} ms"
    return f"{value:,.0f} days" if kind == ObjectiveKind.AGE else f"{value:.3f}"


# -- readings ----------------------------------------------------------------------------------------------------------


def due(at: datetime) -> list[int]:
    """Return objectives that have no reading of the last five minutes."""
    rows = Objective.objects.filter(archived_at__isnull=True, endpoint__removed_at__isnull=True)
    return list(rows.exclude(readings__at__gt=at - READ_EVERY).order_by("pk").values_list("pk", flat=True))


def read_all() -> int:
    """Read every objective that is due and do what a breach asks; returns how many were read."""
    at = clock.now()
    done = 0
    for objective_id in due(at):
        done += read_one(objective_id, at)
    return done


def read_one(objective_id: int, at: datetime) -> int:
    """Read one objective at a time; what a breach does comes after, in transactions of its own."""
    with transaction.atomic():
        objective = (
            Objective.objects.select_for_update(of=("self",), skip_locked=True)
            .select_related("endpoint__workspace__team", "endpoint__current__model_version", "endpoint__candidate")
            .filter(pk=objective_id, archived_at__isnull=True)
            .first()
        )
        if objective is None:
            return 0
        reading = _reading(objective, at)
        row, made = ObjectiveReading.objects.get_or_create(
            objective=objective, at=at,
            defaults={"value": reading.value, "breached": reading.breached, "detail": reading.detail},
        )  # fmt: skip
        if not made:
            return 0
        began = bool(row.breached) and objective.breached_since is None
        if began or (row.breached is False and objective.breached_since is not None):
            objective.breached_since = at if began else None
            # Not `bump`: a reading is nobody's edit.
            Objective.objects.filter(pk=objective.pk).update(breached_since=objective.breached_since)
            _tell(objective, row)
    if began:
        _act(objective, row)
    return 1


def _reading(objective: Objective, at: datetime) -> objective_readings.Reading:
    endpoint, since = objective.endpoint, at - timedelta(hours=objective.window_hours)
    samples: list[ServingSample] = []
    drift: Decimal | None = None
    trained = endpoint.current.model_version.trained_at if endpoint.current is not None else None
    if objective.kind in objective_readings.DRIFT:
        rows = DriftReading.objects.filter(
            endpoint=endpoint, feature=objective.feature, kind=objective.kind, at__gt=since, at__lte=at
        )
        drift = rows.order_by("-at").values_list("value", flat=True).first()
    elif objective.kind != ObjectiveKind.AGE:
        samples = list(ServingSample.objects.filter(endpoint=endpoint, at__gt=since, at__lte=at))
        if objective.kind == ObjectiveKind.AVAILABILITY:
            samples = _together(samples)
    return objective_readings.read(
        objective.kind, objective.target, samples=samples, drift=drift, trained_at=trained, at=at
    )


def _together(samples: list[ServingSample]) -> list[ServingSample]:
    """One sample for each time: the endpoint answers while either release does."""
    best: dict[datetime, ServingSample] = {}
    for row in samples:
        was = best.get(row.at)
        if was is None or (row.ready_replicas or 0) > (was.ready_replicas or 0) or was.ready_replicas is None:
            best[row.at] = row
    return list(best.values())


def _tell(objective: Objective, reading: ObjectiveReading) -> None:
    breached = bool(reading.breached)
    event = watch_events.OBJECTIVE_BREACHED if breached else watch_events.OBJECTIVE_MET
    endpoint = objective.endpoint
    value = shown(objective.kind, reading.value)
    place = f"{endpoint.name} in {endpoint.workspace.namespace}"
    what = f"{place} {'breaches' if breached else 'holds again'}: {title(objective)}"
    detail = f"It stands at {value}. {_NEXT[objective.action] if breached else ''}".strip()
    payload = _event(objective, what=what, value=value, detail=detail)
    audit.record(
        event, payload, actor=SYSTEM, subject_type="deployments.objective", subject_uid=objective.uid,
        team_uid=endpoint.workspace.team.uid,
    )  # fmt: skip
    leads = sorted(scope.holders_of_role("team_lead", team_id=endpoint.workspace.team_id))
    outbox.publish(event, payload, recipients=leads, subject_uid=endpoint.uid)


_NEXT: dict[str, str] = {
    ObjectiveAction.NOTIFY: "Nothing else happens by itself.",
    ObjectiveAction.RECERTIFY: "The version is put before compliance again.",
    ObjectiveAction.ROLL_BACK: "A canary that is under way is rolled back.",
}


def _act(objective: Objective, reading: ObjectiveReading) -> None:
    """Do what a breach asks, once for each breach. What refuses is kept with the reading, for the page."""
    why = f"{title(objective)}; it stood at {shown(objective.kind, reading.value)}."
    try:
        done = _do(objective, why)
    except CommonsError as error:
        logger.warning("breach not acted on", extra={"objective": str(objective.uid), "error": str(error)})
        done = f"Refused: {getattr(error, 'message', '') or error}"
    if done:
        ObjectiveReading.objects.filter(pk=reading.pk).update(detail={**reading.detail, "done": done[:500]})


def _do(objective: Objective, why: str) -> str:
    endpoint = objective.endpoint
    if objective.action == ObjectiveAction.RECERTIFY:
        if endpoint.current is None:
            return "Nothing serves that could be looked at again."
        made = catalogue.recertify(endpoint.current.model_version_id, f"Objective breached. {why}", actor=SYSTEM)
        return "Put before compliance again." if made is not None else "It is before compliance already."
    if objective.action == ObjectiveAction.ROLL_BACK:
        candidate = endpoint.candidate
        if candidate is None or candidate.status not in (ReleaseStatus.CANARY, ReleaseStatus.HELD):
            return "No canary was under way."
        evidence = {"objective": str(objective.uid), "reason": why}
        rollout.roll_back(
            endpoint.pk, actor=SYSTEM, reason=f"Rolled back by the portal. Objective breached: {why}",
            evidence=evidence, failed=True,
        )  # fmt: skip
        return "The canary was rolled back."
    return ""


def forget(at: datetime | None = None) -> int:
    """Remove readings that are older than they are kept, but never the newest of an objective; returns how many."""
    before = (at or clock.now()) - KEPT
    newest = ObjectiveReading.objects.order_by("objective_id", "-at").distinct("objective_id").values("pk")
    return ObjectiveReading.objects.filter(Q(at__lt=before)).exclude(pk__in=newest).delete()[0]
