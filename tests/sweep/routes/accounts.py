"""Routes of the accounts room. `world.api_token`: the Finance team lead's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apps.accounts.actions import create_token
from apps.core import clock
from apps.core.actor import Actor
from tests.sweep.types import EVERYBODY, Route


def build(world: Any) -> None:
    """Make a token."""
    lead = world.lead_finance
    world.api_token, _ = create_token(
        lead.pk, "Quagga pipeline", clock.now() + timedelta(days=30), True, actor=Actor.of(lead)
    )
    world.keep_secret("Quagga pipeline", world.api_token.uid, sees={"lead_finance"})
    for name in ("compliance", "finance", "admin"):
        world.secrets[name].append("Quagga pipeline")


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.member_finance.uid}


def _person_uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.member_finance.uid}


def _token(world: Any) -> Mapping[str, Any]:
    return {"token_uid": world.api_token.uid}


def _token_uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.api_token.uid}


ROUTES: dict[str, Route] = {
    "accounts:sign-in": Route(allowed=EVERYBODY, public=True, note="leads on whoever is signed in"),
    "accounts:sign-out": Route(
        allowed=EVERYBODY, public=True, ok=frozenset({405}), note="by POST only, which would end the sweep's session"
    ),
    "accounts:profile": Route(allowed=EVERYBODY),
    "accounts:password-change": Route(allowed=EVERYBODY),
    "accounts:session-close-others": Route(allowed=EVERYBODY),
    "accounts:token-create": Route(allowed=EVERYBODY),
    "accounts:token-create#POST": Route(allowed=EVERYBODY, method="POST"),
    "accounts:token-revoke": Route(allowed={"lead_finance"}, kwargs=_token),
    "accounts:user-list": Route(allowed={"admin", "auditor"}),
    "accounts:user-list#export": Route(allowed={"admin", "auditor"}, query="?export=csv"),
    "accounts:user-create": Route(allowed={"admin"}),
    "accounts:user-create#POST": Route(allowed={"admin"}, method="POST"),
    "accounts:user-detail": Route(allowed={"admin", "auditor"}, kwargs=_person),
    "accounts:user-deactivate": Route(allowed={"admin"}, kwargs=_person),
    "accounts:user-deactivate#POST": Route(
        allowed={"admin"}, kwargs=_person, method="POST", data=lambda world: {"reason": "left"}
    ),
    "accounts:user-reactivate": Route(allowed={"admin"}, kwargs=_person, note="409: the account is in use"),
    "accounts:user-password-reset": Route(allowed={"admin"}, kwargs=_person),
    "api:me": Route(allowed=EVERYBODY),
    "api:user-list": Route(allowed=EVERYBODY, note="those without the permission find themselves"),
    "api:user-list#POST": Route(allowed={"admin"}, method="POST"),
    "api:user-detail": Route(allowed={"admin", "auditor", "member_finance"}, kwargs=_person_uid),
    "api:user-deactivate": Route(
        allowed={"admin"}, kwargs=_person_uid, method="POST", data=lambda world: {"reason": "left"}
    ),
    "api:user-reactivate": Route(allowed={"admin"}, kwargs=_person_uid, method="POST"),
    "api:api-token-list": Route(allowed=EVERYBODY),
    "api:api-token-list#POST": Route(allowed=EVERYBODY, method="POST"),
    "api:api-token-detail": Route(allowed={"lead_finance"}, kwargs=_token_uid),
    "api:api-token-revoke": Route(allowed={"lead_finance"}, kwargs=_token_uid, method="POST"),
}
