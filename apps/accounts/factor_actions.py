"""Adding and removing second factors. Using them is in `second_step`, resetting those of others in `factor_resets`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from apps import audit
from apps.accounts import factor_events as events
from apps.accounts import factors
from apps.accounts.actions import require_manager
from apps.accounts.choices import FactorKind, SignInMethod
from apps.accounts.events import SESSION_CLOSED, SessionClosed
from apps.accounts.models import SecondFactor, SignInSession, User
from apps.core import clock, crypto, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType

FACTORS_PER_PERSON = 10
#: How old the last proof of who somebody is may be when they change how they sign in.
FRESH = timedelta(minutes=15)
STALE = "Prove once more who you are: the last time was more than 15 minutes ago."


def is_fresh(proved_at: datetime | None) -> bool:
    """Whether a proof of who somebody is is recent enough to change how they sign in."""
    return proved_at is not None and clock.now() - proved_at <= FRESH


@transaction.atomic
def add_app(
    user_id: int, secret: str, code: str, name: str, *, actor: Actor, proved_at: datetime, session_id: int
) -> tuple[SecondFactor, list[str]]:
    """Add an authenticator app that shows `code` for `secret`; returns it, with recovery codes if it is the first.

    Raises NotAllowed for another person and without a fresh proof, Invalid for the code, the name, or too many.
    """
    user = _own(user_id, actor, proved_at)
    name = _checked_name(name, "Authenticator app")
    step = factors.matching_step(secret, factors.looks_like_app_code(code), clock.now(), after=0)
    if step is None:
        raise Invalid({"code": "The app shows another code. Check that its clock is right, and type the present one."})
    row = SecondFactor(
        # The code that was just shown must not sign anybody in.
        user=user, kind=FactorKind.TOTP, name=name, secret=crypto.encrypt(secret), last_step=step,
    )  # fmt: skip
    return row, _added(row, user, actor, session_id)


@transaction.atomic
def add_key(
    user_id: int, key: factors.NewKey, name: str, *, actor: Actor, proved_at: datetime, session_id: int
) -> tuple[SecondFactor, list[str]]:
    """Add a security key that the browser registered; returns it, with recovery codes if it is the first factor.

    Raises NotAllowed for another person and without a fresh proof, Invalid for one that is registered already, for the
    name, or too many.
    """
    user = _own(user_id, actor, proved_at)
    name = _checked_name(name, "Security key")
    # Whose it is stays unsaid: it may be somebody else's.
    if SecondFactor.objects.filter(credential_id=key.credential_id).exists():
        raise Invalid({"": "This key is registered already."})
    row = SecondFactor(
        user=user,
        kind=FactorKind.WEBAUTHN,
        name=name,
        credential_id=key.credential_id,
        public_key=key.data,
        sign_count=key.sign_count,
    )
    return row, _added(row, user, actor, session_id)


@transaction.atomic
def renew_codes(user_id: int, *, actor: Actor, proved_at: datetime) -> list[str]:
    """Make new recovery codes, which void the old ones; returns them, for they are stored nowhere.

    Raises NotAllowed for another person and without a fresh proof, Conflict while there is no factor to recover from.
    """
    user = _own(user_id, actor, proved_at)
    if not _in_use(user):
        raise Conflict("Recovery codes stand in for a second factor. Set one up first.")
    return _new_codes(user, actor)


@transaction.atomic
def remove_factor(factor_id: int, *, actor: Actor, proved_at: datetime) -> SecondFactor:
    """Remove one of one's own factors and forget its secret; recovery codes go with the last one.

    Raises NotVisible for another person's, NotAllowed without a fresh proof, and for the last one where the
    installation requires a second factor, Conflict where it is gone already.
    """
    user = _own(actor.user_id or 0, actor, proved_at)
    row = SecondFactor.objects.select_for_update(no_key=True).filter(pk=factor_id, user=user).first()
    if row is None or row.kind == FactorKind.RECOVERY:
        raise NotVisible
    if row.removed_at is not None:
        raise Conflict("This factor is removed already.", current={"status": "removed"})
    others = [other for other in _in_use(user) if other.pk != row.pk]
    if not others and settings.COMMONS_SECOND_FACTOR != "optional":
        raise NotAllowed(
            "This installation requires a second factor. Set another one up before you remove this one.",
            rule="second_factor_required",
        )
    forget([row] if others else list(SecondFactor.objects.filter(user=user, removed_at__isnull=True)))
    payload = events.FactorChanged(kind=row.kind, cause="removed", label=row.name)
    _tell(events.FACTOR_REMOVED, payload, user, actor)
    row.refresh_from_db()
    return row


@transaction.atomic
def set_password_use(user_id: int, allowed: bool, reason: str, *, actor: Actor) -> User:
    """Say whether somebody may sign in with a password here; switched off, sessions opened with one end.

    Raises NotAllowed (also for oneself), NotVisible, Invalid without a reason, Conflict where it is so already.
    """
    require_manager(actor)
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if user is None:
        raise NotVisible
    if actor.user_id == user.pk:
        raise NotAllowed("Ask another platform admin to do this for you.", rule="not_oneself")
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    if user.may_use_password == allowed:
        raise Conflict("This is so already.", current={"status": "allowed" if allowed else "refused"})
    user.may_use_password = allowed
    user.save(update_fields=["may_use_password"])
    closed = 0
    if not allowed:
        by_password = SignInSession.objects.filter(user=user, method=SignInMethod.PASSWORD).open()
        closed = by_password.update(closed_at=clock.now())
    audit.record(
        events.PASSWORD_USE_CHANGED,
        events.PasswordUseChanged(allowed=allowed, sessions_closed=closed),
        actor=actor,
        subject_type="accounts.user",
        subject_uid=user.uid,
        reason=reason.strip(),
    )
    return user


def _own(user_id: int, actor: Actor, proved_at: datetime | None) -> User:
    if actor.user_id != user_id or actor.on_behalf_of is not None:
        raise NotAllowed(rule="own_factors_only")
    demand_fresh(actor, proved_at)
    return User.objects.select_for_update(no_key=True).get(pk=user_id)


def demand_fresh(actor: Actor, proved_at: datetime | None) -> None:
    """Raise NotAllowed where somebody's last proof of who they are is too old; the portal itself gives none."""
    if not actor.is_system and not is_fresh(proved_at):
        raise NotAllowed(STALE, rule="fresh_proof")


