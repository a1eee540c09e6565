"""`manage.py audit_verify`: recompute the whole audit trail and hold it against the checkpoints kept outside."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from apps.audit import checkpoints, nightly, verification
from apps.audit.verification import Outcome, Report
from apps.core import clock, signing
from apps.core.actor import Actor, Channel

SOURCE = "command"


class Command(BaseCommand):
    """Exit codes: 0 intact, 1 tampered, 2 incomplete (a guard or checkpoint is missing), 3 it could not be read."""

    help = (
        "Verify the audit trail: bytes, columns, links, notes, head, and the checkpoints kept outside the database."
        " Exit 0 intact, 1 tampered, 2 incomplete (a guard or a checkpoint is missing), 3 error."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
        parser.add_argument("--no-record", action="store_true", help="do not write the run itself into the trail")
        parser.add_argument(
            "--checkpoints", metavar="DIR", action="append", help="read checkpoints from here instead of the settings"
        )
        parser.add_argument(
            "--public-key", metavar="KEY", action="append", help="trust only these keys (URL-safe base64, 32 bytes)"
        )
        parser.add_argument(
            "--from-checkpoint", action="store_true", help="begin behind the newest good checkpoint: quick, not whole"
        )
        parser.add_argument("--without-checkpoints", action="store_true", help="compare the database with itself only")

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify, print, record the run and leave with the outcome's exit code."""
        started = clock.now()
        keys = _keys(options["public_key"])
        try:
            report = _verified(options, keys)
            if not options["no_record"]:
                nightly.keep(
                    report, started=started, source=SOURCE, actor=Actor.system("audit.verify", Channel.COMMAND)
                )
        except (Error, OSError) as error:
            text = str(error).strip()
            message = (
                json.dumps({"outcome": "error", "error": text}) if options["json"] else f"Cannot read the trail: {text}"
            )
            self.stdout.write(message)
            sys.exit(Outcome.ERROR)
        if options["json"]:
            self.stdout.write(json.dumps(as_data(report), indent=2))
        else:
            self._print(report)
        if report.outcome is not Outcome.INTACT:
            sys.exit(report.outcome)

    def _print(self, report: Report) -> None:
        for finding in report.findings:
            self.stdout.write(f"TAMPERED  {finding.kind:10} {finding.text}")
        if report.findings_total > len(report.findings):
            self.stdout.write(f"… and {report.findings_total - len(report.findings)} more findings")
        for weakness in report.weaknesses:
            self.stdout.write(f"INCOMPLETE {weakness}")
        self.stdout.write(
            f"{report.outcome.name.lower()}: {report.links} links, head {report.head_seq} {report.head_hash}"
        )
        if report.purged:
            self.stdout.write(f"Purged by two persons' decision, links kept: {', '.join(report.purged)}.")
        if report.checkpoints:
            self.stdout.write(f"Compared with {report.checkpoints} checkpoints, up to link {report.checkpoint_seq}.")
        else:
            self.stdout.write("Checked against the database itself; no checkpoint kept outside it was compared.")


def _keys(texts: list[str] | None) -> dict[str, bytes] | None:
    if not texts:
        return None
    try:
        raws = [signing.decode_key(text) for text in texts]
    except ValueError as error:
        raise CommandError(f"--public-key: {error}") from error
    return {signing.key_id_of(raw): raw for raw in raws}


def _verified(options: dict[str, Any], keys: dict[str, bytes] | None) -> Report:
    """Raises OSError for a folder that was named and cannot be read."""
    if options["without_checkpoints"]:
        return verification.verify_trail()
    complaints: list[str] = []
    if options["checkpoints"]:
        copies = []
        for folder in options["checkpoints"]:
            found, wrong = checkpoints.read_folder(Path(folder))
            copies += found
            complaints += wrong
    else:
        copies, complaints = checkpoints.outside_copies()
    report = verification.verify_trail(copies, keys=keys, from_checkpoint=options["from_checkpoint"])
    report.weaknesses += complaints
    if options["checkpoints"] or checkpoints.places():
        late = checkpoints.overdue(clock.now(), copies, report.head_seq)
        report.weaknesses += [late] if late else []
    return report


def as_data(report: Report) -> dict[str, Any]:
    """Return the report as JSON-ready data."""
    return {
        "outcome": report.outcome.name.lower(),
        "links": report.links,
        "head": {"seq": report.head_seq, "hash": report.head_hash},
        "findings_total": report.findings_total,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "weaknesses": report.weaknesses,
        "purged": report.purged,
        "checkpoint": report.checkpoint_seq,
        "checkpoints": report.checkpoints,
        "public_keys": {name: base64.urlsafe_b64encode(raw).decode() for name, raw in signing.public_keys().items()},
    }
