"""Who read the official text of a citation: dated rows, one for each revision of a control, never changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db import transaction

from apps import audit
from apps.catalogue import evidence_events as events
from apps.catalogue.access import person, require_everywhere
from apps.catalogue.models import CitationConfirmation, Control
from apps.catalogue.regimes_publishing import PUBLISH
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible

SHORTEST, LONGEST = 10, 500


@dataclass(frozen=True, slots=True)
class Doubt:
    """Controls in force of one regime that rest on the same provision and lack the same confirmation."""

    unconfirmed: str
    dated_by: str
    applies_from: date | None
    controls: tuple[Control, ...]

    @property
    def first(self) -> Control:
        """The control by which the group is named."""
        return self.controls[0]


def unconfirmed(regime_id: int) -> Any:
    """Return the controls in force of a regime of which nobody has confirmed the citation."""
    rows = Control.objects.filter(regime=regime_id, superseded_at__isnull=True, confirmed=False)
    return rows.filter(confirmation__isnull=True).order_by("code")


def doubts(rows: Iterable[Control]) -> list[Doubt]:
    """Return unconfirmed controls by what exactly is not confirmed, each group once."""
    groups: dict[tuple[str, str, date | None], list[Control]] = {}
    for row in rows:
        groups.setdefault((row.unconfirmed, row.dated_by, row.applies_from), []).append(row)
    return [Doubt(*key, tuple(found)) for key, found in groups.items()]


def doubt_of(control: Control) -> Doubt | None:
    """Return the group that a control belongs to; None where it is confirmed, or in force no more."""
    return next((one for one in doubts(unconfirmed(control.regime_id)) if control in one.controls), None)


@transaction.atomic
def confirm(control_id: int, source: str, read_on: date, *, actor: Actor) -> list[CitationConfirmation]:
    """Note that the actor read the official text behind a control and all that rest on the same provision.

    `source` names what was read, `read_on` when. Raises Invalid by field, NotVisible, NotAllowed, Conflict where there
    is nothing left to confirm.
    """
    require_everywhere(actor, PUBLISH)
    row = Control.objects.select_related("regime").filter(pk=control_id).first()
    if row is None:
        raise NotVisible
    # One after the other: whoever comes second finds nothing left.
    list(Control.objects.select_for_update().filter(regime=row.regime_id, superseded_at__isnull=True).order_by("pk"))
    found = doubt_of(row)
    if found is None:
        raise Conflict("It is confirmed already, or another revision is in force.")
    errors: dict[str, str] = {}
    source = " ".join(source.split())
    if not SHORTEST <= len(source) <= LONGEST:
        errors["source"] = f"Name in {SHORTEST} to {LONGEST} characters what was read: act, article, official journal."
    if read_on > clock.now().date():
        errors["read_on"] = "It cannot have been read in the future."
    if errors:
        raise Invalid(errors)
    user, at = person(actor), clock.now()
    made = CitationConfirmation.objects.bulk_create(
        CitationConfirmation(control=one, source=source, read_on=read_on, confirmed_by=user, confirmed_at=at)
        for one in found.controls
    )
    audit.record(
        events.CITATIONS_CONFIRMED,
        events.CitationsConfirmed(
            row.uid, row.regime.code, [one.code for one in found.controls], [one.revision for one in found.controls],
            read_on.isoformat(), found.unconfirmed, source,
        ),
        actor=actor,
        subject_type="catalogue.control",
        subject_uid=row.uid,
    )  # fmt: skip
    return made
