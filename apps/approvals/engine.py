"""The approval engine: what a request's log of words amounts to, who may speak, what a grant is good for. Pure: no ORM.

A *word* is one decision and names its stage. A *seat* is the person spoken for (on_behalf_of, or else the actor). The
*persons* of a seat are all who stand behind its words (actor ∪ on_behalf_of); they take part in no other seat of the
request, in any stage. A *step* is one stage, or the consecutive stages of one group: those are open at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from apps.approvals.matching import Panel, unfillable
from apps.approvals.policy_reader import Fault, PolicyError, parse_policy, parse_text
from apps.approvals.policy_rules import (
    Outcome,
    PolicyRules,
    StageRule,
    dump_facts,
    load_facts,
    stages_for,
    terms_under,
)

APPROVE, REJECT = "approve", "reject"
SIDE_RULE = "Belongs to the requester's side (wrote it, or will use it): nobody decides for their own benefit."


class Standing(StrEnum):
    """What a request's words amount to. APPROVED: the decisions are complete (a grant may still wait for capacity)."""

    IN_REVIEW = "in_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    LAPSED = "lapsed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage as it was copied from the pinned policy version. Hours count from its opening."""

    name: str
    role: str
    quorum: int
    due_hours: int | None = None
    group: int = 0
    wait_hours: int | None = None
    escalate_hours: int | None = None
    escalation_role: str = ""
    fallback_role: str = ""


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
    """One pass: the pinned stages, the present digests, the log. `closed_at` once withdrawn, superseded or lapsed.

    `reasons` says of some of the excluded why they are (others: `SIDE_RULE`).
    """

    stages: tuple[StageSpec, ...]
    digest: str
    policy_digest: str
    opened_at: datetime
    requester: int
    excluded: frozenset[int] = frozenset()
    words: tuple[Word, ...] = ()
    closed_at: datetime | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)

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
    #: The first stage that lacks approvals; the number of stages where none does.
    stage: int
    #: The first moment at which one of the open stages lapses.
    due_at: datetime | None
    #: Seats with a counting word, by seat: (stage, verdict, persons).
    seats: Mapping[int, tuple[int, str, frozenset[int]]]
    completed: tuple[datetime | None, ...]
    opened: tuple[datetime | None, ...] = ()

    @property
    def open(self) -> tuple[int, ...]:
        """The stages that are open now: of the first unfinished step, those that lack approvals."""
        return _open(self.opened, self.completed) if self.standing is Standing.IN_REVIEW else ()

    def approvals(self, stage: int) -> list[int]:
        """Return the seats that approve in a stage."""
        return sorted(seat for seat, (at, verdict, _) in self.seats.items() if at == stage and verdict == APPROVE)


def evaluate(case: Case, at: datetime) -> State:
    """Replay the log and say where the request stands at `at`.

    Words on other bytes or under another policy version count for nothing, nor does a word that nobody could have
    given at its time. No scheduler is asked: a request with an open stage past its due time has lapsed.
    """
    seats: dict[int, tuple[int, str, frozenset[int]]] = {}
    completed: list[datetime | None] = [None] * len(case.stages)
    opened: list[datetime | None] = [None] * len(case.stages)
    ahead = steps(case.stages)
    _open_next(ahead, opened, case.opened_at)
    standing = Standing.IN_REVIEW
    for word in case.words:
        if word.digest != case.digest or word.policy_digest != case.policy_digest or word.at > at:
            continue
        if standing is not Standing.IN_REVIEW or (case.closed_at is not None and word.at > case.closed_at):
            break
        due = _due(case, opened, completed)
        if due is not None and word.at >= due:
            standing = Standing.LAPSED
            break
        if _unseated(case, seats, opened, completed, word):
            continue
        persons = word.persons | (seats[word.seat][2] if word.seat in seats else frozenset())
        seats[word.seat] = (word.stage, word.verdict, persons)
        if word.verdict == REJECT:
            standing = Standing.REJECTED
            break
        if completed[word.stage] is None and _approving(seats, word.stage) >= case.stages[word.stage].quorum:
            completed[word.stage] = word.at
        if not _open(opened, completed):
            if ahead:
                _open_next(ahead, opened, word.at)
            else:
                standing = Standing.APPROVED
    due = _due(case, opened, completed)
    if standing is Standing.IN_REVIEW and due is not None and at >= due:
        standing = Standing.LAPSED
    if case.closed_at is not None and standing in (Standing.IN_REVIEW, Standing.LAPSED):
        standing = Standing.CLOSED
    first = next((i for i, done in enumerate(completed) if done is None), len(completed))
    return State(standing, first, due, seats, tuple(completed), tuple(opened))


def steps(stages: Sequence[StageSpec]) -> list[list[int]]:
    """Return the stages' indexes step by step: consecutive ones of a group together, those without one alone."""
    found: list[list[int]] = []
    for i, stage in enumerate(stages):
        if i and stage.group and stage.group == stages[i - 1].group:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def _open_next(ahead: list[list[int]], opened: list[datetime | None], at: datetime) -> None:
    for i in ahead.pop(0) if ahead else ():
        opened[i] = at


