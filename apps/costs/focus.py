"""Writes a closed month as a FOCUS 1.2 file, row by row, and checks every row on its way.

The statements' lines say what is billed to whom; the daily charges say when. A line that stands on daily charges of its
owner is written day by day; what they do not cover, and every other line, is written once for the line's own time. Per
statement, one Adjustment row takes what rounding leaves.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import IO, Any

from django.conf import settings

from apps.clusters.models import Cluster, Flavour
from apps.costs import focus_rows as rows
from apps.costs.choices import LineSort, OwnerKind
from apps.costs.focus_checker import Checker
from apps.costs.focus_rules import COLUMNS
from apps.costs.models import DayCharge, Period, Statement, StatementLine
from apps.metering import billing
from apps.rates.models import Rate
from apps.teams.models import Team

ACCOUNT_ID = "gpu-pool"
_OWNERS = (OwnerKind.TEAM, OwnerKind.PLATFORM)
#: Daily charges in memory at a time.
CHUNK = 5000
_DAY_COLUMNS = (
    "day", "team_id", "unit_id", "cost_centre", "kind", "cluster_id", "flavour_id", "gpu_model", "rate_id",
    "quantity_ms", "gpu_ms",
)  # fmt: skip
#: (team, unit, cost centre, kind, cluster, flavour, GPU model, rate) of what is written day by day.
_Key = tuple[int | None, int | None, str, str, int | None, int | None, str, int | None]
_NOBODY = (None, None, "")


@dataclass(slots=True)
class _Line:
    """A statement's line while it is written."""

    line: StatementLine
    invoice: rows.Invoice
    charge: rows.Charge
    base: dict[str, str]
    quantity_ms: int
    gpu_ms: int
    daily: bool


