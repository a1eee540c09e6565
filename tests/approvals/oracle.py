"""What an approval amounts to, written a second time: from sets and counts over the whole log, not as a replay.

It knows only the log of accepted words and what was true when each was spoken; it shares no code with the engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Spoken:
    """An accepted word with what was true at its moment."""

    stage: int
    actor: int
    seat: int
    verdict: str
    digest: str
    policy: str
    at: datetime


@dataclass(frozen=True)
class Ask:
    """What one stage asks for. Stages with the same group (not 0) that stand together are asked at the same time."""

    role: str
    quorum: int = 1
    due: int | None = None
    group: int = 0
    wait: int | None = None
    escalate: int | None = None
    escalation: str = ""
    fallback: str = ""


@dataclass(frozen=True)
class Book:
    """Everything the oracle knows of one request."""

    asks: tuple[Ask, ...]
    opened: datetime
    digest: str
    policy: str
    barred: frozenset[int]
    log: tuple[Spoken, ...]
    withdrawn: bool = False


def relevant(book: Book) -> list[Spoken]:
    return [s for s in book.log if s.digest == book.digest and s.policy == book.policy]


def last_word(book: Book, seat: int) -> Spoken | None:
    words = [s for s in relevant(book) if s.seat == seat]
    return words[-1] if words else None


def people_of(book: Book, seat: int) -> set[int]:
    return set(itertools.chain.from_iterable((s.actor, s.seat) for s in relevant(book) if s.seat == seat))


def supporters(book: Book, stage: int) -> list[int]:
    """The seats whose last word is an approval in this stage."""
    seats = {s.seat for s in relevant(book)}
    lasts = [(seat, last_word(book, seat)) for seat in seats]
    return [seat for seat, last in lasts if last is not None and last.stage == stage and last.verdict == "approve"]


def full(book: Book, stage: int) -> bool:
    return len(supporters(book, stage)) >= book.asks[stage].quorum


def blocks(book: Book) -> list[list[int]]:
    """The stages that are asked at the same time, block after block."""
    marked = [(ask.group or f"alone {i}", i) for i, ask in enumerate(book.asks)]
    return [[i for _, i in members] for _, members in itertools.groupby(marked, key=lambda pair: pair[0])]


def block_of(book: Book, stage: int) -> int:
    return next(n for n, members in enumerate(blocks(book)) if stage in members)


def open_stages(book: Book) -> list[int]:
    """Of the first block that lacks anything, the stages that do."""
    for members in blocks(book):
        lacking = [stage for stage in members if not full(book, stage)]
        if lacking:
            return lacking
    return []


def opened_at(book: Book, stage: int) -> datetime:
    """When a stage opened: with the word that filled the block before."""
    number = block_of(book, stage)
    if number == 0:
        return book.opened
    before = blocks(book)[number - 1]
    return max(s.at for s in relevant(book) if s.stage in before and s.verdict == "approve")


def deadline(book: Book) -> datetime | None:
    """When the first of the open stages closes."""
    ends = [
        opened_at(book, stage) + timedelta(hours=hours)
        for stage in open_stages(book)
        if (hours := book.asks[stage].due) is not None
    ]
    return min(ends) if ends else None


def standing(book: Book, now: datetime) -> str:
    if any(s.verdict == "reject" for s in relevant(book)):
        return "rejected"
    if not open_stages(book):
        return "approved"
    if book.withdrawn:
        return "closed"
    end = deadline(book)
    return "lapsed" if end is not None and now >= end else "in_review"


def ways_in(book: Book, now: datetime, stage: int, seat: int, holds: Mapping[str, set[int]]) -> list[str]:
    """The roles by which a seat may be taken in a stage, the one that counts first."""
    ask, found = book.asks[stage], []
    if seat in holds[ask.role]:
        found.append(ask.role)
    late = ask.escalate is not None and now - opened_at(book, stage) >= timedelta(hours=ask.escalate)
    if late and seat in holds[ask.escalation]:
        found.append(ask.escalation)
    if ask.fallback and seat in holds[ask.fallback]:
        elsewhere = {person for s in relevant(book) if s.stage != stage for person in (s.actor, s.seat)}
        if len([p for p in holds[ask.role] if p not in book.barred and p not in elsewhere]) < ask.quorum:
            found.append(ask.fallback)
    return found


def stage_meant(book: Book, now: datetime, seat: int, holds: Mapping[str, set[int]]) -> int:
    """Where a word belongs that names no stage."""
    own = last_word(book, seat)
    if own is not None:
        return own.stage
    able = [stage for stage in open_stages(book) if ways_in(book, now, stage, seat, holds)]
    return (able or open_stages(book) or [0])[0]


def takes(
    book: Book,
    now: datetime,
    *,
    stage: int,
    actor: int,
    seat: int,
    verdict: str,
    holds: Mapping[str, set[int]],
    delegated: set[tuple[int, int, str]],
) -> bool:
    """Whether this word may be spoken now."""
    if standing(book, now) != "in_review" or {actor, seat} & book.barred:
        return False
    own = last_word(book, seat)
    if stage not in open_stages(book) if own is None else stage != own.stage:
        return False
    ways = ways_in(book, now, stage, seat, holds)
    if not ways or (actor != seat and (seat, actor, ways[0]) not in delegated):
        return False
    others = {s.seat for s in relevant(book)} - {seat}
    if any(people_of(book, other) & {actor, seat} for other in others):
        return False
    wait = book.asks[stage].wait
    if verdict == "approve" and wait is not None and now - opened_at(book, stage) < timedelta(hours=wait):
        return False
    return own is None or own.verdict != verdict


@dataclass
class Promise:
    """A grant as the oracle remembers it: the three dates that decide whether it may be used."""

    digest: str
    start: datetime
    end: datetime | None
    revoked: datetime | None = None
    told: int = 0

    def good(self, digest: str, now: datetime) -> bool:
        after = self.end is not None and now >= self.end
        return digest == self.digest and now >= self.start and not after and not (self.revoked and now >= self.revoked)

    def over(self, now: datetime) -> bool:
        return self.revoked is not None or (self.end is not None and now >= self.end)
