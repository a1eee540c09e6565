"""Everything that changes accounts, sessions and tokens. Signing in is in `sign_in`."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from apps import audit
from apps.accounts import events, passwords, ports
from apps.accounts.choices import UserKind
from apps.accounts.models import ApiToken, SignInSession, User
from apps.core import clock, limits, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may

TOKEN_PREFIX = "gpuc_"  # noqa: S105 (what every token begins with, so that scanners find a leaked one)
TOKEN_MAX_DAYS = 365
TOKENS_PER_PERSON = 20


@transaction.atomic
def close_session(session_id: int, *, actor: Actor, cause: str = "signed_out") -> SignInSession:
    """Close one session of the actor. Raises NotVisible for another person's; closing twice changes nothing."""
    session = SignInSession.objects.select_for_update(no_key=True).filter(pk=session_id, user_id=_own(actor)).first()
    if session is None:
        raise NotVisible
    if session.closed_at is None:
        session.closed_at = clock.now()
        session.save(update_fields=["closed_at"])
        _session_closed(session.user, cause, 1, actor, session)
    return session


@transaction.atomic
def close_other_sessions(user_id: int, keep_id: int | None, *, actor: Actor, cause: str = "closed") -> int:
    """Close all open sessions of a person but one; returns how many. Raises NotAllowed for another person's."""
    if actor.user_id != user_id:
        raise NotAllowed(rule="own_sessions_only")
    user = User.objects.get(pk=user_id)
    return _close_sessions(user, keep_id, cause, actor)


@transaction.atomic
def change_password(user_id: int, current: str, new: str, *, actor: Actor, keep_session_id: int | None = None) -> User:
    """Change one's own password; every other session of the person ends. Raises NotAllowed, Invalid."""
    if actor.user_id != user_id:
        raise NotAllowed(rule="own_password_only")
    user = User.objects.select_for_update(no_key=True).get(pk=user_id)
    if not user.check_password(current):
        raise Invalid({"current": "This is not your present password."})
    if new == current:
        raise Invalid({"new": "Choose a password that differs from the present one."})
    if passwords.was_used(user, new):
        raise Invalid({"new": f"You had this password before: choose none of the last {passwords.KEPT}."})
    _check_password(new, user, "new")
    passwords.keep(user)
    user.set_password(new)
    user.must_change_password = False
    user.password_changed_at = clock.now()
    user.save(update_fields=["password", "must_change_password", "password_changed_at"])
    _password_changed(user, actor, initial=False)
    _close_sessions(user, keep_session_id, "password_changed", actor)
    return user


@transaction.atomic
def create_token(
    user_id: int,
    name: str,
    expires_at: datetime,
    read_only: bool,
    *,
    actor: Actor,
    permissions: Collection[str] | None = None,
) -> tuple[ApiToken, str]:
    """Make an API token for oneself and return it with its secret, which is stored nowhere.

    `permissions` limits it: it then carries what its owner may do *and* what stands here; None: all its owner may do.
    Raises NotAllowed for another person and through a limited token, Invalid for a missing name, a time not within the
    next 365 days, unknown permissions or none, or when the person has 20 tokens in force.
    """
    if actor.user_id != user_id:
        raise NotAllowed(rule="own_tokens_only")
    limits.refuse_limited(user_id, "A limited token makes no tokens.")
    user = User.objects.select_for_update(no_key=True).get(pk=user_id)
    name = name.strip()
    if errors := token_errors(name, expires_at, permissions):
        raise Invalid(errors)
    if user.kind != UserKind.PERSON:
        raise NotAllowed(
            "The tokens of a program's account are made by the people who keep it.", rule="service_account"
        )
    if ApiToken.objects.usable().filter(user=user).count() >= TOKENS_PER_PERSON:
        raise Invalid({"": f"You have {TOKENS_PER_PERSON} tokens in force. Revoke one that is no longer used."})
    token, secret = new_token(user, name, expires_at, read_only, permissions)
    audit.record(
        events.TOKEN_CREATED,
        events.TokenCreated(
            read_only=read_only, expires_at=expires_at, name=name, limited=token.limited, permissions=token.permissions
        ),
        actor=actor,
        subject_type="accounts.token",
        subject_uid=token.uid,
    )
    return token, secret


@transaction.atomic
def revoke_token(token_id: int, *, actor: Actor) -> ApiToken:
    """Revoke one's own token. Raises NotVisible for another person's, Conflict where it is revoked already."""
    limits.refuse_limited(actor.user_id, "A limited token revokes no tokens.")
    token = ApiToken.objects.select_for_update(no_key=True).filter(pk=token_id, user_id=_own(actor)).first()
    if token is None:
        raise NotVisible
    if token.revoked_at is not None:
        raise Conflict("This token is revoked already.", current={"status": "revoked"})
    token.revoked_at = clock.now()
    token.save(update_fields=["revoked_at"])
    audit.record(
        events.TOKEN_REVOKED,
        events.TokenRevoked(cause="revoked"),
        actor=actor,
        subject_type="accounts.token",
        subject_uid=token.uid,
    )
    return token


