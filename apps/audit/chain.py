"""Verifying a chain: pure, streaming, one record at a time. What it needs from the database stands in `Record`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.audit.canonical import VERSION, ZERO_HASH, commitment, leaf_hash, link_hash


@dataclass(frozen=True, slots=True)
class Record:
    """One link with its event and note. `canonical` is None where the event is gone, `note` where there is none."""

    seq: int
    event_id: str
    leaf: bytes
    prev: bytes
    hash: bytes
    sealed_at_us: int
    canonical: bytes | None
    stored_leaf: bytes | None
    columns: Mapping[str, str]
    note: tuple[bytes, bytes] | None = None
    #: The month in which it happened ("2026-11"), by the link: where the event is gone, nothing else says so.
    month: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. `seq` is 0 where it concerns no single link."""

    kind: str
    seq: int
    event_id: str
    text: str


#: Findings of missing events kept for each month; the rest are counted.
KEPT_GONE = 50


@dataclass(slots=True)
class _Gone:
    """The missing events of one month: how many, which (a digest over their leaves in order), the first findings."""

    events: int = 0
    first_seq: int = 0
    last_seq: int = 0
    leaves: Any = field(default_factory=hashlib.sha256)
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class ChainState:
    """Where a verification has got to, and what was said on the way of purges and erasures."""

    links: int = 0
    seq: int = 0
    hash: bytes = ZERO_HASH
    findings: list[Finding] = field(default_factory=list)
    gone: dict[str, _Gone] = field(default_factory=dict)
    notes_gone: dict[str, Finding] = field(default_factory=dict)
    notes_erased: set[str] = field(default_factory=set)
    #: (proposal, month) → person, for proposals and for approvals.
    proposed: dict[tuple[str, str], str] = field(default_factory=dict)
    approved: dict[tuple[str, str], str] = field(default_factory=dict)
    purged: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def verify(records: Iterable[Record], state: ChainState) -> Iterator[Finding]:
    """Follow the chain from `state`, yielding every finding and moving `state` along; then call `settle`.

    After a finding the walk goes on from the stored hash, so that one break is one finding and not a thousand.
    """
    for record in records:
        yield from _link(record, state)
        yield from _event(record, state)
        state.links += 1
        state.seq, state.hash = record.seq, record.hash


def settle(state: ChainState) -> Iterator[Finding]:
    """Yield a finding for every event and note that is gone without the trail saying so. Empties what it judges.

    A purge explains the missing events of its month where it names exactly these leaves, and two persons proposed and
    approved it before. An erasure explains the notes that it names.
    """
    for month, gone in sorted(state.gone.items()):
        if not _explained(month, gone, state):
            yield from gone.findings
            if (more := gone.events - len(gone.findings)) > 0:
                yield Finding("event", gone.last_seq, "", f"{more} more events of {month} are gone")
    for event_id, finding in state.notes_gone.items():
        if event_id not in state.notes_erased:
            yield finding
    state.gone, state.notes_gone = {}, {}


def _explained(month: str, gone: _Gone, state: ChainState) -> bool:
    said = state.purged.get(month)
    if said is None:
        return False
    key = str(said.get("proposal", "")), month
    proposer, approver = state.proposed.get(key, ""), state.approved.get(key, "")
    return bool(proposer and approver and proposer != approver) and (
        said.get("events"), said.get("first_seq"), said.get("last_seq"), said.get("leaves"),
    ) == (gone.events, gone.first_seq, gone.last_seq, gone.leaves.hexdigest())  # fmt: skip


def _missing(record: Record, state: ChainState) -> None:
    gone = state.gone.setdefault(record.month, _Gone(first_seq=record.seq))
    gone.events += 1
    gone.last_seq = record.seq
    gone.leaves.update(record.leaf)
    if len(gone.findings) < KEPT_GONE:
        text = f"the event of link {record.seq} is gone"
        gone.findings.append(Finding("event", record.seq, record.event_id, text))


def _take_note(data: Mapping[str, Any], state: ChainState) -> None:
    """Remember what an event says of purges and erasures."""
    action, changes = data["action"], data["changes"]
    if action == "audit.note.erased":
        state.notes_erased.update(str(one) for one in changes["events"])
    elif action == "audit.retention.purged":
        state.purged[str(changes["month"])] = changes
    elif action in ("audit.retention.proposed", "audit.retention.approved") and data["actor"]["type"] == "person":
        said = state.proposed if action.endswith("proposed") else state.approved
        said[(str(data["object"]["id"]), str(changes["month"]))] = str(data["actor"]["id"])


def _link(record: Record, state: ChainState) -> Iterator[Finding]:
    expected = state.seq + 1
    if record.seq != expected:
        missing = f"{expected}" if record.seq == expected + 1 else f"{expected} to {record.seq - 1}"
        yield Finding("gap", record.seq, record.event_id, f"link {missing} is missing before {record.seq}")
    elif record.prev != state.hash:
        yield Finding("link", record.seq, record.event_id, f"link {record.seq} does not follow from the one before it")
    if link_hash(record.prev, record.seq, record.leaf, record.sealed_at_us) != record.hash:
        yield Finding("link", record.seq, record.event_id, f"the hash of link {record.seq} is not that of its contents")


def _event(record: Record, state: ChainState) -> Iterator[Finding]:
    def finding(kind: str, text: str) -> Finding:
        return Finding(kind, record.seq, record.event_id, text)

    if record.canonical is None:
        _missing(record, state)
        return
    if leaf_hash(record.canonical) != record.leaf:
        yield finding("bytes", f"the bytes of the event of link {record.seq} are not those that were sealed")
    if record.stored_leaf is not None and record.stored_leaf != record.leaf:
        yield finding("bytes", f"the event's leaf differs from that in link {record.seq}")
    try:
        data = json.loads(record.canonical)
        said = told_columns(data)
        committed = str(data["note"])
        if data["action"].startswith("audit."):
            _take_note(data, state)
    except (ValueError, KeyError, TypeError):
        yield finding("bytes", f"the bytes of the event of link {record.seq} cannot be read")
        return
    if different := sorted(name for name, value in said.items() if record.columns.get(name, "") != value):
        yield finding("columns", f"the columns {', '.join(different)} of link {record.seq} do not say what was sealed")
    if record.note is None and committed:
        text = f"the note of the event of link {record.seq} is gone"
        state.notes_gone[record.event_id] = Finding("note", record.seq, record.event_id, text)
    elif record.note is not None and commitment(*record.note) != committed:
        yield finding("note", f"the note of the event of link {record.seq} is not the one that was sealed")


def told_columns(data: Mapping[str, Any]) -> dict[str, str]:
    """Return what an event's bytes say about its searchable columns. Raises KeyError for bytes of another layout."""
    if data["v"] != VERSION:
        raise KeyError("v")
    actor, subject = data["actor"], data["object"]
    return {
        "id": data["id"],
        "occurred_at": data["at"],
        "actor_type": actor["type"],
        "actor_id": actor["id"],
        "on_behalf_of": actor["on_behalf_of"],
        "channel": actor["channel"],
        "action": data["action"],
        "object_type": subject["type"],
        "object_id": subject["id"],
        "team_id": data["team"],
        "request_id": data["request_id"],
    }
