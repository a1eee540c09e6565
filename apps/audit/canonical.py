"""The bytes of an event: what is hashed, what stays out of it, and how the two are tied together. No database.

Layout (version 1), RFC 8785 JSON:
    {"v": 1, "id": uid, "at": "YYYY-MM-DDTHH:MM:SS.ffffffZ",
     "actor": {"type": "person"|"system"|"anonymous", "id": uid or name, "channel": …, "on_behalf_of": uid or ""},
     "action": "room.noun.verb", "object": {"type": …, "id": uid}, "team": uid or "",
     "before_digest": hex or "", "after_digest": hex or "", "changes": {…}, "note": hex or "", "request_id": …}

Hashed bytes hold opaque ids only. Free text and personal details (a reason, an e-mail address, a person's name) go into
a side note; "note" is SHA-256(salt ‖ note bytes) with a random 32-byte salt, so that destroying note and salt leaves
the chain intact and the text beyond guessing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from apps.core.canonical import canonical_bytes
from apps.core.events import EventType, is_private

VERSION = 1
ZERO_HASH = bytes(32)
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


@dataclass(frozen=True, slots=True)
class ActorFields:
    """Who acted, by opaque ids."""

    type: str
    id: str
    channel: str
    on_behalf_of: str = ""


def split_payload(event: EventType, payload: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the payload's fields as (hashed, private). Raises TypeError for a payload of another type."""
    data = event.dump(payload)
    private = _private_fields(payload.__class__)
    return (
        {name: value for name, value in data.items() if name not in private},
        {name: value for name, value in data.items() if name in private},
    )


@cache
def _private_fields(payload: Any) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(payload) if is_private(field))


def refuse_addresses(value: Any, where: str = "changes") -> None:
    """Raise ValueError where a mail address is about to be hashed for ever: mark the payload's field as private."""
    if isinstance(value, str):
        if _ADDRESS.search(value):
            raise ValueError(f"{where} holds a mail address; declare the field private (core.events.private)")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            refuse_addresses(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            refuse_addresses(item, where)


def event_bytes(
    *,
    uid: str,
    at: str,
    actor: ActorFields,
    action: str,
    object_type: str,
    object_id: str,
    team: str,
    changes: Mapping[str, Any],
    note: str,
    request_id: str,
    before_digest: str = "",
    after_digest: str = "",
) -> bytes:
    """Return the canonical bytes of an event."""
    return canonical_bytes(
        {
            "v": VERSION,
            "id": uid,
            "at": at,
            "actor": {
                "type": actor.type,
                "id": actor.id,
                "channel": actor.channel,
                "on_behalf_of": actor.on_behalf_of,
            },
            "action": action,
            "object": {"type": object_type, "id": object_id},
            "team": team,
            "before_digest": before_digest,
            "after_digest": after_digest,
            "changes": changes,
            "note": note,
            "request_id": request_id,
        }
    )


def commitment(salt: bytes, body: bytes) -> str:
    """Return what an event holds of its note, in lower-case hexadecimal."""
    return hashlib.sha256(salt + body).hexdigest()


def leaf_hash(canonical: bytes) -> bytes:
    """Return the leaf of an event: SHA-256(0x00 ‖ canonical)."""
    return hashlib.sha256(b"\x00" + canonical).digest()


def link_hash(prev: bytes, seq: int, leaf: bytes, sealed_at_us: int) -> bytes:
    """Return a link's hash: SHA-256(0x02 ‖ prev ‖ int64 seq ‖ leaf ‖ int64 microseconds since 1970), big-endian."""
    return hashlib.sha256(
        b"\x02" + prev + seq.to_bytes(8, "big", signed=True) + leaf + sealed_at_us.to_bytes(8, "big", signed=True)
    ).digest()
