"""`manage.py audit_bundle`: pack events of the trail with their proofs and a verifier that needs nothing but Python."""

from __future__ import annotations

import uuid
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from apps.audit import bundle
from apps.core.actor import Actor, Channel


class Command(BaseCommand):
    """Writes one ZIP archive."""

    help = "Pack audit events with links, notes, proofs, checkpoints and a one-file verifier into a ZIP archive."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--from", dest="start", type=_moment, help="from this day or moment on (UTC)")
        parser.add_argument("--until", dest="end", type=_moment, help="until before this day or moment (UTC)")
        parser.add_argument("--object", dest="object_uid", type=uuid.UUID, help="only events of this object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the archive. Raises CommandError where the file exists already."""
        selection = bundle.Selection(options["start"], options["end"], options["object_uid"])
        path: Path = options["file"]
        try:
            with path.open("xb") as file:
                packed = bundle.write(
                    file,
                    selection,
                    actor=Actor.system("audit.bundle", Channel.COMMAND),
                    organisation=settings.COMMONS_ORGANISATION,
                    name=path.name,
                )
        except FileExistsError as error:
            raise CommandError(f"{path} exists already: name another file.") from error
        proven = (
            f"proven by checkpoint {packed.checkpoint_seq}" if packed.checkpoint_seq else "without a checkpoint yet"
        )
        self.stdout.write(f"{packed.events} events up to link {packed.head_seq}, {proven}: {path}")


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no day or moment: write 2026-09-01 or 2026-09-01T14:00") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
