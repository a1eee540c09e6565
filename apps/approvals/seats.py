"""Who could decide a request now, for themselves or for somebody, and the rule that keeps everybody else from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from apps.approvals import deciders, engine
from apps.approvals.models import ApprovalRequest, Stage


@dataclass(frozen=True, slots=True)
class Place:
    """One person (for whom, where through a delegation) beside an open stage; `rule` "" where they may decide it."""

    user_id: int
    giver_id: int | None
    stage: int
    role: str
    rule: str


@dataclass(frozen=True, slots=True)
class Voice:
    """A way in which a person could decide now: for themselves (`giver_id` None) or for a giver, in which stages."""

    giver_id: int | None
    stages: tuple[int, ...]


def why_not(
    request: ApprovalRequest,
    case: engine.Case,
    state: engine.State,
    panels: Mapping[int, engine.Panel],
    at: datetime,
    user_id: int,
    *,
    on_behalf_of: int | None = None,
    stage: int | None = None,
) -> str:
    """Return the rule that keeps a person from any word now, "" where they may approve or reject.

    While a wait lasts, and for who has approved, only a rejection is left: that, too, is a decision.
    """
    if request.status != "in_review" or not case.stages:
        return "There is nothing to decide any more."
    standing_in = deciders.delegations(request, at, to=user_id) if on_behalf_of is not None else []
    found = [
        engine.why_not(
            case,
            actor=user_id,
            on_behalf_of=on_behalf_of,
            panels=panels,
            at=at,
            verdict=verdict,
            delegations=standing_in,
            stage=stage,
        )
        for verdict in (engine.APPROVE, engine.REJECT)
    ]
    return found[0] if all(found) else ""


def voices(
    request: ApprovalRequest,
    case: engine.Case,
    state: engine.State,
    stages: Sequence[Stage],
    panels: Mapping[int, engine.Panel],
    at: datetime,
    user_id: int,
) -> list[Voice]:
    """Return every way in which a person could decide now, their own first."""
    givers = sorted({d.giver for d in deciders.delegations(request, at, to=user_id)})
    found = []
    for giver in (None, *givers):
        seat = user_id if giver is None else giver
        open_now = [state.seats[seat][0]] if seat in state.seats else list(state.open)
        may = tuple(
            ordinal
            for ordinal in open_now
            if not why_not(request, case, state, panels, at, user_id, on_behalf_of=giver, stage=ordinal)
        )
        if may:
            found.append(Voice(giver, may))
    return found


def around(
    request: ApprovalRequest,
    case: engine.Case,
    state: engine.State,
    stage: Stage,
    roster: deciders.Roster,
    at: datetime,
) -> list[Place]:
    """Return everybody around an open stage: holders of its role there and over the paying unit, and who stands in."""
    panel = deciders.panel_of(stage, roster)
    held = engine.holders(case, state, stage.ordinal, panel, at)
    # Who holds the role only below where the stage was sent (the requester's peers) is named with that rule.
    people = {**dict.fromkeys(roster.over(stage.role, request.unit_id), stage.role), **held}
    standing_in = deciders.delegations(request, at)

    def place(user_id: int, giver_id: int | None, role: str) -> Place:
        rules = [
            engine.why_not(
                case,
                actor=user_id,
                on_behalf_of=giver_id,
                panels={stage.ordinal: panel},
                at=at,
                verdict=verdict,
                delegations=standing_in,
                stage=stage.ordinal,
            )
            for verdict in (engine.APPROVE, engine.REJECT)
        ]
        # Who has spoken may still change their mind, but is not among those it waits for.
        seat = user_id if giver_id is None else giver_id
        waits = rules[1] == "" and seat not in state.seats
        return Place(user_id, giver_id, stage.ordinal, role, "" if waits else rules[0])

    found = [place(user_id, None, role) for user_id, role in people.items()]
    found += [place(d.to, d.giver, held[d.giver]) for d in standing_in if d.giver in held and d.role == held[d.giver]]
    return found
