"""Who could fill a stage, and whether so many people fill so many seats. Pure: no ORM."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Panel:
    """Who holds, at a moment, the roles of a stage where it asks for them: its own, and those that may step in."""

    own: frozenset[int]
    escalation: frozenset[int] = frozenset()
    fallback: frozenset[int] = frozenset()


def unfillable(needs: Sequence[tuple[int, Collection[int]]]) -> list[int]:
    """Return the indexes of stages that cannot get their quorum from `(quorum, who could)`, one seat a person.

    Maximum bipartite matching by augmenting paths (Kuhn), earlier stages first, so that the complaint names the last
    stages to starve.
    """
    seat_of: dict[int, int] = {}
    slots = [stage for stage, (quorum, _) in enumerate(needs) for _ in range(quorum)]

    def place(slot: int, tried: set[int]) -> bool:
        for person in sorted(needs[slots[slot]][1]):
            if person in tried:
                continue
            tried.add(person)
            if person not in seat_of or place(seat_of[person], tried):
                seat_of[person] = slot
                return True
        return False

    return sorted({slots[slot] for slot in range(len(slots)) if not place(slot, set())})