def _checked_name(name: str, default: str) -> str:
    name = " ".join(name.split()) or default
    if len(name) > 100:
        raise Invalid({"name": "Use at most 100 characters."})
    return name


def _in_use(user: User) -> list[SecondFactor]:
    return list(SecondFactor.objects.in_use().filter(user=user).exclude(kind=FactorKind.RECOVERY))


def _added(row: SecondFactor, user: User, actor: Actor, session_id: int) -> list[str]:
    before = _in_use(user)
    if len(before) >= FACTORS_PER_PERSON:
        raise Invalid({"": f"You have {FACTORS_PER_PERSON} second factors. Remove one that you no longer use."})
    row.confirmed_at = clock.now()
    row.save()
    _tell(events.FACTOR_ADDED, events.FactorChanged(kind=row.kind, cause="added", label=row.name), user, actor)
    # Whoever set it up has just shown it.
    SignInSession.objects.filter(pk=session_id, user=user).update(second_factor=True)
    if before:
        return []
    # The others were opened without it; one of them may be the reason for setting it up.
    others = SignInSession.objects.filter(user=user).exclude(pk=session_id).open()
    closed = others.update(closed_at=clock.now())
    if closed:
        audit.record(
            SESSION_CLOSED,
            SessionClosed(cause="second_factor", sessions=closed),
            actor=actor,
            subject_type="accounts.user",
            subject_uid=user.uid,
        )
    return _new_codes(user, actor)


def _new_codes(user: User, actor: Actor) -> list[str]:
    forget(list(SecondFactor.objects.in_use().filter(user=user, kind=FactorKind.RECOVERY)))
    codes = factors.new_recovery_codes()
    SecondFactor.objects.create(
        user=user,
        kind=FactorKind.RECOVERY,
        codes=[factors.recovery_digest(code) for code in codes],
        confirmed_at=clock.now(),
    )
    _tell(events.CODES_MADE, events.CodesMade(count=len(codes)), user, actor)
    return codes


def forget(rows: list[SecondFactor]) -> None:
    """Take factors out of use, and what could prove them out of the database."""
    SecondFactor.objects.filter(pk__in=[row.pk for row in rows]).update(
        removed_at=clock.now(), secret=b"", credential_id=None, public_key=b"", codes=[]
    )


def _tell(event: EventType, payload: Any, user: User, actor: Actor) -> None:
    audit.record(event, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid)
    outbox.publish(event, payload, recipients=[user.pk], subject_uid=user.uid)
