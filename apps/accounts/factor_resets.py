"""Removing the second factors of somebody who lost theirs.

Whoever sets somebody's password and removes their factors as well can sign in as that person. So one administrator
does it alone only for people without a role beyond membership, whose password they have not set in the days before; for
everybody else one proposes and another one agrees. Where nobody else is left, the command on the server is the way.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.accounts import factor_events as events
from apps.accounts import merging, ports
from apps.accounts.actions import require_manager
from apps.accounts.choices import FactorKind, ResetStatus
from apps.accounts.factor_actions import demand_fresh, forget
from apps.accounts.models import FactorReset, SecondFactor, SignInSession, User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import INSTALLATION, holders_of, may

CONFIRM = "accounts.factor.confirm"
#: Password and factors of one person are not both set by one administrator within so long.
APART = timedelta(days=7)
#: How long a proposal waits for a second person.
WAITS = timedelta(days=3)
NEEDS_SECOND = "A second person has to agree: propose it."


def why_second(user: User, actor: Actor) -> str:
    """Return why one administrator alone may not remove these factors, in a sentence, or ""."""
    if user.is_superuser or ports.roles_beyond_membership(user.pk):
        return "This person holds a role beyond membership."
    recent = user.password_set_at is not None and user.password_set_at > clock.now() - APART
    if recent and user.password_set_by_id == actor.user_id:
        return f"You set this person's password in the last {APART.days} days."
    return ""


def bar_on_password(user: User, actor: Actor) -> str:
    """Return why this administrator may not set the person's password now, in a sentence, or ""."""
    took_part = FactorReset.objects.filter(
        Q(proposed_by_id=actor.user_id) | Q(decided_by_id=actor.user_id), user=user, status=ResetStatus.DONE,
        decided_at__gt=clock.now() - APART,
    )  # fmt: skip
    if actor.user_id is None or not took_part.exists():
        return ""
    return (
        f"You took part in removing this person's second factors in the last {APART.days} days: another platform admin"
        " sets the password, or somebody on the server (manage.py set_initial_password)."
    )


@transaction.atomic
def reset_factors(user_id: int, reason: str, *, actor: Actor, proved_at: datetime | None) -> User:
    """Remove all factors of somebody who lost theirs; their sessions end and they are told by mail.

    Raises NotAllowed (also for oneself, without a fresh proof of the administrator, and where a second person has to
    agree), NotVisible, Invalid without a reason, Conflict where there is none.
    """
    user = _checked(user_id, reason, actor, proved_at)
    if not actor.is_system and (why := why_second(user, actor)):
        raise NotAllowed(f"{why} {NEEDS_SECOND}", rule="second_person")
    if not actor.is_system:
        at = clock.now()
        _end_waiting(user)
        FactorReset.objects.create(
            user=user, reason=reason.strip()[:500], proposed_by=_person(actor), proposed_at=at, expires_at=at,
            status=ResetStatus.DONE, decided_by=_person(actor), decided_at=at,
        )  # fmt: skip
    _reset(user, reason, actor)
    return user


@transaction.atomic
def propose_reset(user_id: int, reason: str, *, actor: Actor, proved_at: datetime | None) -> FactorReset:
    """Propose to remove somebody's factors; those who can agree are told, and the person.

    Raises as `reset_factors`, and Conflict while a proposal waits.
    """
    user = _checked(user_id, reason, actor, proved_at)
    if actor.user_id is None:
        raise NotAllowed("A person proposes this, and another one agrees.", rule="second_person")
    if FactorReset.objects.waiting().filter(user=user).exists():
        raise Conflict("A proposal waits for a second person already.", current={"status": "waiting"})
    _end_waiting(user)
    at = clock.now()
    row = FactorReset.objects.create(
        user=user, reason=reason.strip()[:500], proposed_by=_person(actor), proposed_at=at, expires_at=at + WAITS
    )
    said = events.ResetProposed(
        reset_uid=row.uid, person_uid=user.uid, until=row.expires_at, person_name=user.display_name,
        by_name=row.proposed_by.display_name,
    )  # fmt: skip
    _record(events.RESET_PROPOSED, said, user, actor, reason)
    others = set(holders_of(CONFIRM)) - {actor.user_id, user.pk}
    outbox.publish(events.RESET_PROPOSED, said, recipients=others, subject_uid=user.uid)
    _record(events.RESET_ANNOUNCED, said, user, actor)
    outbox.publish(events.RESET_ANNOUNCED, said, recipients=[user.pk], subject_uid=user.uid)
    return row


@transaction.atomic
def confirm_reset(reset_id: int, *, actor: Actor, proved_at: datetime | None) -> FactorReset:
    """Agree to a proposal: the factors are removed. Raises NotAllowed, NotVisible, Conflict where it waits no more."""
    row = _waiting(reset_id)
    if why := confirm_bar(row, actor):
        raise NotAllowed(why, rule=CONFIRM)
    demand_fresh(actor, proved_at)
    user = User.objects.select_for_update(no_key=True).get(pk=row.user_id)
    _decide(row, ResetStatus.DONE, actor)
    _reset(user, row.reason, actor)
    return row


