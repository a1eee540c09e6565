"""`manage.py bootstrap_database`: make the database, its roles and schemas; idempotent."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from apps.core.bootstrap import APP_ROLE, Logins, identifier, script


class Command(BaseCommand):
    """Makes the roles commons_owner, commons_audit and commons_app and the schemas, or prints the SQL that does."""

    help = (
        "Make the database roles and schemas of the portal (safe to run again). Logs in with MIGRATE_DATABASE_URL; the"
        " run-time login is the one in DATABASE_URL. For a managed server, print the SQL and hand it over."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--print-sql", action="store_true", help="print the script (without passwords), do nothing")
        parser.add_argument("--migrate-login", default="", help="login for migrations (default: the one used now)")
        parser.add_argument("--runtime-login", default="", help="login of the portal (default: that of DATABASE_URL)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run or print the script. Raises CommandError where the server refuses."""
        parameters = connection.get_connection_params()
        migrate = options["migrate_login"] or str(parameters.get("user") or "")
        runtime, password = _runtime_login()
        runtime = options["runtime_login"] or runtime
        if options["print_sql"]:
            statements = script(Logins(migrate=migrate or "postgres", runtime=runtime))
            self.stdout.write("-- Run in the portal's database as a superuser, or as its owner with CREATEROLE.")
            if runtime == APP_ROLE:
                self.stdout.write(f"-- Afterwards give {APP_ROLE} a password: \\password {APP_ROLE}")
            self.stdout.write("BEGIN;")
            for statement in statements:
                self.stdout.write(statement)
            self.stdout.write("COMMIT;")
            return
        try:
            run(parameters, Logins(migrate=migrate, runtime=runtime, runtime_password=password))
        except psycopg.Error as error:
            raise CommandError(
                f"PostgreSQL refused: {error}\nPrint the script with --print-sql and have an administrator run it."
            ) from error
        self.stdout.write(f"Roles and schemas are in place; the portal runs as {runtime}.")


def run(parameters: dict[str, Any], logins: Logins) -> None:
    """Create the database where it is missing and run the script in it. Raises psycopg.Error."""
    keep = (
        "host",
        "port",
        "user",
        "password",
        "dbname",
        "connect_timeout",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
    )
    login = {key: parameters[key] for key in keep if parameters.get(key)}
    try:
        session = psycopg.connect(**login)
    except psycopg.OperationalError as error:
        if "does not exist" not in str(error):
            raise
        with psycopg.connect(**{**login, "dbname": "postgres"}, autocommit=True) as maintenance:
            maintenance.execute(
                f"CREATE DATABASE {identifier(str(login['dbname']))} ENCODING 'UTF8' TEMPLATE template0"
            )
        session = psycopg.connect(**login)
    with session:
        for statement in script(logins):
            session.execute(statement)


def _runtime_login() -> tuple[str, str]:
    """Return user and password of DATABASE_URL, or commons_app without a password."""
    url = os.environ.get("DATABASE_URL", "")
    parts = urlsplit(url)
    return (unquote(parts.username), unquote(parts.password or "")) if url and parts.username else (APP_ROLE, "")
