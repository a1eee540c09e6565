"""Whether there is room for a release now, beside what the quota allows: by what is in use on the cluster. Pure.

A release that fits its quota still waits while other work holds it. What it needs is counted on top of the release that
serves: a canary its own size, without one a replica more for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from apps.core.formats import age, datetime_utc
from apps.deployments.feasibility import Size


class State(StrEnum):
    """What is known of the room for a release."""

    ROOM = "room"
    SOME = "some"
    WAITS = "waits"
    UNKNOWN = "unknown"


#: The worst first: what decides about several limits.
_WORST = (State.WAITS, State.UNKNOWN, State.SOME, State.ROOM)


@dataclass(frozen=True, slots=True)
class Need:
    """What a release needs on top of what serves: to begin, at its largest, and for each of its replicas."""

    start: int
    most: int
    each: int


@dataclass(frozen=True, slots=True)
class Holders:
    """The metered workloads that held GPUs of it at the end of the last metered hour; `newest`: since when at most.

    `exact` False: it runs since before what was looked at.
    """

    workloads: int
    newest: datetime
    hour: datetime
    exact: bool = True

    @property
    def words(self) -> str:
        """How many they are, since when the newest runs, and as of when."""
        count = f"{self.workloads:,} workload{'s' if self.workloads != 1 else ''}"
        since = f"since {datetime_utc(self.newest)}" if self.exact else f"since before {datetime_utc(self.newest)}"
        which = "which runs" if self.workloads == 1 else "the newest"
        return f"by {count}, {which} {since} (as metered in the hour from {datetime_utc(self.hour)})"


@dataclass(frozen=True, slots=True)
class Seen:
    """A limit as the cluster tells it. `used`, `allowed` None: not told. `unsure`: why nothing may be claimed.

    `promised`: why GPUs that the quota leaves free are not there; "" where they are, or nothing is known of it.
    """

    limit: str
    unit: str
    allowed: int | None
    used: int | None
    at: datetime | None
    unsure: str = ""
    promised: str = ""
    missing: int = 0
    holders: Holders | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """One limit, what is in use of it, and whether a release would start."""

    seen: Seen
    need: Need
    state: State
    words: str

    @property
    def free(self) -> int | None:
        """What is free of it now; None: unknown."""
        seen = self.seen
        return max(0, seen.allowed - seen.used) if seen.allowed is not None and seen.used is not None else None

    @property
    def badge(self) -> tuple[str, str, str]:
        """Status, words and tone of a badge."""
        return {
            State.ROOM: ("ok", "room now", "positive"),
            State.SOME: ("waiting", "room for a part", "caution"),
            State.WAITS: ("waiting", "would wait", "caution"),
            State.UNKNOWN: ("unknown", "not known", "neutral"),
        }[self.state]


@dataclass(frozen=True, slots=True)
class Room:
    """Every limit as of now."""

    lines: tuple[Now, ...]

    @property
    def state(self) -> State:
        """What the worst of them says."""
        return min((line.state for line in self.lines), key=_WORST.index, default=State.UNKNOWN)

    @property
    def words(self) -> list[str]:
        """What stands in the way, or is not known, limit by limit."""
        return list(dict.fromkeys(line.words for line in self.lines if line.state is not State.ROOM))


def need(wanted: int, one: int, current: int, *, canary: bool, least_replicas: int) -> Need:
    """Return what is needed on top of `current`, which serves: all of a canary, else what is larger and a replica."""
    if not current or canary:
        return Need(min(wanted, max(1, least_replicas) * one), wanted, one)
    return Need(one, max(wanted, current) + one - current, one)


def needs(wanted: Size, current: Size | None, *, canary: bool, least_replicas: int) -> tuple[Need, Need, Need]:
    """Return what a release needs of units, cores and GiB on top of the one that serves."""
    same = current if current is not None and current.flavour == wanted.flavour else None
    return (
        need(wanted.units, wanted.units_per_replica, same.units if same else 0, canary=canary,
             least_replicas=least_replicas),
        need(wanted.cpu, wanted.cpu_per_replica, current.cpu if current else 0, canary=canary,
             least_replicas=least_replicas),
        need(wanted.memory_gib, wanted.memory_per_replica, current.memory_gib if current else 0, canary=canary,
             least_replicas=least_replicas),
    )  # fmt: skip


def judge(seen: Sequence[Seen], wanted: Sequence[Need], at: datetime) -> Room:
    """Return whether there is room by every limit that the release needs anything of."""
    return Room(tuple(_one(one, need_of, at) for one, need_of in zip(seen, wanted, strict=True) if need_of.most))


def _one(seen: Seen, wanted: Need, at: datetime) -> Now:
    if seen.unsure or seen.used is None or seen.allowed is None:
        why = seen.unsure or "The cluster has not told what is in use there yet."
        last = ""
        if seen.used is not None and seen.allowed is not None and seen.at is not None:
            last = f" Last seen {age(seen.at, now=at)}: {seen.used:,} of {seen.allowed:,} {seen.unit} in use."
        return Now(seen, wanted, State.UNKNOWN, f"{seen.limit}: whether there is room now is not known. {why}{last}")
    free = max(0, seen.allowed - seen.used)
    usable = max(0, free - seen.missing)
    used = _used(seen, at)
    if usable >= wanted.most:
        return Now(seen, wanted, State.ROOM, f"{used} It needs {wanted.most:,} on top.")
    if usable >= wanted.start:
        starts = usable // wanted.each if wanted.each else 0
        words = (
            f"{used} {usable:,} can be had now and it needs up to {wanted.most:,} on top: {starts:,} of its replicas"
            " start, more wait until something ends."
        )
        return Now(seen, wanted, State.SOME, words)
    if free >= wanted.start:
        words = f"{used} {seen.promised} It needs {wanted.start:,} to begin, so it will wait."
    else:
        short = wanted.start - free
        words = (
            f"{used} It needs {wanted.start:,} on top to begin: it will wait until {short:,} more"
            f" {'come' if short != 1 else 'comes'} free."
        )
    return Now(seen, wanted, State.WAITS, words)


def _used(seen: Seen, at: datetime) -> str:
    who = f" {seen.holders.words}" if seen.holders is not None and seen.used else ""
    when = f", seen {age(seen.at, now=at)}" if seen.at is not None else ""
    return f"{seen.limit}: {seen.used:,} of {seen.allowed:,} {seen.unit} are used now{when},{who}.".replace(",.", ".")


__all__ = ["Holders", "Need", "Now", "Room", "Seen", "State", "judge", "need", "needs"]
