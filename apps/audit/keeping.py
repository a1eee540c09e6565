"""How long events are kept: holds, proposals to purge a month, the purge, and the erasing of notes.

The database decides what may go (`audit.purge_obstacle`): the floor, the holds, a checkpoint that covers the month, and
two persons' events in the trail. What stands here asks it, and says who may do what.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DatabaseError, connection, transaction

from apps.audit import canonical, checkpoints
from apps.audit import keeping_events as events
from apps.audit.actions import record
from apps.audit.choices import NEXT, ProposalStatus
from apps.audit.keeping_models import Hold, HoldRelease, RetentionProposal
from apps.audit.models import CheckpointRow
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import canonical_bytes
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.partitions import month_start, next_month
from apps.core.permissions import INSTALLATION, holders_of, may

PROPOSE, APPROVE, HOLD = "audit.retention.propose", "audit.retention.approve", "audit.hold.manage"
#: Ids in one event of an erasure: an event stays readable.
ERASED_AT_ONCE = 500


def _person(actor: Actor, permission: str) -> Any:
    """Return who acts. Raises NotAllowed for the portal itself, and for persons without the permission."""
    persons: Any = get_user_model()
    person = persons.objects.filter(pk=actor.user_id or 0).first()
    if person is None or actor.on_behalf_of is not None or not may(person, permission, INSTALLATION):
        raise NotAllowed(rule=permission)
    return person


# -- holds


@transaction.atomic
def place_hold(
    matter: str,
    *,
    actor: Actor,
    person_uid: uuid.UUID | None = None,
    object_uid: uuid.UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    reason: str = "",
) -> Hold:
    """Keep what matches from being purged or erased, until released. What is left out matches everything.

    Raises NotAllowed, Invalid for a matter with no a name or with an address, or for a time that ends before it starts.
    """
    _person(actor, HOLD)
    matter = " ".join(matter.split())
    problems: dict[str, str] = {}
    if not matter or len(matter) > 200:
        problems["matter"] = "Name the matter in at most 200 characters, such as a case number."
    try:
        canonical.refuse_addresses(matter)
    except ValueError:
        problems["matter"] = "Leave names and addresses of persons out: this text is kept for good."
    if since is not None and until is not None and until <= since:
        problems["until"] = "Choose a time after the first one."
    if problems:
        raise Invalid(problems)
    hold = Hold(
        uid=uuid.uuid4(), placed_at=clock.now(), matter=matter, actor_id=str(person_uid or ""), object_id=object_uid,
        since=since, until=until,
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit.hold (id, matter, actor_id, object_id, since, until) VALUES (%s, %s, %s, %s, %s, %s)",
            [hold.uid, matter, hold.actor_id, object_uid, since, until],
        )
    said = events.HoldPlaced(person=hold.actor_id, object=str(object_uid or ""), since=_iso(since), until=_iso(until))
    record(
        events.HOLD_PLACED, said, actor=actor, subject_type="audit.hold", subject_uid=hold.uid, reason=reason.strip()
    )
    return hold


@transaction.atomic
def release_hold(hold_uid: uuid.UUID, reason: str, *, actor: Actor) -> Hold:
    """End a hold. Raises NotAllowed, NotVisible, Invalid without a reason, Conflict where it was released already."""
    _person(actor, HOLD)
    hold = Hold.objects.filter(uid=hold_uid).first()
    if hold is None:
        raise NotVisible
    if not reason.strip():
        raise Invalid({"reason": "Say why it may end, for the audit trail."})
    with connection.cursor() as cursor:
        # Nothing to lock on a row that is never changed: the second of two releases waits here and finds the first.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('audit.release_hold'), hashtext(%s))", [str(hold_uid)])
    if HoldRelease.objects.filter(hold_uid=hold_uid).exists():
        raise Conflict("This hold was released already.", current={"status": "released"})
    days = max(0, (clock.now() - hold.placed_at).days)
    record(
        events.HOLD_RELEASED, events.HoldReleased(days=days), actor=actor, subject_type="audit.hold",
        subject_uid=hold.uid, reason=reason.strip(),
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO audit.hold_release (hold_id) VALUES (%s)", [hold.uid])
    return hold


def holds_on_person(person_uid: uuid.UUID) -> list[Hold]:
    """Return the holds in force that name a person, as actor or as object."""
    in_force = Hold.objects.in_force()
    return list(in_force.filter(actor_id=str(person_uid)) | in_force.filter(object_id=person_uid))


def _iso(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat() if at is not None else ""


# -- purging


def floor_months() -> int:
    """Return for how many months events are kept at least."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit.floor_months()")
        return int(cursor.fetchone()[0])


