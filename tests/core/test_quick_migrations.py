"""The test database is migrated by a quicker way than production's: what comes out is the same."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from apps.core.bootstrap import Logins
from apps.core.management.commands.bootstrap_database import run as bootstrap
from apps.core.testing.database import _quick_states

pytestmark = pytest.mark.django_db

#: What makes a schema, each row as text; months of partitioned tables come and go with the tests.
_SCHEMA = """
WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('public', 'audit', 'commons')),
     tables AS (
       SELECT c.* , o.nspname FROM pg_class c JOIN ours o ON o.oid = c.relnamespace WHERE NOT c.relispartition
     )
SELECT format('table %s.%s %s rls %s %s owner %s may %s', nspname, relname, relkind, relrowsecurity,
              relforcerowsecurity, relowner::regrole, relacl)
  FROM tables WHERE relkind IN ('r', 'p', 'S', 'v', 'm')
UNION ALL
SELECT format('column %s.%s.%s %s null %s default %s %s%s', t.nspname, t.relname, a.attname,
              format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
              a.attidentity, a.attgenerated)
  FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE t.relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT format('constraint %s.%s %s %s', t.nspname, t.relname, c.conname, pg_get_constraintdef(c.oid))
  FROM tables t JOIN pg_constraint c ON c.conrelid = t.oid
UNION ALL
SELECT format('index %s', pg_get_indexdef(i.indexrelid)) FROM tables t JOIN pg_index i ON i.indrelid = t.oid
UNION ALL
SELECT format('trigger %s', pg_get_triggerdef(g.oid))
  FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal
UNION ALL
SELECT format('function %s owner %s may %s', pg_get_functiondef(p.oid), p.proowner::regrole, p.proacl)
  FROM pg_proc p JOIN ours o ON o.oid = p.pronamespace
 WHERE p.prokind IN ('f', 'p') AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT format('policy %s.%s %s %s for %s using %s check %s', schemaname, tablename, policyname, roles, cmd, qual,
              with_check)
  FROM pg_policies
"""


def _columns() -> dict[tuple[str, str], dict[str, tuple[str, bool]]]:
    """Return type and "may be null" of every column by (schema, table)."""
    found: dict[tuple[str, str], dict[str, tuple[str, bool]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull"
            " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('public', 'audit', 'commons') AND c.relkind IN ('r', 'p') AND a.attnum > 0"
            " AND NOT a.attisdropped"
        )
        for schema, table, column, type_of, null in cursor.fetchall():
            found.setdefault((schema, table), {})[column] = (type_of, null)
    return found


def _plain(type_of: str) -> str:
    """Return a type as PostgreSQL writes it."""
    type_of = type_of.replace(", ", ",")
    return f"character varying{type_of[7:]}" if type_of.startswith("varchar") else type_of


@pytest.mark.requirement("database-4.1")
def test_every_model_has_its_table_column_by_column() -> None:
    there = _columns()
    wrong = []
    for model in apps.get_models():
        if not model._meta.managed or model._meta.proxy:
            continue
        schema, _, table = model._meta.db_table.rpartition('"."')
        columns = there.get((schema.strip('"') or "public", table.strip('"')), {})
        for field in model._meta.local_concrete_fields:
            wanted = (_plain(field.db_type(connection) or ""), field.null)
            if columns.get(field.column) != wanted:
                wrong.append(f"{model.__name__}.{field.column}: {columns.get(field.column)}, not {wanted}")
    assert wrong == []


@pytest.mark.requirement("database-4.1")
def test_the_migrations_lead_to_the_models_by_the_quick_way_too() -> None:
    loader = MigrationLoader(None)
    with _quick_states():
        state = loader.project_state()
    found = MigrationAutodetector(state, ProjectState.from_apps(apps)).changes(graph=loader.graph)
    ours = {config.label for config in apps.get_app_configs() if config.name.startswith("apps.")}
    assert {label for label in found if label in ours} == set()


@pytest.fixture
def ordinary() -> Iterator[dict[str, Any]]:
    """A database that was migrated as an installation's is."""
    parameters = connection.get_connection_params()
    login = {key: parameters[key] for key in ("host", "port", "user", "password")}
    name = f"ordinary_{uuid.uuid4().hex[:12]}"
    try:
        bootstrap({**login, "dbname": name}, Logins(migrate=login["user"], runtime=login["user"]))
        url = f"postgres://{login['user']}:{login['password']}@{login['host']}:{login['port']}/{name}"
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0", "--skip-checks"],
            cwd=settings.BASE_DIR, env={**os.environ, "DATABASE_URL": url, "MIGRATE_DATABASE_URL": url}, check=True,
        )  # fmt: skip
        yield {**login, "dbname": name}
    finally:
        with psycopg.connect(**login, dbname="postgres", autocommit=True) as server:
            server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@pytest.mark.full
@pytest.mark.requirement("database-4.1")
def test_the_schema_is_that_of_the_ordinary_way(ordinary: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_SCHEMA)
        quick = {text for (text,) in cursor.fetchall()}
    with psycopg.connect(**ordinary) as session:
        plain = {text for (text,) in session.execute(_SCHEMA).fetchall()}
    assert len(plain) > 3000
    assert sorted(quick - plain) == []
    assert sorted(plain - quick) == []
