"""Whether a release fits into what its workspace holds, during the canary and after. Pure: no ORM.

While two releases stand side by side both hold their GPUs: the canary needs its own on top. Where a cluster knows no
canary the new one starts before the old one ends, so one replica more is needed for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Size:
    """What a release holds at its largest."""

    flavour: str
    units: int
    units_per_replica: int
    cpu: int
    cpu_per_replica: int
    memory_gib: int
    memory_per_replica: int

    @classmethod
    def of(cls, flavour: str, replicas: int, units: int, cpu: int, memory_gib: int) -> Size:
        """Return the size of so many replicas of so many units, cores and GiB each."""
        return cls(flavour, replicas * units, units, replicas * cpu, cpu, replicas * memory_gib, memory_gib)


@dataclass(frozen=True, slots=True)
class Room:
    """What a workspace may hold of a flavour. `maximum` with what it may borrow.

    `kept`: the share kept for serving, where jobs queue and services do not; None: no share decides.
    """

    guaranteed: int
    maximum: int
    kept: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What other endpoints' releases of the workspace hold at their largest."""

    units: Mapping[str, int]
    cpu: int = 0
    memory_gib: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One limit against what is needed of it."""

    limit: str
    unit: str
    have: int
    others: int
    during: int
    after: int

    @property
    def free(self) -> int:
        """What other endpoints leave of it."""
        return self.have - self.others

    @property
    def ok(self) -> bool:
        """Whether both the rollout and what follows fit."""
        return max(self.during, self.after) <= self.free

    @property
    def words(self) -> str:
        """Why it does not fit, with the limit and what to do; "" where it fits."""
        if self.ok:
            return ""
        short = max(self.during, self.after) - self.free
        when = "during the rollout" if self.after <= self.free else "at its largest"
        return (
            f"{self.limit}: {self.have:,} {self.unit}, of which other endpoints hold {self.others:,}. This needs"
            f" {max(self.during, self.after):,} {when}, {short:,} too many: make it smaller, or request more quota."
        )

    def plain(self) -> dict[str, Any]:
        """Return it as it is frozen with a release."""
        return {
            "limit": self.limit, "unit": self.unit, "have": self.have, "others": self.others, "during": self.during,
            "after": self.after, "ok": self.ok,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fit:
    """Every limit that a release meets."""

    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        """Whether all of them hold."""
        return all(line.ok for line in self.lines)

    @property
    def refusals(self) -> list[str]:
        """The limits that do not hold, in words."""
        return [line.words for line in self.lines if not line.ok]

    def plain(self) -> dict[str, Any]:
        """Return it as it is frozen with a release."""
        return {"ok": self.ok, "lines": [line.plain() for line in self.lines]}


def fit(
    wanted: Size,
    current: Size | None,
    *,
    room: Room,
    held: Held,
    cores: int,
    memory_gib: int,
    production: bool,
    canary: bool,
    unit: str = "GPUs",
) -> Fit:
    """Return how a release fits. `room` is that of its flavour; `canary`: both releases stand side by side for a while.

    Production has to fit into what is guaranteed, or into the share of it that is kept for serving where one decides;
    elsewhere what may be borrowed counts, too.
    """
    limit, have = (f"Guaranteed quota of {wanted.flavour}", room.guaranteed)
    if production and room.kept is not None:
        limit, have = f"Share of {wanted.flavour} kept for serving", room.kept
    elif not production and room.maximum > room.guaranteed:
        limit, have = f"Quota of {wanted.flavour} with what may be borrowed", room.maximum
    same = current if current is not None and current.flavour == wanted.flavour else None
    return Fit(
        (
            Line(
                limit, unit, have, held.units.get(wanted.flavour, 0),
                _during(wanted.units, wanted.units_per_replica, same.units if same else 0, canary),
                wanted.units,
            ),
            Line(
                "CPU of the workspace", "cores", cores, held.cpu,
                _during(wanted.cpu, wanted.cpu_per_replica, current.cpu if current else 0, canary),
                wanted.cpu,
            ),
            Line(
                "Memory of the workspace", "GiB", memory_gib, held.memory_gib,
                _during(wanted.memory_gib, wanted.memory_per_replica, current.memory_gib if current else 0, canary),
                wanted.memory_gib,
            ),
        )
    )  # fmt: skip


def _during(wanted: int, one: int, current: int, canary: bool) -> int:
    """Return what is held at the worst moment of the rollout."""
    if not current:
        return wanted
    return wanted + current if canary else max(wanted, current) + one
