"""People and tokens of the API's tests."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from apps.accounts import actions
from apps.core import clock
from apps.core.actor import Actor, Channel
from tests.factories import grant, make_member, make_user


def bearer(person: Any, *, read_only: bool = False) -> dict[str, str]:
    """Return the header that signs a person in by a token of their own."""
    _, secret = actions.create_token(
        person.pk, "Tests", clock.now() + timedelta(days=7), read_only, actor=Actor.of(person, Channel.WEB)
    )
    return {"Authorization": f"Bearer {secret}"}


def everybody_at_once(world: SimpleNamespace) -> Any:
    """Return somebody who holds every role: what refuses them is a rule, not a missing permission."""
    person = make_user("everything@example.com", display_name="Every role")
    for role in ("platform_admin", "finance", "compliance"):
        grant(person, role)
    grant(person, "team_lead", team=world.finance_team)
    grant(person, "unit_owner", unit=world.unit)
    make_member(person, world.finance_team)
    return person
