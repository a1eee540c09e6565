"""`manage.py audit_checkpoint`: sign the end of the audit trail now and copy it to every place."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit import checkpoints
from apps.core import signing


class Command(BaseCommand):
    """Makes a checkpoint whether or not one is due."""

    help = "Sign the end of the audit trail now and copy it to COMMONS_CHECKPOINT_DIRS and COMMONS_CHECKPOINT_MAIL."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """No options."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Make, publish, say where the copies are. Raises CommandError where nothing could be signed."""
        if not signing.can_sign():
            raise CommandError("COMMONS_SIGNING_KEY is not set: nothing can be signed here.")
        row = checkpoints.make_due(force=True)
        copies = checkpoints.publish_due()
        if row is None:
            last = checkpoints.newest()
            self.stdout.write(
                "No new checkpoint: the trail has not grown, or does not follow from the last one (run audit_verify)."
                + (f" The last one is of link {last.seq}." if last else "")
            )
        else:
            self.stdout.write(f"Checkpoint of link {row.seq}, digest {row.digest}, key {row.key_id}.")
        self.stdout.write(f"{copies} copies written to {len(checkpoints.places())} places.")
        if wrong := [each.last_error for each in checkpoints.failing()]:
            raise CommandError("Not written everywhere: " + "; ".join(wrong))
