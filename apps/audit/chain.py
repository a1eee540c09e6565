"""Verifying a chain: pure, streaming, one record at a time. What it needs from the database stands in `Record`."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. `seq` is 0 where it concerns no single link."""

    kind: str
    seq: int
    event_id: str
    text: str


@dataclass(slots=True)
class ChainState:
    """Where a verification has got to."""

    links: int = 0
    seq: int = 0
    hash: bytes = ZERO_HASH
    findings: list[Finding] = field(default_factory=list)


def verify(records: Iterable[Record], state: ChainState) -> Iterator[Finding]:
    """Follow the chain from `state`, yielding every finding and moving `state` along.

    After a finding the walk goes on from the stored hash, so that one break is one finding and not a thousand.
    """
    for record in records:
        yield from _link(record, state)
        yield from _event(record)
        state.links += 1
        state.seq, state.hash = record.seq, record.hash


def _link(record: Record, state: ChainState) -> Iterator[Finding]:
    expected = state.seq + 1
    if record.seq != expected:
        missing = f"{expected}" if record.seq == expected + 1 else f"{expected} to {record.seq - 1}"
        yield Finding("gap", record.seq, record.event_id, f"link {missing} is missing before {record.seq}")
    elif record.prev != state.hash:
        yield Finding("link", record.seq, record.event_id, f"link {record.seq} does not follow from the one before it")
    if link_hash(record.prev, record.seq, record.leaf, record.sealed_at_us) != record.hash:
        yield Finding("link", record.seq, record.event_id, f"the hash of link {record.seq} is not that of its contents")


def _event(record: Record) -> Iterator[Finding]:
    def finding(kind: str, text: str) -> Finding:
        return Finding(kind, record.seq, record.event_id, text)

    if record.canonical is None:
        yield finding("event", f"the event of link {record.seq} is gone")
        return
    if leaf_hash(record.canonical) != record.leaf:
        yield finding("bytes", f"the bytes of the event of link {record.seq} are not those that were sealed")
    if record.stored_leaf is not None and record.stored_leaf != record.leaf:
        yield finding("bytes", f"the event's leaf differs from that in link {record.seq}")
    try:
        data = json.loads(record.canonical)
        said = told_columns(data)
        committed = str(data["note"])
    except (ValueError, KeyError, TypeError):
        yield finding("bytes", f"the bytes of the event of link {record.seq} cannot be read")
        return
    if different := sorted(name for name, value in said.items() if record.columns.get(name, "") != value):
        yield finding("columns", f"the columns {', '.join(different)} of link {record.seq} do not say what was sealed")
    if record.note is None and committed:
        yield finding("note", f"the note of the event of link {record.seq} is gone")
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
