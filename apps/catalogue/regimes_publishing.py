"""Compliance publishes another revision of a control; the one before stays, superseded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from apps import audit
from apps.catalogue import checking, regimes_data
from apps.catalogue import evidence_events as events
from apps.catalogue.access import person, require_everywhere
from apps.catalogue.models import Control
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible

PUBLISH = "catalogue.control.publish"
_TEXTS = {"citation": 200, "title": 300, "text": 5000}


@transaction.atomic
def publish_control(control_id: int, changes: Mapping[str, Any], reason: str, *, actor: Actor) -> Control:
    """Publish the next revision of a control with these columns changed (`regimes_data.CONTROL_COLUMNS`).

    It counts from now on, for open requests as well. Raises Invalid by column, NotVisible, NotAllowed, Conflict where
    another revision is in force already.
    """
    require_everywhere(actor, PUBLISH)
    row = Control.objects.select_related("regime").locked(control_id)
    if row.superseded_at is not None:
        raise Conflict("Another revision is in force already: change that one.", current={"revision": row.revision})
    if unknown := sorted(set(changes) - set(regimes_data.CONTROL_COLUMNS)):
        raise Invalid({unknown[0]: "This cannot be set."})
    columns = {key: changes.get(key, getattr(row, key)) for key in regimes_data.CONTROL_COLUMNS}
    errors: dict[str, Any] = dict(regimes_data.faults(columns))
    for key, limit in _TEXTS.items():
        columns[key] = str(columns[key]).strip()
        if not 1 <= len(columns[key]) <= limit:
            errors[key] = f"Between 1 and {limit:,} characters."
    changed = checking.changed(row, columns)
    if not changed and not errors:
        errors[""] = "Nothing differs from the revision in force."
    try:
        reason = checking.reason(reason)
    except Invalid as invalid:
        errors |= invalid.errors
    if errors:
        raise Invalid(errors)
    Control.objects.filter(pk=row.pk).update(superseded_at=clock.now())
    new = Control.objects.create(
        regime=row.regime, code=row.code, revision=row.revision + 1, published_by=person(actor), **columns
    )
    audit.record(
        events.CONTROL_PUBLISHED,
        events.ControlPublished(new.uid, new.code, row.regime.code, new.revision, changed, reason),
        actor=actor,
        subject_type="catalogue.control",
        subject_uid=new.uid,
    )
    return new


def in_force_of(control: Control) -> Control:
    """Return the revision of a control that is in force. Raises NotVisible where none is."""
    found = Control.objects.filter(code=control.code, superseded_at__isnull=True).first()
    if found is None:
        raise NotVisible
    return found
