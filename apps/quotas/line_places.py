"""What people see of a pool's line: places, sums over all, and the rule of the order. Made by `waitlist`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from apps.clusters.models import Pool
from apps.quotas.assess import number
from apps.quotas.models import QuotaRequest
from apps.quotas.waiting import WaitRange, ordinal

ORDER = (
    "Whoever submitted first is served first. A request that was approved and finds no room waits here in the order of "
    "submission, so an approver who takes long costs nobody a place, and a smaller request does not overtake. Only a "
    "request for a time that nobody before it wants goes past: it takes nothing that they could use. A corrected "
    "request begins anew at the end."
)


@dataclass(frozen=True, slots=True)
class Place:
    """One request in the line that a person may be told of by name.

    `rank` counts from 1 over the whole line; `ahead`, `gpus_ahead`: those before it that want a common time.
    `expected`: when dated facts alone give it room, those before it served first; None: no dated fact does.
    """

    rank: int
    gpus: Fraction
    since: datetime
    ahead: int
    gpus_ahead: Fraction
    expected: datetime | None
    request: QuotaRequest
    mine: bool
    may_open: bool = False

    @property
    def what(self) -> str:
        """Whose request it is, and of which flavour."""
        return f"{self.request.workspace.team}: {self.request.flavour}"

    @property
    def shown_rank(self) -> str:
        """Its place in words: "2nd"."""
        return ordinal(self.rank)

    @property
    def shown_gpus(self) -> str:
        """How many GPUs it waits for, for people."""
        return number(self.gpus)

    @property
    def shown_gpus_ahead(self) -> str:
        """How many GPUs are in front of it, for people."""
        return number(self.gpus_ahead)


@dataclass(frozen=True, slots=True)
class PoolLine:
    """A pool's line as one person may see it: named places only, and sums over all."""

    pool: Pool
    total: int
    total_gpus: Fraction
    places: list[Place]
    names: bool
    facts: list[str]
    history: WaitRange
    order: str = ORDER

    @property
    def shown_gpus(self) -> str:
        """How many GPUs all wait for, for people."""
        return number(self.total_gpus)

    @property
    def mine(self) -> list[Place]:
        """The places of the person's own teams."""
        return [place for place in self.places if place.mine]


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """A waiting request's place, with what may end its wait."""

    place: Place
    total: int
    facts: list[str]
    history: WaitRange
    order: str = ORDER


__all__ = ["ORDER", "OwnPlace", "Place", "PoolLine"]
