"""A subject for tests: things with a text, a cost and a line, held in memory."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from apps.approvals import ports
from apps.approvals.ports import MONTHLY_COST, CannotTake, Change, FactValue, Leaf
from apps.core.canonical import canonical_bytes, digest


@dataclass
class Thing:
    """What is being approved."""

    uid: uuid.UUID = field(default_factory=uuid.uuid4)
    text: str = "20 GPUs for the fraud models"
    cost: Decimal | None = Decimal("1405.25")
    facts: dict[str, FactValue] = field(default_factory=dict)
    side: set[int] = field(default_factory=set)
    line: str = ""
    blocked: list[str] = field(default_factory=list)
    authors: set[int] = field(default_factory=set)
    producers: set[int] = field(default_factory=set)
    scope: dict[str, Any] = field(default_factory=dict)
    not_before: datetime | None = None
    until: datetime | None = None
    renewed: bool = False


class ThingSubject:
    """Registered as `tests.thing`."""

    subject_type = "tests.thing"

    def __init__(self) -> None:
        self.things: dict[uuid.UUID, Thing] = {}
        self.room = True
        self.granted: list[uuid.UUID] = []
        self.concluded: list[tuple[uuid.UUID, str, str]] = []

    def add(self, **kwargs: Any) -> Thing:
        thing = Thing(**kwargs)
        self.things[thing.uid] = thing
        return thing

    def canonical(self, uid: uuid.UUID) -> bytes:
        return canonical_bytes({"text": self.things[uid].text})

    def leaves(self, uid: uuid.UUID) -> Sequence[Leaf]:
        return [Leaf("alpha", "spec.hard", digest(self.canonical(uid)))]

    def title(self, uid: uuid.UUID) -> str:
        return self.things[uid].text

    def diff(self, uid: uuid.UUID) -> Sequence[Change]:
        return [Change("alpha", "ResourceQuota/finance", "spec.hard.gpu", "10", "20")]

    def requester_side(self, uid: uuid.UUID) -> set[int]:
        return set(self.things[uid].side)

    def facts(self, uid: uuid.UUID) -> Mapping[str, FactValue]:
        thing = self.things[uid]
        return {**thing.facts, **({MONTHLY_COST: thing.cost} if thing.cost is not None else {})}

    def blockers(self, uid: uuid.UUID, at: datetime) -> Sequence[str]:
        return self.things[uid].blocked

    def url(self, uid: uuid.UUID) -> str:
        return f"/things/{uid}/"

    def summary_template(self, uid: uuid.UUID) -> str:
        return ""

    def queue(self, uid: uuid.UUID) -> str:
        return self.things[uid].line

    def on_granted(self, uid: uuid.UUID, grant: Any) -> None:
        if not self.room:
            raise CannotTake("The pool is full until 1 December.")
        self.granted.append(uid)

    def on_concluded(self, uid: uuid.UUID, status: str, reason: str) -> None:
        self.concluded.append((uid, status, reason))


class DeepSubject(ThingSubject):
    """Registered as `tests.deep`: it has everything that a subject may have."""

    subject_type = "tests.deep"

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[uuid.UUID] = []

    def grant_scope(self, uid: uuid.UUID) -> Mapping[str, Any]:
        return self.things[uid].scope

    def validity(self, uid: uuid.UUID) -> tuple[datetime | None, datetime | None]:
        return self.things[uid].not_before, self.things[uid].until

    def checklist_digest(self, uid: uuid.UUID) -> str:
        return digest(canonical_bytes({"blocked": self.things[uid].blocked}))

    def authors(self, uid: uuid.UUID) -> set[int]:
        return set(self.things[uid].authors)

    def evidence_producers(self, uid: uuid.UUID) -> set[int]:
        return set(self.things[uid].producers)

    def written_by(self, user_ids: Collection[int]) -> set[uuid.UUID]:
        return {uid for uid, one in self.things.items() if set(user_ids) & one.authors}

    def proved_by(self, user_ids: Collection[int]) -> set[uuid.UUID]:
        return {uid for uid, one in self.things.items() if set(user_ids) & one.producers}

    def renewed(self, uid: uuid.UUID, at: datetime) -> bool:
        return self.things[uid].renewed

    def on_ended(self, grant: Any) -> None:
        self.ended.append(grant.uid)


@contextmanager
def deep_registered() -> Iterator[DeepSubject]:
    """Register the deep subject, and let it hear of ended grants."""
    subject = DeepSubject()
    ports.register_subject(subject)
    ports.on_grant_ended("tests.deep", subject.on_ended)
    try:
        yield subject
    finally:
        ports.unregister_subject("tests.deep")
        ports.forget_grant_ended("tests.deep")


@contextmanager
def facts_provided(providers: Mapping[str, ports.FactProvider]) -> Iterator[None]:
    """Let a test answer for other rooms; what they registered themselves stands again afterwards."""
    before = dict(ports._providers)
    try:
        for name, provider in providers.items():
            ports.register_fact_provider(name, provider)
        yield
    finally:
        ports._providers.clear()
        ports._providers.update(before)
