"""How the person behind a request proved who they are, and whether a policy wants their password again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest

from apps.accounts import second_step, sessions
from apps.accounts.choices import SignInMethod
from apps.approvals import deciders
from apps.approvals.deciding import PASSWORD_AT
from apps.approvals.models import ApprovalRequest
from apps.core import clock


def auth_of(request: HttpRequest) -> dict[str, str]:
    """Return what a decision keeps of the browser's session: its uid, how it was opened, and the last proof."""
    session: Any = getattr(request, "sign_in_session", None)
    if not session:
        return {}
    return {
        "session": str(session.uid),
        "method": str(session.method),
        "second_factor": "given" if session.second_factor else "none",
        PASSWORD_AT: sessions.proved_at(session).isoformat(),
    }


def has_page(request: HttpRequest) -> bool:
    """Whether this person proves who they are on a page of its own: a password alone would not do."""
    session: Any = getattr(request, "sign_in_session", None)
    return bool(session) and (session.method != SignInMethod.PASSWORD or second_step.needed(session.user))


def minutes_of(request: ApprovalRequest) -> int | None:
    """Return how old the proof may be under the request's pinned policy, None where it does not matter."""
    return deciders.rules_of(request.policy_version).reauthenticate_minutes


def stale(auth: dict[str, str], minutes: int | None) -> bool:
    """Whether the password has to be asked again before a decision."""
    if minutes is None:
        return False
    raw = auth.get(PASSWORD_AT, "")
    return not raw or clock.now() - datetime.fromisoformat(raw) > timedelta(minutes=minutes)
