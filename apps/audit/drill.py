"""The tamper drill: the trail is copied into a database of its own, tampered with there, and must be found out.

It shows on this installation, with these keys and checkpoints, that verification detects what it claims to detect.
Nothing is changed in the trail itself. It needs a login that may create databases (the one of migrations).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connections, transaction
from psycopg import sql

from apps.audit.canonical import ZERO_HASH, leaf_hash, link_hash
from apps.audit.checkpoint_format import Checkpoint
from apps.audit.verification import Outcome, verify_trail

_ALIAS = "audit_drill"
#: Columns of the copy, in the order of the trail's tables; partitions, triggers and roles are left out on purpose:
#: whoever attacks like this has got past them.
_TABLES = {
    "event": "id, occurred_at, actor_type, actor_id, on_behalf_of, channel, action, object_type, object_id, team_id,"
    " request_id, canonical, leaf",
    "note": "event_id, occurred_at, salt, body",
    "link": "seq, event_id, occurred_at, leaf, prev, hash, sealed_at",
}
_MAKE = """
CREATE SCHEMA audit;
CREATE TABLE audit.event (id uuid, occurred_at timestamptz, actor_type text, actor_id text, on_behalf_of text,
  channel text, action text, object_type text, object_id uuid, team_id uuid, request_id text, canonical bytea,
  leaf bytea, PRIMARY KEY (id, occurred_at));
CREATE TABLE audit.note (event_id uuid, occurred_at timestamptz, salt bytea, body bytea,
  PRIMARY KEY (event_id, occurred_at));
CREATE TABLE audit.link (seq bigint PRIMARY KEY, event_id uuid UNIQUE, occurred_at timestamptz, leaf bytea, prev bytea,
  hash bytea, sealed_at timestamptz);
CREATE TABLE audit.head (one boolean DEFAULT true, seq bigint, hash bytea);
"""


class CannotDrill(Exception):
    """There is nothing to tamper with yet; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Result:
    """One attack: whether it was found, and by what."""

    attack: str
    found: bool
    how: str


def run(checkpoints: list[Checkpoint], *, limit: int = 50_000) -> list[Result]:
    """Copy the trail up to the newest checkpoint within `limit` links, attack the copy, and say what was found.

    Raises CannotDrill without such a checkpoint or with fewer than three events, psycopg.Error where the login may not
    create databases.
    """
    usable = [one for one in checkpoints if 3 <= one.seq <= limit]
    if not usable:
        raise CannotDrill(f"There is no checkpoint between link 3 and link {limit}: make one first (audit_checkpoint).")
    last = max(usable, key=lambda one: one.seq)
    covered = [one for one in checkpoints if one.seq <= last.seq]
    with _copy(last) as using:
        untouched = verify_trail(covered, using=using)
        if untouched.findings_total and {one.kind for one in untouched.findings} <= {"event", "note"}:
            # What explains a purge or an erasure comes after it, and so perhaps after the newest checkpoint.
            raise CannotDrill(
                "Events or notes are missing up to the newest checkpoint. If a month was purged or a person erased"
                " since, make a checkpoint (audit_checkpoint) and try again; otherwise run audit_verify."
            )
        if untouched.findings_total:
            return [Result("nothing at all", False, f"the copy is not intact: {untouched.findings[0].text}")]
        return [_attempt(name, attack, covered, last.seq, using) for name, attack in ATTACKS.items()]


