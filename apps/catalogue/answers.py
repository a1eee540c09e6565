"""The documented answer to an addressable control: implemented, an equivalent measure, or why it is not reasonable."""

from __future__ import annotations

from django.db import transaction

from apps import audit
from apps.catalogue import evidence_events as events
from apps.catalogue.access import locked_version, person
from apps.catalogue.choices import Answer, ControlKind
from apps.catalogue.models import Control, ControlAnswer
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid

RATIONALE_LENGTH = 30
RATIONALE_LIMIT = 5000


@transaction.atomic
def answer_control(version_id: int, code: str, answer: str, rationale: str, *, actor: Actor) -> ControlAnswer:
    """Answer an addressable control for a sealed version; a newer answer replaces the one before, which stays.

    Raises Invalid by field, Conflict for a version without digest, NotVisible, NotAllowed.
    """
    version = locked_version(version_id, "catalogue.evidence.add", actor=actor)
    if not version.digest:
        raise Conflict("Seal the version first: the answer is about its bytes.")
    control = Control.objects.filter(code=code, superseded_at__isnull=True).first()
    errors: dict[str, str] = {}
    if control is None:
        errors["control"] = "There is no such control in force."
    elif control.kind != ControlKind.ADDRESSABLE:
        errors["control"] = "Only addressable controls are answered; this one is computed or shown by evidence."
    if answer not in Answer.values:
        errors["answer"] = "Choose one of the three answers."
    rationale = rationale.strip()
    if len(rationale) < RATIONALE_LENGTH:
        errors["rationale"] = (
            f"Document the decision in at least {RATIONALE_LENGTH} characters: what is in place, or why not."
        )
    elif len(rationale) > RATIONALE_LIMIT:
        errors["rationale"] = f"At most {RATIONALE_LIMIT:,} characters."
    if errors:
        raise Invalid(errors)
    row = ControlAnswer.objects.create(
        model_version=version, control_code=code, answer=answer, rationale=rationale, author=person(actor),
        subject_digest=version.digest,
    )  # fmt: skip
    audit.record(
        events.CONTROL_ANSWERED,
        events.ControlAnswered(version.uid, code, answer, version.digest, rationale),
        actor=actor,
        subject_type="catalogue.version",
        subject_uid=version.uid,
        team_uid=version.model.team.uid,
        after_digest=version.digest,
    )
    return row
