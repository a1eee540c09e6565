"""Which release had its objects on the cluster over which time, with which share of the traffic. Pure.

Of one release no two intervals meet, and at every instant the shares of an endpoint sum to 100 or to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Switch:
    """What a change of shares does to the open intervals: releases to close, and those to open with their share."""

    close: tuple[int, ...]
    open: Mapping[int, int]


def switch(running: Mapping[int, int], wanted: Mapping[int, int]) -> Switch:
    """Return how to come from the open intervals (release → share) to the wanted ones; nothing for what stays.

    Raises ValueError where the wanted shares do not sum to 100 (or there are none).
    """
    if wanted and sum(wanted.values()) != 100:
        raise ValueError(f"shares sum to {sum(wanted.values())}, not to 100")
    if any(not 0 <= share <= 100 for share in wanted.values()):
        raise ValueError("a share lies outside 0 to 100")
    close = tuple(sorted(release for release, share in running.items() if wanted.get(release) != share))
    return Switch(close, {release: share for release, share in sorted(wanted.items()) if running.get(release) != share})
