"""How long it took others: an honest range from a history of waits. Pure: no ORM, no clock."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from apps.core.formats import duration

#: Only so many of the newest waits count: the pool of a year ago says nothing.
NEWEST = 20
#: With fewer, no range is told: two waits are an anecdote.
ENOUGH = 5


@dataclass(frozen=True, slots=True)
class WaitRange:
    """What the middle of past waits was: from p20 to p80 of `count` waits; both None where there are too few."""

    low: timedelta | None
    high: timedelta | None
    count: int

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return self.low is not None and self.high is not None

    @property
    def words(self) -> str:
        """The range in a sentence, or why there is none."""
        if self.low is None or self.high is None:
            seen = "none" if not self.count else f"only {self.count}"
            return f"No history yet, so no estimate ({seen} of the {ENOUGH} waits that it takes)."
        return (
            f"Like ones waited {duration(self.low)} to {duration(self.high)} "
            f"(the middle of the last {self.count}: one in five was faster, one in five slower)."
        )


def range_of(waits: Sequence[timedelta]) -> WaitRange:
    """Return the range of the given waits, newest first; at most `NEWEST` of them count."""
    newest = [wait.total_seconds() for wait in waits[:NEWEST]]
    if len(newest) < ENOUGH:
        return WaitRange(None, None, len(newest))
    tenths = statistics.quantiles(newest, n=10, method="inclusive")
    return WaitRange(timedelta(seconds=tenths[1]), timedelta(seconds=tenths[7]), len(newest))


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, 11th …"""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


__all__ = ["ENOUGH", "NEWEST", "WaitRange", "ordinal", "range_of"]
