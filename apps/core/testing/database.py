"""The database of a test run: cloned from a migrated template, worked on as `commons_app`, emptied as its owner.

Migrating takes seconds and every engineer's run needs its own database, so the migrated state is kept as a template
database named after a digest of all migrations and the bootstrap script; a run clones it in a fraction of a second.
When a migration changes, the digest does, and the next run makes a new template. Everything goes through one advisory
lock on the server, so runs that start together neither migrate twice nor clone a half-made template.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.db.migrations.state import ProjectState

from apps.core.bootstrap import APP_ROLE, OWNER_ROLE, Logins, identifier
from apps.core.management.commands.bootstrap_database import run as bootstrap

_LOCK = 0x636F6D6D74657374  # "commtest"
_TEMPLATE = "commons_template_"
_KEPT_TEMPLATES = 3
#: Tables that hold what migrations wrote: emptying them would unmake the migrations.
_NEVER_EMPTIED = ("django_migrations", "django_content_type")
#: From this size of all tables on, new files for them are quicker than deleting row by row.
_MUCH_BYTES = 16 << 20


def migration_digest() -> str:
    """Return a digest over everything that decides what a migrated database looks like."""
    root = Path(settings.BASE_DIR)
    sources = sorted([*root.glob("apps/*/migrations/*.py"), root / "apps/core/bootstrap.py"])
    content = hashlib.sha256()
    for path in sources:
        content.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def set_role(role: str | None) -> None:
    """Let every connection of the test process, open or to come, act as `role` (None: as the login itself)."""
    options = connections.databases["default"]["OPTIONS"]
    options["assume_role"] = role
    connections["default"].settings_dict["OPTIONS"]["assume_role"] = role


@contextmanager
def _quick_states() -> Iterator[None]:
    """Let migrations draw anew only the model that they add something to.

    Nearly every model refers to a person or a team, so each new field draws nearly all of them anew, hundreds of times:
    nine tenths of the time that migrating takes. A class that refers to a model as it was before is good enough for
    what only adds; Django does the same for fields that refer to nothing, and notes it (`is_delayed`): code that looks
    at rows has everything drawn anew first. So has, here, what changes or takes away.
    """

    def reload(self: ProjectState, app_label: str, model_name: str, delay: bool = False) -> None:
        if "apps" in self.__dict__:
            self.is_delayed = True
            self._reload({(app_label, model_name)})  # type: ignore[attr-defined]  # the stubs do not know it

    def drawn_anew(name: str) -> Callable[..., None]:
        change: Callable[..., None] = getattr(ProjectState, name)

        def changed(self: ProjectState, *args: Any, **kwargs: Any) -> None:
            self.clear_delayed_apps_cache()
            change(self, *args, **kwargs)

        return changed

    changing: dict[str, Any] = {name: drawn_anew(name) for name in ("alter_field", "remove_field", "rename_field")}
    collects = gc.isenabled()
    # No class drawn on the way is garbage before the end.
    gc.disable()
    try:
        with mock.patch.multiple(ProjectState, reload_model=reload, **changing):
            yield
    finally:
        if collects:
            gc.enable()


class TestDatabase:
    """Makes the run's database and throws it away. Use from the session fixture `django_db_setup`."""

    __test__ = False

    def __init__(self, url: dict[str, Any], suffix: str, *, keep: bool) -> None:
        self.url, self.suffix, self.keep = url, suffix, keep
        self.name = ""
        self._claim: psycopg.Connection[Any] | None = None

    def setup(self) -> None:
        """Point Django at a fresh clone of the migrated template, as the portal's role."""
        with self._server() as server:
            template = self._template(server)
            self.name = self._free_name(server)
            self._clone(server, template)
        self._point_at(self.name, APP_ROLE)

    def teardown(self) -> None:
        """Close every connection and drop the database, unless it is kept for a look."""
        connections.close_all()
        if not self.keep:
            with psycopg.connect(**self._login("postgres"), autocommit=True) as server:
                server.execute(f"DROP DATABASE IF EXISTS {identifier(self.name)} WITH (FORCE)")
        if self._claim is not None:
            self._claim.close()

    # -- server side

    def _login(self, database: str) -> dict[str, Any]:
        keys = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
        return {key: self.url[name] for key, name in keys.items() if self.url.get(name)} | {
            "dbname": database,
            "connect_timeout": 10,
        }

    @contextmanager
    def _server(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(**self._login("postgres"), autocommit=True) as server:
            server.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            yield server

    def _free_name(self, server: psycopg.Connection[Any]) -> str:
        """Return a database name nobody else's running tests use; held by an advisory lock of a connection we keep."""
        self._claim = psycopg.connect(**self._login("postgres"), autocommit=True)
        for number in range(1, 100):
            name = f"test_commons_{self.suffix}" + (f"_{number}" if number > 1 else "")
            row = self._claim.execute("SELECT pg_try_advisory_lock(hashtext('commons tests'), hashtext(%s))", [name])
            if row.fetchone() == (True,):
                return name
        raise RuntimeError(f"no free name for a test database test_commons_{self.suffix}")

    def _clone(self, server: psycopg.Connection[Any], template: str) -> None:
        server.execute(f"DROP DATABASE IF EXISTS {identifier(self.name)} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {identifier(self.name)} TEMPLATE {identifier(template)}")

    def _template(self, server: psycopg.Connection[Any]) -> str:
        name = _TEMPLATE + migration_digest()
        if (
            server.execute("SELECT FROM pg_database WHERE datname = %s AND datistemplate", [name]).fetchone()
            is not None
        ):
            return name
        sys.stderr.write(f"[tests] migrating a new template database {name}\n")
        server.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {identifier(name)} ENCODING 'UTF8' TEMPLATE template0")
        bootstrap(self._login(name), Logins(migrate=str(self.url["USER"]), runtime=str(self.url["USER"])))
        self._point_at(name, OWNER_ROLE)
        try:
            with _quick_states():
                call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
        finally:
            connections.close_all()
        server.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE true")
        self._forget_old_templates(server, name)
        return name

    def _forget_old_templates(self, server: psycopg.Connection[Any], newest: str) -> None:
        rows = server.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s AND datname <> %s ORDER BY oid DESC OFFSET %s",
            [_TEMPLATE + "%", newest, _KEPT_TEMPLATES - 1],
        ).fetchall()
        for (name,) in rows:
            server.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
            server.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")

    def _point_at(self, name: str, role: str) -> None:
        connections.close_all()
        for target in (connections.databases["default"], connections["default"].settings_dict):
            target.update({key: self.url.get(key, "") for key in ("HOST", "PORT", "USER", "PASSWORD")}, NAME=name)
            target["OPTIONS"].pop("pool", None)
        set_role(role)


