"""What proposals are worth together: no GPU-hour is saved twice. Pure.

In one workspace stopping idle work and resting by the clock stop the same GPUs: the greater counts alone. A smaller
size saves part of every hour that a workload holds; of the hours that are stopped anyway that part is saved already.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal

NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Worth:
    """A proposal as sums see it. `place`: whose GPUs it is about; None: it overlaps with nothing.

    `stops`: it stops GPUs for hours, `clock`: by the clock. `share`: of a smaller size, the part that stays. `of_idle`:
    of a smaller size, what stopping idle work saves of it anyway; None: not known, then as much as can be.
    """

    monthly: Decimal
    place: Hashable | None = None
    stops: bool = False
    clock: bool = False
    share: Decimal | None = None
    of_idle: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What a proposal adds to the sum; `included`: the rest of it, which the proposal at index `within` saves."""

    amount: Decimal
    included: Decimal = NOTHING
    within: int | None = None


def together(proposals: Sequence[Worth]) -> list[Counted]:
    """Return what each proposal adds, in their order; the sum is never more than all of them together save."""
    found = [Counted(one.monthly) for one in proposals]
    best: dict[Hashable, int] = {}
    for at, one in enumerate(proposals):
        if one.stops and one.place is not None:
            known = best.get(one.place)
            if known is None or one.monthly > proposals[known].monthly:
                best[one.place] = at
    for at, one in enumerate(proposals):
        if one.stops and one.place is not None and best[one.place] != at:
            found[at] = Counted(NOTHING, one.monthly, best[one.place])
    left = {place: proposals[at].monthly for place, at in best.items()}
    # Where the stopped hours could be any workload's, they are taken to be of those that a smaller size cuts most.
    order = sorted(range(len(proposals)), key=lambda at: (proposals[at].share or NOTHING, at))
    for at in order:
        one = proposals[at]
        if one.share is None or one.place not in best:
            continue
        stop = best[one.place]
        cut = 1 - one.share
        if one.of_idle is not None and not proposals[stop].clock:
            included = min(one.of_idle, one.monthly)
        else:
            included = min(cut * left[one.place], one.monthly)
            left[one.place] -= included / cut if cut else NOTHING
        if included > 0:
            found[at] = Counted(one.monthly - included, included, stop)
    return found


__all__ = ["Counted", "Worth", "together"]
