"""Exceptions that two people make, that end, and that everybody can read: a control not met, a lower classification."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps import audit
from apps.accounts import merging
from apps.catalogue import checking, classification, people
from apps.catalogue import evidence_events as events
from apps.catalogue.access import locked_version, person, require
from apps.catalogue.choices import ExceptionKind, VersionStatus
from apps.catalogue.models import Control, ModelVersion, VersionException
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.events import EventType
from apps.core.permissions import may
from apps.quotas.choices import DataClass
from apps.teams import scope

PROPOSE, DECIDE = "catalogue.exception.propose", "catalogue.exception.decide"
MOST = timedelta(days=366)


@transaction.atomic
def propose_exception(
    version_id: int,
    kind: str,
    reason: str,
    expires_at: datetime,
    *,
    actor: Actor,
    control_code: str = "",
    data_classes: Sequence[str] = (),
) -> VersionException:
    """Propose an exception for one version; another person decides.

    For a control the version is sealed, and the exception holds for its bytes alone; a classification is lowered while
    the version is a draft. Raises Invalid by field, Conflict, NotVisible, NotAllowed.
    """
    version = locked_version(version_id, PROPOSE, actor=actor)
    errors: dict[str, list[str]] = {}
    try:
        reason = checking.reason(reason)
    except Invalid as invalid:
        errors |= invalid.errors
    at = clock.now()
    if not at < expires_at <= at + MOST:
        errors["expires_at"] = [f"An exception ends, within {MOST.days} days from now."]
    classes = list(classification.ordered(data_classes))
    if kind == ExceptionKind.CONTROL:
        if not Control.objects.filter(code=control_code, superseded_at__isnull=True).exists():
            errors["control_code"] = ["Choose a control in force."]
        elif control_code in NEVER:
            errors["control_code"] = ["Nobody can make an exception from this one."]
        if classes:
            errors["data_classes"] = ["Data classes belong to an exception of the classification."]
    elif kind == ExceptionKind.CLASSIFICATION:
        if not classes or any(one not in DataClass.values for one in classes):
            errors["data_classes"] = ["Say which data classes hold instead of those the lineage hands down."]
        if control_code:
            errors["control_code"] = ["This exception is about no control."]
    else:
        errors["kind"] = ["Choose what the exception is about."]
    if errors:
        raise Invalid(errors)
    if kind == ExceptionKind.CONTROL and not version.digest:
        raise Conflict("Seal the version first: an exception from a control is for its bytes.")
    if kind == ExceptionKind.CLASSIFICATION and version.status != VersionStatus.DRAFT:
        raise Conflict("A sealed version keeps its classification: lower it on a draft, then seal that.")
    row = VersionException.objects.create(
        model_version=version, kind=kind, control_code=control_code, data_classes=classes, reason=reason,
        proposed_by=person(actor), expires_at=expires_at, subject_digest=version.digest,
    )  # fmt: skip
    _record(events.EXCEPTION_PROPOSED, row, actor, reason)
    deciders = [one for one in scope.holders(DECIDE, team_id=version.model.team_id) if one != actor.user_id]
    outbox.publish(events.EXCEPTION_PROPOSED, _event(row, reason), recipients=deciders, subject_uid=row.uid)
    return row


#: What no second person makes good: an approval of nothing, and a prohibited practice.
NEVER = frozenset({"house-digest", "ai-act-5"})


def why_not_decide(user: Any, row: VersionException) -> str:
    """Return the rule that keeps a person from deciding, or ""."""
    version = row.model_version
    if not may(user, DECIDE, row):
        return "Exceptions are decided by compliance."
    own = merging.accounts_of(user.pk)
    if row.proposed_by_id in own:
        return "You proposed it: somebody else decides."
    if own & set(people.writers(version)):
        return "You wrote this version: somebody else decides."
    if own & scope.members(version.model.team_id):
        return "You belong to the team that owns the model: somebody else decides."
    return ""


@transaction.atomic
def decide_exception(
    exception_id: int, approve: bool, reason: str, *, actor: Actor, expected_version: int | None = None
) -> VersionException:
    """Approve or refuse a proposed exception, once. Raises Invalid, NotVisible, NotAllowed, Conflict."""
    user = person(actor)
    rows = VersionException.objects.select_related("model_version__model__team")
    row = rows.locked(exception_id, expected_version=expected_version)
    VersionException.objects.get_visible(user, row.uid)
    require(actor, DECIDE, row)
    if rule := why_not_decide(user, row):
        raise NotAllowed(rule, rule="second person")
    if row.approved is not None:
        raise Conflict("It is decided already.", current={"approved": row.approved})
    at = clock.now()
    if approve and at >= row.expires_at:
        raise Conflict("The time it was asked for is over: propose it anew.")
    if approve and row.kind == ExceptionKind.CLASSIFICATION and row.model_version.status != VersionStatus.DRAFT:
        raise Conflict("The version was sealed in the meantime: it keeps its classification.")
    row.decision_reason = checking.reason(reason)
    row.approved, row.decided_by, row.decided_at = approve, user, at
    row.bump("approved", "decided_by", "decided_at", "decision_reason")
    _record(events.EXCEPTION_DECIDED, row, actor, row.decision_reason)
    payload = _event(row, row.decision_reason)
    outbox.publish(events.EXCEPTION_DECIDED, payload, recipients=[row.proposed_by_id], subject_uid=row.uid)
    return row


def subject_of(row: VersionException) -> str:
    """Return what the exception is from, in words."""
    if row.kind == ExceptionKind.CONTROL:
        return row.control_code
    return "classification as " + ", ".join(str(DataClass(one).label) for one in row.data_classes)


def _event(row: VersionException, reason: str) -> events.ExceptionEvent:
    version: ModelVersion = row.model_version
    return events.ExceptionEvent(
        row.uid, version.uid, str(row.kind), row.control_code, list(row.data_classes),
        row.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"), row.approved, f"{version.model.slug} {version.label}", reason,
    )  # fmt: skip


def _record(event: EventType, row: VersionException, actor: Actor, reason: str) -> None:
    audit.record(
        event,
        _event(row, reason),
        actor=actor,
        subject_type="catalogue.exception",
        subject_uid=row.uid,
        team_uid=row.model_version.model.team.uid,
        after_digest=row.subject_digest,
    )
