"""Signing in: counted, the same answer for an unknown account and a wrong password, and about the same time."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.hashers import get_hasher, identify_hasher, make_password
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.accounts import addresses, local_sign_in, second_step, sessions
from apps.accounts.events import (
    PASSWORD_REHASHED,
    SESSION_OPENED,
    SESSION_REFUSED,
    PasswordRehashed,
    SessionOpened,
    SessionRefused,
)
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


def sign_in(email: str, password: str, store: SessionBase, *, address: str, device: str = "") -> SignInSession | None:
    """Check e-mail address and password and open a session in `store`; None where the second step is to come.

    Raises Invalid with one message for an unknown account, a deactivated one, one that may not sign in with a password
    here, and a wrong password, and with another once an account was tried `ACCOUNT_LIMIT` times within 15 minutes from
    one address, existing or not. Every refusal is committed to the audit trail before it is raised.
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
    if user is None or not user.check_password(password):
        _refuse(email, address, "wrong", user)
        raise Invalid({"": WRONG})
    if why := local_sign_in.refused_because(user):
        _refuse(email, address, why, user)
        raise Invalid({"": WRONG})
    _renew_hash(user, password)
    if second_step.needed(user):
        SignInAttempt.objects.filter(pk=attempt.pk).update(succeeded=True)
        # The failures before stand until the second step: half the way is no proof.
        second_step.begin(user, store)
        return None
    with transaction.atomic():
        # Whoever changes password, factors or the account at the same moment waits, or has done it already: then what
        # was checked above holds no longer, and a session opened now would outlive what was to end it.
        fresh = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        why = "wrong" if fresh.password != user.password else local_sign_in.refused_because(fresh)
        if not why and not second_step.needed(fresh):
            SignInAttempt.objects.filter(pk=attempt.pk).update(succeeded=True)
            forget_failures(email, address)
            return open_with_password(fresh, store, address=address, device=device, second_factor=False)
    _refuse(email, address, why or "wrong", user)
    raise Invalid({"": WRONG})


def open_with_password(
    user: User, store: SessionBase, *, address: str, device: str, second_factor: bool
) -> SignInSession:
    """Open and record the session of somebody whose password, and second factor where they have one, were right.

    A password that the installation deems too old has to be changed before anything else. Needs a transaction.
    """
    if local_sign_in.too_old(user) and not user.must_change_password:
        user.must_change_password = True
        user.save(update_fields=["must_change_password"])
    network = addresses.network_class(address)
    session = sessions.open_session(user, store, device=device, second_factor=second_factor, network=network)
    audit.record(
        SESSION_OPENED,
        SessionOpened(network=network, second_factor=second_factor),
        actor=Actor.of(user),
        subject_type="accounts.session",
        subject_uid=session.uid,
    )
    return session


def forget_failures(email: str, address: str) -> None:
    """Let whoever signed in start from nothing again; a guesser of passwords never gets here."""
    SignInAttempt.objects.filter(
        account_key=addresses.keyed("attempt", email.strip().lower()),
        address_key=addresses.keyed("address", address),
        succeeded=False,
    ).delete()


def confirm_password(
    session: SignInSession, password: str, *, address: str, proof: second_step.Proof, store: SessionBase
) -> datetime:
    """Check the password of a person who is signed in already, then their second factor where they have one.

    Notes in the session when; returns that moment. A try counts as one to sign in, under the same limits. Raises
    Invalid for the fields "password" and "code"; every refusal is committed to the audit trail before it is raised.
    """
    user = session.user
    check_own_password(user, password, address=address)
    if second_step.needed(user):
        return second_step.prove(session, proof, store, address=address)
    return sessions.prove(session)


def check_own_password(user: User, password: str, *, address: str, field: str = "password") -> None:
    """Check the password that somebody who is signed in gave once more. Raises Invalid for `field`.

    A try counts as one to sign in: whoever finds an open browser gets no more tries than at the door.
    """
    attempt, wait = _count(user.email, address)
    if wait is not None:
        _refuse(user.email, address, "limited", user)
        raise Invalid({field: LIMITED.format(minutes=max(1, -(-int(wait.total_seconds()) // 60)))})
    if not user.is_active or not user.check_password(password):
        _refuse(user.email, address, "wrong", user)
        raise Invalid({field: WRONG_PASSWORD})
    # The failures before stand, unlike after a sign-in: whoever found an open browser must not clear their tracks.
    SignInAttempt.objects.filter(pk=attempt.pk).update(succeeded=True)


def _renew_hash(user: User, password: str) -> None:
    """Store a password that was right under today's hash, where it has an older one; with its event, as any change."""
    wanted = get_hasher()
    if identify_hasher(user.password).algorithm == wanted.algorithm and not wanted.must_update(user.password):
        return
    with transaction.atomic():
        fresh = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        if fresh.password != user.password:
            return
        user.set_password(password)
        user.save(update_fields=["password"])
        audit.record(
            PASSWORD_REHASHED,
            PasswordRehashed(algorithm=str(wanted.algorithm)),
            actor=Actor.of(user),
            subject_type="accounts.user",
            subject_uid=user.uid,
        )


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