@transaction.atomic
def create_user(
    email: str, display_name: str, *, actor: Actor, password: str = "", without_password: bool = False
) -> tuple[User, str]:
    """Make an account and return it with its initial password, which the person must change at the first sign-in.

    A password given by the caller (seeding) stands as it is. `without_password`: it has none ("") until somebody sets
    an initial one, or the person signs in at a provider. Raises NotAllowed, Invalid.
    """
    require_manager(actor)
    email, display_name = email.strip(), " ".join(display_name.split())
    errors: dict[str, str] = {}
    try:
        validate_email(email)
    except ValidationError:
        errors["email"] = "Enter an e-mail address."
    else:
        if User.objects.filter(email__iexact=email).exists():
            errors["email"] = "There is an account with this address already."
    if not display_name:
        errors["display_name"] = "Enter the name that others will see."
    elif len(display_name) > 200:
        errors["display_name"] = "Use at most 200 characters."
    if errors:
        raise Invalid(errors)
    initial = "" if without_password else password or initial_password()
    user = User(email=User.objects.normalize_email(email), display_name=display_name)
    user.must_change_password = bool(initial) and not password
    user.set_password(initial or None)
    if initial:
        user.password_set_by_id, user.password_set_at = actor.user_id, clock.now()
    user.save()
    _about(events.USER_CREATED, events.UserCreated(email=email, display_name=display_name), user, actor)
    return user, initial


@transaction.atomic
def reset_password(user_id: int, *, actor: Actor) -> tuple[User, str]:
    """Set a new initial password for somebody who lost theirs; their sessions end. Raises NotAllowed, NotVisible."""
    require_manager(actor)
    user = _locked(user_id)
    if actor.user_id == user.pk:
        raise NotAllowed("Change your own password on your account page.", rule="own_password_by_page")
    if user.kind != UserKind.PERSON:
        raise NotAllowed("The account of a program has no password: make a token for it.", rule="service_account")
    from apps.accounts.factor_resets import bar_on_password  # that module imports this one

    if why := bar_on_password(user, actor):
        raise NotAllowed(why, rule="second_person")
    initial = initial_password()
    passwords.keep(user)
    user.set_password(initial)
    user.must_change_password = True
    user.password_changed_at = user.password_set_at = clock.now()
    user.password_set_by_id = actor.user_id
    user.save(
        update_fields=[
            "password", "must_change_password", "password_changed_at", "password_set_by", "password_set_at"
        ]
    )  # fmt: skip
    _password_changed(user, actor, initial=True)
    _close_sessions(user, None, "password_changed", actor)
    return user, initial


@transaction.atomic
def deactivate_user(user_id: int, reason: str, *, actor: Actor) -> User:
    """Switch an account off: sessions end, tokens are revoked, every role is without effect from this moment.

    Raises NotAllowed (also for oneself), Invalid without a reason, Conflict where it is off already.
    """
    require_manager(actor)
    user = _locked(user_id)
    if actor.user_id == user.pk:
        raise NotAllowed("Nobody switches their own account off: ask another platform admin.", rule="not_oneself")
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    if not user.is_active:
        raise Conflict("This account is switched off already.", current={"status": "deactivated"})
    switch_off(user, reason.strip(), actor=actor)
    return user


@transaction.atomic
def reactivate_user(user_id: int, reason: str, *, actor: Actor) -> User:
    """Switch an account on again; its roles and memberships count again, sessions and tokens stay closed.

    Raises NotAllowed, Invalid without a reason, Conflict where it is on already.
    """
    require_manager(actor)
    user = _locked(user_id)
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    if user.erased_at is not None:
        raise Conflict("This person was erased for good: make a new account.", current={"status": "erased"})
    if user.is_active:
        raise Conflict("This account is in use already.", current={"status": "active"})
    switch_on(user, reason.strip(), actor=actor)
    return user


def switch_off(user: User, reason: str, *, actor: Actor, at: datetime | None = None) -> None:
    """Switch a locked account off: sessions end, tokens are revoked, its roles follow the groups it is in no more.

    For actions that have checked who may do this, in their transaction. `at`: the moment that they write down, too.
    """
    at = at or clock.now()
    user.is_active, user.deactivated_at = False, at
    user.save(update_fields=["is_active", "deactivated_at"])
    closed = SignInSession.objects.filter(user=user, closed_at__isnull=True).update(closed_at=at)
    revoked = ApiToken.objects.filter(user=user, revoked_at__isnull=True).update(revoked_at=at)
    payload = events.UserSwitched(sessions_closed=closed, tokens_revoked=revoked)
    _about(events.USER_DEACTIVATED, payload, user, actor, reason)
    ports.groups_changed(user.pk, actor=actor)


