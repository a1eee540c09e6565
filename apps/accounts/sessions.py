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
#: Key under which stands when the person last gave their password again (ISO 8601).
PROOF_KEY = "password_confirmed"


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
    row = SignInSession.objects.create(
        user=user,
        device=device,
        opened_at=at,
        expires_at=at + timedelta(seconds=settings.SESSION_COOKIE_AGE),
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


def proved_at(session: SignInSession, store: SessionBase) -> datetime:
    """Return when the person of this session last proved who they are: when asked again, else at sign-in.

    At a provider that can be well before the session was opened here.
    """
    first = session.proved_at or session.opened_at
    raw = str(store.get(PROOF_KEY, ""))
    try:
        again = datetime.fromisoformat(raw)
    except ValueError:
        return first
    return max(again, first) if again.tzinfo is not None else first


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
