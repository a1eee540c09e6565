"""A checkpoint's bytes: what the trail was at one moment, signed, so that a copy elsewhere can contradict the database.

The signed body is RFC 8785 JSON:
    {"v": 1, "log": installation, "seq": number of the last link, "hash": its hash, "merkle_root": RFC 6962 root over
     all leaves 1…seq, "at": "YYYY-MM-DDTHH:MM:SS.ffffffZ", "key_id": …, "prev_checkpoint": SHA-256 of the body before
     this one, or ""}
A file holds {"body": the body as text, "signature": Ed25519 over its bytes, base64, "key_id", "public_key"}.
The public key in a file is for convenience only: trust one that came another way.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apps.core import signing
from apps.core.canonical import canonical_bytes
from apps.core.events import plain

VERSION = 1
SUFFIX = ".checkpoint.json"


class BadCheckpoint(ValueError):
    """The file is no checkpoint; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as read from a file or row. `body` are the signed bytes."""

    body: bytes
    key_id: str
    signature: str
    public_key: bytes
    seq: int
    hash: bytes
    merkle_root: bytes
    at: datetime
    log: str
    prev: str

    @property
    def digest(self) -> str:
        """SHA-256 of the body, in hexadecimal: what the next checkpoint names as the one before it."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def file_name(self) -> str:
        """Name under which it is kept: sorts by number."""
        return f"{self.seq:015d}-{self.digest[:12]}{SUFFIX}"

    def signed_by(self, keys: Mapping[str, bytes]) -> bool:
        """Whether one of `keys` (id → raw public key) made the signature."""
        return signing.verifies(self.body, self.key_id, self.signature, keys)

    def file_text(self) -> str:
        """Return the file's text."""
        data = {
            "body": self.body.decode(),
            "signature": self.signature,
            "key_id": self.key_id,
            "public_key": base64.urlsafe_b64encode(self.public_key).decode(),
        }
        return json.dumps(data, indent=2, sort_keys=True) + "\n"


def make(*, log: str, seq: int, link_hash: bytes, merkle_root: bytes, at: datetime, prev: str) -> Checkpoint:
    """Return a signed checkpoint. Raises signing.CannotSign where this process holds no key."""
    key_id = next(iter(signing.public_keys()), "")
    if not signing.can_sign():
        raise signing.CannotSign("COMMONS_SIGNING_KEY is not set in this process")
    body = canonical_bytes(
        {
            "v": VERSION,
            "log": log,
            "seq": str(seq),
            "hash": link_hash.hex(),
            "merkle_root": merkle_root.hex(),
            "at": plain(at.astimezone(UTC)),
            "key_id": key_id,
            "prev_checkpoint": prev,
        }
    )
    made = signing.sign(body)
    return read(body, made.key_id, made.value, signing.public_keys()[made.key_id])


def read(body: bytes, key_id: str, signature: str, public_key: bytes) -> Checkpoint:
    """Return a checkpoint from its parts. Raises BadCheckpoint."""
    try:
        data = json.loads(body)
        if data["v"] != VERSION:
            raise BadCheckpoint(f"version {data['v']!r} is not known here")
        found = Checkpoint(
            body=body,
            key_id=key_id,
            signature=signature,
            public_key=public_key,
            seq=int(data["seq"]),
            hash=bytes.fromhex(data["hash"]),
            merkle_root=bytes.fromhex(data["merkle_root"]),
            at=datetime.strptime(data["at"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC),
            log=str(data["log"]),
            prev=str(data["prev_checkpoint"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise (
            error if isinstance(error, BadCheckpoint) else BadCheckpoint(f"its body cannot be read: {error}")
        ) from error
    if data.get("key_id") != key_id:
        raise BadCheckpoint("it was signed for another key than it names")
    return found


def parse(text: str) -> Checkpoint:
    """Return the checkpoint of a file's text. Raises BadCheckpoint."""
    try:
        data: dict[str, Any] = json.loads(text)
        parts = data["body"].encode(), str(data["key_id"]), str(data["signature"])
        public = base64.urlsafe_b64decode(data["public_key"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadCheckpoint(f"it is no checkpoint file: {error}") from error
    return read(*parts, public)
