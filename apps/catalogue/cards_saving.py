"""Saving a card: every save is a revision of its own, and none ever changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Max

from apps import audit
from apps.catalogue import cards
from apps.catalogue import evidence_events as events
from apps.catalogue.access import EDIT, locked_model, person
from apps.catalogue.models import CardRevision
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid

NOTE_LIMIT = 300


@transaction.atomic
def save_card(
    model_id: int,
    raw: Mapping[str, Any],
    *,
    actor: Actor,
    note: str = "",
    imported: bool = False,
    expected_number: int | None = None,
) -> CardRevision:
    """Add a revision to a model's card and return it; the same content as the newest one gives that one back.

    `expected_number`: the newest revision as the person saw it (0: none). Raises Invalid by field, NotVisible,
    NotAllowed, Conflict where somebody else saved in the meantime or the model is archived.
    """
    model = locked_model(model_id, EDIT, actor=actor)
    if model.archived_at is not None:
        raise Conflict("The model is archived: restore it first.")
    newest = newest_card(model.pk)
    number = newest.number if newest else 0
    if expected_number is not None and expected_number != number:
        raise Conflict("Somebody saved another revision meanwhile. Compare it with yours.", current={"number": number})
    body = cards.clean(raw)
    note = note.strip()
    if len(note) > NOTE_LIMIT:
        raise Invalid({"note": f"At most {NOTE_LIMIT} characters."})
    digest = cards.digest(body)
    if newest is not None and newest.digest == digest:
        return newest
    card = CardRevision.objects.create(
        model=model, number=_next(model.pk), body=body, digest=digest, author=person(actor), note=note
    )
    before = newest.body if newest else {}
    audit.record(
        events.CARD_REVISED,
        events.CardRevised(
            model.uid, card.uid, card.number, digest, [one.key for one in cards.differences(before, body)],
            imported, note,
        ),
        actor=actor,
        subject_type="catalogue.model",
        subject_uid=model.uid,
        team_uid=model.team.uid,
        before_digest=newest.digest if newest else "",
        after_digest=digest,
    )  # fmt: skip
    return card


def newest_card(model_id: int) -> CardRevision | None:
    """Return the newest revision of a model's card."""
    return CardRevision.objects.filter(model=model_id).order_by("-number").first()


def _next(model_id: int) -> int:
    highest: int | None = CardRevision.objects.filter(model=model_id).aggregate(most=Max("number"))["most"]
    return (highest or 0) + 1
