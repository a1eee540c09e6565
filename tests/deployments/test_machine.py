"""P9, P12, P13, P14 and P17 over the deployment side, through the actions on the database, against an oracle."""

from __future__ import annotations

import random
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from apps.core import clock
from apps.deployments import intervals, ladder
from apps.deployments.spec import Rung
from tests.deployments.world import World
from tests.deployments.yard import NOW, WEIGHTS, Moves, Script, Violation, Yard, roam
from tests.deployments.yard_oracle import Paper

NAMES = [name for name, weight in WEIGHTS.items() for _ in range(weight)]

pytestmark = pytest.mark.requirement("release-review-4.1")


class Undo(Exception):
    """Ends a walk: nothing of it stays."""


def walk(world: World, seed: int, steps: int = 40) -> Yard:
    """Take one walk and undo it; raises Violation where the room and the oracle part ways."""
    with clock.frozen(NOW):
        try:
            with transaction.atomic():
                yard = Yard(world)
                roam(yard, random.Random(seed), steps)
                raise Undo
        except Undo:
            return yard
        finally:
            settle(world)


def settle(world: World) -> None:
    """Forget what a walk has changed on the rows that the test holds."""
    for workspace in world.workspaces.values():
        workspace.refresh_from_db()
        workspace.cluster.refresh_from_db()


class YardMachine(RuleBasedStateMachine):
    """Anything that may happen, in any order Hypothesis thinks of; each step says what must come of it."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(clock.frozen(NOW))
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.yard = Yard(self.world)
        Moves(self.yard, random.Random(0)).warm()

    @rule(name=st.sampled_from(NAMES), rng=st.randoms(use_true_random=False))
    def step(self, name: str, rng: random.Random) -> None:
        getattr(Moves(self.yard, rng), name)()

    def teardown(self) -> None:
        self.atomic.__exit__(Undo, Undo(), None)
        self.stack.close()
        settle(self.world)


def thorough(examples: int, steps: int) -> Any:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


@pytest.mark.django_db
def test_whatever_happens_releases_agree_with_the_oracle(yard_world: World) -> None:
    run_state_machine_as_test(type("Machine", (YardMachine,), {"world": yard_world}), settings=thorough(2, 8))


@pytest.mark.django_db
def test_a_release_goes_every_way_as_the_oracle_says(yard_world: World) -> None:
    """One order of things that reaches every rule; Hypothesis thinks of the others."""
    with clock.frozen(NOW):
        try:
            with transaction.atomic():
                yard = Yard(yard_world)
                Script(yard).play(
                    "ask0 decide load sweep ask1 decide step load step step hold promote resume wait12 step wait12 step"
                    " back stop start away start away start take0 stop start"
                )
                raise Undo
        except Undo:
            settle(yard_world)
    assert yard.seen == {
        "ask", "decide", "sweep", "step", "hold", "resume", "roll back", "stop", "start", "revoke",
    }  # fmt: skip
    place = yard.places["production"]
    # It returned to the first, and what was stopped without papers stays stopped.
    assert (place.current, place.candidate, place.stopped) == (1, None, True)


@pytest.mark.full
@pytest.mark.django_db
def test_many_examples_find_no_fault(yard_world: World) -> None:
    run_state_machine_as_test(type("Machine", (YardMachine,), {"world": yard_world}), settings=thorough(40, 50))


@pytest.mark.full
@pytest.mark.django_db
def test_many_walks_find_no_fault(yard_world: World) -> None:
    seen = set().union(*(walk(yard_world, seed, 80).seen for seed in range(1000, 1060)))
    assert seen >= {
        "ask",
        "decide",
        "sweep",
        "step",
        "promote",
        "hold",
        "resume",
        "roll back",
        "stop",
        "start",
        "revoke",
    }


# ---- the pure parts: many more orders of things, no rows


class LadderMachine(RuleBasedStateMachine):
    """A canary on its ladder under changing papers and hours, with the shares that follow from it (P17)."""

    @initialize(
        rungs=st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(sorted),
        hours=st.lists(st.integers(0, 30), min_size=4, max_size=4),
        binds=st.booleans(),
    )
    def begin(self, rungs: list[int], hours: list[int], binds: bool) -> None:
        self.rungs = [Rung(share, length) for share, length in zip(rungs, hours, strict=False)]
        self.at, self.binds = NOW, binds
        self.rung, self.since, self.share, self.done = -1, NOW, 0, False
        self.paper = Paper(NOW - timedelta(days=1), NOW + timedelta(days=9), 100)
        self.running: dict[int, int] = {1: 100, 2: 0}

    @rule(hours=st.integers(0, 40))
    def wait(self, hours: int) -> None:
        self.at += timedelta(hours=hours)

    @rule(most=st.integers(0, 100))
    def narrow(self, most: int) -> None:
        self.paper.most = most

    @rule(to_the_end=st.booleans())
    def climb(self, to_the_end: bool) -> None:
        if self.done:
            return
        standing = self.rung >= 0
        wanted = (
            ladder.Move(None, 100, ladder.earliest_promotion(self.rungs, max(self.rung, 0), self.since))
            if to_the_end and standing
            else ladder.following(self.rungs, self.rung, self.since)
            if standing
            else ladder.first(self.rungs, self.at)
        )
        held = wanted.not_before if self.binds and wanted.not_before > self.at else None
        refused = ladder.refusal(
            wanted, at=self.at, traffic=self.share, max_traffic=self.paper.most, held_until=held
        )  # fmt: skip
        # The oracle: the next rung, its hours kept where they bind, no more than the paper says.
        last = self.rung + 1 >= len(self.rungs)
        share = 100 if last or (to_the_end and standing) else self.rungs[self.rung + 1].traffic
        ahead = self.rungs[self.rung :] if to_the_end else self.rungs[self.rung : self.rung + 1]
        due = self.since + timedelta(hours=sum(one.hours for one in ahead)) if standing else self.at
        allowed = share <= self.paper.most and (not self.binds or self.at >= due)
        assert (refused is None) == allowed
        assert wanted.traffic == share
        if refused is None:
            self.share, self.since = wanted.traffic, self.at
            self.rung, self.done = (self.rung + 1, False) if wanted.rung is not None else (self.rung, True)
            self._shares({2: 100} if self.done else {1: 100 - self.share, 2: self.share})

    @rule()
    def take_off(self) -> None:
        if not self.done:
            self._shares({1: 100})
            self.done = True

    def _shares(self, wanted: dict[int, int]) -> None:
        found = intervals.switch(self.running, wanted)
        for key in found.close:
            del self.running[key]
        self.running |= found.open
        assert self.running == wanted

    @invariant()
    def whole(self) -> None:
        assert not hasattr(self, "running") or sum(self.running.values()) == 100


def test_ladders_and_shares_agree_with_the_oracle() -> None:
    run_state_machine_as_test(LadderMachine, settings=thorough(25, 20))


@pytest.mark.full
def test_ladders_and_shares_agree_in_many_orders() -> None:
    run_state_machine_as_test(LadderMachine, settings=thorough(600, 40))


__all__ = ["Violation", "walk"]
