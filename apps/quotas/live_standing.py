"""Promised or in force: whether the GPUs of a guarantee are really there for it. Pure: no ORM, no clock.

A guarantee is in force when what it does not use itself is free on the cluster, or is taken back from others when it
wants it. While others' work goes on beyond its own quota (one that ended, or shrank), and nothing takes that back, it
is only promised. Nothing is claimed on figures that are stale or missing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from apps.core.formats import number as whole


class Standing(StrEnum):
    """How a guarantee stands."""

    IN_FORCE = "in_force"
    PROMISED = "promised"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One workspace's guarantee in a pool, in whole devices. `used` None: not seen.

    `outside`: of it, for work that nothing makes room for (services beside a Kueue that manages jobs alone).
    """

    key: Hashable
    guaranteed: Fraction
    used: Fraction | None
    since: datetime
    outside: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """A pool as observed. `beyond`: in use beyond own quota, `ended`: of it by work that has no quota there any more.

    `physical` None: no node was seen. `stale`: why nothing may be claimed; "": the figures are current. `takes_back`:
    the cluster takes back all that is beyond when its owner wants it; `returns`: else, so much of it, and `unreturned`
    why not the rest.
    """

    physical: Fraction | None
    beyond: Fraction
    ended: Fraction
    takes_back: bool
    stale: str = ""
    returns: Fraction = Fraction(0)
    unreturned: str = ""


@dataclass(frozen=True, slots=True)
class Stand:
    """A guarantee's standing with the reason in a sentence ("" where it is in force), and how many GPUs are missing."""

    standing: Standing
    why: str = ""
    missing: Fraction = Fraction(0)


_IN_FORCE = Stand(Standing.IN_FORCE)


def judge(guarantees: Sequence[Guarantee], pool: PoolUse) -> dict[Hashable, Stand]:
    """Return how each guarantee of a pool stands. What is free serves older guarantees first; the newest waits."""
    if pool.stale:
        return {one.key: Stand(Standing.UNKNOWN, pool.stale) for one in guarantees}
    used = sum((min(one.used or Fraction(0), one.guaranteed) for one in guarantees), Fraction(0)) + pool.beyond
    there = (pool.physical or Fraction(0)) - used
    free = max(Fraction(0), there)
    # Where nodes were lost, what is taken back first makes up for them.
    back = max(Fraction(0), min(pool.returns, pool.beyond) + min(Fraction(0), there))
    found: dict[Hashable, Stand] = {}
    for one in sorted(guarantees, key=lambda each: each.since):
        if not one.guaranteed:
            found[one.key] = _IN_FORCE
        elif one.used is None:
            found[one.key] = Stand(Standing.UNKNOWN, "Its use has not been seen on the cluster yet.")
        elif pool.takes_back:
            found[one.key] = _IN_FORCE
        elif pool.physical is None:
            found[one.key] = Stand(Standing.UNKNOWN, "No node of this pool has been seen yet.")
        else:
            need = max(Fraction(0), one.guaranteed - one.used)
            evicting = min(need - min(need, one.outside), back)
            given = evicting + min(need - evicting, free)
            back -= evicting
            free -= given - evicting
            found[one.key] = _IN_FORCE if given == need else _promised(need - given, pool)
    return found


def _promised(missing: Fraction, pool: PoolUse) -> Stand:
    count = _gpus(missing)
    if pool.ended >= missing:
        why = f"{count} still used by work whose quota ended."
    elif pool.beyond:
        why = f"{count} still used by work beyond its own quota."
    else:
        why = f"{count} not there: the pool's nodes carry less than what is promised."
    if pool.beyond and pool.unreturned:
        why += f" {pool.unreturned}"
    return Stand(Standing.PROMISED, f"Promised: {why}", missing)


def _gpus(count: Fraction) -> str:
    shown = whole(count.numerator) if count.denominator == 1 else f"{float(count):.3f}".rstrip("0")
    return f"{shown} {'GPU is' if count == 1 else 'GPUs are'}"


def split(used: int, held: Sequence[tuple[Hashable, int]]) -> tuple[dict[Hashable, int], int]:
    """Fill what is used of one resource into the guarantees that hold it, in order; return (units per key, the rest).

    A cluster counts a resource by name: flavours that share it fill one after the other.
    """
    left = used
    within: dict[Hashable, int] = {}
    for key, guaranteed in held:
        within[key] = min(guaranteed, left)
        left -= within[key]
    return within, left


__all__ = ["Guarantee", "PoolUse", "Stand", "Standing", "judge", "split"]
