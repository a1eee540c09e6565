"""Invariant 6: every GPU-millisecond on exactly one line (pure)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.metering.capacity import Reservation, split_capacity

ms = st.integers(0, 10**10)
reservations = st.lists(
    st.builds(Reservation, st.uuids().map(str), ms, ms), max_size=8, unique_by=lambda item: item.owner
)


@pytest.mark.requirement("metering-1.7")
@given(ms, ms, ms, ms, ms, reservations)
def test_lines_sum_to_physical(physical, attributed, unattributed, stranded, maintenance, owners) -> None:
    split = split_capacity(
        physical_gpu_ms=physical,
        attributed_gpu_ms=attributed,
        unattributed_gpu_ms=unattributed,
        stranded_gpu_ms=stranded,
        maintenance_gpu_ms=maintenance,
        reservations=owners,
    )
    assert split.difference_gpu_ms == 0
    assert split.attributed_gpu_ms == attributed
    assert split.unattributed_gpu_ms == unattributed
    assert min(split.unsold_gpu_ms, split.stranded_gpu_ms, split.maintenance_gpu_ms) >= 0
    assert split.short == (attributed + unattributed > physical)
    if not split.short:
        assert split.physical_gpu_ms == physical
    wanted = {item.owner: item.unused_gpu_ms for item in owners}
    assert all(0 < part <= wanted[owner] for owner, part in split.reserved_unused)
    # Unsold is what nobody reserved: it exists only where every reservation got its whole.
    assert split.unsold_gpu_ms == 0 or split.reserved_unused_gpu_ms == sum(wanted.values())


@pytest.mark.requirement("metering-1.7")
@given(ms, reservations, st.randoms())
def test_the_order_of_owners_does_not_matter(physical, owners, rnd) -> None:
    shuffled = list(owners)
    rnd.shuffle(shuffled)
    one = split_capacity(physical_gpu_ms=physical, attributed_gpu_ms=0, unattributed_gpu_ms=0, reservations=owners)
    two = split_capacity(physical_gpu_ms=physical, attributed_gpu_ms=0, unattributed_gpu_ms=0, reservations=shuffled)
    assert one == two


@pytest.mark.requirement("metering-1.7")
def test_scarce_free_capacity_is_split_by_largest_remainder() -> None:
    split = split_capacity(
        physical_gpu_ms=10,
        attributed_gpu_ms=0,
        unattributed_gpu_ms=0,
        reservations=[Reservation("a", 7, 0), Reservation("b", 7, 0), Reservation("c", 7, 0)],
    )
    assert dict(split.reserved_unused) == {"a": 4, "b": 3, "c": 3}
    assert split.unsold_gpu_ms == 0


def test_borrowing_beyond_the_guarantee_does_not_reserve() -> None:
    split = split_capacity(
        physical_gpu_ms=100,
        attributed_gpu_ms=60,
        unattributed_gpu_ms=0,
        reservations=[Reservation("a", 20, 50), Reservation("b", 30, 10)],
    )
    assert dict(split.reserved_unused) == {"b": 20}
    assert split.unsold_gpu_ms == 20


def test_negative_quantities_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        split_capacity(physical_gpu_ms=-1, attributed_gpu_ms=0, unattributed_gpu_ms=0)