@contextmanager
def _copy(last: Checkpoint) -> Iterator[str]:
    """Make the copy in a database of its own, registered under an alias; gone afterwards."""
    source = connections["default"]
    parameters = {
        key: value
        for key, value in source.get_connection_params().items()
        if key in ("host", "port", "user", "password", "dbname")
    }
    name = f"audit_drill_{secrets.token_hex(6)}"
    with psycopg.connect(**parameters, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            with psycopg.connect(**{**parameters, "dbname": name}) as target, psycopg.connect(**parameters) as reader:
                reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                target.execute(_MAKE)
                for table, columns in _TABLES.items():
                    _stream(reader, target, table, columns, last.seq)
                target.execute("INSERT INTO audit.head (seq, hash) VALUES (%s, %s)", [last.seq, last.hash])
            connections.databases[_ALIAS] = {**source.settings_dict, "NAME": name, "OPTIONS": {}}
            try:
                yield _ALIAS
            finally:
                connections[_ALIAS].close()
                del connections[_ALIAS]
                del connections.databases[_ALIAS]
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _stream(
    reader: psycopg.Connection[Any], target: psycopg.Connection[Any], table: str, columns: str, seq: int
) -> None:
    # Table and column names are constants of this module.
    picked = ", ".join(f"t.{name.strip()}" for name in columns.split(","))
    which = (
        f"SELECT {picked} FROM audit.link t WHERE t.seq <= {seq:d}"  # noqa: S608 (constants)
        if table == "link"
        else f"SELECT {picked} FROM audit.{table} t JOIN audit.link l ON l.occurred_at = t.occurred_at"  # noqa: S608 (constants)
        f" AND l.event_id = t.{'id' if table == 'event' else 'event_id'} WHERE l.seq <= {seq:d}"
    )
    with (
        reader.cursor().copy(f"COPY ({which}) TO STDOUT (FORMAT binary)") as out,
        target.cursor().copy(f"COPY audit.{table} ({columns}) FROM STDIN (FORMAT binary)") as into,
    ):
        for block in out:
            into.write(block)


def _attempt(name: str, attack: Callable[[Any, int], None], covered: list[Checkpoint], end: int, using: str) -> Result:
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            attack(cursor, end)
        report = verify_trail(covered, using=using)
        transaction.set_rollback(True, using=using)
    how = report.findings[0].text if report.findings else "nothing was found"
    return Result(name, report.outcome is Outcome.TAMPERED, how)


def _middle(cursor: Any, end: int) -> Any:
    cursor.execute("SELECT event_id FROM audit.link WHERE seq = %s", [max(2, end // 2)])
    return cursor.fetchone()[0]


def _edit_column(cursor: Any, end: int) -> None:
    cursor.execute("UPDATE audit.event SET actor_id = actor_id || 'x' WHERE id = %s", [_middle(cursor, end)])


def _edit_bytes(cursor: Any, end: int) -> None:
    cursor.execute(
        "UPDATE audit.event SET canonical = convert_to("
        "replace(convert_from(canonical, 'UTF8'), '\"action\":\"', '\"action\":\"x'), 'UTF8') WHERE id = %s",
        [_middle(cursor, end)],
    )


def _remove(cursor: Any, event_id: Any) -> None:
    cursor.execute("DELETE FROM audit.event WHERE id = %s", [event_id])
    cursor.execute("DELETE FROM audit.note WHERE event_id = %s", [event_id])
    cursor.execute("DELETE FROM audit.link WHERE event_id = %s", [event_id])


def _delete_middle(cursor: Any, end: int) -> None:
    _remove(cursor, _middle(cursor, end))


def _cut_tail(cursor: Any, end: int) -> None:
    cursor.execute("SELECT event_id FROM audit.link WHERE seq = %s", [end])
    _remove(cursor, cursor.fetchone()[0])
    cursor.execute("UPDATE audit.head SET seq = %s, hash = (SELECT hash FROM audit.link WHERE seq = %s)", [end - 1] * 2)


def _chain_anew(cursor: Any, end: int) -> None:
    _delete_middle(cursor, end)
    cursor.execute(
        "SELECT l.event_id, e.canonical, (extract(epoch FROM l.sealed_at) * 1000000)::bigint FROM audit.link l"
        " JOIN audit.event e ON e.id = l.event_id ORDER BY l.seq"
    )
    prev, seq = ZERO_HASH, 0
    for event_id, canonical, sealed in cursor.fetchall():
        seq += 1
        leaf = leaf_hash(bytes(canonical))
        made = link_hash(prev, seq, leaf, sealed)
        cursor.execute(
            "UPDATE audit.link SET seq = %s, prev = %s, hash = %s WHERE event_id = %s", [seq, prev, made, event_id]
        )
        prev = made
    cursor.execute("UPDATE audit.head SET seq = %s, hash = %s", [seq, prev])


ATTACKS: dict[str, Callable[[Any, int], None]] = {
    "edit a searchable column": _edit_column,
    "edit the sealed bytes": _edit_bytes,
    "delete an event in the middle": _delete_middle,
    "cut off the newest event and repair the head": _cut_tail,
    "delete an event and chain the rest anew": _chain_anew,
}
