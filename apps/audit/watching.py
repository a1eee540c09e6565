"""Which tables are watched: a trigger notes every changed row, and the reconciliation asks the trail for its event.

Another table joins by a migration of its room, `operations = [watch("teams_rolegrant")]`, and by its name in TABLES.
Columns that change without anybody deciding anything (a last use, a counter) are left out by naming those that count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from django.db import connections
from django.db.migrations.operations.special import RunSQL

#: Every table that has to bear the trigger; the nightly verification misses it where it is gone.
TABLES = (
    "accounts_apitoken",
    "accounts_externalidentity",
    "accounts_secondfactor",
    "accounts_user",
    "approvals_decision",
    "approvals_delegation",
    "approvals_grant",
    "approvals_policyversion",
    "costs_period",
    "costs_statement",
    "quotas_quota",
    "rates_rate",
    "rates_ratecard",
    "teams_groupmapping",
    "teams_membership",
    "teams_rolegrant",
)
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")


def watch(table: str, columns: Sequence[str] = ()) -> RunSQL:
    """Return the migration operation that watches a table; `columns`: an update counts where one of these changed."""
    if not all(_NAME.match(name) for name in (table, *columns)):
        raise ValueError(f"names of tables and columns are plain, not {table!r} {columns!r}")
    old = ", ".join(f'OLD."{name}"' for name in columns) or "OLD.*"
    new = ", ".join(f'NEW."{name}"' for name in columns) or "NEW.*"
    changed = f"ROW({old}) IS DISTINCT FROM ROW({new})" if columns else f"{old} IS DISTINCT FROM {new}"
    return RunSQL(
        f"CREATE TRIGGER audit_change AFTER INSERT OR DELETE ON public.{table}"
        " FOR EACH ROW EXECUTE FUNCTION audit.note_change();"
        f"CREATE TRIGGER audit_change_update AFTER UPDATE ON public.{table} FOR EACH ROW WHEN ({changed})"
        " EXECUTE FUNCTION audit.note_change();",
        f"DROP TRIGGER audit_change ON public.{table}; DROP TRIGGER audit_change_update ON public.{table};",
    )


def unwatched(using: str = "default") -> list[str]:
    """Return the tables that have lost a trigger, or have it switched off."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            " WHERE c.relnamespace = 'public'::regnamespace AND t.tgenabled IN ('O', 'A')"
            "   AND t.tgname IN ('audit_change', 'audit_change_update')"
        )
        found = set(cursor.fetchall())
    return [table for table in TABLES if {(table, "audit_change"), (table, "audit_change_update")} - found]
