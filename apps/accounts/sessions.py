"""Sessions: a browser's session store carries the uid of a SignInSession row, which can be closed from anywhere."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session

from apps.accounts.models import SignInSession, User
from apps.core import clock

#: Key in the session store under which the uid of the SignInSession stands.
SESSION_KEY = "signed_in"
#: Key under which stands when the person last gave their password again (ISO 8601).
PROOF_KEY = "password_confirmed"


def open_session(user: User, store: SessionBase, *, device: str = "") -> SignInSession:
    """Open a session of `user` in the browser behind `store`, under a new session key (no fixation)."""
    at = clock.now()
    row = SignInSession.objects.create(
        user=user, device=device, opened_at=at, expires_at=at + timedelta(seconds=settings.SESSION_COOKIE_AGE)
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
    """Return when the person of this session last gave their password: when it was asked again, else at sign-in."""
    raw = str(store.get(PROOF_KEY, ""))
    try:
        again = datetime.fromisoformat(raw)
    except ValueError:
        return session.opened_at
    return max(again, session.opened_at) if again.tzinfo is not None else session.opened_at


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
