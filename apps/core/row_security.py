"""The second wall: PostgreSQL's row-level security behind the ORM, raised for the person of a web request.

The first wall is `visible_to`; a view that forgets it would show foreign rows. Here the database hides them itself:
`commons.raise_wall(person, at)` (a migration of the teams room) reads the person's roles in force by SQL of its own and
notes their teams and units on the connection; policies of the rooms' tables compare rows with that note. Whatever runs
for nobody in particular (workers, sweeps, commands) raises no wall. Web servers do the opposite: what they do outside
of a person's request, they do for nobody, who sees no row (`close_by_default`).

A person's request must sometimes count foreign rows: what is promised of a pool, who waits before them. Such code says
so with `lifted("why")`, and only there; `grep -rn "lifted(" apps` lists every place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import InterfaceError, OperationalError, connection
from django.db.backends.signals import connection_created
from django.db.migrations.operations.special import RunSQL
from psycopg.pq import TransactionStatus

from apps.core import clock

#: Key of nobody: rows have keys from 1 on.
NOBODY = 0
#: Name of the policy on every table behind the wall.
POLICY = "tenant_wall"

_person: ContextVar[int | None] = ContextVar("commons_walled_for", default=None)
_lifts: ContextVar[int] = ContextVar("commons_wall_lifted", default=0)
#: For whom the process works outside of any request: None is the portal itself.
_outside: int | None = None


def close_by_default() -> None:
    """Let this process work for nobody outside of requests (called where web servers start)."""
    global _outside
    _outside = NOBODY


def person() -> int | None:
    """Return for whom the wall stands: a person's key, `NOBODY`, or None where there is none."""
    found = _person.get()
    return _outside if found is None else found


@contextmanager
def walled(user_id: int | None) -> Iterator[None]:
    """Show rows inside this person's scope only, until the end of the block; None is nobody, who sees none."""
    token = _person.set(user_id or NOBODY)
    try:
        _apply(connection)
        yield
    finally:
        _person.reset(token)
        _take_back()


def become(user_id: int) -> None:
    """Raise the wall of this person for the rest of the request: who calls has been found out on the way (a token).

    Without a wall (outside of a web request) nothing happens.
    """
    if _person.get() is not None:
        _person.set(user_id)
        _apply(connection)


@contextmanager
def lifted(why: str) -> Iterator[None]:
    """Let the block read rows of everybody, for the reason given; also a decorator. Does nothing without a wall.

    Only for what never shows a foreign row: sums of a pool, places in a line, checks that hold for everybody. The
    reason is noted on the connection, so the database's log of slow statements shows it. Raises ValueError without one.
    """
    if not why.strip():
        raise ValueError("say why the wall is lifted")
    depth = _lifts.get()
    token = _lifts.set(depth + 1)
    local = connection.in_atomic_block
    acts = depth == 0 and person() is not None
    try:
        if acts:
            _set_lift(why, local=local)
        yield
    finally:
        _lifts.reset(token)
        if acts and not _aborted():
            _set_lift("", local=local)


def table(name: str, inside: str) -> RunSQL:
    """Return the migration operation that puts a table of `public` behind the wall.

    `inside` is the SQL condition "this row lies in the person's scope"; it may use `commons.wall_teams()`,
    `commons.wall_units()`, `commons.wall_person()`. The table's owner, who migrates, is not bound by it.
    """
    return RunSQL(
        sql=[
            f"CREATE POLICY {POLICY} ON public.{name} USING ((SELECT commons.wall_open()) OR {inside})",
            f"ALTER TABLE public.{name} ENABLE ROW LEVEL SECURITY",
        ],
        reverse_sql=[
            f"ALTER TABLE public.{name} DISABLE ROW LEVEL SECURITY",
            f"DROP POLICY {POLICY} ON public.{name}",
        ],
    )


def _apply(target: Any) -> None:
    """Note on the open connection for whom it works; one that is not open yet does so when it opens."""
    if target.connection is None:
        return
    whom = person()
    with target.cursor() as cursor:
        if whom:
            cursor.execute(
                "SELECT set_config('commons.lifted', '', false), commons.raise_wall(%s, %s)", [whom, clock.now()]
            )
        else:
            cursor.execute(
                "SELECT set_config('commons.wall', %s, false), set_config('commons.wall_units', '{}', false),"
                " set_config('commons.user_id', %s, false), set_config('commons.lifted', '', false)",
                ["" if whom is None else "{}", "" if whom is None else str(whom)],
            )


def _take_back() -> None:
    if _aborted():
        # Rolling back takes the notes back as well.
        return
    try:
        _apply(connection)
    except (OperationalError, InterfaceError):
        # The connection is gone, and its notes with it. Whatever opens the next one notes anew.
        if not connection.in_atomic_block:
            connection.close()


def _set_lift(why: str, *, local: bool) -> None:
    if connection.connection is None:
        connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('commons.lifted', %s, %s)", [why, local])


def _aborted() -> bool:
    raw = connection.connection
    return raw is not None and raw.info.transaction_status == TransactionStatus.INERROR


def _opened(sender: Any, connection: Any, **kwargs: Any) -> None:
    """Raise the wall on a connection that opens in the middle of a request, or in a web server at all."""
    if person() is None:
        return
    try:
        _apply(connection)
    except Exception:
        # Without the wall this connection would show everything: nobody may use it.
        connection.close()
        raise


connection_created.connect(_opened, dispatch_uid="core.row_security")

__all__ = ["NOBODY", "POLICY", "become", "close_by_default", "lifted", "person", "table", "walled"]
