"""The gate "may this person do that here?". Core asks; the teams room answers (it registers the resolver)."""

from __future__ import annotations

from typing import Any, Protocol


class Resolver(Protocol):
    """What the teams room provides."""

    def __call__(self, user: Any, permission: str, obj: Any | None) -> bool: ...


_resolver: Resolver | None = None


def register_resolver(resolver: Resolver) -> None:
    """Install the one scope resolver (called by the teams room when it loads)."""
    global _resolver
    _resolver = resolver


def may(user: Any, permission: str, obj: Any | None = None) -> bool:
    """Whether `user` holds `permission` for `obj` (`None`: anywhere at all).

    An object says where it belongs through `scope_team_id` / `scope_unit_id`; one with neither belongs to the
    installation. Anonymous and deactivated persons hold nothing; `is_superuser` grants nothing.
    """
    if _resolver is None:
        raise RuntimeError("no permission resolver is registered")
    if not getattr(user, "is_authenticated", False) or not getattr(user, "is_active", False):
        return False
    return _resolver(user, permission, obj)
