"""The gate "may this person do that here?". Core asks; the teams room answers (it registers the resolver)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a permission of one person goes: the whole installation, or the teams with these uids."""

    everywhere: bool
    team_uids: frozenset[uuid.UUID] = frozenset()


class _Installation:
    """Belongs to no team or unit: a permission for it is one for the whole installation."""


#: What is everybody's (months, prices, accounts, sources): who holds a permission for one unit only does not hold it
#: for this, whereas `None` would ask for the permission anywhere at all.
INSTALLATION = _Installation()


class Resolver(Protocol):
    """What the teams room provides."""

    def __call__(self, user: Any, permission: str, obj: Any | None) -> bool: ...


class ReachResolver(Protocol):
    """What the teams room provides for rooms below it, whose rows carry a team's uid instead of a key."""

    def __call__(self, user: Any, permission: str) -> Reach: ...


class Holders(Protocol):
    """What the teams room provides: who holds a permission for the whole installation."""

    def __call__(self, permission: str) -> list[int]: ...


_resolver: Resolver | None = None
_holders: Holders | None = None
_reach_resolver: ReachResolver | None = None


def register_resolver(resolver: Resolver, reach_resolver: ReachResolver) -> None:
    """Install the one scope resolver (called by the teams room when it loads)."""
    global _resolver, _reach_resolver
    _resolver, _reach_resolver = resolver, reach_resolver


def register_holders(holders: Holders) -> None:
    """Install who answers `holders_of` (called by the teams room when it loads)."""
    global _holders
    _holders = holders


def holders_of(permission: str) -> list[int]:
    """Return the ids of the active people who hold a permission for the whole installation, to tell them something."""
    if _holders is None:
        raise RuntimeError("no permission resolver is registered")
    return _holders(permission)


def reach(user: Any, permission: str) -> Reach:
    """Return how far `permission` goes for `user`; nowhere for anonymous and deactivated persons."""
    if _reach_resolver is None:
        raise RuntimeError("no permission resolver is registered")
    if not getattr(user, "is_authenticated", False) or not getattr(user, "is_active", False):
        return Reach(everywhere=False)
    return _reach_resolver(user, permission)


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
