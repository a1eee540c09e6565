"""Checkpoints of the trail: made, signed, and copied to where the database's administrators cannot write.

Two steps, both swept: `make_due` follows the chain from the last checkpoint to the present end, refuses to sign what
does not follow, and stores a signed row; `publish_due` writes every row to every place that lacks it, until it has
succeeded. What lies after the newest published checkpoint could still be rewritten by a database administrator: the
interval is the exposure, and pages say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection, transaction

from apps.audit import chain, checkpoint_format, verification
from apps.audit.actions import INSTALLATION, record
from apps.audit.checkpoint_format import SUFFIX, BadCheckpoint, Checkpoint
from apps.audit.events import CHECKPOINT_MADE, CHECKPOINT_REFUSED, CheckpointMade, CheckpointRefused
from apps.audit.merkle import Frontier
from apps.audit.models import CheckpointRow
from apps.core import clock, leases, signing
from apps.core.actor import Actor

_ACTOR = "audit.checkpoint"
_LEASE = "audit.checkpoint"


@dataclass(frozen=True, slots=True)
class Place:
    """Where copies go: `kind` is folder or mail."""

    kind: str
    target: str

    @property
    def key(self) -> str:
        """How `CheckpointRow.places` names it."""
        return f"{self.kind}:{self.target}"


def places() -> list[Place]:
    """Return the configured places, folders first."""
    folders = [Place("folder", text) for text in settings.COMMONS_CHECKPOINT_DIRS if text.strip()]
    return folders + [Place("mail", text) for text in settings.COMMONS_CHECKPOINT_MAIL if text.strip()]


def interval() -> timedelta:
    """Return how long the trail may grow unsigned: the window in which tampering could stay unseen."""
    return timedelta(minutes=settings.COMMONS_CHECKPOINT_MINUTES)


def newest() -> CheckpointRow | None:
    """Return the last checkpoint made."""
    return CheckpointRow.objects.order_by("-seq").first()


def make_due(*, force: bool = False) -> CheckpointRow | None:
    """Make a checkpoint where the interval is over and the trail has grown; None where none was due or possible.

    A trail that does not follow from the last checkpoint is not signed: that is an event and a finding instead.
    Where this process holds no signing key nothing is made, and verification says that checkpoints are missing.
    """
    if not signing.can_sign():
        return None
    before = newest()
    if not force and before is not None and clock.now() - before.made_at < interval():
        return None
    with leases.held(_LEASE, seconds=600) as token:
        if token is None:
            return None
        return _make(before)


def _make(before: CheckpointRow | None) -> CheckpointRow | None:
    state = chain.ChainState()
    frontier = Frontier()
    if before is not None:
        found = of_row(before)
        state.seq, state.hash = found.seq, found.hash
        frontier = Frontier.load(found.seq, bytes(before.frontier))
    with transaction.atomic():
        verification.one_state()
        first = _first_hash()
        problem = _follow(state, frontier, before)
    if problem:
        _refuse(problem, state.seq)
        return None
    if not state.links or first is None:
        return None
    at = clock.now()
    made = checkpoint_format.make(
        log=first.hex(),
        seq=state.seq,
        link_hash=state.hash,
        merkle_root=frontier.root(),
        at=at,
        prev=before.digest if before is not None else "",
    )
    with transaction.atomic():
        row = CheckpointRow.objects.create(
            seq=made.seq, body=made.body, digest=made.digest, key_id=made.key_id, signature=made.signature,
            public_key=made.public_key, frontier=frontier.dump(), made_at=at,
        )  # fmt: skip
        record(
            CHECKPOINT_MADE,
            CheckpointMade(seq=made.seq, digest=made.digest, key_id=made.key_id),
            actor=Actor.system(_ACTOR),
            subject_type="audit.checkpoint",
            subject_uid=row.uid,
            after_digest=made.digest,
        )
    return row


def _first_hash() -> bytes | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT hash FROM audit.link ORDER BY seq LIMIT 1")
        row = cursor.fetchone()
    return bytes(row[0]) if row else None


def _follow(state: chain.ChainState, frontier: Frontier, before: CheckpointRow | None) -> str:
    """Move state and frontier to the end of the chain; returns what is wrong with it, or ""."""
    if before is not None:
        stood = verification.link_hash_at(before.seq)
        if stood != state.hash:
            gone = "is gone" if stood is None else "is not the one that was signed"
            return f"link {before.seq}, the last of the checkpoint before, {gone}"

    def noted(records: Iterator[chain.Record]) -> Iterator[chain.Record]:
        for one in records:
            frontier.append(one.leaf)
            yield one

    # A frontier that has taken in something wrong is thrown away with the refusal.
    for finding in chain.verify(noted(verification.records_after(state.seq)), state):
        return finding.text
    # A note that was erased since the last checkpoint is explained by an event that comes after it.
    return next((finding.text for finding in chain.settle(state)), "")


def _refuse(problem: str, seq: int) -> None:
    with transaction.atomic():
        record(
            CHECKPOINT_REFUSED,
            CheckpointRefused(after_seq=seq, problem=problem[:300]),
            actor=Actor.system(_ACTOR),
            subject_type="audit.trail",
            subject_uid=INSTALLATION,
        )


def of_row(row: CheckpointRow) -> Checkpoint:
    """Return the checkpoint that a row holds. Raises BadCheckpoint."""
    return checkpoint_format.read(bytes(row.body), row.key_id, row.signature, bytes(row.public_key))


def publish_due() -> int:
    """Write every checkpoint to every place that lacks it; returns how many copies were made."""
    wanted = places()
    if not wanted:
        return 0
    done = 0
    # Only what lacks a copy is read: after some years there are tens of thousands of checkpoints.
    for row in CheckpointRow.objects.exclude(places__has_keys=[place.key for place in wanted]).order_by("seq"):
        lacking = [place for place in wanted if place.key not in row.places]
        for place in lacking:
            done += _publish(row, place)
    return done


def _publish(row: CheckpointRow, place: Place) -> int:
    checkpoint = of_row(row)
    try:
        if place.kind == "folder":
            write_file(Path(place.target), checkpoint)
        else:
            _mail(place.target, checkpoint)
    except (OSError, BadCheckpoint) as error:
        # Tried again by the next sweep; a page and the nightly verification say that a copy is missing.
        CheckpointRow.objects.filter(pk=row.pk).update(last_error=f"{place.key}: {error}"[:2000])
        return 0
    with transaction.atomic():
        fresh = CheckpointRow.objects.select_for_update().get(pk=row.pk)
        fresh.places = {**fresh.places, place.key: clock.now().isoformat()}
        fresh.last_error = ""
        fresh.save(update_fields=["places", "last_error"])
        row.places = fresh.places
    return 1


def write_file(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint's file once. Raises OSError, and BadCheckpoint where another file stands in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / checkpoint.file_name, checkpoint.file_text()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    except FileExistsError as error:
        if path.read_text() == text:
            return path
        raise BadCheckpoint(f"{path.name} holds something else") from error
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


def _mail(address: str, checkpoint: Checkpoint) -> None:
    message = EmailMessage(
        subject=f"Audit checkpoint {checkpoint.seq} of {settings.COMMONS_ORGANISATION}",
        body=(
            f"The audit trail held {checkpoint.seq:,} events at {checkpoint.at:%Y-%m-%d %H:%M} UTC.\n"
            "Keep this message: with the attached file anybody can prove later whether one of them was changed.\n\n"
            f"Merkle root {checkpoint.merkle_root.hex()}\nKey {checkpoint.key_id}\n"
        ),
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=[address],
    )
    message.attach(checkpoint.file_name, checkpoint.file_text(), "application/json")
    message.send()


def failing() -> list[CheckpointRow]:
    """Return the checkpoints that could not be copied everywhere at the last try."""
    return list(CheckpointRow.objects.exclude(last_error="").order_by("seq"))


def read_folder(folder: Path) -> tuple[list[Checkpoint], list[str]]:
    """Return the checkpoints of a folder by number, and a complaint for every file that is none.

    Raises OSError where the folder cannot be read.
    """
    found: list[Checkpoint] = []
    complaints: list[str] = []
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(SUFFIX):
            continue
        try:
            found.append(checkpoint_format.parse(path.read_text()))
        except (BadCheckpoint, UnicodeDecodeError) as error:
            complaints.append(f"{path.name}: {error}")
    return sorted(found, key=lambda one: one.seq), complaints


def outside_copies() -> tuple[list[Checkpoint], list[str]]:
    """Return the checkpoints of all configured folders, each once, and what could not be read."""
    found: dict[str, Checkpoint] = {}
    complaints: list[str] = []
    for place in places():
        if place.kind != "folder":
            continue
        try:
            here, wrong = read_folder(Path(place.target))
        except OSError as error:
            complaints.append(f"{place.target}: {error.strerror or error}")
            continue
        complaints += wrong
        found.update({one.digest: one for one in here})
    return sorted(found.values(), key=lambda one: one.seq), complaints


def overdue(at: datetime, checkpoints: Sequence[Checkpoint], head_seq: int) -> str:
    """Return what is late about the copies outside, in a sentence, or "".

    Late is twice the interval: one that is just being made is not.
    """
    limit = 2 * interval()
    if not checkpoints:
        return "there is no checkpoint outside the database" if head_seq else ""
    last = checkpoints[-1]
    if last.seq < head_seq and at - last.at > limit:
        return f"the newest checkpoint outside the database is of {last.at:%Y-%m-%d %H:%M} UTC"
    return ""


__all__ = [
    "Checkpoint", "Place", "failing", "interval", "make_due", "newest", "of_row", "outside_copies", "overdue",
    "places", "publish_due", "read_folder", "write_file",
]  # fmt: skip
