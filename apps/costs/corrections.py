"""What late facts change for a cluster-hour that was billed already: pure, no ORM (design invariant 9, cost.md E10).

What stands billed for an hour is its frozen charges and every correction made since. The late reading is the whole
hour as it is known now. Their difference, key by key, is what has to be corrected; adding it to what stands gives the
late reading exactly, so that telling the same reading again finds nothing and a reading that is taken back reverses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """What is billed apart: a kind of charge of one owner at one price. `rate_id` None: no price, unknown."""

    kind: str
    team_id: int | None
    unit_id: int | None
    cost_centre: str
    flavour_id: int | None
    gpu_model: str
    rate_id: int | None

    @property
    def order(self) -> tuple[str | int, ...]:
        """A total order that does not depend on the order of the rows."""
        numbers = (self.team_id, self.unit_id, self.flavour_id, self.rate_id)
        return (self.kind, *(-1 if number is None else number for number in numbers), self.cost_centre, self.gpu_model)


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner as it was called in that hour: copied to the correction, no part of the key."""

    unit_path: tuple[int, ...] = ()
    team_name: str = ""
    unit_name: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A quantity under a key. `quantity_ms`: milliseconds × units of the flavour; `gpu_ms`: in physical GPUs."""

    key: Key
    owner: Owner
    quantity_ms: int
    gpu_ms: int


def differences(billed: Iterable[Entry], late: Iterable[Entry]) -> list[Entry]:
    """Return what has to be added to `billed` (signed) to give `late`, in a fixed order, without zero rows.

    The owner's names come from the late reading where it knows the key, else from what was billed.
    """
    quantity: dict[Key, int] = {}
    gpu: dict[Key, int] = {}
    owners: dict[Key, Owner] = {}
    for sign, entries in ((-1, billed), (1, late)):
        for entry in entries:
            quantity[entry.key] = quantity.get(entry.key, 0) + sign * entry.quantity_ms
            gpu[entry.key] = gpu.get(entry.key, 0) + sign * entry.gpu_ms
            owners[entry.key] = entry.owner
    return [
        Entry(key, owners[key], quantity[key], gpu[key])
        for key in sorted(quantity, key=lambda key: key.order)
        if quantity[key] or gpu[key]
    ]
