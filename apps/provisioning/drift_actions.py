"""What people decide about drift: apply what was approved again, leave it until a date, or ask to adopt it.

Adopting goes through a change request of the quotas room; here it is only noted and, once it is granted, carried out
by the declaration that follows.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction

from apps import audit
from apps.clusters.access import require
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.events import EventType
from apps.provisioning import actions, events
from apps.provisioning.choices import DeclarationStatus, DriftDecision, Handling
from apps.provisioning.models import Declaration, Drift

DECIDE = "provisioning.drift.decide"
#: A drift is left alone for so long at most; then somebody looks again.
LONGEST_IGNORE = timedelta(days=90)
MIN_REASON = 5


def reason_of(text: str) -> str:
    """Return a reason as it is kept. Raises Invalid where it says nothing."""
    if len(reason := text.strip()) < MIN_REASON:
        raise Invalid({"reason": "Say in a few words why: it is kept in the audit trail."})
    return reason


def _locked(drift_id: int, actor: Actor) -> tuple[Declaration, Drift]:
    """Return an open drift with its declaration locked first. Raises NotVisible, NotAllowed, Conflict."""
    seen = Drift.objects.filter(pk=drift_id).first()
    if seen is None:
        raise NotVisible
    declaration = Declaration.objects.locked(seen.declaration_id)
    require(actor, DECIDE, declaration)
    drift = Drift.objects.select_for_update(of=("self",)).select_related("declaration__cluster").get(pk=drift_id)
    if drift.resolved_at is not None:
        raise Conflict("It lives as declared again: there is nothing to decide.", current={"resolved": True})
    return declaration, drift


@transaction.atomic
def reapply(drift_ids: Sequence[int], reason: str, *, actor: Actor) -> Declaration:
    """Apply what was approved again to the objects of these drifts alone, taking their fields over.

    All of one declaration; what lives differently in its other objects is left as it lives. Raises NotVisible,
    NotAllowed, Invalid, Conflict (resolved meanwhile, or a newer generation is being applied anyway).
    """
    text = reason_of(reason)
    chosen = [_locked(drift_id, actor) for drift_id in drift_ids]
    if not chosen or len({declaration.pk for declaration, _ in chosen}) != 1:
        raise Invalid({"": "Choose drift of one declaration."})
    declaration = chosen[0][0]
    if declaration.status == DeclarationStatus.APPLYING:
        raise Conflict("A newer generation is being applied already: what lives differently is looked at again then.")
    keys = {(drift.kind, drift.namespace, drift.name) for _, drift in chosen}
    drifted = declaration.drifts.filter(resolved_at__isnull=True).values_list("kind", "namespace", "name")
    others = set(drifted) - keys
    for row in declaration.declared_objects.filter(removal=""):
        key = (row.kind, row.namespace, row.name)
        wanted = Handling.TAKE_OVER if key in keys else Handling.LEAVE if key in others else Handling.NORMAL
        if row.handling != wanted:
            row.handling = wanted
            row.save(update_fields=["handling"])
    now = clock.now()
    Drift.objects.filter(pk__in=[drift.pk for _, drift in chosen]).update(
        decision=DriftDecision.REAPPLY, decided_at=now, decided_by_id=actor.user_id, ignored_until=None, ignored_live=""
    )
    for _, drift in chosen:
        _note(events.DRIFT_REAPPLIED, drift, actor, text)
    return actions.apply_again(declaration)


@transaction.atomic
def ignore(drift_id: int, until: datetime, reason: str, *, actor: Actor) -> Drift:
    """Leave a drift as it lives until a time; it opens again by itself then, or as soon as its live value changes.

    Raises NotVisible, NotAllowed, Invalid (no reason, a time in the past or more than 90 days ahead), Conflict.
    """
    text = reason_of(reason)
    _, drift = _locked(drift_id, actor)
    now = clock.now()
    if until <= now:
        raise Invalid({"until": "Choose a time that is still to come."})
    if until > now + LONGEST_IGNORE:
        raise Invalid({"until": f"At most {LONGEST_IGNORE.days} days ahead: then somebody looks at it again."})
    drift.decision, drift.decided_at, drift.decided_by_id = DriftDecision.IGNORE, now, actor.user_id
    drift.ignored_until, drift.ignored_by_id = until, actor.user_id
    drift.ignore_reason, drift.ignored_live = text[:300], drift.live
    drift.save(
        update_fields=[
            "decision", "decided_at", "decided_by", "ignored_until", "ignored_by", "ignore_reason", "ignored_live",
        ]
    )  # fmt: skip
    _note(events.DRIFT_IGNORED, drift, actor, text)
    return drift


@transaction.atomic
def stop_ignoring(drift_id: int, *, actor: Actor) -> Drift:
    """Open an ignored drift again, now. Raises NotVisible, NotAllowed, Conflict where it is not ignored."""
    _, drift = _locked(drift_id, actor)
    if drift.ignored_until is None:
        raise Conflict("It is not left alone: it is open.")
    _reopen(drift)
    _note(events.DRIFT_REOPENED, drift, actor, "")
    return drift


def adoption_requested(drift_ids: Sequence[int], change_uid: uuid.UUID, *, actor: Actor) -> None:
    """Note that a change request asks to adopt these drifts, in its transaction. Raises NotVisible, NotAllowed."""
    for drift_id in drift_ids:
        _, drift = _locked(drift_id, actor)
        drift.decision, drift.decided_at, drift.decided_by_id = DriftDecision.ADOPT, clock.now(), actor.user_id
        drift.change_uid = None
        drift.save(update_fields=["decision", "decided_at", "decided_by", "change_uid"])
        _note(events.DRIFT_ADOPTION, drift, actor, f"change request {change_uid}")


def adopted(drift_ids: Sequence[int], change_uid: uuid.UUID) -> None:
    """Note that the adoption was granted: what is applied next resolves these drifts as adopted."""
    Drift.objects.filter(pk__in=list(drift_ids), resolved_at__isnull=True).update(
        decision=DriftDecision.ADOPT, change_uid=change_uid
    )


def not_adopted(drift_ids: Sequence[int]) -> None:
    """Note that the adoption was not granted: they are to be decided again."""
    Drift.objects.filter(pk__in=list(drift_ids), resolved_at__isnull=True, decision=DriftDecision.ADOPT).update(
        decision=DriftDecision.NONE, change_uid=None
    )


def reopen_due() -> int:
    """Open again what was to be left alone until now; returns how many. Each is told once."""
    due = Drift.objects.filter(resolved_at__isnull=True, ignored_until__lte=clock.now()).order_by("pk")
    opened = 0
    for pk in list(due.values_list("pk", flat=True)):
        with transaction.atomic():
            drift = (
                Drift.objects.select_for_update(of=("self",))
                .select_related("declaration__cluster")
                .filter(pk=pk, resolved_at__isnull=True, ignored_until__lte=clock.now())
                .first()
            )
            if drift is None:
                continue
            _reopen(drift)
            _note(events.DRIFT_REOPENED, drift, Actor.system("provisioning.reopen_drift"), "", publish=True)
            opened += 1
    return opened


def _reopen(drift: Drift) -> None:
    drift.ignored_until, drift.ignored_live, drift.decision = None, "", DriftDecision.NONE
    drift.save(update_fields=["ignored_until", "ignored_live", "decision"])


def _note(event: EventType, drift: Drift, actor: Actor, reason: str, *, publish: bool = False) -> None:
    declaration = drift.declaration
    where = f"{drift.namespace}/{drift.name}" if drift.namespace else drift.name
    payload = events.DriftDecided(
        str(drift.uid), str(declaration.uid), declaration.cluster.slug, f"{drift.kind} {where}", drift.field,
        drift.ignored_until,
    )  # fmt: skip
    audit.record(
        event,
        payload,
        actor=actor,
        subject_type="provisioning.declaration",
        subject_uid=declaration.uid,
        team_uid=actions.team_uid_of(declaration.team_id),
        reason=reason,
    )
    if publish:
        from apps.teams import scope

        outbox.publish(event, payload, recipients=scope.holders(DECIDE), subject_uid=declaration.uid)