def empty_as_owner(excluding: frozenset[str] = frozenset()) -> None:
    """Empty every table of the portal (schema `public`), partitions included; audit rows are never flushed."""
    connection = connections["default"]
    kept = [*_NEVER_EMPTIED, *excluding]
    with connection.cursor() as cursor:
        try:
            cursor.execute("SET ROLE NONE")
            cursor.execute("SELECT current_setting('is_superuser') = 'on'")
            if cursor.fetchone() == (True,) and _emptied_row_by_row(cursor, kept):
                return
            cursor.execute(f"SET ROLE {OWNER_ROLE}")
            cursor.execute(
                "SELECT format('public.%%I', c.relname) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
                " AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relname = ANY(%s) ORDER BY 1",
                [kept],
            )
            tables = [name for (name,) in cursor.fetchall()]
            if tables:
                cursor.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
        finally:
            cursor.execute(f"SET ROLE {connection.settings_dict['OPTIONS'].get('assume_role') or 'NONE'}")


def _emptied_row_by_row(cursor: Any, kept: list[str]) -> bool:
    """Delete what stands in the tables that have any, as a superuser; returns False where that is too much to delete.

    TRUNCATE gives each of some hundred tables, and each of their indexes, new files, whether they held a row or not:
    a thousand files for a test that wrote twenty rows. Foreign keys and the triggers that keep rows from being deleted
    are off for this one statement, as they are for TRUNCATE.
    """
    cursor.execute(
        "SELECT format('public.%%I', c.relname), pg_relation_size(c.oid) FROM pg_class c"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT c.relname = ANY(%s)"
        " AND pg_relation_size(c.oid) > 0",
        [kept],
    )
    found = cursor.fetchall()
    if sum(size for _, size in found) > _MUCH_BYTES:
        return False
    deleting = "; ".join(f"DELETE FROM {name}" for name, _ in found)  # noqa: S608 (quoted by format() above)
    if deleting:
        # One DO block is one transaction: the setting ends with it.
        cursor.execute(f"DO $do$ BEGIN SET LOCAL session_replication_role = replica; {deleting}; END $do$")
    return True


__all__ = ["TestDatabase", "empty_as_owner", "migration_digest", "set_role"]
