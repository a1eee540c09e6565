"""What every action of the room asks first: who acts, whether they may there, and that it is not about themselves."""

from __future__ import annotations

from typing import Any

from apps.accounts.models import User
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import may
from apps.teams import scope

MAX_REASON = 500


def person(actor: Actor) -> User | None:
    """Return the person who acts; None: the portal itself. Raises NotAllowed for nobody."""
    if actor.is_system:
        return None
    found = User.objects.filter(pk=actor.user_id or 0).first()
    if found is None:
        raise NotAllowed
    return found


def require(user: User | None, actor: Actor, permission: str, obj: Any) -> None:
    """Raise NotAllowed unless the actor holds the permission there; without an object, for the whole installation."""
    if actor.is_system:
        return
    allowed = scope.of(user).everywhere(permission) if obj is None else may(user, permission, obj)
    if not allowed:
        raise NotAllowed(rule=permission)


def not_oneself(actor: Actor, user_id: int, message: str) -> None:
    """Raise NotAllowed where an action is about the actor, or about whom they act for."""
    if not actor.is_system and user_id in (actor.user_id, actor.on_behalf_of):
        raise NotAllowed(message, rule="not_oneself")


def checked_reason(actor: Actor, reason: str, errors: dict[str, str] | None = None) -> str:
    """Return the reason as it is stored; a missing one is added to `errors`, or raised as Invalid."""
    found, problem = reason.strip(), ""
    if not actor.is_system and not found:
        problem = "Say why, for the audit trail."
    elif len(found) > MAX_REASON:
        problem = f"Use at most {MAX_REASON} characters."
    if problem and errors is None:
        raise Invalid({"reason": problem})
    if problem and errors is not None:
        errors["reason"] = problem
    return found
