"""What every action needs that takes a second person: who acts, why, and that it is not the first one again."""

from __future__ import annotations

from typing import Any

from apps.accounts import merging
from apps.accounts.models import User
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import INSTALLATION, may

MIN_REASON = 10
MAX_REASON = 500


def someone(actor: Actor) -> User | None:
    """Return the active person behind an actor; None: the portal itself, or nobody any more."""
    if actor.user_id is None:
        return None
    return User.objects.filter(pk=actor.user_id, is_active=True).first()


def person(actor: Actor, permission: str, obj: Any, message: str) -> User:
    """Return the active person behind an actor who holds `permission` for `obj` (None: for the whole installation).

    Raises NotAllowed with `message`.
    """
    user = someone(actor)
    if user is None or not may(user, permission, INSTALLATION if obj is None else obj):
        raise NotAllowed(message, rule=permission)
    return user


def checked_text(text: str, *, field: str = "reason", longest: int = MAX_REASON) -> str:
    """Return what a person wrote as it is stored. Raises Invalid for too little or too much."""
    found = text.strip()
    if len(found) < MIN_REASON:
        raise Invalid({field: f"Say in a sentence why (at least {MIN_REASON} characters): others read it."})
    if len(found) > longest:
        raise Invalid({field: f"At most {longest} characters."})
    return found


def second_person(user: User, first_id: int | None, what: str) -> None:
    """Raise NotAllowed where the person who decides is the one who asked."""
    if merging.same_person(user.pk, first_id):
        raise NotAllowed(f"{what} takes a second person: whoever asked for it cannot decide it.", rule="second person")
