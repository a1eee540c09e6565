"""What an approval amounts to, written a second time: from sets and counts over the whole log, not as a replay.

It knows only the log of accepted words and what was true when each was spoken; it shares no code with the engine.
"""

from __future__ import annotations

import itertools
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
class Book:
    """Everything the oracle knows of one request."""

    quorums: tuple[int, ...]
    due_hours: tuple[int | None, ...]
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
    return len(supporters(book, stage)) >= book.quorums[stage]


def open_stage(book: Book) -> int:
    """The first stage that is not full, in order."""
    return next((i for i in range(len(book.quorums)) if not full(book, i)), len(book.quorums))


def deadline(book: Book) -> datetime | None:
    """When the open stage closes: counted from the word that filled the one before."""
    stage = open_stage(book)
    if stage >= len(book.quorums) or book.due_hours[stage] is None:
        return None
    start = book.opened
    if stage:
        start = max(s.at for s in relevant(book) if s.stage == stage - 1 and s.verdict == "approve")
    return start + timedelta(hours=book.due_hours[stage] or 0)


def standing(book: Book, now: datetime) -> str:
    if any(s.verdict == "reject" for s in relevant(book)):
        return "rejected"
    if open_stage(book) == len(book.quorums):
        return "approved"
    if book.withdrawn:
        return "closed"
    end = deadline(book)
    return "lapsed" if end is not None and now >= end else "in_review"


def takes(
    book: Book,
    now: datetime,
    *,
    actor: int,
    seat: int,
    verdict: str,
    holds: dict[str, set[int]],
    roles: tuple[str, ...],
    delegated: set[tuple[int, int, str]],
) -> bool:
    """Whether this word may be spoken now."""
    if standing(book, now) != "in_review" or {actor, seat} & book.barred:
        return False
    own = last_word(book, seat)
    stage = own.stage if own else open_stage(book)
    if seat not in holds[roles[stage]]:
        return False
    if actor != seat and (seat, actor, roles[stage]) not in delegated:
        return False
    others = {s.seat for s in relevant(book)} - {seat}
    if any(people_of(book, other) & {actor, seat} for other in others):
        return False
    return own is None or own.verdict != verdict
