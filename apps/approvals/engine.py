"""The approval engine: what a request's log of words amounts to, who may speak, what a grant is good for. Pure: no ORM.

A *word* is one decision. A *seat* is the person spoken for (on_behalf_of, or else the actor). The *persons* of a seat
are all who stand behind its words (actor ∪ on_behalf_of); they take part in no other seat of the request, in any stage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from apps.approvals.policy_reader import Fault, PolicyError, parse_policy, parse_text
from apps.approvals.policy_rules import FactValue, Outcome, PolicyRules, StageRule, stages_for

APPROVE, REJECT = "approve", "reject"


class Standing(StrEnum):
    """What a request's words amount to. APPROVED: the decisions are complete (a grant may still wait for capacity)."""

    IN_REVIEW = "in_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    LAPSED = "lapsed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage as it was copied from the pinned policy version."""

    name: str
    role: str
    quorum: int
    due_hours: int | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """One decision as logged."""

    stage: int
    actor: int
    on_behalf_of: int | None
    verdict: str
    digest: str
    policy_digest: str
    at: datetime

    @property
    def seat(self) -> int:
        """The person spoken for."""
        return self.actor if self.on_behalf_of is None else self.on_behalf_of

    @property
    def persons(self) -> frozenset[int]:
        """Everybody behind this word."""
        return frozenset({self.actor, self.seat})


@dataclass(frozen=True, slots=True)
class Delegation:
    """That `to` may speak for `giver` in a role, from `start` until before `end`. It cannot be passed on."""

    giver: int
    to: int
    role: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """One pass: the pinned stages, the present digests, the log. `closed_at` once withdrawn, superseded or lapsed."""

    stages: tuple[StageSpec, ...]
    digest: str
    policy_digest: str
    opened_at: datetime
    requester: int
    excluded: frozenset[int] = frozenset()
    words: tuple[Word, ...] = ()
    closed_at: datetime | None = None

    def with_word(self, word: Word) -> Case:
        """Return the case with one more word in its log."""
        return replace(self, words=(*self.words, word))

    def edited(self, digest: str, at: datetime) -> Case:
        """Return the pass anew over changed bytes: the log stays, and none of it counts."""
        return replace(self, digest=digest, opened_at=at)


@dataclass(frozen=True, slots=True)
class State:
    """What the log amounts to at a time."""

    standing: Standing
    stage: int
    due_at: datetime | None
    #: Seats with a counting word, by seat: (stage, verdict, persons).
    seats: Mapping[int, tuple[int, str, frozenset[int]]]
    completed: tuple[datetime | None, ...]

    def approvals(self, stage: int) -> list[int]:
        """Return the seats that approve in a stage."""
        return sorted(seat for seat, (at, verdict, _) in self.seats.items() if at == stage and verdict == APPROVE)


def evaluate(case: Case, at: datetime) -> State:
    """Replay the log and say where the request stands at `at`.

    Words on other bytes or under another policy version count for nothing, nor does a word that nobody could have
    given at its time. No scheduler is asked: a stage past its due time has lapsed.
    """
    seats: dict[int, tuple[int, str, frozenset[int]]] = {}
    completed: list[datetime | None] = [None] * len(case.stages)
    stage, due = 0, _due(case, 0, case.opened_at)
    standing = Standing.IN_REVIEW
    for word in case.words:
        if word.digest != case.digest or word.policy_digest != case.policy_digest or word.at > at:
            continue
        if standing is not Standing.IN_REVIEW or (case.closed_at is not None and word.at > case.closed_at):
            break
        if due is not None and word.at >= due:
            standing = Standing.LAPSED
            break
        if _unseated(case, seats, stage, word):
            continue
        persons = word.persons | (seats[word.seat][2] if word.seat in seats else frozenset())
        seats[word.seat] = (word.stage, word.verdict, persons)
        if word.verdict == REJECT:
            standing = Standing.REJECTED
            break
        while stage < len(case.stages) and _approving(seats, stage) >= case.stages[stage].quorum:
            completed[stage] = word.at
            stage += 1
            due = _due(case, stage, word.at)
        if stage == len(case.stages):
            standing = Standing.APPROVED
    if standing is Standing.IN_REVIEW and due is not None and at >= due:
        standing = Standing.LAPSED
    if case.closed_at is not None and standing in (Standing.IN_REVIEW, Standing.LAPSED):
        standing = Standing.CLOSED
    return State(standing, stage, due, seats, tuple(completed))


def _due(case: Case, stage: int, opened_at: datetime) -> datetime | None:
    if stage >= len(case.stages):
        return None
    hours = case.stages[stage].due_hours
    return None if hours is None else opened_at + timedelta(hours=hours)


def _approving(seats: Mapping[int, tuple[int, str, frozenset[int]]], stage: int) -> int:
    return sum(1 for at, verdict, _ in seats.values() if at == stage and verdict == APPROVE)


def _unseated(case: Case, seats: Mapping[int, tuple[int, str, frozenset[int]]], stage: int, word: Word) -> str:
    """Return why this word has no seat here, or ""."""
    if rule := _barred(case, word):
        return rule
    for seat, (taken, _, persons) in seats.items():
        if seat != word.seat and persons & word.persons:
            return f"One person fills one seat: already part of a decision in stage “{case.stages[taken].name}”."
    if word.seat in seats:
        taken, verdict, _ = seats[word.seat]
        if word.stage != taken:
            return f"One person fills one seat: already decided in stage “{case.stages[taken].name}”."
        return "Has already said so." if verdict == word.verdict else ""
    if word.stage != stage:
        return "This stage is not open."
    return ""


def _barred(case: Case, word: Word) -> str:
    """Return why somebody behind this word may not decide at all, or ""."""
    if case.requester in word.persons:
        whose = "Requested this change" if word.seat == case.requester else "Speaks for or with the requester"
        return f"{whose}: nobody decides on what they requested."
    if word.persons & case.excluded:
        return "Belongs to the requester's side (wrote it, or will use it): nobody decides for their own benefit."
    return ""


def stage_of(state: State, seat: int) -> int:
    """Return the stage a seat speaks in: its own where it has one, else the open one."""
    return state.seats[seat][0] if seat in state.seats else state.stage


def why_not(
    case: Case,
    *,
    actor: int,
    on_behalf_of: int | None = None,
    holders: Collection[int],
    at: datetime,
    verdict: str = APPROVE,
    delegations: Sequence[Delegation] = (),
) -> str:
    """Return the rule that keeps this person from giving this word now, or "" where none does.

    `holders` are the ids of those who hold, at `at`, the role of the stage that the seat speaks in (`stage_of`).
    Superusers get no other answer than anybody.
    """
    state = evaluate(case, at)
    if state.standing is not Standing.IN_REVIEW:
        return {
            Standing.LAPSED: "The time to decide is over.",
            Standing.APPROVED: "The decisions are complete.",
            Standing.REJECTED: "It has been rejected.",
        }.get(state.standing, "It is closed.")
    seat = actor if on_behalf_of is None else on_behalf_of
    stage = stage_of(state, seat)
    word = Word(stage, actor, on_behalf_of, verdict, case.digest, case.policy_digest, at)
    if rule := _barred(case, word):
        return rule
    role = case.stages[stage].role
    if seat != actor and not any(
        d.giver == seat and d.to == actor and d.role == role and d.start <= at < d.end for d in delegations
    ):
        return "No delegation in force lets this person speak for the other."
    if seat not in holders:
        return "Does not hold the role this stage asks for, where it asks for it."
    return _unseated(case, state.seats, state.stage, word)


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


class GrantLike(Protocol):
    """What `usable` needs of a grant."""

    subject_digest: str
    scope: Any
    not_before: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def usable(grant: GrantLike, digest: str, scope: Mapping[str, Any], at: datetime) -> bool:
    """Whether the grant covers these bytes in this scope at this moment: start ≤ at < end, and not revoked by then."""
    if grant.subject_digest != digest or not covers(grant.scope, scope):
        return False
    if at < grant.not_before or (grant.expires_at is not None and at >= grant.expires_at):
        return False
    return grant.revoked_at is None or at < grant.revoked_at


def covers(granted: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether `asked` ⊆ `granted`: lists as sets, `max_…` as ceilings, all else equal; the unnamed is not granted."""
    for key, wanted in asked.items():
        if key not in granted:
            return False
        held = granted[key]
        if isinstance(held, list | tuple | set | frozenset):
            wants = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
            if not set(wants) <= set(held):
                return False
        elif key.startswith("max_"):
            if wanted > held:
                return False
        elif wanted != held:
            return False
    return True


def dump_facts(facts: Mapping[str, FactValue]) -> dict[str, Any]:
    """Return facts as JSON: integers and strings as they are, Decimals as {"decimal": "12.50"}."""
    return {
        name: {"decimal": str(value)} if isinstance(value, Decimal) else value for name, value in sorted(facts.items())
    }


def load_facts(stored: Mapping[str, Any]) -> dict[str, FactValue]:
    """Return facts from what `dump_facts` made."""
    return {name: Decimal(v["decimal"]) if isinstance(v, dict) else v for name, v in stored.items()}


__all__ = [
    "Case", "Delegation", "Fault", "Outcome", "PolicyError", "PolicyRules", "StageRule", "StageSpec", "Standing",
    "State", "Word", "covers", "dump_facts", "evaluate", "load_facts", "parse_policy", "parse_text", "stage_of",
    "stages_for", "unfillable", "usable", "why_not",
]  # fmt: skip
