"""`manage.py placement_verify FILE`: check a downloaded statement of placement without the database."""

from __future__ import annotations

import base64
import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core import signing
from apps.core.canonical import canonical_bytes


class Command(BaseCommand):
    """Exit codes: 0 genuine, 1 not genuine, 2 signed by a key that is not trusted here."""

    help = "Verify a statement of placement: canonical bytes and Ed25519 signature, by keys known here or --public-key."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--public-key", action="append", default=[], metavar="KEY", help="trust only these (URL-safe base64)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify and say what was found. The key inside the file is never trusted by itself."""
        try:
            given = json.loads(options["file"].read_text())
            raw = base64.b64decode(given["body"], validate=True)
            body = json.loads(raw)
            key_id, value = str(given["key_id"]), str(given["signature"])
            trusted = [signing.decode_key(text) for text in options["public_key"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"This is no statement of placement that can be read: {error}") from error
        keys = {signing.key_id_of(one): one for one in trusted} if trusted else signing.public_keys()
        if key_id not in keys:
            self.stdout.write(f"Signed by key {key_id}, which is not trusted here: give it with --public-key.")
            sys.exit(2)
        if canonical_bytes(body) != raw or not signing.verifies(raw, key_id, value, keys):
            self.stdout.write("NOT GENUINE: the bytes are not those that were signed.")
            sys.exit(1)
        totals = body["totals"]
        self.stdout.write(
            f"Genuine: placement in {body['month']}, revision {body['revision']}, key {key_id}:"
            f" {totals['lines']} lines,"
            f" {totals['violations']} violations, {totals['hours_unknown']} hours unknown."
        )
