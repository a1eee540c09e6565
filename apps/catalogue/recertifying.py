"""Approvals that end: opened by the portal 30 days before as a draft; a person of the owning team makes it a request.

Lock order: approval, grant, version, request, then the recertification. Nothing here weakens who may decide: the portal
only writes the draft; whoever confirms it is the requester, with all that follows for deciding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.urls import reverse

from apps import audit
from apps.approvals.ports import Renewal
from apps.catalogue import checking, controls, controls_state
from apps.catalogue import evidence_events as events
from apps.catalogue.access import locked_version, person
from apps.catalogue.choices import RECERTIFICATION_TRANSITIONS, RecertificationStatus, VersionStatus
from apps.catalogue.controls import ControlState
from apps.catalogue.models import Evidence, ModelRequest, ModelVersion, Recertification
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may

if TYPE_CHECKING:
    from apps.approvals.models import Grant

SUBMIT = "catalogue.version.submit"
SYSTEM = Actor.system("catalogue.recertifying")
#: From which a person may still make a request.
CONFIRMABLE = (RecertificationStatus.OPEN, RecertificationStatus.DECLINED)
UNFINISHED = (RecertificationStatus.OPEN, RecertificationStatus.SUBMITTED, RecertificationStatus.DECLINED)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What will be missing on the day an approval ends: evidence expired by then, controls open by then."""

    evidence: list[Evidence]
    controls: list[ControlState]


def on_ending(grant: Grant, at: datetime) -> Renewal | None:
    """Open the draft for a grant that ends, once; return where people go and whether nobody has taken it up.

    Called under the grant's lock, in the transaction of the notice, so two sweeps at once open one. None: the version
    is retired or the request is gone, so there is nothing to look at again.
    """
    row = ModelRequest.objects.select_related("model_version__model__team").filter(approval=grant.request_id).first()
    if row is None or grant.expires_at is None or row.model_version.status != VersionStatus.SEALED:
        return None
    found, made = Recertification.objects.get_or_create(
        grant=grant,
        defaults={"model_version": row.model_version, "request": row, "due_at": grant.expires_at},
    )
    if made:
        _link_open_renewal(found, row)
        record(events.RECERTIFICATION_DRAFTED, found, SYSTEM)
    gone = outlook(found)
    lines = []
    if found.status == RecertificationStatus.OPEN:
        lines.append("It is prepared: read what has changed since, and confirm it, or say that it shall end.")
    if found.status == RecertificationStatus.SUBMITTED:
        lines.append("It is asked for again and not decided yet.")
    if found.status == RecertificationStatus.DECLINED:
        lines.append(f"It shall end: {found.closed_reason}")
    if gone.evidence:
        names = ", ".join(one.title for one in gone.evidence[:5])
        lines.append(
            f"Evidence that will have expired by then: {names}{' and more' if len(gone.evidence) > 5 else ''}."
        )
    return Renewal(url_of(found), " ".join(lines), found.status == RecertificationStatus.OPEN)


def note_escalation(grant: Grant, at: datetime) -> None:
    """Write down that those above the team were told that nobody confirmed it."""
    row = Recertification.objects.select_for_update().filter(grant=grant, escalated_at__isnull=True).first()
    if row is not None:
        row.escalated_at = at
        row.bump("escalated_at")
        record(events.RECERTIFICATION_ESCALATED, row, SYSTEM)


def _link_open_renewal(row: Recertification, asked: ModelRequest) -> None:
    """Where somebody had asked again before the draft was due, it is taken up already."""
    renewal = ModelRequest.objects.filter(renews=asked, status="in_review").select_related("requester").first()
    if renewal is not None:
        _submitted(row, renewal)


def url_of(row: Recertification) -> str:
    """Return a recertification's page."""
    return reverse("catalogue:recertification-detail", kwargs={"recertification_uid": row.uid})


def outlook(row: Recertification) -> Outlook:
    """Return what of the evidence will have expired when the approval ends, and which controls will be open then."""
    pieces = Evidence.objects.filter(
        subject_digest=row.model_version.digest, withdrawn_at__isnull=True, valid_until__lte=row.due_at
    )
    open_then = controls_state.standing(row.model_version, row.request.scope, row.due_at).states
    return Outlook(list(pieces.order_by("valid_until", "pk")), controls.open_controls(open_then))


@transaction.atomic
def confirm(
    recertification_id: int,
    reason: str,
    *,
    actor: Actor,
    valid_days: int | None = None,
    expected_version: int | None = None,
) -> ModelRequest:
    """Ask again for the scope of the approval that ends, as the person who confirms it; the checklist is computed anew.

    Raises Invalid by field, NotVisible, NotAllowed, Conflict where it is taken up already or a request is open.
    """
    from apps.catalogue import requests as asks

    # The version's lock alone: `submit` waits for turns that a grant holds when it comes for the draft.
    row = _under_version(recertification_id, actor)
    if expected_version is not None and row.version != expected_version:
        raise Conflict("Somebody changed this while you were looking at it.", current={"version": row.version})
    if row.status not in CONFIRMABLE:
        raise Conflict(f"{_words(row)}: there is nothing to confirm.", current={"status": row.status})
    if row.due_at <= clock.now():
        raise Conflict("The approval has ended: ask for the version's approval anew.", current={"status": row.status})
    # `requests.submit` finds this draft by what it renews and notes who took it up.
    return asks.renew(row.request_id, reason, actor=actor, valid_days=valid_days)


