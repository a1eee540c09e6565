"""What the rules say of releases, written from the words of P9, P12, P13 and P17 alone: nothing of the room is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

#: The ladder of every release in the yard: share of the traffic and hours on it.
RUNGS = ((10, 12), (50, 12))


@dataclass
class Paper:
    """A grant as it was given: from when, until when, for how much of the traffic."""

    start: datetime
    end: datetime
    most: int = 100
    taken_back: datetime | None = None

    def good(self, at: datetime, traffic: int) -> bool:
        """P9: not before its start, before its end, not taken back, and for so much traffic."""
        back = self.taken_back is not None and self.taken_back <= at
        return self.start <= at < self.end and not back and traffic <= self.most


@dataclass
class Wish:
    """A release as the oracle remembers it: on which papers it stands, and what it was asked against."""

    number: int
    version: int
    canary: bool
    scales_back: bool
    urgent: bool
    against: tuple[int | None, bool]
    paper: Paper | None = None
    loaded: bool = False
    #: On which rung since when; -1: on none.
    rung: int = -1
    since: datetime | None = None
    held: bool = False
    #: "open" until decided, "on" the cluster, "past" where one may return to it, "gone".
    life: str = "open"
    left: int = 0
    unfit: bool = False


@dataclass
class Place:
    """An endpoint: what serves, what is on trial with which share, and whether it is stopped."""

    production: bool
    current: int | None = None
    candidate: int | None = None
    traffic: int = 0
    stopped: bool = False
    wishes: dict[int, Wish] = field(default_factory=dict)


@dataclass
class Book:
    """Everything the rules depend on."""

    papers: dict[int, list[Paper]]
    on_premises: bool = True

    def covered(self, version: int, at: datetime, traffic: int) -> bool:
        """Whether a paper of the version is good for so much traffic."""
        return any(paper.good(at, traffic) for paper in self.papers[version])

    def stands(self, wish: Wish, at: datetime, traffic: int) -> bool:
        """P9: its own paper and one of its version; an emergency's own paper alone."""
        if wish.paper is None or not wish.paper.good(at, 1):
            return False
        return wish.urgent or self.covered(wish.version, at, traffic)

    def may_serve(self, wish: Wish, at: datetime, traffic: int) -> bool:
        """P9 and P13: papers, and a place that its data may be in."""
        return self.on_premises and self.stands(wish, at, traffic)


def next_share(wish: Wish) -> int:
    """P17: the share after the one that it has; 100 past the last rung."""
    return RUNGS[wish.rung + 1][0] if wish.rung + 1 < len(RUNGS) else 100


def rung_over(wish: Wish, at: datetime) -> bool:
    """Whether it has stood on its rung for the rung's hours."""
    return wish.rung < 0 or wish.since is None or at >= wish.since + timedelta(hours=RUNGS[wish.rung][1])


def ladder_over(wish: Wish, at: datetime) -> bool:
    """Whether the hours of its rung and all that follow have passed since it stands on it."""
    hours = sum(length for _, length in RUNGS[max(wish.rung, 0) :])
    return wish.since is not None and at >= wish.since + timedelta(hours=hours)


def may_step(book: Book, place: Place, at: datetime, *, to_the_end: bool) -> bool:
    """Whether the one on trial may take its next share (`to_the_end`: all of it) now."""
    wish = _on_trial(place)
    if wish is None or place.stopped or not wish.loaded:
        return False
    share = 100 if to_the_end else next_share(wish)
    if not book.may_serve(wish, at, share):
        return False
    return not place.production or (ladder_over(wish, at) if to_the_end else rung_over(wish, at))


def may_resume(book: Book, place: Place, at: datetime) -> bool:
    """Whether what is held may climb on."""
    wish = _on_trial(place)
    return (
        wish is not None and not place.stopped and wish.held and book.may_serve(wish, at, max(place.traffic, 1))
    )  # fmt: skip


def may_hold(place: Place) -> bool:
    """Whether what is on trial, with a share, is not held yet."""
    wish = _on_trial(place)
    return wish is not None and not place.stopped and wish.rung >= 0 and not wish.held


def way_back(place: Place) -> Wish | None:
    """The one that served last before what serves now."""
    past = [wish for wish in place.wishes.values() if wish.life == "past" and wish.number != place.current]
    return max(past, key=lambda wish: (wish.left, wish.number), default=None)


def may_go_back(book: Book, place: Place, at: datetime) -> bool:
    """P12: taking a trial off is always allowed; going back to an earlier one needs its papers and its place."""
    if place.stopped:
        return False
    if place.candidate is not None:
        return True
    target = way_back(place)
    return place.current is not None and target is not None and book.may_serve(target, at, 100)


def may_start_again(book: Book, place: Place, at: datetime) -> bool:
    """Whether what was stopped may serve again."""
    return place.current is not None and place.stopped and book.may_serve(place.wishes[place.current], at, 100)


def may_ask(book: Book, place: Place, version: int, at: datetime, *, urgent: bool, under_way: bool) -> bool | None:
    """Whether a release may be asked for; None: papers for different shares are good, either may be taken."""
    if under_way or not book.on_premises:
        return False
    if urgent:
        return True
    good = {paper.most for paper in book.papers[version] if paper.good(at, 1)}
    return None if len(good) > 1 else good == {100}


def may_begin(book: Book, place: Place, wish: Wish, at: datetime) -> bool:
    """Whether what was asked for may begin as approved: nothing moved on, papers, place."""
    beside = wish.canary and place.current is not None
    fresh = wish.against == (place.current, place.stopped)
    covered = wish.urgent or book.covered(wish.version, at, 1 if beside else 100)
    return fresh and covered and book.on_premises


def under_way(place: Place, starting: Sequence[int]) -> bool:
    """Whether a release of the endpoint is open: asked for, on trial, or starting in the place of another."""
    return any(wish.life == "open" for wish in place.wishes.values()) or place.candidate is not None or bool(starting)


def _on_trial(place: Place) -> Wish | None:
    return place.wishes[place.candidate] if place.candidate is not None else None
