"""Export bundles: events with links, notes and proofs, checkpoints, keys, and a verifier that needs only Python."""

from __future__ import annotations

import base64
import json
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from django.db import connection, transaction

from apps.audit import bundle_verifier, checkpoints, verification
from apps.audit.actions import INSTALLATION, record
from apps.audit.checkpoint_format import Checkpoint
from apps.audit.events import BUNDLE_MADE, BundleMade
from apps.audit.merkle import node
from apps.audit.models import Purge
from apps.core import clock, signing
from apps.core.actor import Actor
from apps.core.events import plain

VERSION = 1
_README = """Audit events of {organisation}, packed {at}.

  events.jsonl      one event a line: its exact bytes, its link, its note, its proof of inclusion
  checkpoints/      signed states of the whole trail; the proofs lead to their Merkle roots
  public_keys.json  the keys that signed them, for convenience: trust one that reached you another way
  verify.py         checks all of it and needs nothing but Python:

      python3 verify.py {name} --public-key KEY

An event that is newer than the last checkpoint cannot be proven yet; the verifier says so. Months named under "purged"
in manifest.json were removed by two persons' decision before this bundle was made: their events are not in it. The note
of an event is missing where the person it named was erased.
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events: a time [start, end), and where wanted of one object only."""

    start: datetime | None = None
    end: datetime | None = None
    object_uid: uuid.UUID | None = None

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition over `e` and its parameters."""
        parts, values = ["true"], list[Any]()
        for text, value in (
            ("e.occurred_at >= %s", self.start),
            ("e.occurred_at < %s", self.end),
            ("e.object_id = %s", self.object_uid),
        ):
            if value is not None:
                parts.append(text)
                values.append(value)
        return " AND ".join(parts), values


@dataclass(frozen=True, slots=True)
class Packed:
    """What a bundle holds."""

    events: int
    head_seq: int
    checkpoint_seq: int


def count(selection: Selection, limit: int) -> int:
    """Return how many events are chosen, counting to `limit` at most."""
    where, values = selection.where()
    query = f"SELECT count(*) FROM (SELECT 1 FROM audit.event e WHERE {where} LIMIT %s) AS found"  # noqa: S608 (constants)
    with connection.cursor() as cursor:
        cursor.execute(query, [*values, limit])
        return int(cursor.fetchone()[0])


def write(file: IO[bytes], selection: Selection, *, actor: Actor, organisation: str, name: str) -> Packed:
    """Write a bundle as a ZIP archive and record that it was made.

    Proofs are for the newest checkpoint made. Takes 64 bytes of memory a link up to it. Raises django.db.Error.
    """
    last = checkpoints.newest()
    checkpoint = checkpoints.of_row(last) if last is not None else None
    with transaction.atomic():
        verification.one_state()
        tree = _Tree(checkpoint.seq) if checkpoint is not None else None
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            count, head = 0, 0
            with archive.open("events.jsonl", "w") as lines:
                for seq, data in _events(selection, tree):
                    lines.write(json.dumps(data, sort_keys=True).encode() + b"\n")
                    count, head = count + 1, seq
            packed = Packed(count, head, checkpoint.seq if checkpoint is not None else 0)
            _surroundings(archive, packed, checkpoint, organisation, name)
    with transaction.atomic():
        record(
            BUNDLE_MADE,
            BundleMade(events=packed.events, head_seq=packed.head_seq, checkpoint_seq=packed.checkpoint_seq),
            actor=actor,
            subject_type="audit.trail",
            subject_uid=INSTALLATION,
        )
    return packed


def _surroundings(
    archive: zipfile.ZipFile, packed: Packed, checkpoint: Checkpoint | None, organisation: str, name: str
) -> None:
    at = plain(clock.now())
    manifest = {
        "v": VERSION,
        "made_at": at,
        "organisation": organisation,
        "events": packed.events,
        "head_seq": packed.head_seq,
        "checkpoint_seq": packed.checkpoint_seq,
        "purged": [
            {"month": f"{one.month:%Y-%m}", "events": one.events, "first_seq": one.first_seq, "last_seq": one.last_seq}
            for one in Purge.objects.order_by("month")
        ],
    }
    archive.writestr("manifest.json", json.dumps(manifest, indent=2))
    keys = {key: base64.urlsafe_b64encode(raw).decode() for key, raw in signing.public_keys().items()}
    archive.writestr("public_keys.json", json.dumps(keys, indent=2))
    archive.writestr("README.txt", _README.format(organisation=organisation, at=at, name=name))
    archive.writestr("verify.py", Path(bundle_verifier.__file__).read_text())
    if checkpoint is not None:
        archive.writestr(f"checkpoints/{checkpoint.file_name}", checkpoint.file_text())


class _Tree:
    """All levels of the Merkle tree over the links 1…size, to read proofs from."""

    def __init__(self, size: int) -> None:
        self.size = size
        level = []
        with connection.chunked_cursor() as cursor:
            cursor.execute("SELECT leaf FROM audit.link WHERE seq <= %s ORDER BY seq", [size])
            while rows := cursor.fetchmany(10_000):
                level += [bytes(row[0]) for row in rows]
        self.levels = [level]
        while len(level) > 1:
            pairs = [node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
            level = pairs + level[len(pairs) * 2 :]
            self.levels.append(level)

    def path(self, index: int) -> list[str]:
        """Return the audit path of leaf `index` (from 0), as `merkle.inclusion_proof` does."""
        found = []
        for level in self.levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                found.append(level[sibling].hex())
            index //= 2
        return found


def _events(selection: Selection, tree: _Tree | None) -> Iterator[tuple[int, dict[str, Any]]]:
    where, values = selection.where()
    # The condition is made of constants; values go as parameters.
    query = (
        "SELECT l.seq, l.prev, l.hash, (extract(epoch FROM l.sealed_at) * 1000000)::bigint, e.canonical, n.salt, n.body"  # noqa: S608 (constants)
        "  FROM audit.link l JOIN audit.event e ON e.id = l.event_id AND e.occurred_at = l.occurred_at"
        "  LEFT JOIN audit.note n ON n.event_id = l.event_id AND n.occurred_at = l.occurred_at"
        f" WHERE {where} ORDER BY l.seq"
    )
    with connection.chunked_cursor() as cursor:
        cursor.execute(query, values)
        while rows := cursor.fetchmany(2000):
            for seq, prev, link_hash, sealed_at_us, canonical, salt, body in rows:
                note = None
                if salt is not None:
                    note = {
                        "salt": base64.b64encode(bytes(salt)).decode(),
                        "body": base64.b64encode(bytes(body)).decode(),
                    }
                proof = None
                if tree is not None and seq <= tree.size:
                    proof = {"size": tree.size, "path": tree.path(seq - 1)}
                yield (
                    seq,
                    {
                        "seq": seq,
                        "prev": bytes(prev).hex(),
                        "hash": bytes(link_hash).hex(),
                        "sealed_at_us": sealed_at_us,
                        "canonical": bytes(canonical).decode(),
                        "note": note,
                        "proof": proof,
                    },
                )
