"""Routes of second factors. `world.factor`: the Finance team lead's authenticator app."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from apps.accounts.choices import FactorKind
from apps.accounts.models import FactorReset, SecondFactor
from apps.core import clock, crypto
from tests.sweep.types import EVERYBODY, Route


def build(world: Any) -> None:
    """Give the lead an app."""
    world.factor = SecondFactor.objects.create(
        user=world.lead_finance,
        kind=FactorKind.TOTP,
        name="Numbat handset",
        secret=crypto.encrypt("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"),
        confirmed_at=clock.now(),
    )
    world.reset = FactorReset.objects.create(
        user=world.lead_finance, reason="Numbat telephone lost", proposed_by=world.admin, proposed_at=clock.now(),
        expires_at=clock.now() + timedelta(days=3),
    )  # fmt: skip
    world.keep_secret("Numbat telephone lost", world.reset.uid, sees={"admin", "compliance"})
    world.keep_secret("Numbat handset", world.factor.uid, sees={"lead_finance"})
    for name in ("compliance", "finance", "admin"):
        world.secrets[name].append("Numbat handset")


def _factor(world: Any) -> Mapping[str, Any]:
    return {"factor_uid": world.factor.uid}


def _person(world: Any) -> Mapping[str, Any]:
    return {"user_uid": world.member_finance.uid}


def _reset(world: Any) -> Mapping[str, Any]:
    return {"reset_uid": world.reset.uid}


_WHY: dict[str, str] = {"reason": "lost phone"}

ROUTES: dict[str, Route] = {
    "accounts:sign-in-second": Route(
        allowed=EVERYBODY, public=True, ok=frozenset({302}), note="leads to sign-in, or on whoever is signed in"
    ),
    "accounts:confirm": Route(allowed=EVERYBODY),
    "accounts:confirm#POST": Route(allowed=EVERYBODY, method="POST"),
    "accounts:factor-list": Route(allowed=EVERYBODY),
    "accounts:factor-app-create": Route(allowed=EVERYBODY),
    "accounts:factor-app-create#POST": Route(allowed=EVERYBODY, method="POST"),
    "accounts:factor-key-create": Route(allowed=EVERYBODY),
    "accounts:factor-codes": Route(allowed=EVERYBODY),
    "accounts:factor-remove": Route(allowed={"lead_finance"}, kwargs=_factor),
    "accounts:user-factors-reset": Route(allowed={"admin"}, kwargs=_person, note="409: there is none to reset"),
    "accounts:user-factors-reset#POST": Route(
        allowed={"admin"}, kwargs=_person, method="POST", data=lambda world: _WHY
    ),
    "accounts:factor-reset-list": Route(allowed={"admin", "compliance"}),
    "accounts:factor-reset-confirm": Route(allowed={"admin", "compliance"}, kwargs=_reset),
    "accounts:factor-reset-confirm#POST": Route(
        allowed={"admin", "compliance"}, kwargs=_reset, method="POST", note="409: admin proposed it; none to remove"
    ),
    "accounts:factor-reset-end": Route(allowed={"admin", "compliance"}, kwargs=_reset),
    "accounts:factor-reset-end#POST": Route(
        allowed={"admin", "compliance"}, kwargs=_reset, method="POST", data=lambda world: _WHY
    ),
    "accounts:user-password-use": Route(allowed={"admin"}, kwargs=_person),
    "accounts:user-password-use#POST": Route(allowed={"admin"}, kwargs=_person, method="POST", data=lambda world: _WHY),
}
