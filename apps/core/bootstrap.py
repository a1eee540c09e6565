"""The database roles and schemas the portal stands on, as one idempotent SQL script (design §6).

| role | log-in | owns | may |
|---|---|---|---|
| `commons_owner` | no | every table of the portal, schema `commons` | create and alter them (`migrate`) |
| `commons_audit` | no | schema `audit` | the audit tables, their triggers and functions |
| `commons_app` | yes | nothing | read and write rows; insert and read audit events |

`migrate` logs in as the role of MIGRATE_DATABASE_URL and takes on `commons_owner` (SET ROLE). Where DATABASE_URL
logs in under another name, that role becomes a member of `commons_app`. Migrations never make roles; they only grant.
"""

from __future__ import annotations

from dataclasses import dataclass

OWNER_ROLE = "commons_owner"
AUDIT_ROLE = "commons_audit"
APP_ROLE = "commons_app"

#: Key of the advisory lock that orders concurrent bootstraps and migrations ("commons" in hexadecimal).
ADVISORY_LOCK = 0x636F6D6D6F6E73


@dataclass(frozen=True, slots=True)
class Logins:
    """Who logs in: `migrate` runs migrations, `runtime` is the portal; `runtime_password` is set when given."""

    migrate: str
    runtime: str = APP_ROLE
    runtime_password: str = ""


def identifier(name: str) -> str:
    """Return `name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL string constant. Raises ValueError for a NUL or a backslash, which need no place here."""
    if "\x00" in text or "\\" in text:
        raise ValueError("role names and passwords must not contain a backslash or NUL")
    return "'" + text.replace("'", "''") + "'"


def _make_role(name: str, attributes: str) -> str:
    return (
        f"DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(name)}) THEN"
        f" CREATE ROLE {identifier(name)} {attributes}; END IF; END $do$;"
    )


def _grant_role(role: str, member: str) -> str:
    """Grant membership unless the member is a superuser (who may take on every role) or has it already."""
    # pg_auth_members.set_option exists from PostgreSQL 16 on; through jsonb the query also runs on 15.
    by, to = f"{literal(role)}::regrole", f"{literal(member)}::regrole"
    return "".join(
        [
            f"DO $do$ BEGIN IF NOT (SELECT rolsuper FROM pg_roles WHERE oid = {to}) AND NOT EXISTS (",  # noqa: S608 (a quoted literal)
            f"SELECT FROM pg_auth_members m WHERE m.roleid = {by} AND m.member = {to}",
            " AND to_jsonb(m)->'set_option' IS DISTINCT FROM 'false'::jsonb)",
            f" THEN GRANT {identifier(role)} TO {identifier(member)}; END IF; END $do$;",
        ]
    )


def script(logins: Logins) -> list[str]:
    """Return the statements, to be run in one transaction by a superuser or the database's owner with CREATEROLE.

    Running them again changes nothing. The password is part of them where one is given: print with care.
    """
    statements = [
        f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK});",
        _make_role(OWNER_ROLE, "NOLOGIN NOINHERIT"),
        _make_role(AUDIT_ROLE, "NOLOGIN NOINHERIT"),
        _make_role(APP_ROLE, "LOGIN" if logins.runtime == APP_ROLE else "NOLOGIN"),
        _grant_role(OWNER_ROLE, logins.migrate),
        _grant_role(AUDIT_ROLE, logins.migrate),
    ]
    if logins.runtime == APP_ROLE:
        statements.append(
            f"DO $do$ BEGIN IF NOT (SELECT rolcanlogin FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN"  # noqa: S608 (a constant)
            f" ALTER ROLE {APP_ROLE} LOGIN; END IF; END $do$;"
        )
        if logins.runtime_password:
            statements.append(f"ALTER ROLE {APP_ROLE} PASSWORD {literal(logins.runtime_password)};")
    elif logins.runtime != logins.migrate:
        statements.append(_grant_role(APP_ROLE, logins.runtime))
    statements += [
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
        f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER_ROLE};",
        f"GRANT USAGE ON SCHEMA public TO {APP_ROLE};",
        # Purging a month of the trail looks for the checkpoint that covers it.
        f"GRANT USAGE ON SCHEMA public TO {AUDIT_ROLE};",
        f"CREATE SCHEMA IF NOT EXISTS commons AUTHORIZATION {OWNER_ROLE};",
        f"CREATE SCHEMA IF NOT EXISTS audit AUTHORIZATION {AUDIT_ROLE};",
    ]
    for schema in ("public", "commons"):
        for kind, privileges in (
            ("TABLES", "SELECT, INSERT, UPDATE, DELETE"),
            ("SEQUENCES", "USAGE, SELECT"),
        ):
            statements.append(
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER_ROLE} IN SCHEMA {schema}"
                f" GRANT {privileges} ON {kind} TO {APP_ROLE};"
            )
    statements += [
        # Nobody calls a function of ours unless a migration says so.
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER_ROLE} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {AUDIT_ROLE} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;",
        f"SET LOCAL ROLE {OWNER_ROLE};",
        f"GRANT USAGE ON SCHEMA commons TO {APP_ROLE};",
        f"SET LOCAL ROLE {AUDIT_ROLE};",
        f"GRANT USAGE ON SCHEMA audit TO {APP_ROLE};",
        "RESET ROLE;",
    ]
    return statements
