"""Sessions: a browser's session store carries the uid of a SignInSession row, which can be closed from anywhere."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session

from apps.accounts.choices import SignInMethod
from apps.accounts.models import IdentityProvider, SignInSession, User
from apps.core import clock, crypto

#: Key in the session store under which the uid of the SignInSession stands.
SESSION_KEY = "signed_in"
#: Key under which stands who gave the right password and has the second step before them (apps.accounts.second_step).
HALF_KEY = "half_signed_in"
#: How exact "last used" is: a write for every page would be a waste.
SEEN_GRAIN = timedelta(minutes=1)


def open_session(
    user: User,
    store: SessionBase,
    *,
    device: str = "",
    method: str = SignInMethod.PASSWORD,
    provider: IdentityProvider | None = None,
    provider_session: str = "",
    id_token: str = "",
    second_factor: bool = False,
    proved_at: datetime | None = None,
    network: str = "",
) -> SignInSession:
    """Open a session of `user` in the browser behind `store`, under a new session key (no fixation).

    `provider`, `provider_session` (its `sid`) and `id_token` (stored encrypted) belong to a sign-in at an identity
    provider; `proved_at` is when the person proved there who they are (None: now).
    """
    at = clock.now()
    longest: int = settings.SESSION_COOKIE_AGE
    if method == SignInMethod.OPENID:
        # Nobody tells the portal of somebody whom the provider no longer knows: so it asks again after this time.
        longest = min(longest, settings.COMMONS_OPENID_SESSION_SECONDS)
    row = SignInSession.objects.create(
        user=user,
        device=device,
        opened_at=at,
        expires_at=at + timedelta(seconds=longest),
        last_seen_at=at,
        method=method,
        provider=provider,
        provider_session=provider_session,
        id_token=crypto.encrypt(id_token),
        second_factor=second_factor,
        # A provider whose clock is ahead must not make a proof last longer.
        proved_at=min(proved_at or at, at),
        network=network,
    )
    store.flush()
    store[SESSION_KEY] = str(row.uid)
    return row


def session_of(store: SessionBase) -> SignInSession | None:
    """Return the session in force in this browser with its person, in one query; None where it has ended."""
    value = store.get(SESSION_KEY)
    if not value:
        return None
    try:
        uid = uuid.UUID(str(value))
    except ValueError:
        return None
    return SignInSession.objects.open().filter(uid=uid).select_related("user").first()


def proved_at(session: SignInSession, store: SessionBase | None = None) -> datetime:
    """Return when the person of this session last proved who they are: when asked again, else at sign-in.

    At a provider that can be well before the session was opened here.
    """
    return session.proved_at or session.opened_at


def prove(session: SignInSession, *, second_factor: bool = False, at: datetime | None = None) -> datetime:
    """Note that the person of this session proved who they are again, and whether with a second factor; returns when.

    `at` (None: now) is the provider's `auth_time`; a proof never moves back, and none lies in the future.
    """
    moment = min(at or clock.now(), clock.now())
    session.proved_at = max(moment, proved_at(session))
    session.second_factor = session.second_factor or second_factor
    session.save(update_fields=["proved_at", "second_factor"])
    return session.proved_at


def confinement(session: SignInSession) -> str:
    """Return what a session has to see to before it opens anything else; "" for nothing.

    "password": somebody else knows it, or it is too old; "second_factor": the installation requires one, and this
    session was opened with a password alone.
    """
    if session.method != SignInMethod.PASSWORD:
        return ""
    if session.user.must_change_password:
        return "password"
    if settings.COMMONS_SECOND_FACTOR != "optional" and not session.second_factor:
        return "second_factor"
    return ""


def note_use(session: SignInSession) -> None:
    """Note that the person did something, to the minute; a session that has ended meanwhile stays ended."""
    at = clock.now()
    if session.last_seen_at is None or at - session.last_seen_at >= SEEN_GRAIN:
        SignInSession.objects.open().filter(pk=session.pk).update(last_seen_at=at)
        session.last_seen_at = at


_BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iOS"), ("iPad", "iOS"), ("Mac OS", "macOS"))


def device_name(user_agent: str) -> str:
    """Return "Firefox on Linux" for a User-Agent header: enough for the person to tell sessions apart."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if not system and re.search(r"Linux|X11", user_agent):
        system = "Linux"
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or "Unknown device"


def clear_expired() -> int:
    """Delete the stored browser state of expired sessions; returns how many. The session rows stay, for the profile."""
    deleted, _ = Session.objects.filter(expire_date__lt=clock.now()).delete()
    return deleted
