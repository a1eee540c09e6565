"""What the portal's role cannot do, and what a superuser cannot do unseen (governance D3)."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, transaction

from apps.audit.models import AuditEvent
from apps.audit.verification import Outcome, verify_trail
from tests.audit.helpers import head, write

Connect = Callable[..., psycopg.Connection[Any]]
REFUSED = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.CheckViolation,
    psycopg.errors.GeneratedAlways,
    psycopg.errors.FeatureNotSupported,
)

AS_APP = {
    "update": "UPDATE audit.event SET action = 'x.y.z'",
    "update a note": "UPDATE audit.note SET body = 'x'",
    "delete": "DELETE FROM audit.event",
    "delete links": "DELETE FROM audit.link",
    "truncate": "TRUNCATE audit.event CASCADE",
    "truncate a partition": "TRUNCATE audit.event_{month}",
    "write past the parent": "INSERT INTO audit.event_{month} SELECT * FROM audit.event LIMIT 1",
    "disable the trigger": "ALTER TABLE audit.event DISABLE TRIGGER ALL",
    "replica mode": "SET session_replication_role = replica",
    "drop": "DROP TABLE audit.event",
    "detach a month": "ALTER TABLE audit.event DETACH PARTITION audit.event_{month}",
    "forged link": "INSERT INTO audit.link VALUES (999999, gen_random_uuid(), now(), 'a', 'b', 'c', now())",
    "forged leaf": "INSERT INTO audit.event (id, occurred_at, leaf) VALUES (gen_random_uuid(), now(), 'x')",
    "head reset": "UPDATE audit.head SET seq = 0",
    "second head": "INSERT INTO audit.head VALUES (false, 0, 'x')",
    "call seal": "SELECT audit.seal()",
    "replace seal": "CREATE OR REPLACE FUNCTION audit.seal() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN NULL; END'",
    "replace deny": "CREATE OR REPLACE FUNCTION audit.deny() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN NEW; END'",
    "own function": "CREATE FUNCTION audit.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "columns that differ from the bytes": "INSERT INTO audit.event (id, occurred_at, actor_type, actor_id,"
    " on_behalf_of, channel, action, object_type, object_id, team_id, request_id, canonical)"
    " SELECT gen_random_uuid(), occurred_at, actor_type, actor_id, on_behalf_of, channel, action, object_type,"
    " object_id, team_id, request_id, canonical"
    " FROM audit.event LIMIT 1",
}


@pytest.mark.requirement("audit-2.1")
@pytest.mark.parametrize("attack", AS_APP)
def test_the_portals_role_is_refused(connect: Connect, attack: str) -> None:
    event = write(1, reason="words")
    before = head().seq
    session = connect()
    with pytest.raises(REFUSED):
        session.execute(AS_APP[attack].format(month=event.occurred_at.strftime("%Y_%m")).encode())
    session.rollback()
    assert head().seq == before
    assert verify_trail().outcome is Outcome.INTACT


@pytest.mark.requirement("audit-2.1")
@pytest.mark.django_db
def test_the_portals_role_holds_no_rights_it_could_pass_on() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_has_role('commons_app', 'commons_audit', 'MEMBER'), rolsuper, rolcreaterole"
            " FROM pg_roles WHERE rolname = 'commons_app'"
        )
        assert cursor.fetchone() == (False, False, False)
        cursor.execute(
            "SELECT table_name, string_agg(privilege_type, ',' ORDER BY privilege_type)"
            " FROM information_schema.role_table_grants WHERE table_schema = 'audit'"
            " AND grantee IN ('commons_app', 'PUBLIC') GROUP BY 1 ORDER BY 1"
        )
        granted = dict(cursor.fetchall())
        read_only = ("event", "head", "link", "change", "floor", "hold", "hold_release", "purge")
        assert granted == {**dict.fromkeys(read_only, "SELECT"), "note": "INSERT,SELECT"}
        cursor.execute(
            "SELECT table_name, string_agg(column_name, ',' ORDER BY column_name)"
            " FROM information_schema.column_privileges WHERE table_schema = 'audit' AND grantee = 'commons_app'"
            " AND privilege_type <> 'SELECT' AND table_name IN ('change', 'floor', 'hold', 'hold_release', 'purge')"
            " GROUP BY 1 ORDER BY 1"
        )
        assert dict(cursor.fetchall()) == {
            "hold": "actor_id,id,matter,object_id,since,until",
            "hold_release": "hold_id",
        }
        cursor.execute(
            "SELECT string_agg(column_name, ',') FROM information_schema.column_privileges"
            " WHERE table_schema = 'audit' AND table_name = 'event' AND grantee = 'commons_app'"
            " AND privilege_type = 'INSERT' AND column_name = 'leaf'"
        )
        assert cursor.fetchone() == (None,)


@pytest.mark.requirement("audit-2.1")
def test_shadowing_a_function_through_the_search_path_changes_nothing(connect: Connect) -> None:
    session = connect()
    session.execute("CREATE TEMP TABLE head (one boolean, seq bigint, hash bytea)")
    session.execute("SET search_path = pg_temp, public")
    before = head().seq
    canonical = write(1)
    assert head().seq == before + 1, canonical
    session.rollback()


@contextmanager
def as_superuser() -> Iterator[Any]:
    """Do harm as a superuser inside a transaction that is rolled back, guards switched off."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE NONE")
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET LOCAL session_replication_role = replica")
            yield cursor
        transaction.set_rollback(True)