def obstacle(month: date, proposal: uuid.UUID | None = None) -> str:
    """Return why a month may not be purged, or "". Without a proposal the approvals are not asked for."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit.purge_obstacle(%s, %s)", [month, proposal])
        return str(cursor.fetchone()[0])


@dataclass(frozen=True, slots=True)
class Month:
    """A month that holds events; `obstacle`: what keeps it, or ""."""

    month: date
    obstacle: str


def months_of_age() -> list[Month]:
    """Return the months that are old enough to be purged and hold events, oldest first, each with what keeps it."""
    before = next_month(month_start(clock.now()), -floor_months())
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT m.month, audit.purge_obstacle(m.month, NULL)"
            "  FROM (SELECT to_date(right(c.relname, 7), 'YYYY_MM') AS month"
            "          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            "         WHERE i.inhparent = 'audit.event'::regclass) AS m"
            " WHERE m.month < %s AND NOT EXISTS (SELECT FROM audit.purge p WHERE p.month = m.month) ORDER BY 1",
            [before],
        )
        return [Month(month, why) for month, why in cursor.fetchall() if not why.startswith("there are no events")]


@transaction.atomic
def propose_purge(month: date, reason: str, *, actor: Actor) -> RetentionProposal:
    """Propose to remove a month's events for good. Raises NotAllowed, Invalid where something keeps the month."""
    person = _person(actor, PROPOSE)
    month = month_start(month)
    problems: dict[str, str] = {}
    if not reason.strip():
        problems["reason"] = "Say why the month may go, for whoever decides and for the audit trail."
    if why := obstacle(month):
        problems["month"] = f"Not possible: {why}."
    in_hand = (ProposalStatus.OPEN, ProposalStatus.APPROVED)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('audit.propose_purge'))")
    if RetentionProposal.objects.filter(month=month, status__in=in_hand).exists():
        problems["month"] = "This month has been proposed already."
    if problems:
        raise Invalid(problems)
    row = RetentionProposal.objects.create(month=month, events=_events_in(month), proposed_by=person.uid)
    said = _decided(events.PURGE_PROPOSED, row, actor, reason)
    outbox.publish(events.PURGE_PROPOSED, said, recipients=holders_of(APPROVE), subject_uid=row.uid)
    return row


@transaction.atomic
def approve_purge(
    proposal_id: int, *, actor: Actor, reason: str = "", expected_version: int | None = None
) -> RetentionProposal:
    """Approve as the second person; the portal then purges. Raises NotAllowed, NotVisible, Conflict, Invalid."""
    person = _person(actor, APPROVE)
    row = _locked(proposal_id, ProposalStatus.APPROVED, expected_version)
    if row.proposed_by == person.uid:
        raise NotAllowed("Whoever proposed it does not approve it.", rule="two_persons")
    if why := obstacle(row.month):
        raise Invalid({"": f"Not possible any more: {why}."})
    return _decide(row, ProposalStatus.APPROVED, events.PURGE_APPROVED, person, actor, reason)


