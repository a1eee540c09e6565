"""Recording: with the change, without names, linked at commit."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction

from apps.audit import actions, canonical, partitions, selectors
from apps.audit.actions import record
from apps.audit.events import ACCESS_REFUSED
from apps.audit.models import AuditEvent, AuditLink, AuditNote
from apps.audit.verification import Outcome, verify_trail
from apps.core import clock
from apps.core.actor import Actor
from tests.audit.helpers import TRIED, Tried, head, seal, write
from tests.factories import Company, make_user


@pytest.mark.requirement("audit-1.1")
@pytest.mark.django_db(transaction=True)
def test_event_outside_a_transaction_is_refused() -> None:
    before = head().seq
    with pytest.raises(RuntimeError, match="outside a transaction"):
        record(TRIED, Tried(1), actor=Actor.system("x"), subject_type="t", subject_uid=uuid.uuid4())
    assert head().seq == before


@pytest.mark.requirement("audit-1.2")
@pytest.mark.django_db(transaction=True)
def test_rollback_leaves_neither_event_nor_link() -> None:
    before = head()
    subject = uuid.uuid4()
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012 (the block is what rolls back)
        write(1, subject=subject)
        raise ZeroDivisionError
    assert not AuditEvent.objects.filter(object_id=subject).exists()
    assert (head().seq, bytes(head().hash)) == (before.seq, bytes(before.hash))


@pytest.mark.requirement("audit-1.2")
@pytest.mark.django_db(transaction=True)
def test_rolled_back_savepoint_drops_its_event_and_keeps_the_others() -> None:
    before, kept, dropped = head().seq, uuid.uuid4(), uuid.uuid4()
    with transaction.atomic():
        write(1, subject=kept)
        with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012 (the block is what rolls back)
            write(2, subject=dropped)
            raise ZeroDivisionError
        write(3, subject=kept)
        assert head().seq == before, "nothing is sealed before the commit"
    assert head().seq == before + 2
    assert AuditEvent.objects.filter(object_id=kept).count() == 2
    assert not AuditEvent.objects.filter(object_id=dropped).exists()


@pytest.mark.requirement("audit-1.3")
@pytest.mark.django_db(transaction=True)
def test_links_are_gapless_and_follow_each_other() -> None:
    start = head()
    with transaction.atomic():
        for number in range(5):
            write(number)
    links = list(AuditLink.objects.filter(seq__gt=start.seq).order_by("seq"))
    assert [link.seq for link in links] == list(range(start.seq + 1, start.seq + 6))
    previous = bytes(start.hash)
    for link in links:
        assert bytes(link.prev) == previous
        event = AuditEvent.objects.get(uid=link.event_uid)
        assert bytes(link.leaf) == hashlib.sha256(b"\x00" + bytes(event.canonical)).digest()
        sealed = (link.sealed_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        assert bytes(link.hash) == canonical.link_hash(previous, link.seq, bytes(link.leaf), sealed)
        previous = bytes(link.hash)
    assert bytes(head().hash) == previous


@pytest.mark.requirement("audit-keeping-5.2")
@pytest.mark.django_db
def test_sealing_finds_the_head_without_reading_its_past() -> None:
    """What a long transaction elsewhere keeps of the overwritten head would cost every commit more than the last."""

    def counted() -> tuple[int, int]:
        # Also holds what this connection did in transactions just before: compare, do not read.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relid = 'audit.head'::regclass"
            )
            scans, looks = cursor.fetchone()
        return scans, looks

    before = counted()
    for number in range(8):  # from the sixth execution on the database may keep a plan
        write(number)
        seal()
    after = counted()
    assert after[0] == before[0]
    assert after[1] >= before[1] + 16


@pytest.mark.requirement("audit-1.3")
@pytest.mark.django_db(transaction=True)
def test_many_events_are_linked_in_the_order_given_with_their_notes() -> None:
    before = head()
    subjects = [uuid.uuid4() for _ in range(5)]
    records = [actions.Record(Tried(n), subject) for n, subject in enumerate(subjects)]
    with transaction.atomic():
        rows = actions.record_many(TRIED, records, actor=Actor.system("x"), subject_type="t")
        assert actions.record_many(TRIED, [], actor=Actor.system("x"), subject_type="t") == []
    links = AuditLink.objects.filter(seq__gt=before.seq).order_by("seq")
    assert [link.event_uid for link in links] == [row.uid for row in rows]
    assert [AuditEvent.objects.get(uid=row.uid).object_id for row in rows] == subjects
    assert verify_trail().outcome == Outcome.INTACT


@pytest.mark.requirement("audit-1.3")
@pytest.mark.django_db(transaction=True)
def test_eight_writers_at_once_neither_fork_nor_fail() -> None:
    before, per_writer, failures = head().seq, 15, []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            barrier.wait(timeout=20)
            for turn in range(per_writer):
                with transaction.atomic():
                    write(number * 100 + turn)
                    if turn % 4 == 0:
                        try:
                            with transaction.atomic():
                                write(-1)
                                raise ZeroDivisionError
                        except ZeroDivisionError:
                            pass
        except BaseException as error:  # noqa: BLE001 (whatever a thread meets must fail the test, not vanish)
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures
    assert head().seq == before + 8 * per_writer
    seqs = list(AuditLink.objects.filter(seq__gt=before).order_by("seq").values_list("seq", flat=True))
    assert seqs == list(range(before + 1, before + 8 * per_writer + 1))
    assert verify_trail().outcome is Outcome.INTACT


@pytest.mark.requirement("audit-1.4")
@pytest.mark.django_db
def test_hashed_bytes_hold_opaque_ids_and_a_commitment_only(company: Company) -> None:
    with transaction.atomic():
        event = record(
            TRIED,
            Tried(7, person="Finance team lead", reason="payload words"),
            actor=Actor.of(company.lead_finance),
            subject_type="tests.thing",
            subject_uid=uuid.uuid4(),
            team_uid=company.finance_team.uid,
            reason="because we said so",
        )
    text = bytes(event.canonical).decode()
    for secret in ("Finance team lead", "because we said so", "payload words", company.lead_finance.email, "lead"):
        assert secret not in text
    data = json.loads(text)
    assert data["actor"] == {
        "type": "person", "id": str(company.lead_finance.uid), "channel": "web", "on_behalf_of": "",
    }  # fmt: skip
    assert data["changes"] == {"number": 7}
    note = AuditNote.objects.get(event_uid=event.uid)
    assert data["note"] == hashlib.sha256(bytes(note.salt) + bytes(note.body)).hexdigest()
    assert selectors.note_of(event) == {
        "reason": "because we said so",
        "details": {"person": "Finance team lead", "reason": "payload words"},
    }
    assert len(bytes(note.salt)) == 32


@pytest.mark.requirement("audit-1.4")
@pytest.mark.django_db
def test_two_equal_notes_have_different_commitments() -> None:
    first, second = write(reason="same words"), write(reason="same words")
    assert first.data["note"] != second.data["note"]


@pytest.mark.requirement("audit-1.5")
@pytest.mark.django_db
def test_mail_address_in_hashed_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="private"):
        canonical.refuse_addresses({"list": [{"who": "write to lead@example.com"}]})
    canonical.refuse_addresses({"image": "registry.example.com/app@sha256", "n": 3})


@pytest.mark.requirement("audit-1.6")
@pytest.mark.django_db
def test_bytes_are_canonical_and_the_columns_repeat_them() -> None:
    subject = uuid.uuid4()
    event = write(3, subject=subject)
    data = json.loads(bytes(event.canonical))
    assert list(data) == sorted(data), "RFC 8785 sorts the keys"
    assert b" " not in bytes(event.canonical)
    assert (data["object"]["id"], data["action"], data["v"]) == (str(subject), "tests.thing.tried", 1)
    assert data["at"] == event.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.requirement("audit-1.7")
@pytest.mark.django_db
def test_delegation_is_recorded_with_both_ids() -> None:
    actor, delegator = make_user(), make_user()
    behalf = Actor(user_id=actor.pk, channel=Actor.of(actor).channel, request_id="r", on_behalf_of=delegator.pk)
    fields = actions.actor_fields(behalf)
    assert (fields.id, fields.on_behalf_of) == (str(actor.uid), str(delegator.uid))


@pytest.mark.requirement("audit-1.8")
@pytest.mark.django_db
def test_refusal_outlives_the_change_that_was_refused() -> None:
    person = make_user()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        raise ZeroDivisionError
    event = actions.record_refusal(
        actor=Actor.of(person), method="POST", path="/quotas/", rule="quotas.request.create", message="not yours"
    )
    assert event.action == ACCESS_REFUSED.name
    assert event.data["changes"] == {"method": "POST", "path": "/quotas/", "rule": "quotas.request.create"}
    assert list(selectors.events_for(actions.INSTALLATION).filter(actor_id=str(person.uid))) == [event]


@pytest.mark.requirement("audit-3.1")
@pytest.mark.django_db
def test_event_of_a_month_nobody_prepared_makes_its_partition() -> None:
    with clock.frozen(datetime(2031, 5, 17, 3, tzinfo=UTC)):
        first, second = write(1), write(2)
    seal()
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM audit.event WHERE id = ANY(%s)", [[first.uid, second.uid]])
        assert cursor.fetchall() == [("audit.event_2031_05",)] * 2
        cursor.execute("SELECT count(*) FROM audit.link WHERE event_id = ANY(%s)", [[first.uid, second.uid]])
        assert cursor.fetchone() == (2,)


@pytest.mark.requirement("audit-3.1")
@pytest.mark.django_db
def test_partition_of_a_rolled_back_transaction_is_not_taken_for_granted() -> None:
    month = datetime(2032, 2, 1, tzinfo=UTC)
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012 (the block is what rolls back)
        with clock.frozen(month):
            write(1)
        raise ZeroDivisionError
    with clock.frozen(month):
        write(2)
    seal()


@pytest.mark.requirement("audit-3.1")
@pytest.mark.django_db
def test_months_ahead_are_made_once() -> None:
    with clock.frozen(datetime(2033, 11, 3, tzinfo=UTC)):
        assert partitions.ensure_ahead() == 4
        assert partitions.ensure_ahead() == 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT to_regclass('audit.link_2034_02') IS NOT NULL, to_regclass('audit.note_2034_03') IS NULL"
        )
        assert cursor.fetchone() == (True, True)


@pytest.mark.requirement("audit-3.1")
@pytest.mark.django_db(transaction=True)
def test_a_new_month_can_begin_within_a_transaction_that_has_unsealed_events() -> None:
    before = head().seq
    with transaction.atomic():
        for month in (3, 4):
            with clock.frozen(datetime(2035, month, 2, tzinfo=UTC)):
                write(month)
    assert head().seq == before + 2
    assert verify_trail().outcome is Outcome.INTACT