@transaction.atomic
def end_reset(reset_id: int, reason: str, *, actor: Actor) -> FactorReset:
    """Refuse somebody's proposal, or withdraw one's own. Raises NotAllowed, NotVisible, Invalid, Conflict."""
    row = _waiting(reset_id)
    person = User.objects.filter(pk=actor.user_id or 0).first()
    if person is None or actor.on_behalf_of is not None or not may(person, CONFIRM, INSTALLATION):
        raise NotAllowed(rule=CONFIRM)
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    own = row.proposed_by_id == actor.user_id
    _decide(row, ResetStatus.WITHDRAWN if own else ResetStatus.REFUSED, actor)
    said = events.ResetEnded(
        reset_uid=row.uid, person_uid=row.user.uid, cause=str(row.status), person_name=row.user.display_name
    )
    _record(events.RESET_ENDED, said, row.user, actor, reason)
    outbox.publish(
        events.RESET_ENDED, said, recipients={row.user_id, row.proposed_by_id} - {actor.user_id},
        subject_uid=row.user.uid,
    )  # fmt: skip
    return row


def confirm_bar(row: FactorReset, actor: Actor) -> str:
    """Return why somebody may not agree to a proposal, in a sentence, or ""."""
    person = User.objects.filter(pk=actor.user_id or 0).first()
    if person is None or actor.on_behalf_of is not None or not may(person, CONFIRM, INSTALLATION):
        return "Platform admins and compliance agree to this."
    # Accounts that were merged are one person.
    if person.pk in merging.accounts_of(row.proposed_by_id):
        return "Somebody else than who proposed it has to agree."
    if person.pk in merging.accounts_of(row.user_id):
        return "Nobody agrees to what concerns their own account."
    if not may(row.proposed_by, "accounts.user.manage"):
        return "Who proposed it administers accounts no more: somebody else has to propose it."
    return ""


def tell_of_break_glass(user: User, what: str, reason: str, *, actor: Actor) -> None:
    """Record that somebody on the server did alone what takes two on pages, and tell platform admins and compliance."""
    said = events.ResetOnServer(what=what, person_name=user.display_name)
    _record(events.RESET_ON_SERVER, said, user, actor, reason)
    outbox.publish(
        events.RESET_ON_SERVER, said, recipients=set(holders_of(CONFIRM)) - {user.pk}, subject_uid=user.uid
    )  # fmt: skip


def _checked(user_id: int, reason: str, actor: Actor, proved_at: datetime | None) -> User:
    require_manager(actor)
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if user is None:
        raise NotVisible
    if actor.user_id == user.pk:
        raise NotAllowed("Ask another platform admin: nobody resets their own second factors.", rule="not_oneself")
    demand_fresh(actor, proved_at)
    if not reason.strip():
        raise Invalid({"reason": "Say why, and how you made sure who asked: the audit trail keeps it."})
    if not SecondFactor.objects.filter(user=user, removed_at__isnull=True).exists():
        raise Conflict("This person has no second factor.", current={"status": "none"})
    return user


def _person(actor: Actor) -> User:
    return User.objects.get(pk=actor.user_id or 0)


def _waiting(reset_id: int) -> FactorReset:
    found = FactorReset.objects.select_for_update(of=("self",)).select_related("user", "proposed_by")
    row = found.filter(pk=reset_id).first()
    if row is None:
        raise NotVisible
    if not row.is_waiting:
        raise Conflict("This proposal waits no more.", current={"status": row.shown_status})
    return row


def _end_waiting(user: User) -> None:
    """Close a proposal whose time is over, or that somebody overtook."""
    FactorReset.objects.filter(user=user, status=ResetStatus.WAITING).update(
        status=ResetStatus.LAPSED, decided_at=clock.now()
    )


def _decide(row: FactorReset, status: str, actor: Actor) -> None:
    row.status, row.decided_by_id, row.decided_at = status, actor.user_id, clock.now()
    row.save(update_fields=["status", "decided_by", "decided_at"])


def _reset(user: User, reason: str, actor: Actor) -> None:
    rows = list(SecondFactor.objects.select_for_update(no_key=True).filter(user=user, removed_at__isnull=True))
    if not rows:
        raise Conflict("This person has no second factor any more.", current={"status": "none"})
    forget(rows)
    closed = SignInSession.objects.filter(user=user).open().update(closed_at=clock.now())
    count = sum(row.kind != FactorKind.RECOVERY for row in rows)
    payload = events.FactorsReset(factors=count, sessions_closed=closed, reason=reason.strip()[:500])
    _record(events.FACTORS_RESET, payload, user, actor)
    outbox.publish(events.FACTORS_RESET, payload, recipients=[user.pk], subject_uid=user.uid)


def _record(event: Any, payload: Any, user: User, actor: Actor, reason: str = "") -> None:
    audit.record(
        event, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid, reason=reason.strip()
    )  # fmt: skip