class Export:
    """One month's file. Raises ValueError for a month that is not closed."""

    def __init__(self, period: Period) -> None:
        if period.bill is None:
            raise ValueError("only a closed month has a FOCUS file")
        self.period = period
        self.month = rows.Month(
            str(settings.COMMONS_ORGANISATION), ACCOUNT_ID, period.currency, period.start, period.end
        )
        self._clusters = Cluster.objects.in_bulk()
        self._flavours = Flavour.objects.in_bulk()
        self._teams = Team.objects.in_bulk()
        self._statements = {
            statement.pk: statement
            for statement in Statement.objects.filter(
                period=period, superseded_at__isnull=True, owner_kind__in=_OWNERS
            ).order_by("number")
        }
        self._invoices = {pk: self._invoice(statement) for pk, statement in self._statements.items()}
        self._lines, self._by_key = self._read_lines()

    def _invoice(self, statement: Statement) -> rows.Invoice:
        team = self._teams.get(statement.team_id) if statement.team_id is not None else None
        return rows.Invoice(
            number=statement.number,
            account_id=str(team.uid) if team is not None else rows.PLATFORM,
            account=statement.team_name or "Platform",
            cost_centre=statement.cost_centre,
            mode=statement.mode,
            unit=statement.unit_name,
        )

    def _read_lines(self) -> tuple[list[_Line], dict[_Key, _Line]]:
        found = StatementLine.objects.filter(statement_id__in=self._statements).order_by("statement__number", "ordinal")
        lines: list[_Line] = []
        by_key: dict[_Key, _Line] = {}
        rates = Rate.objects.only("uid", "capacity_type", "service_class").in_bulk(
            list(found.exclude(rate=None).order_by().values_list("rate_id", flat=True).distinct())
        )
        for line in found.iterator(chunk_size=CHUNK):
            invoice = self._invoices[line.statement_id]
            charge = self._charge(line, rates.get(line.rate_id) if line.rate_id is not None else None)
            own = rows.is_usage(charge) and (
                line.sort == LineSort.CHARGE or (line.sort == LineSort.DISTRIBUTED and line.method.endswith(":owners"))
            )
            one = _Line(
                line, invoice, charge, rows.template(self.month, invoice, charge), line.quantity_ms, line.gpu_ms, own
            )
            lines.append(one)
            if own:
                by_key[self._key(line)] = one
        return lines, by_key

    def _key(self, line: StatementLine) -> _Key:
        statement = self._statements[line.statement_id]
        owner = _NOBODY
        if statement.owner_kind == OwnerKind.TEAM:
            owner = (statement.team_id, statement.unit_id, statement.cost_centre)  # type: ignore[assignment]  # ids of an owner
        return (*owner, line.kind, line.cluster_id, line.flavour_id, line.gpu_model, line.rate_id)

    def _charge(self, line: StatementLine, rate: Rate | None) -> rows.Charge:
        cluster = self._clusters.get(line.cluster_id) if line.cluster_id is not None else None
        flavour = self._flavours.get(line.flavour_id) if line.flavour_id is not None else None
        sku, name = "", ""
        if line.kind and cluster is not None:
            sku = flavour.slug if flavour is not None else (line.gpu_model or line.kind)
            name = flavour.name if flavour is not None else (line.gpu_model or line.get_kind_display())
        return rows.Charge(
            sort=line.sort,
            kind=line.kind,
            description=line.description,
            number=line.ordinal,
            cluster=cluster.slug if cluster is not None else "",
            cluster_name=cluster.name if cluster is not None else "",
            sku=sku,
            sku_name=name,
            share=flavour.sharing if flavour is not None else "exclusive",
            gpu_model=line.gpu_model,
            rate=str(rate.uid) if rate is not None else "",
            hourly=line.hourly,
            capacity_type=rate.capacity_type if rate is not None else "",
            service_class=rate.service_class if rate is not None else "",
            method=line.method,
            ratio_ppm=line.ratio_ppm,
        )

    @property
    def invoices(self) -> dict[str, Decimal]:
        """Statement numbers with their amounts: what the rows of each have to add up to."""
        return {statement.number: statement.amount for statement in self._statements.values()}

    def days(self) -> int:
        """Return how many daily charges the month has: what progress is measured by."""
        return int(self._daily().count())

    def _daily(self) -> Any:
        first = self.period.month
        return DayCharge.objects.filter(day__gte=first, day__lt=billing.following(first))

    def rows(self, progress: Callable[[int], None] | None = None) -> Iterator[dict[str, str]]:
        """Yield the rows: by day, then everything that has no day, then the rounding of each statement."""
        sums = dict.fromkeys(self._invoices, Decimal(0))
        for one, start, end, quantity, gpu in self._by_day(progress):
            row, cost = rows.usage_row(one.base, one.charge, start, end, quantity, gpu)
            sums[one.line.statement_id] += cost
            yield row
        for one in self._lines:
            line = one.line
            if rows.is_usage(one.charge):
                if one.daily and not one.quantity_ms and not one.gpu_ms and (line.quantity_ms or line.gpu_ms):
                    continue
                row, cost = rows.usage_row(
                    one.base, one.charge, line.charge_start, line.charge_end, one.quantity_ms, one.gpu_ms
                )
            else:
                row, cost = rows.fixed_row(one.base, line.charge_start, line.charge_end, line.amount), line.amount
            sums[line.statement_id] += cost
            yield row
        for pk, statement in self._statements.items():
            if residue := statement.amount - sums[pk]:
                yield rows.rounding_row(self.month, self._invoices[pk], residue)

    def _by_day(self, progress: Callable[[int], None] | None) -> Iterator[tuple[_Line, datetime, datetime, int, int]]:
        """Yield the parts of lines by day, adding up daily charges that one line holds together."""
        bounds: dict[date, tuple[datetime, datetime]] = {}
        pending: dict[int, list[int]] = {}
        lines: dict[int, _Line] = {}
        today: date | None = None
        ordered = self._daily().order_by(*_DAY_COLUMNS[:9], "capacity_type", "service_class", "pk")
        read = 0
        for day, *owner, kind, cluster, flavour, model, rate, quantity, gpu in ordered.values_list(
            *_DAY_COLUMNS
        ).iterator(chunk_size=CHUNK):
            read += 1
            if progress is not None and read % CHUNK == 0:
                progress(read)
            if day != today:
                if today is not None:
                    yield from self._flush(pending, lines, bounds[today])
                today = day
                bounds[day] = billing.day_bounds(day)
            what = (kind, cluster, flavour, model, rate)
            one = self._by_key.get((*owner, *what)) or self._by_key.get((*_NOBODY, *what))
            if one is None:
                continue  # shared out: its parts are lines of their own
            lines[one.line.pk] = one
            held = pending.setdefault(one.line.pk, [0, 0])
            held[0] += quantity
            held[1] += gpu
        if today is not None:
            yield from self._flush(pending, lines, bounds[today])

    @staticmethod
    def _flush(
        pending: dict[int, list[int]], lines: dict[int, _Line], bounds: tuple[datetime, datetime]
    ) -> Iterator[tuple[_Line, datetime, datetime, int, int]]:
        for pk, (quantity, gpu) in pending.items():
            one = lines[pk]
            one.quantity_ms -= quantity
            one.gpu_ms -= gpu
            yield one, *bounds, quantity, gpu
        pending.clear()


def write(period: Period, file: IO[bytes], *, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write the month's file as UTF-8 (RFC 4180, CRLF) and return the report of its check.

    `progress` is told daily charges read and in all. Raises ValueError for a month that is not closed.
    """
    export = Export(period)
    checker = Checker(period.bill, export.invoices)
    checker.header(COLUMNS)
    total = export.days()
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    try:
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for row in export.rows((lambda read: progress(read, total)) if progress is not None else None):
            checker.row(row)
            writer.writerow([row[column] for column in COLUMNS])
        text.flush()
    finally:
        text.detach()  # the file belongs to the caller
    if progress is not None:
        progress(total, total)
    return checker.report()
