"""`manage.py audit_verify`: recompute the whole audit trail."""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import Error, transaction

from apps.audit.actions import INSTALLATION, record
from apps.audit.events import TRAIL_VERIFIED, TrailVerified
from apps.audit.verification import Outcome, Report, verify_trail
from apps.core.actor import Actor, Channel


class Command(BaseCommand):
    """Exit codes: 0 intact, 1 tampered, 2 incomplete (a guard is missing), 3 the trail could not be read."""

    help = (
        "Verify the audit trail: bytes, columns, links, notes, head. Exit 0 intact, 1 tampered, 2 incomplete (a"
        " guard is missing), 3 error. Without a checkpoint kept outside the database a cut-off tail cannot be seen."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
        parser.add_argument("--no-record", action="store_true", help="do not write the run itself into the trail")

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify, print, record the run and leave with the outcome's exit code."""
        try:
            report = verify_trail()
            if not options["no_record"]:
                _record(report)
        except Error as error:
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
            self.stdout.write(f"TAMPERED  {finding.kind:8} {finding.text}")
        if report.findings_total > len(report.findings):
            self.stdout.write(f"… and {report.findings_total - len(report.findings)} more findings")
        for weakness in report.weaknesses:
            self.stdout.write(f"UNGUARDED {weakness}")
        self.stdout.write(
            f"{report.outcome.name.lower()}: {report.links} links, head {report.head_seq} {report.head_hash}\n"
            "Checked against the database itself; no checkpoint kept outside it was compared."
        )


def as_data(report: Report) -> dict[str, Any]:
    """Return the report as JSON-ready data."""
    return {
        "outcome": report.outcome.name.lower(),
        "links": report.links,
        "head": {"seq": report.head_seq, "hash": report.head_hash},
        "findings_total": report.findings_total,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "weaknesses": report.weaknesses,
        "checkpoint": None,
    }


def _record(report: Report) -> None:
    with transaction.atomic():
        record(
            TRAIL_VERIFIED,
            TrailVerified(
                links=report.links,
                head_seq=report.head_seq,
                outcome=report.outcome.name.lower(),
                findings=report.findings_total,
            ),
            actor=Actor.system("audit.verify", Channel.COMMAND),
            subject_type="audit.trail",
            subject_uid=INSTALLATION,
        )
