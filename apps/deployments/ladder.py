"""The canary ladder: which share of traffic comes next, and when at the earliest. Pure: no ORM, no clock.

Property P17: the candidate never takes more than its grant allows, its share only grows on the way up, every rung is
held for its hours where that binds, and the two releases' shares always sum to 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.deployments.spec import Rung

ALL = 100


@dataclass(frozen=True, slots=True)
class Move:
    """The next move on a ladder: to a share of the traffic, not before a time. `rung` None: promotion."""

    rung: int | None
    traffic: int
    not_before: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a move is not to be made now; `until` where waiting helps."""

    why: str
    until: datetime | None = None


def first(ladder: Sequence[Rung], at: datetime) -> Move:
    """Return the first move of a candidate that has loaded: on the first rung, or all traffic without a ladder."""
    return Move(0, ladder[0].traffic, at) if ladder else Move(None, ALL, at)


def following(ladder: Sequence[Rung], rung: int, since: datetime) -> Move:
    """Return the move after `rung`, on which the candidate stands since a time."""
    not_before = since + timedelta(hours=ladder[rung].hours)
    if rung + 1 < len(ladder):
        return Move(rung + 1, ladder[rung + 1].traffic, not_before)
    return Move(None, ALL, not_before)


def refusal(
    move: Move, *, at: datetime, traffic: int, max_traffic: int, held_until: datetime | None = None
) -> Refused | None:
    """Return why a move is not to be made at `at`, or None.

    `traffic`: what the candidate takes now; `max_traffic`: what its grant allows; `held_until`: hours that bind whoever
    asks (a production ladder, a policy's shortest canary). A person may otherwise be quicker than the ladder.
    """
    if move.traffic > max_traffic:
        return Refused(f"The approval covers at most {max_traffic} % of the traffic, not {move.traffic} %.")
    if move.traffic <= traffic:
        return Refused(f"It takes {traffic} % already: a canary only grows, or is rolled back.")
    if held_until is not None and at < held_until:
        return Refused("The canary has not run as long as it has to.", held_until)
    return None


def due(move: Move, at: datetime) -> bool:
    """Whether the sweep makes the move now."""
    return at >= move.not_before


def earliest_promotion(ladder: Sequence[Rung], rung: int, since: datetime) -> datetime:
    """Return when the ladder ends at the earliest for a candidate that stands on `rung` since a time."""
    return since + timedelta(hours=sum(one.hours for one in ladder[rung:]))


def problems(
    ladder: Sequence[Rung], *, max_traffic: int, hours_min: int | None = None, hours_max: int | None = None
) -> list[str]:
    """Return what policy and grant say against a ladder; empty where nothing."""
    found = []
    hours = sum(rung.hours for rung in ladder)
    if max_traffic < ALL:
        found.append(f"The version is approved for at most {max_traffic} % of the traffic: it could never be promoted.")
    if hours_min is not None and hours < hours_min:
        found.append(f"The canary lasts {hours} h; the policy asks for at least {hours_min} h.")
    if hours_max is not None and hours > hours_max:
        found.append(f"The canary lasts {hours} h; the policy allows at most {hours_max} h.")
    return found
