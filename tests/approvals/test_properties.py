"""P1–P12, P15 and P16 on the database, through the actions: a state machine, and walks, against the oracle."""

from __future__ import annotations

import random
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from apps.core import clock
from tests.approvals.floor import WEIGHTS, Floor, Moves, roam
from tests.approvals.subjects import deep_registered
from tests.factories import Company

NOW = datetime(2026, 11, 18, 9, tzinfo=UTC)
NAMES = [name for name, weight in WEIGHTS.items() for _ in range(weight)]

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.requirement(
        "approvals-3.6", "approvals-3.7", "approvals-4.1", "approvals-4.3", "approval-engine-2.1",
        "approval-engine-2.2", "approval-engine-2.3", "approval-engine-2.4", "approval-engine-2.5",
        "approval-engine-3.2", "approval-engine-3.3", "approval-engine-3.4", "approval-engine-3.5",
        "approval-engine-4.2", "approval-engine-4.3", "approval-engine-4.4", "approval-engine-6.3",
    ),
]  # fmt: skip


class Undo(Exception):
    """Ends a walk: nothing of it stays."""


def walk(company: Company, seed: int, steps: int = 60) -> Floor:
    """Take one walk and undo it; raises Violation where the room and the oracle part ways."""
    with deep_registered() as subject, clock.frozen(NOW):
        try:
            with transaction.atomic():
                floor = Floor(company, subject)
                roam(floor, random.Random(seed), steps)
                raise Undo
        except Undo:
            return floor


class RoomMachine(RuleBasedStateMachine):
    """Anything that may happen, in any order Hypothesis thinks of; each step says what must come of it."""

    company: Company

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        subject = self.stack.enter_context(deep_registered())
        self.stack.enter_context(clock.frozen(NOW))
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.floor = Floor(self.company, subject)

    @rule(name=st.sampled_from(NAMES), rng=st.randoms(use_true_random=False))
    def step(self, name: str, rng: random.Random) -> None:
        getattr(Moves(self.floor, rng), name)()

    def teardown(self) -> None:
        self.atomic.__exit__(Undo, Undo(), None)
        self.stack.close()


def machine_of(of: Company) -> Any:
    """The machine in a company."""
    return type("Machine", (RoomMachine,), {"company": of})


def thorough(examples: int, steps: int) -> Any:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


def test_whatever_happens_the_room_agrees_with_the_oracle(company: Company) -> None:
    run_state_machine_as_test(machine_of(company), settings=thorough(4, 30))


def test_walks_reach_every_ending(company: Company) -> None:
    floors = [walk(company, seed) for seed in range(6)]
    passes = [one for floor in floors for one in floor.passes]
    assert {"approved", "superseded"} <= {one.ended for one in passes}
    assert any(one.emergency and one.promise for one in passes)
    assert sum(one.ended == "approved" for one in passes) >= 10


@pytest.mark.full
def test_many_examples_find_no_fault(company: Company) -> None:
    run_state_machine_as_test(machine_of(company), settings=thorough(60, 50))


@pytest.mark.full
def test_many_walks_find_no_fault(company: Company) -> None:
    ends = [one.ended for seed in range(1000, 1120) for one in walk(company, seed, 80).passes]
    assert min(ends.count(end) for end in ("approved", "rejected", "lapsed", "superseded", "withdrawn")) >= 5
