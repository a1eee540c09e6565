"""The owner's answer about an idle workload: keep it for a while, stop it now, start it again."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.insights import events, idle
from apps.insights.actions import DECIDE, checked_reason, person
from apps.insights.choices import IdleStatus
from apps.insights.models import IdleCase
from apps.provisioning import stopping

LONGEST_KEEP = timedelta(days=14)


def _checked(case_id: int, actor: Actor) -> tuple[IdleCase, User]:
    user = person(actor)
    case = IdleCase.objects.visible_to(user).filter(pk=case_id).first()
    if case is None:
        raise NotVisible
    if not may(user, DECIDE, case):
        raise NotAllowed("This is answered by the team's leads, the unit's owner and platform admins.", rule=DECIDE)
    return case, user


def _waiting(case_id: int, actor: Actor, expected_version: int | None) -> tuple[IdleCase, User]:
    _, user = _checked(case_id, actor)
    case = IdleCase.objects.locked(case_id, expected_version=expected_version)
    if case.status not in idle.ASKED:
        raise Conflict(
            f"This is {IdleStatus(case.status).label.lower()}: it waits for no answer.",
            current={"version": case.version, "status": case.status},
        )
    return case, user


@transaction.atomic
def keep(case_id: int, until: datetime, reason: str, *, actor: Actor, expected_version: int | None = None) -> IdleCase:
    """Keep an idle workload until a time, at most 14 days ahead; idle still then, its owner is asked anew.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    case, user = _waiting(case_id, actor, expected_version)
    now = clock.now()
    if not now < until <= now + LONGEST_KEEP:
        raise Invalid({"until": "Choose a time within the next 14 days."})
    case.answer = checked_reason(reason)
    case.status, case.kept_until, case.answered_by = IdleStatus.KEPT, until, user
    case.bump("status", "kept_until", "answer", "answered_by")
    idle.record(events.IDLE_KEPT, case, actor=actor, reason=case.answer)
    return case


@transaction.atomic
def stop_now(case_id: int, *, actor: Actor, expected_version: int | None = None) -> IdleCase:
    """Stop an idle workload without waiting. Raises NotVisible, NotAllowed, Conflict."""
    case, user = _waiting(case_id, actor, expected_version)
    case.answered_by, case.answer = user, ""
    case.bump("answered_by", "answer")
    idle.order_for(case, actor=actor, reason="Stopped at its owner's word.")
    return case


@transaction.atomic
def start_again(case_id: int, *, actor: Actor) -> IdleCase:
    """Start a stopped workload again as it was. Raises NotVisible, NotAllowed, Conflict."""
    case, user = _checked(case_id, actor)
    if case.status not in (IdleStatus.STOPPING, IdleStatus.STOPPED) or case.stop_order_id is None:
        raise Conflict(
            f"This is {IdleStatus(case.status).label.lower()}: there is nothing to start.",
            current={"version": case.version, "status": case.status},
        )
    stopping.undo(case.stop_order_id, actor=actor)  # locks the order, which goes before the case
    case = IdleCase.objects.locked(case_id)
    case.answered_by, case.answer = user, f"Started again by {user.display_name}."[:300]
    case.bump("answered_by", "answer")
    return case
