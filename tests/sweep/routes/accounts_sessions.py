"""Routes of sessions. `world.sign_in_session`: another browser of the Finance team lead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apps.accounts.models import SignInSession
from apps.core import clock
from tests.sweep.types import EVERYBODY, Route


def build(world: Any) -> None:
    """Sign the lead in somewhere else."""
    at = clock.now()
    world.sign_in_session = SignInSession.objects.create(
        user=world.lead_finance,
        device="Kakapo browser",
        opened_at=at,
        last_seen_at=at,
        proved_at=at,
        expires_at=at + timedelta(hours=8),
    )
    world.keep_secret("Kakapo browser", world.sign_in_session.uid, sees={"lead_finance", "admin"})
    for name in ("compliance", "finance"):
        world.secrets[name].append("Kakapo browser")


def _session(world: Any) -> Mapping[str, Any]:
    return {"session_uid": world.sign_in_session.uid}


def _uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.sign_in_session.uid}


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.lead_finance.uid}


_WHY: dict[str, str] = {"reason": "left unattended"}

ROUTES: dict[str, Route] = {
    "accounts:session-seen": Route(
        allowed=EVERYBODY, public=True, ok=frozenset({405}), note="by POST only; says 401 to visitors"
    ),
    "accounts:session-close": Route(allowed={"lead_finance"}, kwargs=_session),
    "accounts:session-list": Route(allowed={"admin"}),
    "accounts:session-list#export": Route(allowed={"admin"}, query="?export=csv"),
    "accounts:session-end": Route(allowed={"admin"}, kwargs=_session),
    "accounts:session-end#POST": Route(allowed={"admin"}, kwargs=_session, method="POST", data=lambda world: _WHY),
    "accounts:user-sessions-end": Route(allowed={"admin"}, kwargs=_person),
    "accounts:user-sessions-end#POST": Route(allowed={"admin"}, kwargs=_person, method="POST", data=lambda world: _WHY),
    "api:session-list": Route(allowed=EVERYBODY, note="those without the permission find their own"),
    "api:session-detail": Route(allowed={"lead_finance", "admin"}, kwargs=_uid),
    "api:session-end": Route(allowed={"lead_finance", "admin"}, kwargs=_uid, method="POST", data=lambda world: _WHY),
}
