"""Permission checks of actions on clusters (used by the rooms above for what they apply to clusters)."""

from __future__ import annotations

from typing import Any

from apps.core.actor import Actor
from apps.core.errors import NotAllowed
from apps.core.permissions import may


def require(actor: Actor, permission: str, obj: Any | None = None) -> None:
    """Raise NotAllowed unless the actor holds `permission` for `obj`; the portal itself may do what its code does."""
    if actor.is_system:
        return
    from apps.accounts.models import User

    user = User.objects.filter(pk=actor.user_id).first() if actor.user_id is not None else None
    if user is None or not may(user, permission, obj):
        raise NotAllowed("This is for platform admins.", rule=permission)
