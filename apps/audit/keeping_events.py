"""What the keeping of the trail writes into it: holds, purges, erased notes, changes that came without an event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class HoldPlaced:
    """A legal hold: what it keeps, by opaque ids and times. Empty matches everything."""

    person: str
    object: str
    since: str
    until: str


@dataclass(frozen=True, slots=True)
class HoldReleased:
    """A legal hold holds no more."""

    days: int


@dataclass(frozen=True, slots=True)
class PurgeDecided:
    """A step on the way to purging a month ("2015-03"): proposed, approved, rejected or withdrawn."""

    month: str
    events: int


@dataclass(frozen=True, slots=True)
class MonthPurged:
    """Events and notes of a month were removed. `leaves` is SHA-256 over their leaves in the order of the links;
    `end_hash` the last link's hash; `checkpoint` the number and `merkle_root` the root of one that covers them."""

    month: str
    proposal: str
    events: int
    first_seq: int
    last_seq: int
    leaves: str
    end_hash: str
    checkpoint: int
    merkle_root: str


@dataclass(frozen=True, slots=True)
class ChangesPurged:
    """The log of rows that were changed in a purged month went, too: reconciliations had looked at all of it."""

    month: str
    rows: int


@dataclass(frozen=True, slots=True)
class NotesErased:
    """Notes that named an erased person were destroyed: those of these events."""

    events: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChangesUnexplained:
    """Rows of watched tables were changed by transactions that recorded no event: how many, the first of them."""

    changes: int
    first: list[dict[str, Any]] = field(default_factory=list)


HOLD_PLACED = declare("audit.hold.placed", HoldPlaced, audience="auditors")
HOLD_RELEASED = declare("audit.hold.released", HoldReleased, audience="auditors")
PURGE_PROPOSED = declare(
    "audit.retention.proposed",
    PurgeDecided,
    audience="who may approve it",
    mail=True,
    headline=lambda p: f"To decide: purge the audit events of {p.month}",
    body=lambda p: f"{p.events:,} events would be removed for good. A second person decides.",
    path=lambda p: "/audit/retention/",
)
PURGE_APPROVED = declare("audit.retention.approved", PurgeDecided, audience="auditors")
PURGE_REJECTED = declare("audit.retention.rejected", PurgeDecided, audience="auditors")
PURGE_WITHDRAWN = declare("audit.retention.withdrawn", PurgeDecided, audience="auditors")
MONTH_PURGED = declare("audit.retention.purged", MonthPurged, audience="auditors")
NOTES_ERASED = declare("audit.note.erased", NotesErased, audience="auditors")
CHANGES_PURGED = declare("audit.change.purged", ChangesPurged, audience="auditors")
CHANGES_UNEXPLAINED = declare("audit.change.unexplained", ChangesUnexplained, audience="auditors")
