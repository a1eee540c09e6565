"""Ending the sessions of others."""

from __future__ import annotations

from django.db import transaction

from apps import audit
from apps.accounts.events import SESSION_CLOSED, SessionClosed
from apps.accounts.models import SignInSession, User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, may

PERMISSION = "accounts.session.manage"


@transaction.atomic
def end_session(session_id: int, reason: str, *, actor: Actor) -> SignInSession:
    """End one session of anybody. Raises NotAllowed, NotVisible, Invalid without a reason, Conflict once it is over."""
    _require(actor, reason)
    session = SignInSession.objects.select_for_update(of=("self",), no_key=True).filter(pk=session_id).first()
    if session is None:
        raise NotVisible
    if not SignInSession.objects.open().filter(pk=session.pk).exists():
        raise Conflict("This session has ended already.", current={"status": "closed"})
    session.closed_at = clock.now()
    session.save(update_fields=["closed_at"])
    audit.record(
        SESSION_CLOSED,
        SessionClosed(cause="ended_by_admin", sessions=1),
        actor=actor,
        subject_type="accounts.session",
        subject_uid=session.uid,
        reason=reason.strip(),
    )
    return session


@transaction.atomic
def end_all(user_id: int, reason: str, *, actor: Actor) -> User:
    """End every session of somebody. Raises NotAllowed, NotVisible, Invalid without a reason, Conflict without one."""
    _require(actor, reason)
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if user is None:
        raise NotVisible
    closed = SignInSession.objects.of(user).open().update(closed_at=clock.now())
    if not closed:
        raise Conflict("This person is signed in nowhere.", current={"status": "signed out"})
    audit.record(
        SESSION_CLOSED,
        SessionClosed(cause="ended_by_admin", sessions=closed),
        actor=actor,
        subject_type="accounts.user",
        subject_uid=user.uid,
        reason=reason.strip(),
    )
    return user


def _require(actor: Actor, reason: str) -> None:
    if not actor.is_system:
        person = User.objects.filter(pk=actor.user_id or 0).first()
        if person is None or not may(person, PERMISSION, INSTALLATION):
            raise NotAllowed(rule=PERMISSION)
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