def _open(opened: Sequence[datetime | None], completed: Sequence[datetime | None]) -> tuple[int, ...]:
    return tuple(i for i, since in enumerate(opened) if since is not None and completed[i] is None)


def _due(case: Case, opened: Sequence[datetime | None], completed: Sequence[datetime | None]) -> datetime | None:
    ends = (_after(opened[i], case.stages[i].due_hours) for i in _open(opened, completed))
    return min((end for end in ends if end is not None), default=None)


def _after(opened: datetime | None, hours: int | None) -> datetime | None:
    return None if opened is None or hours is None else opened + timedelta(hours=hours)


def _approving(seats: Mapping[int, tuple[int, str, frozenset[int]]], stage: int) -> int:
    return sum(1 for at, verdict, _ in seats.values() if at == stage and verdict == APPROVE)


def _unseated(
    case: Case,
    seats: Mapping[int, tuple[int, str, frozenset[int]]],
    opened: Sequence[datetime | None],
    completed: Sequence[datetime | None],
    word: Word,
) -> str:
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
        if verdict == word.verdict:
            return "Has already said so."
    elif word.stage not in _open(opened, completed):
        return "This stage is not open."
    until = _after(opened[word.stage], case.stages[word.stage].wait_hours)
    if word.verdict == APPROVE and until is not None and word.at < until:
        return f"Approvals count from {until:%Y-%m-%d %H:%M} UTC on; a rejection counts at once."
    return ""


def _barred(case: Case, word: Word) -> str:
    """Return why somebody behind this word may not decide at all, or ""."""
    if case.requester in word.persons:
        whose = "Requested this change" if word.seat == case.requester else "Speaks for or with the requester"
        return f"{whose}: nobody decides on what they requested."
    if shut := word.persons & case.excluded:
        return case.reasons.get(min(shut), SIDE_RULE)
    return ""


def escalated(case: Case, state: State, stage: int, at: datetime) -> bool:
    """Whether the escalation role may fill the stage at `at`; no scheduler is asked."""
    since = _after(state.opened[stage], case.stages[stage].escalate_hours)
    return since is not None and at >= since


def wait_until(case: Case, state: State, stage: int) -> datetime | None:
    """Return from when on approvals count in an open stage, None where there is no wait."""
    return _after(state.opened[stage], case.stages[stage].wait_hours)


