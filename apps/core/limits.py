"""What narrows a person's rights while one request lasts: a token that carries some of them only.

The limit is kept beside the request, not on the user object: actions load the person anew, and must find it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from apps.core.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class Limit:
    """The person with this key holds nothing beyond `permissions`, whatever their roles say."""

    user_id: int
    permissions: frozenset[str]


_limit: ContextVar[Limit | None] = ContextVar("commons_limit", default=None)


def narrow(user_id: int, permissions: Iterable[str]) -> None:
    """Narrow a person's rights from now until `forget()`, at the end of the request."""
    _limit.set(Limit(user_id, frozenset(permissions)))


def forget() -> None:
    """Lift the limit; called before and after every request, since threads serve many of them."""
    _limit.set(None)


def limit_of(user_id: int | None) -> frozenset[str] | None:
    """Return what a person's rights are narrowed to in this request, None where nothing narrows them."""
    found = _limit.get()
    return found.permissions if found is not None and found.user_id == user_id else None


def refuse_limited(user_id: int | None, message: str) -> None:
    """Refuse what hangs on who somebody is rather than on a permission. Raises NotAllowed under a limited token."""
    if limit_of(user_id) is not None:
        raise NotAllowed(message, rule="limited_token")


__all__ = ["Limit", "forget", "limit_of", "narrow", "refuse_limited"]
