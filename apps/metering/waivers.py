"""Waivers: a person's word, with a reason and for a time, that a source may be billed from although checks fail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.metering import fitness
from apps.metering.actions import require
from apps.metering.events import SOURCE_WAIVED, WAIVER_ENDED, WAIVER_REVOKED, SourceWaived, WaiverEnded, WaiverRevoked
from apps.metering.models import Source, SourceWaiver
from apps.metering.selftest import NEVER_WAIVED, TITLES
from apps.metering.source_exclusive import WHY

WAIVE = "metering.source.waive"
LONGEST = timedelta(days=92)


def waivable(source: Source) -> list[str]:
    """Return the codes of the newest self-test that fail and may be waived."""
    health = fitness.health_of([source])[source.pk]
    return [code for code in health.unfit if code not in NEVER_WAIVED]


@transaction.atomic
def waive(
    source_id: int,
    codes: Sequence[str],
    reason: str,
    until: datetime,
    *,
    actor: Actor,
    expected_version: int | None = None,
) -> SourceWaiver:
    """Waive failed checks of a source from now until `until`.

    Raises NotAllowed for a task or somebody without the permission, Invalid for a missing reason, an end that is past
    or further than 92 days away, a check that does not fail in the newest self-test, or shared GPUs.
    """
    require(actor, WAIVE)
    if actor.user_id is None:
        raise NotAllowed("A waiver is a person's word: no task gives one.", rule=WAIVE)
    source = Source.objects.locked(source_id, expected_version=expected_version)
    now = clock.now()
    chosen = list(dict.fromkeys(codes))
    errors: dict[str, str] = {}
    failing = fitness.health_of([source])[source.pk].failing
    if not chosen:
        errors["codes"] = "Choose at least one check."
    elif never := [code for code in chosen if code in NEVER_WAIVED]:
        errors["codes"] = f"“{TITLES[never[0]]}” cannot be waived: the quantities would be wrong. {WHY}"
    elif other := [code for code in chosen if code not in failing]:
        errors["codes"] = f"“{TITLES.get(other[0], other[0])}” does not fail in the newest self-test: nothing to waive."
    if not reason.strip():
        errors["reason"] = "Say why this source may be billed from all the same: auditors read it."
    elif len(reason.strip()) > 500:
        errors["reason"] = "At most 500 characters."
    if until <= now:
        errors["until"] = "The end must lie in the future."
    elif until > now + LONGEST:
        errors["until"] = f"At most {LONGEST.days} days: until {now + LONGEST:%Y-%m-%d %H:%M} UTC."
    if errors:
        raise Invalid(errors)
    waiver = SourceWaiver.objects.create(
        source=source,
        codes=chosen,
        reason=reason.strip(),
        waived_by_id=actor.user_id,
        valid=DateTimeTZRange(now, until, "[)"),
    )
    payload = SourceWaived(waiver.uid, source.uid, source.name, chosen, until, reason.strip())
    audit.record(SOURCE_WAIVED, payload, actor=actor, subject_type="metering.source", subject_uid=source.uid)
    outbox.publish(SOURCE_WAIVED, payload, recipients=_others(actor), subject_uid=source.uid)
    return waiver


@transaction.atomic
def revoke(waiver_id: int, *, actor: Actor, expected_version: int | None = None) -> SourceWaiver:
    """End a waiver now. Raises Conflict for one that is over, NotAllowed without the permission."""
    require(actor, WAIVE)
    waiver = SourceWaiver.objects.locked(waiver_id, expected_version=expected_version)
    if not standing(waiver):
        raise Conflict("This waiver is over already.")
    waiver.revoked_at, waiver.revoked_by_id = clock.now(), actor.user_id
    waiver.bump("revoked_at", "revoked_by")
    source = waiver.source
    payload = WaiverRevoked(waiver.uid, source.uid, source.name, list(waiver.codes))
    audit.record(WAIVER_REVOKED, payload, actor=actor, subject_type="metering.source", subject_uid=source.uid)
    outbox.publish(WAIVER_REVOKED, payload, recipients=_others(actor), subject_uid=source.uid)
    return waiver


def end_for_change(source: Source, changed: Sequence[str], *, actor: Actor) -> list[SourceWaiver]:
    """End every waiver of a source, because another server or another question would be waived unseen.

    Inside the transaction that changes the source, which is locked. Returns those ended; audited and told like a
    revocation, with what was changed.
    """
    now = clock.now()
    ended = list(
        SourceWaiver.objects.select_for_update().filter(source=source, revoked_at=None, valid__endswith__gt=now)
    )
    for waiver in ended:
        waiver.revoked_at, waiver.revoked_by_id = now, actor.user_id
        waiver.ended_for = ", ".join(changed)[:300]
        waiver.bump("revoked_at", "revoked_by", "ended_for")
        payload = WaiverEnded(waiver.uid, source.uid, source.name, list(waiver.codes), list(changed))
        audit.record(WAIVER_ENDED, payload, actor=actor, subject_type="metering.source", subject_uid=source.uid)
        recipients = sorted({*_others(actor), waiver.waived_by_id} - {actor.user_id})
        if recipients:
            outbox.publish(WAIVER_ENDED, payload, recipients=recipients, subject_uid=source.uid)
    return ended


def standing(waiver: SourceWaiver) -> bool:
    """Whether a waiver counts now."""
    return waiver.revoked_at is None and waiver.valid.lower <= clock.now() < waiver.valid.upper


def _others(actor: Actor) -> list[int]:
    """Return everybody else who may waive: a waiver is no secret among those who answer for the bill."""
    from apps.teams import scope

    return [pk for pk in scope.holders(WAIVE) if pk != actor.user_id]