def switch_on(user: User, reason: str, *, actor: Actor) -> None:
    """Switch a locked account on again; sessions and tokens stay closed. For actions that have checked who may."""
    if user.merged_into_id is not None:
        raise Conflict("This account was merged into another one.", current={"status": "merged"})
    user.is_active, user.deactivated_at = True, None
    user.save(update_fields=["is_active", "deactivated_at"])
    payload = events.UserSwitched(sessions_closed=0, tokens_revoked=0)
    _about(events.USER_REACTIVATED, payload, user, actor, reason)
    ports.groups_changed(user.pk, actor=actor)


def token_errors(name: str, expires_at: datetime, permissions: Collection[str] | None) -> dict[str, str]:
    """Return what is wrong with the terms of a token, by field."""
    at = clock.now()
    errors: dict[str, str] = {}
    if not name:
        errors["name"] = "Name the program that will use the token."
    elif len(name) > 100:
        errors["name"] = "Use at most 100 characters."
    if not at < expires_at <= at + timedelta(days=TOKEN_MAX_DAYS, minutes=1):
        errors["expires_at"] = f"Choose a time within the next {TOKEN_MAX_DAYS} days."
    if permissions is not None:
        if unknown := sorted(set(permissions) - ports.permission_names()):
            errors["permissions"] = f"There is no such permission: {', '.join(unknown)[:200]}."
        elif not permissions:
            errors["permissions"] = "Choose at least one: a token that carries nothing opens nothing."
    return errors


def new_token(
    user: User,
    name: str,
    expires_at: datetime,
    read_only: bool,
    permissions: Collection[str] | None,
    *,
    made_by_id: int | None = None,
    replaces: ApiToken | None = None,
) -> tuple[ApiToken, str]:
    """Write a token whose terms are checked, and return it with its secret; for actions, in their transaction."""
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        digest=token_digest(secret),
        prefix=secret[:12],
        read_only=read_only,
        expires_at=expires_at,
        limited=permissions is not None,
        permissions=sorted(set(permissions or ())),
        made_by_id=made_by_id,
        replaces=replaces,
    )
    return token, secret


def token_digest(secret: str) -> bytes:
    """Return what is stored of a token: SHA-256 (the secret has 256 random bits, so no salt is needed)."""
    return hashlib.sha256(secret.encode()).digest()


def initial_password() -> str:
    """Return a random password of four groups, easy to read out."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))


def require_manager(actor: Actor) -> None:
    """Raise NotAllowed for anybody who may not manage accounts."""
    if actor.is_system:
        return
    person = User.objects.filter(pk=_own(actor)).first()
    if person is None or not may(person, "accounts.user.manage"):
        raise NotAllowed(rule="accounts.user.manage")


def _own(actor: Actor) -> int:
    """Return the actor's own key; the portal itself has none, and key 0 belongs to nobody."""
    return actor.user_id or 0


def _locked(user_id: int) -> User:
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if user is None:
        raise NotVisible
    return user


def _check_password(password: str, user: User, field: str) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid({field: error.messages}) from error


def _close_sessions(user: User, keep_id: int | None, cause: str, actor: Actor) -> int:
    open_ones = SignInSession.objects.filter(user=user, closed_at__isnull=True, expires_at__gt=clock.now())
    closed = open_ones.exclude(pk=keep_id or 0).update(closed_at=clock.now())
    if closed:
        _session_closed(user, cause, closed, actor)
    return closed


def _session_closed(user: User, cause: str, count: int, actor: Actor, session: SignInSession | None = None) -> None:
    audit.record(
        events.SESSION_CLOSED,
        events.SessionClosed(cause=cause, sessions=count),
        actor=actor,
        subject_type="accounts.session" if session is not None else "accounts.user",
        subject_uid=session.uid if session is not None else user.uid,
    )


def _password_changed(user: User, actor: Actor, *, initial: bool) -> None:
    """Record it, and tell the person by mail: whoever took over the account would not."""
    payload = events.PasswordChanged(initial=initial)
    _about(events.PASSWORD_CHANGED, payload, user, actor)
    outbox.publish(events.PASSWORD_CHANGED, payload, recipients=[user.pk], subject_uid=user.uid)


def _about(event: Any, payload: Any, user: User, actor: Actor, reason: str = "") -> None:
    audit.record(event, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid, reason=reason)