@transaction.atomic
def reject_purge(
    proposal_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> RetentionProposal:
    """Reject a proposal. Raises NotAllowed, NotVisible, Conflict, Invalid without a reason."""
    person = _person(actor, APPROVE)
    row = _locked(proposal_id, ProposalStatus.REJECTED, expected_version)
    if not reason.strip():
        raise Invalid({"reason": "Say why, for whoever proposed it."})
    return _decide(row, ProposalStatus.REJECTED, events.PURGE_REJECTED, person, actor, reason)


@transaction.atomic
def withdraw_purge(
    proposal_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> RetentionProposal:
    """Withdraw a proposal that was not carried out yet. Raises NotAllowed, NotVisible, Conflict."""
    person = _person(actor, PROPOSE)
    row = _locked(proposal_id, ProposalStatus.WITHDRAWN, expected_version)
    return _decide(row, ProposalStatus.WITHDRAWN, events.PURGE_WITHDRAWN, person, actor, reason)


def _locked(proposal_id: int, to: str, expected_version: int | None) -> RetentionProposal:
    row = RetentionProposal.objects.select_for_update(no_key=True).filter(pk=proposal_id).first()
    if row is None:
        raise NotVisible
    current = {"status": row.status, "version": row.version}
    if to not in NEXT[row.status]:
        raise Conflict(f"This proposal stands at: {row.get_status_display()}.", current=current)
    if expected_version is not None and expected_version != row.version:
        raise Conflict("Somebody changed this proposal meanwhile.", current=current)
    return row


def _decide(row: RetentionProposal, to: str, event: Any, person: Any, actor: Actor, reason: str) -> RetentionProposal:
    row.status, row.decided_by, row.decided_at = to, person.uid, clock.now()
    row.bump("status", "decided_by", "decided_at")
    _decided(event, row, actor, reason)
    return row


def _decided(event: Any, row: RetentionProposal, actor: Actor, reason: str) -> events.PurgeDecided:
    said = events.PurgeDecided(month=f"{row.month:%Y-%m}", events=row.events)
    record(event, said, actor=actor, subject_type="audit.retention", subject_uid=row.uid, reason=reason.strip())
    return said


def _events_in(month: date) -> int:
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    after = next_month(month)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM audit.event WHERE occurred_at >= %s AND occurred_at < %s",
            [start, datetime(after.year, after.month, 1, tzinfo=UTC)],
        )
        return int(cursor.fetchone()[0])


def purge_due() -> int:
    """Purge the months whose proposal was approved; returns how many were. What stands in the way is kept to read."""
    done = 0
    for row in RetentionProposal.objects.filter(status=ProposalStatus.APPROVED).order_by("month"):
        try:
            done += purge(row.pk)
        except DatabaseError as error:
            # The database refused (a hold, say): nothing was removed. The next sweep tries again.
            text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            _set_problem(row, text)
    _purge_changes()
    return done


def _purge_changes() -> None:
    """Let the log of changed rows go with the months that were purged, once a reconciliation has come after them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT p.month, p.proposal FROM audit.purge p WHERE EXISTS (SELECT FROM audit.change c"
            " WHERE c.at >= p.month::timestamp AT TIME ZONE 'UTC'"
            "   AND c.at < (p.month + interval '1 month') AT TIME ZONE 'UTC') ORDER BY 1"
        )
        months = cursor.fetchall()
    for month, proposal in months:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT audit.purge_changes(%s)", [month])
            if rows := cursor.fetchone()[0]:
                record(
                    events.CHANGES_PURGED,
                    events.ChangesPurged(month=f"{month:%Y-%m}", rows=rows),
                    actor=Actor.system("audit.purge"),
                    subject_type="audit.retention",
                    subject_uid=proposal,
                )


@transaction.atomic
def purge(proposal_id: int) -> int:
    """Purge one approved month and record it; 1 where it was. Raises django.db.DatabaseError where it is refused."""
    row = RetentionProposal.objects.select_for_update(no_key=True).get(pk=proposal_id)
    if row.status != ProposalStatus.APPROVED:
        return 0
    if why := _not_copied(row.month):
        _set_problem(row, why)
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM audit.purge_month(%s, %s)", [row.month, row.uid])
        count, first, last, leaves, end_hash = cursor.fetchone()
    covering = CheckpointRow.objects.filter(seq__gte=last).order_by("seq")[0]
    checkpoint = checkpoints.of_row(covering)
    row.status, row.purged_at, row.problem = ProposalStatus.DONE, clock.now(), ""
    row.bump("status", "purged_at", "problem")
    record(
        events.MONTH_PURGED,
        events.MonthPurged(
            month=f"{row.month:%Y-%m}", proposal=str(row.uid), events=count, first_seq=first, last_seq=last,
            leaves=bytes(leaves).hex(), end_hash=bytes(end_hash).hex(), checkpoint=checkpoint.seq,
            merkle_root=checkpoint.merkle_root.hex(),
        ),
        actor=Actor.system("audit.purge"),
        subject_type="audit.retention",
        subject_uid=row.uid,
    )  # fmt: skip
    return 1


def _not_copied(month: date) -> str:
    """Return why the month is not proven outside the database, or "": then purging it would leave no witness."""
    wanted = [place.key for place in checkpoints.places()]
    if not wanted:
        return "no place outside the database is set for checkpoints (COMMONS_CHECKPOINT_DIRS)"
    after = next_month(month)
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(seq) FROM audit.link WHERE occurred_at >= %s AND occurred_at < %s",
            [start, datetime(after.year, after.month, 1, tzinfo=UTC)],
        )
        last = cursor.fetchone()[0]
    if last is not None and not CheckpointRow.objects.filter(seq__gte=last, places__has_keys=wanted).exists():
        return "no checkpoint that covers the month has been copied to every place yet"
    return ""


def _set_problem(row: RetentionProposal, text: str) -> None:
    if row.problem != text[:500]:
        RetentionProposal.objects.filter(pk=row.pk).update(problem=text[:500])


# -- erasing


def erase_notes(person_uid: uuid.UUID, words: Sequence[str], own: Sequence[uuid.UUID], *, actor: Actor) -> int:
    """Destroy the notes that name a person, in the transaction that recorded `accounts.user.erased`; returns how many.

    `words`: the address and the name, found where they are the whole of a value. `own`: what belonged to the person
    (tokens, sessions). Raises django.db.DatabaseError without that event, and under a legal hold.
    """
    quoted = [canonical_bytes(word).decode() for word in words if word.strip()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT audit.erase_notes(%s, %s, %s::uuid[])", [person_uid, quoted, [str(one) for one in own]])
        gone = sorted(str(row[0]) for row in cursor.fetchall())
    for at in range(0, len(gone), ERASED_AT_ONCE):
        record(
            events.NOTES_ERASED,
            events.NotesErased(events=gone[at : at + ERASED_AT_ONCE]),
            actor=actor,
            subject_type="accounts.user",
            subject_uid=person_uid,
        )
    return len(gone)
