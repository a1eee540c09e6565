"""The second step of signing in, and the same proof again later.

Between the steps the browser's store holds who gave the right password, and nothing else: there is no session yet.
Wrong codes are counted by account from all addresses; neither step forgets them (see specs/second-factors/design.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction

from apps import audit
from apps.accounts import addresses, factor_events, factors, local_sign_in, sessions
from apps.accounts.choices import FactorKind
from apps.accounts.models import SecondFactor, SignInAttempt, SignInSession, User
from apps.core import clock, crypto, outbox
from apps.core.actor import Actor
from apps.core.errors import Invalid

#: How long the second step may take.
LASTS = timedelta(minutes=10)
#: Wrong codes of one account, from wherever: so many within so long, then none is taken until the oldest is past.
CODE_LIMITS = ((5, timedelta(minutes=15)), (20, timedelta(days=1)))
#: Key in the browser's store under which the challenge for a security key stands until it is answered.
CHALLENGE_KEY = "key_challenge"
_CHALLENGE_LASTS = timedelta(minutes=10)

WRONG_CODE = "This code is not right, or was used already. Wait for the next one, or use a recovery code."
WRONG_KEY = "The security key was not accepted. Try again, or use another way."
NOTHING_GIVEN = "Type the code, or use your security key."
BEGIN_ANEW = "That took too long, or something changed meanwhile. Begin again with your password."
LIMITED = "Too many wrong codes. Wait {minutes} minutes, then try again, or use a security key."


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody gave as their second factor: a typed code, or what a security key answered."""

    code: str = ""
    key_answer: str = ""


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    cause: str
    message: str


def needed(user: User) -> bool:
    """Whether this person has a factor that sign-in has to ask for."""
    return SecondFactor.objects.in_use().filter(user=user).exclude(kind=FactorKind.RECOVERY).exists()


# -- Between the steps


def begin(user: User, store: SessionBase) -> None:
    """Note in the browser, under a new key, who gave the right password; nothing is open yet."""
    store.flush()
    store[sessions.HALF_KEY] = {
        "person": str(user.uid), "at": clock.now().isoformat(), "password": _password_mark(user)
    }  # fmt: skip
    store.set_expiry(int(LASTS.total_seconds()))


def waiting(store: SessionBase) -> User | None:
    """Return who has the second step before them in this browser; None where nobody has, or it has to begin anew."""
    held = store.get(sessions.HALF_KEY)
    if not isinstance(held, Mapping):
        return None
    try:
        begun = datetime.fromisoformat(str(held.get("at")))
    except ValueError:
        return None
    if not timedelta(0) <= clock.now() - begun <= LASTS:
        return None
    user = User.objects.filter(uid=str(held.get("person"))).first()
    if user is None or held.get("password") != _password_mark(user) or local_sign_in.refused_because(user):
        return None
    return user if needed(user) else None


def finish(store: SessionBase, proof: Proof, *, address: str, device: str = "") -> SignInSession:
    """Take the second factor and open the session, under a new key.

    Raises Invalid (for "code", or the form as a whole where sign-in has to begin anew); every refusal is committed to
    the audit trail before it is raised.
    """
    from apps.accounts.sign_in import forget_failures, open_with_password

    user = waiting(store)
    if user is None:
        store.flush()
        raise Invalid({"": BEGIN_ANEW})
    attempt = _admit(user, proof, "sign_in", store, address)
    try:
        with transaction.atomic():
            _take(user, proof, "sign_in", store, attempt)
            forget_failures(user.email, address)
            return open_with_password(user, store, address=address, device=device, second_factor=True)
    except _Refused as refused:
        _refuse(user, refused, "sign_in", address)
        raise Invalid({"code": refused.message}) from refused


def prove(session: SignInSession, proof: Proof, store: SessionBase, *, address: str) -> datetime:
    """Take the second factor of somebody who is signed in and gave their password just now; returns when.

    Raises Invalid for "code", as `finish` does.
    """
    attempt = _admit(session.user, proof, "confirm", store, address)
    try:
        with transaction.atomic():
            _take(session.user, proof, "confirm", store, attempt)
            return sessions.prove(session, second_factor=True)
    except _Refused as refused:
        _refuse(session.user, refused, "confirm", address)
        raise Invalid({"code": refused.message}) from refused


# -- Security keys


def challenge(user: User, store: SessionBase) -> dict[str, Any] | None:
    """Return what the browser gets to ask the person's keys with, None without one; the store keeps the challenge."""
    known = [bytes(key.public_key) for key in _keys(user)]
    if not known or not factors.keys_possible():
        return None
    options, state = factors.begin_assertion(known)
    keep_challenge(store, state)
    return options


def keep_challenge(store: SessionBase, state: dict[str, Any]) -> None:
    """Keep a challenge until it is answered or ten minutes have passed."""
    store[CHALLENGE_KEY] = {**state, "at": clock.now().isoformat()}


def take_challenge(store: SessionBase) -> dict[str, Any] | None:
    """Take the challenge out of the store: whatever becomes of the answer, it has this one try."""
    held = store.pop(CHALLENGE_KEY, None)
    if not isinstance(held, dict) or "challenge" not in held:
        return None
    try:
        begun = datetime.fromisoformat(str(held.get("at")))
    except ValueError:
        return None
    return held if timedelta(0) <= clock.now() - begun <= _CHALLENGE_LASTS else None


# -- Inside


def _keys(user: User) -> list[SecondFactor]:
    return list(SecondFactor.objects.in_use().filter(user=user, kind=FactorKind.WEBAUTHN).order_by("pk"))


