"""Import usage intervals from a CSV file: the way in for anyone with history, or with another scheduler.

    manage.py import_usage FILE --cluster dc1 [--strict] [--source "Slurm 2025"] [--team-map namespace=team …]
                                [--epoch 2017-09-01] [--report FILE.errors.csv] [--dry-run]

FILE may be gzip-compressed (`.gz`) or `-` (standard input). The columns are described in `apps.metering.imports`.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.core.errors import CommonsError, Invalid
from apps.core.exports import neutralise
from apps.core.formats import gpu_hours
from apps.metering import due
from apps.metering.importing import check_flavours, import_intervals
from apps.metering.imports import Parsed, Unusable, describe, parse

CHUNK = 1 << 20


class Command(BaseCommand):
    """See the module's text."""

    help = "Import usage intervals (workload, namespace, GPUs, flavour, start, end, utilisation) from a CSV file."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("file", help="CSV file, .gz or plain; - reads standard input")
        parser.add_argument("--cluster", required=True, help="short name of the cluster the usage belongs to")
        parser.add_argument("--strict", action="store_true", help="refuse the whole file where a row is wrong")
        parser.add_argument("--source", default="", help="name of the import source (default: Imported usage)")
        parser.add_argument(
            "--team-map", nargs="+", default=[], metavar="NAMESPACE=TEAM", help="owners of namespaces without workspace"
        )
        parser.add_argument("--epoch", default="", help="numbers in start and end are seconds after this ISO time")
        parser.add_argument("--report", default="", help="write every refused row here (default: FILE.errors.csv)")
        parser.add_argument("--dry-run", action="store_true", help="check the file, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the import. Raises CommandError with the reason where nothing was imported."""
        cluster = Cluster.objects.filter(slug=options["cluster"]).first()
        if cluster is None:
            known = ", ".join(Cluster.objects.order_by("slug").values_list("slug", flat=True)) or "none"
            raise CommandError(f"There is no cluster {options['cluster']!r} (known: {known}).")
        parsed = self._parse(options["file"], _epoch(options["epoch"]))
        parsed = check_flavours(parsed, cluster)
        if parsed.errors:
            self._report(parsed, options["report"] or _report_name(options["file"]))
        if options["dry_run"]:
            self.stdout.write(
                f"Checked only: {len(parsed.intervals)} rows could be imported, {len(parsed.errors)} not."
            )
            return
        try:
            run = import_intervals(
                cluster.pk,
                parsed,
                actor=Actor.system("metering.import_usage", Channel.COMMAND),
                strict=options["strict"],
                source_name=options["source"],
                team_map=_pairs(options["team_map"]),
                file_name=Path(options["file"]).name,
            )
        except CommonsError as error:
            lines = [text for texts in error.errors.values() for text in texts] if isinstance(error, Invalid) else []
            raise CommandError("\n".join(lines) or error.message) from error
        while due.ingest_due(only=run.source_id):
            pass
        total = gpu_hours(sum(interval.gpu_ms for interval in parsed.intervals))
        self.stdout.write(
            f"Imported {len(parsed.intervals)} of {parsed.rows} rows: {total} GPU-hours on {cluster.name},"
            f" {run.window_start:%Y-%m-%d} to {run.window_end:%Y-%m-%d} UTC. Run {run.uid}."
        )

    def _parse(self, name: str, epoch: datetime | None) -> Parsed:
        try:
            with _open(name) as file:
                return parse(_chunks(file), now=clock.now(), epoch=epoch)
        except Unusable as error:
            raise CommandError(f"{name}: {error}") from error
        except (OSError, EOFError) as error:
            raise CommandError(f"{name} cannot be read: {error}") from error

    def _report(self, parsed: Parsed, name: str) -> None:
        for line in describe(parsed.errors):
            self.stderr.write(line)
        try:
            with Path(name).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["line", "reason"])
                # The reasons quote cells of the file, which a spreadsheet must not run.
                writer.writerows([neutralise(cell) for cell in row] for row in parsed.errors)
        except OSError as error:
            raise CommandError(
                f"The report {name} cannot be written: {error}. Give another place with --report."
            ) from error
        self.stderr.write(f"All {len(parsed.errors)} refused rows: {name}")


def _open(name: str) -> IO[bytes]:
    if name == "-":
        return sys.stdin.buffer
    if name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(name, "rb"))
    return Path(name).open("rb")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _report_name(name: str) -> str:
    return "import.errors.csv" if name == "-" else f"{name}.errors.csv"


def _epoch(text: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"--epoch is an ISO 8601 time like 2017-09-01, not {text!r}") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        namespace, mark, team = text.partition("=")
        if not (namespace and mark and team):
            raise CommandError(f"--team-map takes namespace=team, not {text!r}")
        pairs[namespace] = team
    return pairs
