"""Routes of accounts of programs: `world.service_account` of the Finance team, `world.service_token` its token."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apps.core import clock
from apps.core.actor import Actor
from apps.teams.service_actions import create_service_account, create_service_token
from tests.sweep.types import Route

_KEEP = {"lead_finance", "admin"}
_SEE = _KEEP | {"vp", "auditor"}
_KEEP_ANY = _KEEP | {"lead_marketing"}
_SEE_ANY = _SEE | {"lead_marketing", "vp_other"}


def build(world: Any) -> None:
    """Make an account and a token, as the team's lead."""
    lead = Actor.of(world.lead_finance)
    world.service_account = create_service_account(
        "Okapi scheduler", "Submits the nightly training", "member", team_id=world.finance_team.pk, actor=lead
    )
    world.service_token, _ = create_service_token(
        world.service_account.pk, "Okapi key", clock.now() + timedelta(days=60), False, actor=lead
    )
    world.keep_secret(
        world.service_account.uid,
        world.service_token.uid,
        "Okapi",
        sees={"member_finance", "lead_finance", "vp", "service"},
    )


def _account(world: Any) -> Mapping[str, Any]:
    return {"account_uid": world.service_account.uid}


def _uid(world: Any) -> Mapping[str, Any]:
    return {"uid": world.service_account.uid}


def _token(world: Any) -> Mapping[str, Any]:
    return {"account_uid": world.service_account.uid, "token_uid": world.service_token.uid}


def _token_uid(world: Any) -> Mapping[str, Any]:
    return {"token_uid": world.service_token.uid}


ROUTES: dict[str, Route] = {
    "teams:service-list": Route(allowed=_SEE_ANY),
    "teams:service-create": Route(allowed=_KEEP_ANY),
    "teams:service-create#POST": Route(
        allowed=_KEEP_ANY,
        method="POST",
        data=lambda world: {
            "team": "finance", "name": "Nightly", "purpose": "Runs the nightly job", "role": "member",
        },
        note="the lead of another team gets 400: the team is none of the choices",
    ),
    "teams:service-detail": Route(allowed=_SEE, kwargs=_account),
    "teams:service-role": Route(allowed=_KEEP, kwargs=_account),
    "teams:service-role#POST": Route(
        allowed=_KEEP, kwargs=_account, method="POST", data=lambda world: {"role": "team_lead", "reason": "submits"}
    ),
    "teams:service-end": Route(allowed=_KEEP, kwargs=_account),
    "teams:service-end#POST": Route(
        allowed=_KEEP, kwargs=_account, method="POST", data=lambda world: {"reason": "replaced"}
    ),
    "teams:service-token-create": Route(allowed=_KEEP, kwargs=_account),
    "teams:service-token-create#POST": Route(allowed=_KEEP, kwargs=_account, method="POST"),
    "teams:service-token-rotate": Route(allowed=_KEEP, kwargs=_token),
    "teams:service-token-rotate#POST": Route(
        allowed=_KEEP, kwargs=_token, method="POST", data=lambda world: {"overlap_days": 3}
    ),
    "teams:service-token-revoke": Route(allowed=_KEEP, kwargs=_token),
    "teams:service-token-revoke#POST": Route(allowed=_KEEP, kwargs=_token, method="POST"),
    "api:service-account-list": Route(allowed=_SEE_ANY),
    "api:service-account-list#POST": Route(allowed=_KEEP_ANY, method="POST"),
    "api:service-account-detail": Route(allowed=_SEE, kwargs=_uid),
    "api:service-account-role": Route(allowed=_KEEP, kwargs=_uid, method="POST"),
    "api:service-account-end": Route(allowed=_KEEP, kwargs=_uid, method="POST"),
    "api:service-account-tokens": Route(allowed=_SEE, kwargs=_uid),
    "api:service-account-make-token": Route(allowed=_KEEP, kwargs=_uid, method="POST"),
    "api:service-account-rotate": Route(allowed=_KEEP, kwargs=_uid, method="POST", data=_token_uid),
    "api:service-account-revoke-token": Route(allowed=_KEEP, kwargs=_uid, method="POST", data=_token_uid),
}  # fmt: skip