def _password_mark(user: User) -> str:
    return addresses.keyed("half-signed-in", user.password)


def _account_key(user: User) -> str:
    """Return under what wrong codes are counted: once the password is another one, a guesser has to begin anew."""
    return addresses.keyed("factor", f"{user.uid} {user.password}")


def _admit(user: User, proof: Proof, purpose: str, store: SessionBase, address: str) -> SignInAttempt | None:
    """Write a try with a code down and count; tries with a key cannot be guessed and are not held back."""
    if proof.key_answer:
        return None
    if not proof.code.strip():
        raise Invalid({"code": NOTHING_GIVEN})
    at = clock.now()
    attempt = SignInAttempt.objects.create(
        account_key=_account_key(user), address_key=addresses.keyed("address", address), at=at
    )
    failed = SignInAttempt.objects.filter(account_key=attempt.account_key, succeeded=False).exclude(pk=attempt.pk)
    for limit, window in CODE_LIMITS:
        times = list(failed.filter(at__gt=at - window).order_by("-at").values_list("at", flat=True)[:limit])
        if len(times) == limit:
            # A refused try does not count as one: the wait never grows by trying.
            attempt.delete()
            wait = times[-1] + window - at
            message = LIMITED.format(minutes=max(1, -(-int(wait.total_seconds()) // 60)))
            _refuse(user, _Refused("limited", message), purpose, address)
            raise Invalid({"code": message})
    return attempt


def _take(user: User, proof: Proof, purpose: str, store: SessionBase, attempt: SignInAttempt | None) -> None:
    """Take the proof under lock, so that it counts once, and record it. Raises _Refused."""
    # Whoever changes password or factors at the same moment waits, or has done it already.
    fresh = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if not fresh.is_active or fresh.password != user.password:
        raise _Refused("wrong", BEGIN_ANEW)
    rows = list(SecondFactor.objects.in_use().select_for_update(no_key=True).filter(user=fresh).order_by("pk"))
    used = _by_key(rows, proof, store) if proof.key_answer else _by_code(rows, proof.code)
    if attempt is not None:
        SignInAttempt.objects.filter(pk=attempt.pk).update(succeeded=True)
    used.last_used_at = clock.now()
    used.save(update_fields=["last_used_at", "last_step", "sign_count", "codes"])
    payload = factor_events.FactorUsed(kind=used.kind, purpose=purpose, left=len(used.codes))
    recovered = used.kind == FactorKind.RECOVERY
    event = factor_events.RECOVERY_USED if recovered else factor_events.FACTOR_USED
    audit.record(event, payload, actor=Actor.of(user), subject_type="accounts.user", subject_uid=user.uid)
    if recovered:
        outbox.publish(event, payload, recipients=[user.pk], subject_uid=user.uid)


def _by_code(rows: list[SecondFactor], typed: str) -> SecondFactor:
    at = clock.now()
    if code := factors.looks_like_app_code(typed):
        for row in rows:
            if row.kind != FactorKind.TOTP:
                continue
            step = factors.matching_step(crypto.decrypt(row.secret), code, at, after=row.last_step)
            if step is not None:
                row.last_step = step
                return row
        raise _Refused("wrong", WRONG_CODE)
    digest = factors.recovery_digest(typed)
    for row in rows:
        if row.kind == FactorKind.RECOVERY and digest in row.codes:
            row.codes = [code for code in row.codes if code != digest]
            return row
    raise _Refused("wrong", WRONG_CODE)


def _by_key(rows: list[SecondFactor], proof: Proof, store: SessionBase) -> SecondFactor:
    state = take_challenge(store)
    keys = [row for row in rows if row.kind == FactorKind.WEBAUTHN]
    if state is None:
        raise _Refused("key", WRONG_KEY)
    try:
        used = factors.complete_assertion(state, [bytes(row.public_key) for row in keys], proof.key_answer)
    except factors.NotAccepted as error:
        raise _Refused("key", WRONG_KEY) from error
    row = next(row for row in keys if bytes(row.credential_id or b"") == used.credential_id)
    # A counter that does not rise means a copy of the key; keys without a counter say 0 for ever.
    if (used.sign_count or row.sign_count) and used.sign_count <= row.sign_count:
        raise _Refused("copied", WRONG_KEY)
    row.sign_count = used.sign_count
    return row


def _refuse(user: User, refused: _Refused, purpose: str, address: str) -> None:
    """Record a refusal; tell the person once when codes were wrong so often that somebody seems to guess."""
    at = clock.now()
    payload = factor_events.FactorRefused(
        cause=refused.cause, purpose=purpose, network=addresses.network_class(address)
    )
    with transaction.atomic():
        audit.record(
            factor_events.FACTOR_REFUSED,
            payload,
            actor=Actor.of(user),
            subject_type="accounts.user",
            subject_uid=user.uid,
        )
        limit, window = CODE_LIMITS[0]
        failed = SignInAttempt.objects.filter(account_key=_account_key(user), succeeded=False, at__gt=at - window)
        if refused.cause == "wrong" and failed.count() == limit:
            told = factor_events.FactorGuessed(tries=limit)
            audit.record(
                factor_events.FACTOR_GUESSED,
                told,
                actor=Actor.system("accounts.second_step"),
                subject_type="accounts.user",
                subject_uid=user.uid,
            )
            outbox.publish(factor_events.FACTOR_GUESSED, told, recipients=[user.pk], subject_uid=user.uid)
