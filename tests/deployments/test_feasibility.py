"""Whether a release fits: the canary needs its own GPUs on top, production fits into what is guaranteed. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments.feasibility import Fit, Held, Room, Size, fit

WANTED = Size.of("A100", 4, 1, 4, 16)


def ask(wanted: Size = WANTED, current: Size | None = None, **changes: Any) -> Fit:
    values: dict[str, Any] = {
        "room": Room(8, 8), "held": Held({}), "cores": 256, "memory_gib": 2048, "production": True, "canary": False,
    }  # fmt: skip
    return fit(wanted, current, **(values | changes))


@pytest.mark.requirement("releases-2.1")
def test_a_canary_needs_its_own_gpus_on_top() -> None:
    both = ask(current=WANTED, canary=True)
    assert both.ok
    assert both.lines[0].during == 8
    tight = ask(current=WANTED, canary=True, room=Room(7, 7))
    assert not tight.ok
    assert "Guaranteed quota of A100" in tight.refusals[0]
    assert "during the rollout" in tight.refusals[0]
    # Without a canary the new one starts before the old one ends: one replica more.
    assert ask(current=WANTED).lines[0].during == 5


@pytest.mark.requirement("releases-2.1")
def test_another_flavour_leaves_the_old_one_its_own_room() -> None:
    cpu = Size.of("CPU large", 4, 8, 0, 16)
    found = ask(cpu, WANTED, canary=True, room=Room(32, 32))
    assert found.ok
    assert found.lines[0].during == 32
    assert found.lines[2].during == 4 * 16 + 4 * 16


@pytest.mark.requirement("releases-2.2")
def test_production_fits_into_guaranteed_and_others_may_borrow() -> None:
    assert not ask(room=Room(2, 8)).ok
    assert ask(room=Room(2, 8), production=False).ok
    assert "borrowed" in ask(room=Room(2, 3), production=False).refusals[0]


@pytest.mark.requirement("releases-2.2")
def test_every_limit_that_refuses_is_named() -> None:
    found = ask(held=Held({"A100": 6}, cpu=250, memory_gib=2040))
    assert [line.limit for line in found.lines if not line.ok] == [
        "Guaranteed quota of A100", "CPU of the workspace", "Memory of the workspace",
    ]  # fmt: skip
    assert "6" in found.refusals[0]
    assert "2 too many" in found.refusals[0]


@given(st.integers(0, 60), st.integers(0, 30), st.integers(1, 20), st.integers(0, 20), st.booleans())
def test_what_fits_never_exceeds_what_is_held(room: int, held: int, size: int, before: int, canary: bool) -> None:
    wanted = Size.of("A100", size, 1, 1, 1)
    current = Size.of("A100", before, 1, 1, 1) if before else None
    found = ask(wanted, current, room=Room(room, room), held=Held({"A100": held}), canary=canary)
    both = size + before if canary else max(size, before)
    if found.lines[0].ok:
        assert held + both <= room
        assert held + size <= room
    elif not current:
        assert held + size > room
