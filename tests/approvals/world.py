"""A small world in which an engine (the real one, or a mutant of it) is compared with the oracle, step by step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

from tests.approvals import oracle
from tests.approvals.oracle import Ask

START = datetime(2026, 11, 18, 9, tzinfo=UTC)
PEOPLE = range(1, 9)
REQUESTER, WRITER = 1, 2
#: Two roles that stages ask, one they escalate to, one they fall back on.
ROLES = ("unit_owner", "compliance", "platform_admin", "finance")
OWNER, COMPLIANCE, ADMIN, FINANCE = ROLES

#: What walks and the state machine go through: in order, side by side, with waits, with people who may step in.
SHAPES: tuple[tuple[Ask, ...], ...] = (
    (Ask(OWNER),),
    (Ask(OWNER, 2, due=24),),
    (Ask(OWNER, due=48), Ask(COMPLIANCE, 2, due=72)),
    (Ask(OWNER, 2), Ask(COMPLIANCE, 2, due=24)),
    (Ask(OWNER, group=1, due=60), Ask(COMPLIANCE, group=1, due=30)),
    (Ask(OWNER, group=1), Ask(COMPLIANCE, 2, group=1), Ask(ADMIN)),
    (Ask(OWNER), Ask(COMPLIANCE, group=2, due=48), Ask(ADMIN, group=2)),
    (Ask(OWNER, wait=12), Ask(COMPLIANCE, wait=6, due=48)),
    (Ask(OWNER, due=72, escalate=12, escalation=ADMIN), Ask(COMPLIANCE, escalate=6, escalation=ADMIN)),
    (Ask(OWNER, fallback=FINANCE), Ask(COMPLIANCE, 2, fallback=FINANCE, due=96)),
    (Ask(ADMIN), Ask(ADMIN, 3, fallback=FINANCE)),
)


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
    """One request, eight people, four roles; every step is checked."""

    engine: ModuleType
    asks: tuple[Ask, ...] = SHAPES[2]
    now: datetime = START
    withdrawn: bool = False
    edits: int = 0
    holds: dict[str, set[int]] = field(
        default_factory=lambda: {OWNER: set(PEOPLE) - {7}, COMPLIANCE: {1, 2, 3, 4, 5, 7}, ADMIN: {5, 6, 8}, FINANCE: {6, 7, 8}}  # noqa: E501 (one line reads best)
    )  # fmt: skip
    delegated: set[tuple[int, int, str]] = field(default_factory=set)
    log: list[oracle.Spoken] = field(default_factory=list)
    approvals: int = 0

    def __post_init__(self) -> None:
        specs = tuple(
            self.engine.StageSpec(
                f"stage {i}", a.role, a.quorum, a.due, a.group, a.wait, a.escalate, a.escalation, a.fallback
            )
            for i, a in enumerate(self.asks)
        )
        self.case = self.engine.Case(specs, self.digest, "policy-1", self.now, REQUESTER, frozenset({WRITER}))
        self.opened = self.now
        self.last_standing = "in_review"

    @property
    def digest(self) -> str:
        return f"bytes-{self.edits}"

    def book(self) -> oracle.Book:
        return oracle.Book(
            self.asks, self.opened, self.digest, "policy-1", frozenset({REQUESTER, WRITER}), tuple(self.log),
            self.withdrawn,
        )  # fmt: skip

    def panels(self) -> dict[int, Any]:
        return {
            i: self.engine.Panel(
                frozenset(self.holds[ask.role]),
                frozenset(self.holds.get(ask.escalation, ())),
                frozenset(self.holds.get(ask.fallback, ())),
            )
            for i, ask in enumerate(self.asks)
        }

    # ---- steps

    def speak(self, actor: int, verdict: str, seat: int | None = None, stage: int | None = None) -> bool:
        """Somebody tries to decide, for themselves or for `seat`; True where the word was taken."""
        on_behalf = seat if seat is not None and seat != actor else None
        seat = actor if on_behalf is None else on_behalf
        state, book = self.engine.evaluate(self.case, self.now), self.book()
        if stage is None:
            stage = oracle.stage_meant(book, self.now, seat, self.holds)
            if state.standing == "in_review":
                found = self.engine.stage_of(self.case, state, seat, self.panels(), self.now)
                check(found == stage, f"{seat} speaks in stage {found}, not {stage}")
        delegations = [
            self.engine.Delegation(giver, to, role, START - timedelta(days=1), START + timedelta(days=3650))
            for giver, to, role in sorted(self.delegated)
        ]
        refusal = self.engine.why_not(
            self.case, actor=actor, on_behalf_of=on_behalf, panels=self.panels(), at=self.now, verdict=verdict,
            delegations=delegations, stage=stage,
        )  # fmt: skip
        expected = oracle.takes(
            book, self.now, stage=stage, actor=actor, seat=seat, verdict=verdict, holds=self.holds,
            delegated=self.delegated,
        )  # fmt: skip
        check(
            (refusal == "") == expected,
            f"{actor} for {seat} says {verdict} in {stage}: engine {refusal or 'takes it'!r}",
        )
        if refusal:
            return False
        check(not {actor, seat} & {REQUESTER, WRITER}, "P2: the requester's side decided")
        ways = oracle.ways_in(book, self.now, stage, seat, self.holds)
        check(bool(ways), "P3: without the role")
        if on_behalf is not None:
            alone = self.engine.why_not(
                self.case, actor=seat, panels=self.panels(), at=self.now, verdict=verdict, stage=stage
            )
            check(alone == "", "P10: a delegate did what the giver could not have done")
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
        book = self.book()
        early = not over and verdict == "approve" and stage in oracle.open_stages(book) and self._waits(book, stage)
        shut = not over and stage not in oracle.open_stages(book) and oracle.last_word(book, actor) is None
        if not foreign and not over and not early and not shut and actor not in (REQUESTER, WRITER):
            return
        # The end was a moment ago: words that came before it would have counted.
        at = self.now + timedelta(seconds=1) if over else self.now
        word = self.engine.Word(stage, actor, None, verdict, digest or self.digest, policy, at)
        self.now = at
        self.case = self.case.with_word(word)
        self.settle()

    def _waits(self, book: oracle.Book, stage: int) -> bool:
        hours = self.asks[stage].wait
        return hours is not None and self.now - oracle.opened_at(book, stage) < timedelta(hours=hours)

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
        self.case = replace(self.case, closed_at=self.now)
        self.settle()

    def tick(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        self.settle()

    def toggle_role(self, person: int, role: str) -> None:
        self.holds[role] ^= {person}

    def empty_role(self, role: str) -> None:
        """Everybody free leaves the role: who is left is excluded."""
        self.holds[role] &= {REQUESTER, WRITER}

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
            check(list(state.open) == oracle.open_stages(book), "other stages are open")
            check(state.stage == state.open[0], "another stage comes first")
            check(state.due_at == oracle.deadline(book), "another deadline")
            for stage in state.open:
                check(state.opened[stage] == oracle.opened_at(book, stage), "another opening")
        for stage in range(len(self.asks)):
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
        for stage, ask in enumerate(self.asks):
            seats = state.approvals(stage)
            check(len(seats) >= ask.quorum, "P1: approved below quorum")
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


def check_span(engine: ModuleType, rng: random.Random) -> None:
    """P11: whatever the subject and the policy say, an emergency ends after its hours, and the earliest end wins."""
    for _ in range(30):
        days, hours = rng.choice([None, 1, 30]), rng.choice([None, 1, 30])
        later = rng.choice([None, START + timedelta(hours=rng.randint(-30, 30))])
        until = rng.choice([None, START + timedelta(hours=rng.randint(-30, 900))])
        start, end = engine.granted_span(START, days=days, asked=(later, until), hours=hours)
        limits = [until] if until else []
        limits += [START + timedelta(days=days)] if days else []
        limits += [START + timedelta(hours=hours)] if hours else []
        check(start >= START and (later is None or start >= later), "a grant begins before it was asked for")
        check(start in (START, later), "a grant begins at another time")
        check((end is None) == (not limits) and all(end <= limit for limit in limits), "P11: a grant outlives an end")
        check(end is None or end in limits, "a grant ends at another time")


def walk(engine: ModuleType, seed: int, steps: int = 60) -> World:
    """Take a random walk through the world; raises Violation where the engine errs.

    Rejections and withdrawals are rare, and who may speak does so often: else walks hardly ever reach "approved".
    """
    rng = random.Random(seed)
    world = World(engine, SHAPES[seed % len(SHAPES)])
    check_usable(engine, rng)
    check_span(engine, rng)
    stages = range(len(world.asks))

    def as_delegate(verdict: str) -> None:
        if world.delegated:
            giver, to, _ = rng.choice(sorted(world.delegated))
            world.speak(to, verdict, giver)

    def able() -> None:
        """Somebody who holds a role that is asked now."""
        stage = rng.choice(oracle.open_stages(world.book()) or [0])
        ask = world.asks[stage]
        role = rng.choice([role for role in (ask.role, ask.role, ask.escalation, ask.fallback) if role])
        if world.holds[role]:
            world.speak(rng.choice(sorted(world.holds[role])), "approve", None, rng.choice([None, stage]))

    def launder() -> None:
        """Somebody who has spoken tries to fill a second seat through, or with, a delegate."""
        spoke = sorted({person for word in world.log for person in (word.actor, word.seat)})
        stage = rng.choice(oracle.open_stages(world.book()) or [0])
        holders = sorted(world.holds[world.asks[stage].role])
        if not spoke or not holders:
            return
        one, other = rng.choice(spoke), rng.choice(holders)
        if rng.random() < 0.5 and one in holders:
            one, other = other, one
        if one != other:
            world.delegate(other, one, world.asks[stage].role)
            world.speak(one, "approve", other, stage)

    moves: list[tuple[int, Callable[[], object]]] = [
        (8, launder),
        (24, lambda: world.speak(rng.choice(PEOPLE), "approve")),
        (24, able),
        (6, lambda: world.speak(rng.choice(PEOPLE), "approve", None, rng.choice(stages))),
        (9, lambda: world.speak(rng.choice([REQUESTER, WRITER, WRITER]), "approve")),
        (4, lambda: world.speak(rng.choice(PEOPLE), "approve", rng.choice(PEOPLE))),
        (26, lambda: as_delegate("approve")),
        (2, lambda: as_delegate("reject")),
        (3, lambda: world.speak(rng.choice(PEOPLE), "reject")),
        (1, world.withdraw),
        (2, world.edit),
        (8, lambda: world.tick(rng.choice([1, 6, 13, 30]))),
        (4, lambda: world.toggle_role(rng.choice(PEOPLE), rng.choice(ROLES))),
        (1, lambda: world.empty_role(rng.choice(ROLES[:2]))),
        (14, lambda: world.delegate(rng.choice(PEOPLE), rng.choice(PEOPLE), rng.choice(ROLES))),
        (3, lambda: world.smuggle(rng.choice(PEOPLE), stage=rng.choice(stages), digest="bytes-of-old")),
        (2, lambda: world.smuggle(rng.choice(PEOPLE), stage=rng.choice(stages), policy="policy-0")),
        (2, lambda: world.smuggle(rng.choice(PEOPLE), stage=rng.choice(stages), verdict="reject")),
        (3, lambda: world.smuggle(rng.choice(PEOPLE), stage=rng.choice(stages))),
        (2, lambda: world.smuggle(rng.choice([REQUESTER, WRITER]), stage=rng.choice(stages))),
    ]
    weights = [weight for weight, _ in moves]
    for _ in range(steps):
        rng.choices(moves, weights)[0][1]()
    return world
