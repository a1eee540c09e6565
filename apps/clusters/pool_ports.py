"""What rooms above have to say before a pool changes: they know who holds what in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from apps.clusters.models import Pool


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What an admin may change of a pool."""

    kind: str
    commit_factor: Decimal
    best_effort: bool
    open_names: bool
    max_gpus: int | None
    startup_minutes: int
    reserved_until: datetime | None


#: `(pool as it is, settings wanted)` → field → why not; empty: nothing against it. Called under the pool's lock.
PoolCheck = Callable[[Pool, PoolSettings], Mapping[str, str]]
_CHECKS: list[PoolCheck] = []


def register_pool_check(check: PoolCheck) -> None:
    """Have a check asked before every change of a pool; registering twice counts once."""
    if check not in _CHECKS:
        _CHECKS.append(check)


def objections(pool: Pool, wanted: PoolSettings) -> dict[str, str]:
    """Return what registered checks have against a change, by field."""
    found: dict[str, str] = {}
    for check in _CHECKS:
        found |= check(pool, wanted)
    return found
