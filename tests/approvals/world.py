"""A small world in which an engine (the real one, or a mutant of it) is compared with the oracle, step by step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

from tests.approvals import oracle

START = datetime(2026, 11, 18, 9, tzinfo=UTC)
PEOPLE = range(1, 8)
REQUESTER, WRITER = 1, 2
ROLES = ("unit_owner", "compliance")


class Violation(AssertionError):
    """The engine and the oracle disagree, or a property is broken."""


def check(condition: bool, message: str) -> None:
    if not condition:
        raise Violation(message)


@dataclass(frozen=True)
class FakeGrant:
    """What a grant is to `usable`."""

    subject_digest: str
    scope: dict[str, Any]
    not_before: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None


@dataclass
class World:
    """One request, seven people, two roles; every step is checked."""

    engine: ModuleType
    quorums: tuple[int, ...] = (1, 2)
    due_hours: tuple[int | None, ...] = (48, 72)
    now: datetime = START
    withdrawn: bool = False
    edits: int = 0
    holds: dict[str, set[int]] = field(default_factory=lambda: {role: set(PEOPLE) - {7} for role in ROLES})
    delegated: set[tuple[int, int, str]] = field(default_factory=set)
    log: list[oracle.Spoken] = field(default_factory=list)
    approvals: int = 0

    def __post_init__(self) -> None:
        self.roles = tuple(ROLES[i % 2] for i in range(len(self.quorums)))
        specs = tuple(
            self.engine.StageSpec(f"stage {i}", self.roles[i], self.quorums[i], self.due_hours[i])
            for i in range(len(self.quorums))
        )
        self.case = self.engine.Case(specs, self.digest, "policy-1", self.now, REQUESTER, frozenset({WRITER}))
        self.opened = self.now
        self.last_standing = "in_review"

    @property
    def digest(self) -> str:
        return f"bytes-{self.edits}"

    def book(self) -> oracle.Book:
        return oracle.Book(
            self.quorums, self.due_hours, self.opened, self.digest, "policy-1", frozenset({REQUESTER, WRITER}),
            tuple(self.log), self.withdrawn,
        )  # fmt: skip

    # ---- steps

    def speak(self, actor: int, verdict: str, seat: int | None = None) -> bool:
        """Somebody tries to decide, for themselves or for `seat`; True where the word was taken."""
        on_behalf = seat if seat is not None and seat != actor else None
        seat = actor if on_behalf is None else on_behalf
        state = self.engine.evaluate(self.case, self.now)
        stage = min(self.engine.stage_of(state, seat), len(self.roles) - 1)
        delegations = [
            self.engine.Delegation(giver, to, role, START - timedelta(days=1), START + timedelta(days=3650))
            for giver, to, role in sorted(self.delegated)
        ]
        refusal = self.engine.why_not(
            self.case, actor=actor, on_behalf_of=on_behalf, holders=self.holds[self.roles[stage]], at=self.now,
            verdict=verdict, delegations=delegations,
        )  # fmt: skip
        expected = oracle.takes(
            self.book(), self.now, actor=actor, seat=seat, verdict=verdict, holds=self.holds, roles=self.roles,
            delegated=self.delegated,
        )  # fmt: skip
        check((refusal == "") == expected, f"{actor} for {seat} says {verdict}: engine {refusal or 'takes it'!r}")
        if refusal:
            return False
        check(not {actor, seat} & {REQUESTER, WRITER}, "P2: the requester's side decided")
        check(seat in self.holds[self.roles[stage]], "P3: without the role")
        word = self.engine.Word(stage, actor, on_behalf, verdict, self.digest, "policy-1", self.now)
        self.case = self.case.with_word(word)
        self.log.append(oracle.Spoken(stage, actor, seat, verdict, self.digest, "policy-1", self.now))
        self.settle()
        return True

    def smuggle(
        self,
        actor: int,
        *,
        stage: int = 0,
        digest: str | None = None,
        policy: str = "policy-1",
        verdict: str = "approve",
    ) -> None:
        """A row that no action wrote appears in the log: it must not count."""
        foreign = (digest or self.digest) != self.digest or policy != "policy-1"
        over = self.last_standing != "in_review"
        if not foreign and not over and actor not in (REQUESTER, WRITER):
            return
        # The end was a moment ago: words that came before it would have counted.
        at = self.now + timedelta(seconds=1) if over else self.now
        word = self.engine.Word(stage, actor, None, verdict, digest or self.digest, policy, at)
        self.now = at
        self.case = self.case.with_word(word)
        self.settle()

    def edit(self) -> None:
        """The bytes change: progress starts again."""
        if self.last_standing != "in_review":
            return
        self.edits += 1
        self.opened = self.now
        self.case = self.case.edited(self.digest, self.now)
        state = self.engine.evaluate(self.case, self.now)
        check(state.stage == 0 and not state.seats, "P7: progress survived a changed byte")
        self.settle()

    def withdraw(self) -> None:
        if self.last_standing != "in_review":
            return
        self.withdrawn = True
        from dataclasses import replace

        self.case = replace(self.case, closed_at=self.now)
        self.settle()

    def tick(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        self.settle()

    def toggle_role(self, person: int, role: str) -> None:
        self.holds[role] ^= {person}

    def delegate(self, giver: int, to: int, role: str) -> None:
        if giver != to:
            self.delegated.add((giver, to, role))

    # ---- what holds after every step

    def settle(self) -> None:
        state = self.engine.evaluate(self.case, self.now)
        book = self.book()
        expected = oracle.standing(book, self.now)
        check(str(state.standing) == expected, f"engine says {state.standing}, oracle {expected}")
        if expected == "in_review":
            check(state.stage == oracle.open_stage(book), "another stage is open")
            check(state.due_at == oracle.deadline(book), "another deadline")
        for stage in range(len(self.quorums)):
            check(state.approvals(stage) == sorted(oracle.supporters(book, stage)), f"P4: seats of stage {stage}")
        if self.last_standing in ("approved", "rejected", "closed"):
            check(expected == self.last_standing, "P5: a terminal state was left")
        if expected == "approved":
            self.approvals += self.last_standing != "approved"
            self._check_quorum(state)
        # P15: the fold has no memory but the log.
        check(self.engine.evaluate(self.case, self.now) == state, "P15: replaying gave another state")
        self.last_standing = expected

    def _check_quorum(self, state: Any) -> None:
        counted: set[int] = set()
        for stage, quorum in enumerate(self.quorums):
            seats = state.approvals(stage)
            check(len(seats) >= quorum, "P1: approved below quorum")
            for seat in seats:
                people = oracle.people_of(self.book(), seat)
                check(not people & counted, "P1: one person fills two seats")
                counted |= people


def check_usable(engine: ModuleType, rng: random.Random) -> None:
    """P9: usable ⇔ digest, scope, window and no revocation, whatever any scheduler did."""
    for _ in range(30):
        start = START + timedelta(hours=rng.randint(-3, 3))
        end = rng.choice([None, start + timedelta(hours=rng.randint(0, 4))])
        revoked = rng.choice([None, None, START + timedelta(hours=rng.randint(-2, 2))])
        granted = {"clusters": ["a", "b"], "max_traffic": 50, "environment": "production"}
        asked = rng.choice(
            [{}, {"clusters": ["a"]}, {"clusters": ["a", "c"]}, {"max_traffic": 50}, {"max_traffic": 51},
             {"environment": "staging"}, {"environment": "production", "clusters": "b"}, {"region": "eu"}]
        )  # fmt: skip
        fits = asked in (
            {}, {"clusters": ["a"]}, {"max_traffic": 50}, {"environment": "production", "clusters": "b"}
        )  # fmt: skip
        digest = rng.choice(["d", "e"])
        expected = (
            digest == "d" and fits and start <= START
            and (end is None or end > START) and (revoked is None or revoked > START)
        )  # fmt: skip
        found = engine.usable(FakeGrant("d", granted, start, end, revoked), digest, asked, START)
        check(found == expected, f"P9: usable is {found} for {asked}, {start} to {end}, revoked {revoked}")


def walk(engine: ModuleType, seed: int, steps: int = 60) -> World:
    """Take a random walk through the world; raises Violation where the engine errs.

    Rejections and withdrawals are rare, and who may speak does so often: else walks hardly ever reach "approved".
    """
    rng = random.Random(seed)
    shapes: list[tuple[tuple[int, ...], tuple[int | None, ...]]] = [
        ((1,), (None,)), ((2,), (24,)), ((1, 2), (48, 72)), ((2, 2), (None, 24)), ((1, 1), (48, None)),
    ]  # fmt: skip
    quorums, due = rng.choice(shapes)
    world = World(engine, quorums, due)
    check_usable(engine, rng)

    def as_delegate(verdict: str) -> None:
        if world.delegated:
            giver, to, _ = rng.choice(sorted(world.delegated))
            world.speak(to, verdict, giver)

    moves: list[tuple[int, Callable[[], object]]] = [
        (30, lambda: world.speak(rng.choice(PEOPLE), "approve")),
        (6, lambda: world.speak(rng.choice([REQUESTER, WRITER]), "approve")),
        (4, lambda: world.speak(rng.choice(PEOPLE), "approve", rng.choice(PEOPLE))),
        (30, lambda: as_delegate("approve")),
        (2, lambda: as_delegate("reject")),
        (3, lambda: world.speak(rng.choice(PEOPLE), "reject")),
        (1, world.withdraw),
        (3, world.edit),
        (8, lambda: world.tick(rng.choice([1, 6, 30]))),
        (4, lambda: world.toggle_role(rng.choice(PEOPLE), rng.choice(ROLES))),
        (14, lambda: world.delegate(rng.choice(PEOPLE), rng.choice(PEOPLE), rng.choice(ROLES))),
        (3, lambda: world.smuggle(rng.choice(PEOPLE), stage=rng.randrange(len(quorums)), digest="bytes-of-old")),
        (2, lambda: world.smuggle(rng.choice(PEOPLE), stage=rng.randrange(len(quorums)), policy="policy-0")),
        (2, lambda: world.smuggle(rng.choice(PEOPLE), stage=rng.randrange(len(quorums)), verdict="reject")),
        (2, lambda: world.smuggle(rng.choice([REQUESTER, WRITER]), stage=rng.randrange(len(quorums)))),
    ]
    weights = [weight for weight, _ in moves]
    for _ in range(steps):
        rng.choices(moves, weights)[0][1]()
    return world
