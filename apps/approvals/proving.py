"""How the person behind a request proved who they are, and whether a policy wants their password again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest

from apps.accounts import sessions
from apps.approvals import deciders
from apps.approvals.deciding import PASSWORD_AT
from apps.approvals.models import ApprovalRequest
from apps.core import clock


def auth_of(request: HttpRequest) -> dict[str, str]:
    """Return what a decision keeps of the browser's session: its uid, and when the password was given last."""
    session: Any = getattr(request, "sign_in_session", None)
    if not session:
        return {}
    proved: datetime = sessions.proved_at(session, request.session)
    return {"session": str(session.uid), "method": "password", PASSWORD_AT: proved.isoformat()}


def minutes_of(request: ApprovalRequest) -> int | None:
    """Return how old the proof may be under the request's pinned policy, None where it does not matter."""
    return deciders.rules_of(request.policy_version).reauthenticate_minutes


def stale(auth: dict[str, str], minutes: int | None) -> bool:
    """Whether the password has to be asked again before a decision."""
    if minutes is None:
        return False
    raw = auth.get(PASSWORD_AT, "")
    return not raw or clock.now() - datetime.fromisoformat(raw) > timedelta(minutes=minutes)