def _kinds() -> set[str]:
    return {finding.kind for finding in verify_trail().findings}


@pytest.fixture
def trail(db: None) -> list[AuditEvent]:
    events = [write(number, reason=f"reason {number}") for number in range(4)]
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert verify_trail().outcome is Outcome.INTACT
    return events


@pytest.mark.requirement("audit-2.2")
def test_edited_column_is_found(trail: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        cursor.execute("ALTER TABLE audit.event DROP CONSTRAINT event_columns_agree")
        cursor.execute("UPDATE audit.event SET action = 'quotas.request.approved' WHERE id = %s", [trail[1].uid])
        assert _kinds() == {"columns"}


@pytest.mark.requirement("audit-2.2")
def test_edited_bytes_are_found(trail: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        cursor.execute("ALTER TABLE audit.event DROP CONSTRAINT event_columns_agree")
        edited = bytes(trail[1].canonical).replace(b'"number":1', b'"number":9')
        assert edited != bytes(trail[1].canonical)
        cursor.execute("UPDATE audit.event SET canonical = %s WHERE id = %s", [edited, trail[1].uid])
        assert _kinds() == {"bytes"}


@pytest.mark.requirement("audit-2.2")
def test_unreadable_bytes_are_found(trail: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        cursor.execute("ALTER TABLE audit.event DROP CONSTRAINT event_columns_agree")
        cursor.execute("UPDATE audit.event SET canonical = 'not json' WHERE id = %s", [trail[1].uid])
        assert _kinds() == {"bytes"}


@pytest.mark.requirement("audit-2.2")
@pytest.mark.parametrize("what", ["event", "both"])
def test_deletion_in_the_middle_is_found(trail: list[AuditEvent], what: str) -> None:
    with as_superuser() as cursor:
        cursor.execute("DELETE FROM audit.event WHERE id = %s", [trail[1].uid])
        if what == "both":
            cursor.execute("DELETE FROM audit.link WHERE event_id = %s", [trail[1].uid])
        kinds = _kinds()
    assert kinds == ({"event", "stray"} if what == "event" else {"gap", "stray"}), "the note is left without its event"


@pytest.mark.requirement("audit-2.2")
def test_cut_tail_without_the_head_is_found(trail: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        for table, key in (("event", "id"), ("note", "event_id"), ("link", "event_id")):
            cursor.execute(f"DELETE FROM audit.{table} WHERE {key} = %s", [trail[3].uid])  # noqa: S608 (constants)
        assert _kinds() == {"head"}


@pytest.mark.requirement("audit-2.2")
def test_changed_time_of_sealing_is_found(trail: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        cursor.execute(
            "UPDATE audit.link SET sealed_at = sealed_at - interval '1 day' WHERE event_id = %s", [trail[2].uid]
        )
        assert _kinds() == {"link"}


@pytest.mark.requirement("audit-2.2")
@pytest.mark.parametrize("statement", [
    "UPDATE audit.note SET body = '{{}}' WHERE event_id = %s",
    "DELETE FROM audit.note WHERE event_id = %s",
])  # fmt: skip
def test_changed_or_removed_note_is_found(trail: list[AuditEvent], statement: str) -> None:
    with as_superuser() as cursor:
        cursor.execute(statement, [trail[0].uid])
        assert _kinds() == {"note"}


@pytest.mark.requirement("audit-2.2")
def test_event_slipped_past_the_chain_is_found(trail: list[AuditEvent]) -> None:
    with as_superuser():
        write(9)  # replica mode: the sealing trigger does not fire
        assert _kinds() == {"stray"}


@pytest.mark.requirement("audit-2.3")
def test_missing_guard_makes_the_verdict_incomplete(trail: list[AuditEvent]) -> None:
    with as_superuser() as cursor:
        cursor.execute("DROP TRIGGER deny_truncate ON audit.note")
        cursor.execute("GRANT DELETE ON audit.link TO commons_app")
        report = verify_trail()
    assert report.outcome is Outcome.INCOMPLETE
    assert report.weaknesses == [
        "audit.note has lost its trigger deny_truncate",
        "commons_app holds DELETE on audit.link",
    ]


def _run(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("audit_verify", *arguments, stdout=out)
    except SystemExit as leave:
        return int(leave.code or 0), out.getvalue()
    return 0, out.getvalue()


@pytest.mark.requirement("audit-2.3")
def test_command_answers_with_its_exit_code(trail: list[AuditEvent]) -> None:
    code, text = _run("--json", "--no-record")
    data = json.loads(text)
    assert (code, data["outcome"], data["checkpoint"]) == (0, "intact", None)
    assert data["links"] == data["head"]["seq"] == head().seq
    with as_superuser() as cursor:
        cursor.execute("DELETE FROM audit.link WHERE event_id = %s", [trail[1].uid])
        code, text = _run("--no-record")
        assert code == 1
        assert "is missing before" in text
        assert "never sealed" in text
    with as_superuser() as cursor:
        cursor.execute("DROP TRIGGER seal ON audit.event")
        assert _run("--no-record")[0] == 2
    with as_superuser() as cursor:
        cursor.execute("ALTER TABLE audit.link RENAME TO elsewhere")
        code, text = _run("--json", "--no-record")
        assert (code, json.loads(text)["outcome"]) == (3, "error")


@pytest.mark.requirement("audit-2.3")
def test_a_run_of_the_verifier_is_itself_in_the_trail(trail: list[AuditEvent]) -> None:
    assert _run()[0] == 0
    event = AuditEvent.objects.filter(action="audit.trail.verified").latest("occurred_at")
    assert event.data["changes"]["outcome"] == "intact"


@pytest.mark.requirement("audit-2.4")
@pytest.mark.django_db(transaction=True)
def test_verifier_reads_one_state_while_others_write() -> None:
    """A snapshot: an event committed in the middle of the walk is neither half seen nor a finding."""
    from apps.audit import verification

    write(1)
    original = verification._check_head

    def slow(report: Any, state: Any, using: str) -> None:
        other = psycopg.connect(
            **{key: connection.get_connection_params()[key] for key in ("host", "port", "user", "password", "dbname")}
        )
        with other:
            other.execute("SET ROLE commons_app")
            other.execute(
                "INSERT INTO audit.event (id, occurred_at, actor_type, actor_id, on_behalf_of, channel, action,"
                " object_type, object_id, team_id, request_id, canonical)"
                " SELECT n.id, occurred_at, actor_type, actor_id, on_behalf_of, channel, action, object_type,"
                " object_id, team_id, request_id,"
                " convert_to(replace(convert_from(canonical, 'UTF8'), e.id::text, n.id::text), 'UTF8')"
                " FROM audit.event e, (SELECT %s::uuid AS id) n WHERE e.action = 'tests.thing.tried'"
                " AND NOT EXISTS (SELECT FROM audit.note WHERE event_id = e.id) LIMIT 1",
                [uuid.uuid4()],
            )
        original(report, state, using)

    before = head().seq
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_check_head", slow)
        report = verify_trail()
    assert head().seq == before + 1
    assert (report.outcome, report.head_seq) == (Outcome.INTACT, before)


@pytest.mark.requirement("audit-3.2")
def test_triggers_guard_the_table_owner_too(connect: Connect) -> None:
    """Not even commons_audit, who owns the tables, changes a row by accident."""
    write(1)
    session = connect(role="commons_audit")
    for statement in (
        "UPDATE audit.event SET channel = 'x'",
        "DELETE FROM audit.link",
        "TRUNCATE audit.note",
        "DELETE FROM audit.head",
        "INSERT INTO audit.head (seq, hash) VALUES (0, 'x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
            session.execute(statement.encode())
        session.rollback()
