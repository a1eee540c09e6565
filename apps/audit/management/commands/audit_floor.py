"""`manage.py audit_floor`: which regime asks for keeping events how long. Changing it takes the login of migrations."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection, transaction

from apps.audit.models import Floor
from apps.core.bootstrap import AUDIT_ROLE


class Command(BaseCommand):
    """Lists the periods; sets one with `--regime`, `--months` and `--citation`."""

    help = "List how long events are kept at least and why; set the period of a regime (0 months end it)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--regime", help="whose period to set, such as 'Company policy'")
        parser.add_argument("--months", type=int, help="how many months, 0 to 1200")
        parser.add_argument("--citation", default="", help="where it says so")

    def handle(self, *args: Any, **options: Any) -> None:
        """Set what was asked for, then list. Raises CommandError."""
        if options["regime"] or options["months"] is not None:
            if not options["regime"] or options["months"] is None or not 0 <= options["months"] <= 1200:
                raise CommandError("Give --regime and --months (0 to 1200).")
            self._set(options["regime"], options["months"], options["citation"])
        longest = 0
        for row in Floor.objects.order_by("regime", "-id").distinct("regime"):
            longest = max(longest, row.months)
            self.stdout.write(f"{row.months:5} months  {row.regime}: {row.citation} ({row.revised:%Y-%m-%d})")
        self.stdout.write(f"Events are kept for {longest} months at least.")

    def _set(self, regime: str, months: int, citation: str) -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL ROLE {AUDIT_ROLE}")
                cursor.execute(
                    "INSERT INTO audit.floor (regime, citation, months, revised) VALUES (%s, %s, %s, current_date)",
                    [regime, citation, months],
                )
        except DatabaseError as error:
            raise CommandError(f"Not set; it takes the login of MIGRATE_DATABASE_URL: {error}") from error
