"""When a pool's line is served by what is dated already: one sweep over the pool's time. Pure, in whole numbers.

The same arithmetic as `feasibility.starts_by` on a `Ground` (a property test compares them); there a ground is built
for one ask, here fifty asks follow each other on the same pool, so its time is laid out once and each takes its part.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from apps.quotas.ledger import FOREVER, Profile, Step

#: `[start, end)`; `end` None: no end.
Span = tuple[datetime, datetime | None]


@dataclass(frozen=True, slots=True)
class Turn:
    """One in the line. `need`: whole GPUs it must be able to hold; `more`: those it takes beyond what it holds.

    `key`: what counts as its own (workspace and flavour). `held`: what it holds; `kept`: what is kept for its renewal.
    `spans`: when, in order.
    """

    key: Hashable
    need: Fraction
    more: Fraction
    spans: Sequence[Span]
    held: Sequence[Step] = ()
    kept: Sequence[Step] = ()


@dataclass(slots=True)
class PoolLeft:
    """What a pool has left over time, in parts of a GPU: capacity less promises, less what was laid out before."""

    scale: int
    edges: list[datetime] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    _laid: dict[Hashable, list[Step]] = field(default_factory=dict)

    @classmethod
    def of(cls, capacity: Profile, promises: Iterable[Profile], fractions: Iterable[Fraction] = ()) -> PoolLeft:
        """Lay out capacity less promises. `fractions`: further amounts that have to be whole in parts."""
        taken = list(promises)
        sums = itertools.chain(capacity.sums, *(one.sums for one in taken), fractions)
        scale = math.lcm(*{amount.denominator for amount in sums})
        changes: dict[datetime, int] = {}
        for sign, profile in ((1, capacity), *((-1, one) for one in taken)):
            before = 0
            for edge, total in zip(profile.edges, profile.sums, strict=True):
                parts = sign * total.numerator * (scale // total.denominator)
                changes[edge] = changes.get(edge, 0) + parts - before
                before = parts
        edges = sorted(changes)
        return cls(scale, edges, list(itertools.accumulate(changes[edge] for edge in edges)))

    def start_of(self, turn: Turn) -> datetime | None:
        """Return the first start within its time from which on a turn fits until its end; None: there is none.

        Recurring windows stay where they are; the first ones are left out.
        """
        if turn.need <= 0:
            return turn.spans[0][0]  # nothing is always there, whatever the pool has lost
        laid = self._laid.get(turn.key, ())
        # Its own promises, and what is kept for it, are in what is taken from the pool, but not taken from itself.
        back, own = Profile.of([*turn.held, *turn.kept, *laid]), Profile.of([*turn.held, *laid])
        need = math.ceil(turn.need * self.scale)
        if len(turn.spans) == 1:
            start, end = turn.spans[0]
            full = self._full_until(need, (start, end), back, own)
            return start if full is None else None if full == (end or FOREVER) else full
        found: datetime | None = None
        for span in reversed(turn.spans):
            if self._full_until(need, span, back, own) is not None:
                return found
            found = span[0]
        return found

    def _full_until(self, need: int, span: Span, back: Profile, own: Profile) -> datetime | None:
        """Return the end of the last stretch of a span in which it does not fit; None: it fits throughout."""
        start, end = span[0], span[1] or FOREVER
        cuts = sorted({*back.within(start, end), *own.within(start, end)})
        for low, high in reversed(list(itertools.pairwise([start, *cuts, end]))):
            if own.at(low) * self.scale >= need:
                continue
            full = self._short(need - math.floor(back.at(low) * self.scale), low, high)
            if full is not None:
                return full
        return None

    def _short(self, parts: int, start: datetime, end: datetime) -> datetime | None:
        """Return the end of the last stretch in which less than `parts` are left; None: there is none."""
        low, high = bisect.bisect_right(self.edges, start), bisect.bisect_left(self.edges, end)
        if low < high and min(self.left[low:high]) < parts:
            last = next(index for index in range(high - 1, low - 1, -1) if self.left[index] < parts)
            return self.edges[last + 1] if last + 1 < high else end
        if (self.left[low - 1] if low else 0) < parts:
            return self.edges[low] if low < high else end
        return None

    def lay(self, turn: Turn, start: datetime) -> None:
        """Count a turn as served from `start` on."""
        for low, high in turn.spans:
            if high is not None and high <= start:
                continue
            step = Step(max(low, start), high, turn.more)
            self._laid.setdefault(turn.key, []).append(step)
            parts = turn.more.numerator * (self.scale // turn.more.denominator)
            for index in range(self._edge(step.start), self._edge(step.until)):
                self.left[index] -= parts

    def _edge(self, at: datetime) -> int:
        """Return the index from which on it is `at` or later, cutting a stretch in two where that is needed."""
        index = bisect.bisect_left(self.edges, at)
        if index == len(self.edges) or self.edges[index] != at:
            self.edges.insert(index, at)
            self.left.insert(index, self.left[index - 1] if index else 0)
        return index


__all__ = ["PoolLeft", "Turn"]
