"""Signing in: counted, the same answer for an unknown account and a wrong password, and about the same time."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.hashers import make_password
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.accounts import addresses, sessions
from apps.accounts.events import SESSION_OPENED, SESSION_REFUSED, SessionOpened, SessionRefused
from apps.accounts.models import SignInAttempt, SignInSession, User
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.errors import Invalid

WINDOW = timedelta(minutes=15)
#: Failed tries within the window for one account from one address, and for all accounts from one address.
ACCOUNT_LIMIT = 5
ADDRESS_LIMIT = 50
#: Attempts are kept this long, then deleted.
KEPT = timedelta(days=1)

WRONG = "The e-mail address or the password is not right."
WRONG_PASSWORD = "This is not your password."  # noqa: S105 (a sentence)
LIMITED = "Too many failed attempts. Wait {minutes} minutes, then try again."


def sign_in(email: str, password: str, store: SessionBase, *, address: str, device: str = "") -> SignInSession:
    """Check e-mail address and password and open a session in `store`.

    Raises Invalid with one message for an unknown account, a deactivated one and a wrong password, and with another
    once an account was tried `ACCOUNT_LIMIT` times within 15 minutes from one address, existing or not. Every refusal
    is committed to the audit trail before it is raised.
    """
    email = email.strip()
    attempt, wait = _count(email, address)
    if wait is not None:
        _refuse(email, address, "limited")
        raise Invalid({"": LIMITED.format(minutes=max(1, -(-int(wait.total_seconds()) // 60)))})
    user = User.objects.filter(email__iexact=email).first() if email else None
    if user is None:
        # Hash all the same, so that the answer takes as long as for an account that exists.
        make_password(password)
    if user is None or not user.check_password(password) or not user.is_active:
        _refuse(email, address, "wrong", user)
        raise Invalid({"": WRONG})
    with transaction.atomic():
        SignInAttempt.objects.filter(pk=attempt.pk).update(succeeded=True)
        # Whoever knows the password starts from nothing again; a guesser never gets here.
        SignInAttempt.objects.filter(
            account_key=attempt.account_key, address_key=attempt.address_key, succeeded=False
        ).delete()
        session = sessions.open_session(user, store, device=device)
        audit.record(
            SESSION_OPENED,
            SessionOpened(network=addresses.network_class(address)),
            actor=Actor.of(user),
            subject_type="accounts.session",
            subject_uid=session.uid,
        )
    return session


def confirm_password(user: User, password: str, store: SessionBase, *, address: str) -> datetime:
    """Check the password of a person who is signed in already, and note in their session when; returns that moment.

    A try counts as one to sign in, under the same limits. Raises Invalid for the field "password"; every refusal is
    committed to the audit trail before it is raised.
    """
    attempt, wait = _count(user.email, address)
    if wait is not None:
        _refuse(user.email, address, "limited", user)
        raise Invalid({"password": LIMITED.format(minutes=max(1, -(-int(wait.total_seconds()) // 60)))})
    if not user.is_active or not user.check_password(password):
        _refuse(user.email, address, "wrong", user)
        raise Invalid({"password": WRONG_PASSWORD})
    with transaction.atomic():
        # The failures before stand, unlike after a sign-in: whoever found an open browser must not clear their tracks.
        SignInAttempt.objects.filter(pk=attempt.pk).update(succeeded=True)
    at = clock.now()
    store[sessions.PROOF_KEY] = at.isoformat()
    return at


def _count(email: str, address: str) -> tuple[SignInAttempt, timedelta | None]:
    """Write the attempt down, then count: tries at the same moment see each other. Returns how long to wait, if so."""
    at = clock.now()
    attempt = SignInAttempt.objects.create(
        account_key=addresses.keyed("attempt", email.lower()), address_key=addresses.keyed("address", address), at=at
    )
    failed = SignInAttempt.objects.filter(address_key=attempt.address_key, at__gt=at - WINDOW, succeeded=False).exclude(
        pk=attempt.pk
    )
    same_account = Q(account_key=attempt.account_key)
    for found, limit in ((failed.filter(same_account), ACCOUNT_LIMIT), (failed, ADDRESS_LIMIT)):
        times = list(found.order_by("-at").values_list("at", flat=True)[:limit])
        if len(times) == limit:
            # A refused try does not count as one: the wait never grows by trying.
            attempt.delete()
            return attempt, times[-1] + WINDOW - at
    return attempt, None


def _refuse(email: str, address: str, cause: str, user: User | None = None) -> None:
    with transaction.atomic():
        audit.record(
            SESSION_REFUSED,
            SessionRefused(cause=cause, network=addresses.network_class(address), email=email[:254]),
            actor=Actor(user_id=None, channel=Channel.WEB, request_id=Actor.system("").request_id, name="anonymous"),
            subject_type="accounts.user",
            subject_uid=user.uid if user is not None else addresses.account_uid(email),
        )


def forget_old_attempts() -> int:
    """Delete the attempts nobody counts any more; returns how many."""
    deleted, _ = SignInAttempt.objects.filter(at__lt=clock.now() - KEPT).delete()
    return deleted