@transaction.atomic
def decline(
    recertification_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> Recertification:
    """Say that the approval shall end, with a reason; nobody above the team is told then. It can still be confirmed.

    Raises Invalid without a reason, NotVisible, NotAllowed, Conflict where it is taken up already.
    """
    _under_version(recertification_id, actor)
    row = Recertification.objects.locked(recertification_id, expected_version=expected_version)
    if row.status != RecertificationStatus.OPEN:
        raise Conflict(f"{_words(row)}: there is nothing to decline.", current={"status": row.status})
    _close(row, "decline", checking.reason(reason), actor)
    return row


def may_confirm(user: Any, row: Recertification) -> bool:
    """Whether the person may make it a request, or say that it shall end."""
    return may(user, SUBMIT, row.model_version)


def _under_version(recertification_id: int, actor: Actor) -> Recertification:
    """Lock the draft's version, by which whoever answers drafts waits for each other, and return the draft unlocked."""
    found = Recertification.objects.filter(pk=recertification_id)
    if not actor.is_system:
        found = found.visible_to(person(actor))
    version_id = found.values_list("model_version_id", flat=True).first()
    if version_id is None:
        raise NotVisible
    locked_version(version_id, SUBMIT, actor=actor)
    return Recertification.objects.select_related("model_version__model__team", "request").get(pk=recertification_id)


# ---- what becomes of the request (called by `requests` and `subject`, in their transactions)


def asked(row: ModelRequest) -> None:
    """A request that renews an approval was made: its draft, if there is one, is taken up by the requester."""
    if row.renews_id is None:
        return
    for one in _unfinished().filter(request_id=row.renews_id):
        _submitted(one, row)


def not_granted(row: ModelRequest) -> None:
    """What a draft became was rejected, withdrawn or lapsed: somebody may confirm the draft anew."""
    for one in _unfinished().filter(renewal=row, status=RecertificationStatus.SUBMITTED):
        _reopened(one)


def granted(row: ModelRequest, grant: Grant) -> None:
    """A version was approved: drafts for what it covers beyond their end are settled."""
    from apps.catalogue.grants import holds

    digest = row.model_version.digest
    for one in _unfinished().filter(model_version__digest=digest).exclude(grant=grant):
        lasts = grant.expires_at is None or grant.expires_at > one.due_at
        if one.request_id == row.renews_id and one.renewal_id != row.pk:
            _submitted(one, row)  # a policy approved it in the moment it was asked for
        if one.renewal_id == row.pk and lasts:
            _close(one, "renew", "", SYSTEM)
        elif one.renewal_id == row.pk:
            _reopened(one)
        elif lasts and holds(grant, digest, one.request.scope, max(one.due_at, grant.not_before)):
            _close(one, "supersede", f"Covered by the approval of {grant.not_before:%Y-%m-%d}.", SYSTEM)


def ended(grant: Grant) -> None:
    """The grant itself ended or was revoked."""
    why = f"The approval was revoked: {grant.revoked_reason}" if grant.revoked_at is not None else "The approval ended."
    for one in _unfinished().filter(grant=grant):
        _close(one, "end", why, SYSTEM)


def _unfinished() -> Any:
    rows = Recertification.objects.select_related("model_version__model__team", "request").select_for_update(
        of=("self",)
    )
    return rows.filter(status__in=UNFINISHED).order_by("pk")


def _submitted(one: Recertification, row: ModelRequest) -> None:
    if one.status != RecertificationStatus.SUBMITTED:
        one.status = RECERTIFICATION_TRANSITIONS.next(one.status, "submit")
    one.renewal, one.confirmed_by, one.confirmed_at = row, row.requester, clock.now()
    one.closed_at, one.closed_reason = None, ""
    one.bump("status", "renewal", "confirmed_by", "confirmed_at", "closed_at", "closed_reason")
    record(events.RECERTIFICATION_CONFIRMED, one, Actor.of(row.requester))


def _reopened(one: Recertification) -> None:
    one.status = RECERTIFICATION_TRANSITIONS.next(one.status, "reopen")
    one.renewal = one.confirmed_by = one.confirmed_at = None
    one.bump("status", "renewal", "confirmed_by", "confirmed_at")
    record(events.RECERTIFICATION_REOPENED, one, SYSTEM)


def _close(one: Recertification, action: str, why: str, actor: Actor) -> None:
    one.status = RECERTIFICATION_TRANSITIONS.next(one.status, action)
    one.closed_at, one.closed_reason = clock.now(), why[:500]
    one.bump("status", "closed_at", "closed_reason")
    record(events.RECERTIFICATION_CLOSED, one, actor, reason=one.closed_reason)


def _words(row: Recertification) -> str:
    return str(RecertificationStatus(row.status).label)


def record(event: EventType, row: Recertification, actor: Actor, *, reason: str = "") -> None:
    """Write what happened to a draft into the audit trail."""
    version: ModelVersion = row.model_version
    audit.record(
        event,
        events.RecertificationEvent(
            row.uid, version.uid, version.digest, row.grant.uid, str(row.status), row.due_at.isoformat(),
            row.renewal.uid if row.renewal is not None else None, f"{version.model.name} {version.label}", reason,
        ),
        actor=actor,
        subject_type="catalogue.recertification",
        subject_uid=row.uid,
        team_uid=version.model.team.uid,
    )  # fmt: skip


def of_grants(grant_ids: Iterable[int]) -> dict[int, Recertification]:
    """Return drafts by the key of their grant."""
    return {one.grant_id: one for one in Recertification.objects.filter(grant__in=list(grant_ids))}