def holders(case: Case, state: State, stage: int, panel: Panel, at: datetime) -> dict[int, str]:
    """Return who holds a role by which the stage may be filled at `at`: person → role, the stage's own before others.

    The escalation role joins after its hours; the fallback role where the stage's own has too few people for the
    quorum who are neither excluded nor seated in another stage. Holding a role lifts no exclusion.
    """
    spec, found = case.stages[stage], dict[int, str]()
    if spec.fallback_role:
        taken = {person for at_stage, _, persons in state.seats.values() if at_stage != stage for person in persons}
        if len(panel.own - case.excluded - {case.requester} - taken) < spec.quorum:
            found.update(dict.fromkeys(panel.fallback, spec.fallback_role))
    if escalated(case, state, stage, at):
        found.update(dict.fromkeys(panel.escalation, spec.escalation_role))
    found.update(dict.fromkeys(panel.own, spec.role))
    return found


def stage_of(case: Case, state: State, seat: int, panels: Mapping[int, Panel], at: datetime) -> int:
    """Return the stage a seat speaks in: its own, else the first open one whose role it holds, else the first open."""
    if seat in state.seats:
        return state.seats[seat][0]
    held = (i for i in state.open if i in panels and seat in holders(case, state, i, panels[i], at))
    return next(held, state.stage)


def why_not(
    case: Case,
    *,
    actor: int,
    on_behalf_of: int | None = None,
    panels: Mapping[int, Panel],
    at: datetime,
    verdict: str = APPROVE,
    delegations: Iterable[Delegation] = (),
    stage: int | None = None,
) -> str:
    """Return the rule that keeps this person from giving this word now, or "" where none does.

    `panels` holds those who hold, at `at`, the roles of each stage that could be spoken in; `stage` the stage meant
    (None: `stage_of`). Superusers get no other answer than anybody.
    """
    state = evaluate(case, at)
    if state.standing is not Standing.IN_REVIEW:
        return {
            Standing.LAPSED: "The time to decide is over.",
            Standing.APPROVED: "The decisions are complete.",
            Standing.REJECTED: "It has been rejected.",
        }.get(state.standing, "It is closed.")
    seat = actor if on_behalf_of is None else on_behalf_of
    if stage is None:
        stage = stage_of(case, state, seat, panels, at)
    if not 0 <= stage < len(case.stages):
        return "There is no such stage."
    word = Word(stage, actor, on_behalf_of, verdict, case.digest, case.policy_digest, at)
    if rule := _barred(case, word):
        return rule
    if seat not in state.seats and stage not in state.open:
        return "This stage is not open."
    held = holders(case, state, stage, panels[stage], at) if stage in panels else {}
    role = held.get(seat, case.stages[stage].role)
    if seat != actor and not any(
        d.giver == seat and d.to == actor and d.role == role and d.start <= at < d.end for d in delegations
    ):
        return "No delegation in force lets this person speak for the other."
    if seat not in held:
        return "Does not hold the role this stage asks for, where it asks for it."
    return _unseated(case, state.seats, state.opened, state.completed, word)


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


def granted_span(
    at: datetime,
    *,
    days: int | None,
    asked: tuple[datetime | None, datetime | None] = (None, None),
    hours: int | None = None,
) -> tuple[datetime, datetime | None]:
    """Return from when until when a grant made at `at` holds: the earliest of all ends wins.

    `days` is the policy's validity, `asked` what the subject asks for (not before, end), `hours` an emergency's.
    """
    start = at if asked[0] is None else max(at, asked[0])
    ends = [asked[1], at + timedelta(days=days) if days else None, at + timedelta(hours=hours) if hours else None]
    return start, min((end for end in ends if end is not None), default=None)


__all__ = [
    "Case", "Delegation", "Fault", "Outcome", "Panel", "PolicyError", "PolicyRules", "StageRule", "StageSpec",
    "Standing", "State", "Word", "covers", "dump_facts", "escalated", "evaluate", "granted_span", "holders",
    "load_facts", "parse_policy", "parse_text", "stage_of", "stages_for", "steps", "terms_under", "unfillable",
    "usable", "wait_until", "why_not",
]  # fmt: skip
