"""Capacity lines: every GPU-millisecond of a cluster, model and hour on exactly one line (design invariant 6). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.core.money import largest_remainder


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one owner (workspace × flavour) was guaranteed in the hour, and held of it, in physical GPU-milliseconds."""

    owner: str
    guaranteed_gpu_ms: int
    allocated_gpu_ms: int

    @property
    def unused_gpu_ms(self) -> int:
        """Guaranteed and not held; borrowing beyond the guarantee does not make it negative."""
        return max(0, self.guaranteed_gpu_ms - self.allocated_gpu_ms)


@dataclass(frozen=True, slots=True)
class CapacitySplit:
    """The lines of one cluster, model and hour, in integer GPU-milliseconds."""

    physical_gpu_ms: int
    attributed_gpu_ms: int
    unattributed_gpu_ms: int
    reserved_unused: tuple[tuple[str, int], ...]
    unsold_gpu_ms: int
    stranded_gpu_ms: int
    maintenance_gpu_ms: int
    short: bool

    @property
    def reserved_unused_gpu_ms(self) -> int:
        """Σ over owners."""
        return sum(value for _, value in self.reserved_unused)

    @property
    def difference_gpu_ms(self) -> int:
        """Physical minus the sum of all lines: 0, always."""
        return self.physical_gpu_ms - (
            self.attributed_gpu_ms
            + self.unattributed_gpu_ms
            + self.reserved_unused_gpu_ms
            + self.unsold_gpu_ms
            + self.stranded_gpu_ms
            + self.maintenance_gpu_ms
        )


def split_capacity(
    *,
    physical_gpu_ms: int,
    attributed_gpu_ms: int,
    unattributed_gpu_ms: int,
    stranded_gpu_ms: int = 0,
    maintenance_gpu_ms: int = 0,
    reservations: Sequence[Reservation] = (),
) -> CapacitySplit:
    """Split the physical GPU time of one cluster, model and hour (all arguments in GPU-milliseconds).

    free = physical − allocated − stranded − maintenance; reserved-unused = min(free, Σ max(0, guaranteed − own
    allocated)), split over owners by largest remainder; unsold is the rest. Where a source reports more allocated than
    physical, that contradiction is shown (`short`): physical is raised to allocated; maintenance and stranded give way
    first. Raises ValueError for negative quantities.
    """
    quantities = (physical_gpu_ms, attributed_gpu_ms, unattributed_gpu_ms, stranded_gpu_ms, maintenance_gpu_ms)
    if min(quantities) < 0:
        raise ValueError("quantities of capacity must not be negative")
    allocated = attributed_gpu_ms + unattributed_gpu_ms
    short = allocated > physical_gpu_ms
    physical = max(physical_gpu_ms, allocated)
    stranded = min(stranded_gpu_ms, physical - allocated)
    maintenance = min(maintenance_gpu_ms, physical - allocated - stranded)
    free = physical - allocated - stranded - maintenance
    ordered = sorted((item for item in reservations if item.unused_gpu_ms), key=lambda item: item.owner)
    wanted = [item.unused_gpu_ms for item in ordered]
    total = min(free, sum(wanted))
    parts = largest_remainder(total, wanted) if wanted else []
    return CapacitySplit(
        physical_gpu_ms=physical,
        attributed_gpu_ms=attributed_gpu_ms,
        unattributed_gpu_ms=unattributed_gpu_ms,
        reserved_unused=tuple((item.owner, part) for item, part in zip(ordered, parts, strict=True) if part),
        unsold_gpu_ms=free - total,
        stranded_gpu_ms=stranded,
        maintenance_gpu_ms=maintenance,
        short=short,
    )
