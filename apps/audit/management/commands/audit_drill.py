"""`manage.py audit_drill`: tamper with a copy of the audit trail and show that verification finds it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from apps.audit import checkpoints, drill
from apps.audit.actions import INSTALLATION, record
from apps.audit.events import DRILL_DONE, DrillDone
from apps.core.actor import Actor, Channel


class Command(BaseCommand):
    """Exit codes: 0 every attack was found, 1 one was not."""

    help = (
        "Copy the audit trail into a database of its own, tamper with the copy in five ways, and check that each is"
        " found. Run it under MIGRATE_DATABASE_URL: it creates and drops a database."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--limit", type=int, default=50_000, help="copy so many links at most (default 50,000)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Drill, print, record, leave with 1 where an attack went unseen."""
        copies, _ = checkpoints.outside_copies()
        try:
            results = drill.run(copies, limit=options["limit"])
        except drill.CannotDrill as error:
            raise CommandError(str(error)) from error
        except psycopg.Error as error:
            raise CommandError(f"The copy could not be made: {str(error).strip()}") from error
        for one in results:
            self.stdout.write(f"{'found' if one.found else 'NOT FOUND':10} {one.attack}: {one.how}")
        missed = sum(1 for one in results if not one.found)
        with transaction.atomic():
            record(
                DRILL_DONE,
                DrillDone(attacks=len(results), missed=missed),
                actor=Actor.system("audit.drill", Channel.COMMAND),
                subject_type="audit.trail",
                subject_uid=INSTALLATION,
            )
        if missed:
            sys.exit(1)
