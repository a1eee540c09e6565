"""A month's statements as rows: reads what they are made of, lets the pure engines work, names and hashes the result.

Nothing is written here: the same rows are the preview of a month that is closing, the running statements of the open
one, and what the freeze stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import Sum

from apps.clusters.models import Cluster, Flavour
from apps.core import clock
from apps.core.canonical import digest_of
from apps.core.money import Money
from apps.costs.bills import variance
from apps.costs.choices import BillingMode, ChargeKind, Keeper, LineSort, OwnerKind, Verdict
from apps.costs.distribution import DEFAULT, Owner, Quantity, distribute
from apps.costs.models import Correction, Credit, DistributionPolicy, Period, Statement, StatementLine, UnitBilling
from apps.costs.statement_digests import content
from apps.costs.statements import Adjustment, Built, Line, Price, build, numbers
from apps.metering import billing
from apps.metering.models import DayUsage
from apps.rates.models import Rate
from apps.teams.models import Unit

_KIND_WORDS = {
    ChargeKind.ALLOCATED: "Allocated GPU time",
    ChargeKind.UNATTRIBUTED: "GPU time allocated by nobody known",
    ChargeKind.RESERVED_UNUSED: "Reserved but unused GPU time",
    ChargeKind.UNSOLD: "Unsold GPU time",
    ChargeKind.STRANDED: "GPU time stranded by layout",
    ChargeKind.MAINTENANCE: "GPU time in maintenance",
    ChargeKind.CPU: "CPU core-hours",
    ChargeKind.MEMORY: "Memory GiB-hours",
    ChargeKind.STORAGE: "Storage GiB-hours",
    ChargeKind.EGRESS: "Network egress, GiB",
}
_TWELVE = Decimal("1e-12")


def _words() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for kind, text in _KIND_WORDS.items():
        found[LineSort.CHARGE, kind] = text
        found[LineSort.DISTRIBUTED, kind] = f"Share of common cost: {text[0].lower()}{text[1:]}"
    found[LineSort.DISTRIBUTED, ChargeKind.RESERVED_UNUSED] = "Own reservation, not used"
    return found


@dataclass(frozen=True, slots=True)
class Sheet:
    """One statement with its lines, as rows that may or may not be stored."""

    statement: Statement
    lines: Sequence[StatementLine]


@dataclass(slots=True)
class Preview:
    """All statements of a month as they would be frozen now, and what they stand on."""

    period: Period
    policy: DistributionPolicy | None
    bill: Money
    sheets: list[Sheet] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Sheet]:
        """Return the statements of one kind of owner."""
        return [sheet for sheet in self.sheets if sheet.statement.owner_kind == kind]

    @property
    def unpriced_ms(self) -> int:
        """Quantity of unknown cost in the month."""
        kinds = (OwnerKind.TEAM, OwnerKind.PLATFORM)
        return sum(sheet.statement.unpriced_ms for sheet in self.sheets if sheet.statement.owner_kind in kinds)


def policy_for(month: date) -> DistributionPolicy | None:
    """Return the version of the distribution policy that counts in a billing month; None: none was ever published."""
    rows = DistributionPolicy.objects.filter(status=Verdict.APPROVED, month_from__lte=month.replace(day=1))
    return rows.order_by("-month_from", "-number").first()


def preview(period: Period, *, rules: Mapping[str, str] | None = None, number: int | None = None) -> Preview:
    """Return all statements of a month as they would be frozen now. `rules`, `number`: of a policy to try instead."""
    policy = policy_for(period.month)
    rules = rules if rules is not None else (policy.rules if policy else DEFAULT)
    version = number if number is not None else (policy.number if policy else 0)
    return _Maker(period, policy, rules, version).make()


class _Maker:
    """Makes one month's statements: what it has read on the way is what the sheets are named by."""

    def __init__(
        self, period: Period, policy: DistributionPolicy | None, rules: Mapping[str, str], number: int
    ) -> None:
        self.period, self.policy, self.rules, self.number = period, policy, rules, number
        self.names: dict[Owner, tuple[str, str]] = {}
        self.paths: dict[tuple[int, int], list[int]] = {}

    def make(self) -> Preview:
        """Read, distribute, build, name."""
        quantities = distribute(self._quantities(), self.rules, self.number)
        adjustments = [*self._corrections(), *self._credits(quantities), *self._variances()]
        rate_ids = {row.rate_id for row in quantities if row.rate_id is not None}
        rate_ids |= {item.rate_id for item in adjustments if item.rate_id is not None}
        prices = {
            pk: Price(uid, amount, currency)
            for pk, uid, amount, currency in Rate.objects.filter(pk__in=rate_ids).values_list(
                "pk", "uid", "amount", "currency"
            )
        }
        period = self.period
        days = {}
        day = period.month
        while day < billing.following(period.month):
            days[day] = billing.day_bounds(day)
            day += timedelta(days=1)
        built, bill = build(
            quantities, adjustments, prices, currency=period.currency, bounds=days, describe=_words(),
            start=period.start, end=period.end,
        )  # fmt: skip
        self._read_places(owner for one in built if (owner := one.owner) is not None)
        self.clusters = dict(Cluster.objects.values_list("pk", "name"))
        self.flavours = dict(Flavour.objects.values_list("pk", "name"))
        self.rate_uids = {pk: price.uid for pk, price in prices.items()}
        self.now = clock.now()
        self.edition = period.reopened + 1
        found = Preview(period, self.policy, bill)
        teams = self._team_sheets([one for one in built if one.owner is not None])
        platform = self._sheet(built[-1], numbers(period.month, OwnerKind.PLATFORM, 1, self.edition)[0])
        found.sheets = [*teams, platform, *self._unit_sheets(teams), *self._centre_sheets(teams)]
        return found

    # ------------------------------------------------------------ reading

    def _quantities(self) -> list[Quantity]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT team_id, unit_id, cost_centre, kind, cluster_id, flavour_id, gpu_model, rate_id,"
                " sum(quantity_ms)::bigint, sum(gpu_ms)::bigint, min(day), max(day), max(team_name), max(unit_name)"
                " FROM costs_daycharge WHERE day >= %s AND day < %s GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"
                " ORDER BY 1, 2, 3, 4, 5, 6, 7, 8",
                [self.period.month, billing.following(self.period.month)],
            )
            rows = cursor.fetchall()
        found = []
        for team, unit, centre, kind, cluster, flavour, model, rate, units, gpu, first, last, team_name, name in rows:
            owner = None if team is None else Owner(team, unit or 0, centre)
            if owner is not None:
                self.names[owner] = (team_name, name)
            found.append(Quantity(owner, kind, cluster, flavour, model, rate, units, gpu, first, last))
        return found

    def _corrections(self) -> Iterable[Adjustment]:
        rows = Correction.objects.filter(period=self.period).select_related("corrects").order_by("hour", "pk")
        platform_keeps = self.rules.get("reserved_unused") != Keeper.OWNERS
        for row in rows:
            owner = None
            if row.team_id is not None and not (row.kind == ChargeKind.RESERVED_UNUSED and platform_keeps):
                owner = Owner(row.team_id, row.unit_id or 0, row.cost_centre)
                self.names.setdefault(owner, (row.team_name, row.unit_name))
                self.paths.setdefault((row.team_id, row.unit_id or 0), list(row.unit_path))
            yield Adjustment(
                owner, LineSort.CORRECTION, f"Correction of {row.corrects}: {row.reason}"[:300], row.hour,
                row.hour + timedelta(hours=1), row.uid, row.kind, row.cluster_id, row.flavour_id, row.gpu_model,
                row.rate_id, row.quantity_ms, row.gpu_ms,
            )  # fmt: skip

    def _credits(self, quantities: Iterable[Quantity]) -> Iterable[Adjustment]:
        """Yield a line on the team's statement per credit, and the platform's line that bears it.

        Between two teams a credit is a pair of rows that cancel each other: the platform bears nothing.
        """
        rows = Credit.objects.filter(period=self.period, status=Verdict.APPROVED).select_related(
            "team__unit", "statement"
        )
        owners = {row.owner for row in quantities if row.owner is not None} | set(self.names)
        for row in rows.order_by("pk"):
            team = row.team
            owner = Owner(team.pk, team.unit_id, team.cost_centre)
            if owner not in owners:
                owner = min((one for one in owners if one.team_id == team.pk), default=owner)
            self.names.setdefault(owner, (team.name, team.unit.name))
            about = f" about {row.statement}" if row.statement is not None else ""
            reason = f"Credit{about}: {row.reason}"[:300]
            start, end = self.period.start, self.period.end
            yield Adjustment(owner, LineSort.CREDIT, reason, start, end, row.uid, fixed=-row.amount)
            if row.pair is None:
                words = f"Borne for {team.name}: {reason}"[:300]
                yield Adjustment(None, LineSort.CREDIT, words, start, end, row.uid, fixed=row.amount)

    def _variances(self) -> Iterable[Adjustment]:
        """Yield the platform's line per cluster that has an invoice: what the invoice says beyond (or below) ours.

        So the statements add up to what the pool really cost. Where part of ours is unknown there is no line.
        """
        places = dict(Cluster.objects.values_list("pk", "uid"))
        names = dict(Cluster.objects.values_list("pk", "name"))
        for cluster_id, difference in variance(self.period).items():
            if difference:
                words = f"Variance: invoices of {names[cluster_id]} against metered cost"[:300]
                yield Adjustment(
                    None, LineSort.ROUNDING, words, self.period.start, self.period.end, places[cluster_id],
                    cluster_id=cluster_id, fixed=difference.amount,
                )  # fmt: skip

    def _read_places(self, owners: Iterable[Owner]) -> None:
        """Read each owner's unit path as on the latest charge of the month, measured use, and the billing modes."""
        wanted = sorted({(owner.team_id, owner.unit_id) for owner in owners} - self.paths.keys())
        self.units = {unit.pk: unit for unit in Unit.objects.all()}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT o.team_id, o.unit_id, c.unit_path FROM unnest(%s::bigint[], %s::bigint[]) o(team_id, unit_id)"
                " CROSS JOIN LATERAL (SELECT unit_path FROM costs_charge c WHERE c.team_id = o.team_id"
                "   AND coalesce(c.unit_id, 0) = o.unit_id AND c.hour >= %s AND c.hour < %s"
                "   ORDER BY c.hour DESC LIMIT 1) c",
                [[t for t, _ in wanted], [u for _, u in wanted], self.period.start, self.period.end],
            )
            self.paths.update({(team, unit): path for team, unit, path in cursor.fetchall()})
        self.usage = {
            Owner(team, unit or 0, centre): (int(used or 0), int(measured or 0))
            for team, unit, centre, used, measured in DayUsage.objects.filter(
                day__gte=self.period.month, day__lt=billing.following(self.period.month), team_id__isnull=False
            )
            .values_list("team_id", "unit_id", "cost_centre")
            .annotate(Sum("used_gpu_ms"), Sum("measured_gpu_ms"))
            .order_by("team_id", "unit_id", "cost_centre")
        }
        self.modes: dict[int, str] = dict(
            UnitBilling.objects.filter(month_from__lte=self.period.month)
            .order_by("unit_id", "-month_from")
            .distinct("unit_id")
            .values_list("unit_id", "mode")
        )

    def _path(self, owner: Owner) -> list[int]:
        unit = self.units.get(owner.unit_id)
        return self.paths.get((owner.team_id, owner.unit_id)) or (list(unit.path) if unit else [])

    def _mode(self, path: Sequence[int]) -> str:
        """Return how the nearest unit with a mode is billed."""
        return next((self.modes[pk] for pk in reversed(path) if pk in self.modes), BillingMode.SHOWBACK)

    # ------------------------------------------------------------ naming

    def _team_sheets(self, built: Sequence[Built]) -> list[Sheet]:
        owned = [(one.owner, one) for one in built if one.owner is not None]
        owned.sort(key=lambda item: (*self.names.get(item[0], ("", "")), item[0]))
        labels = numbers(self.period.month, OwnerKind.TEAM, len(owned), self.edition)
        return [self._sheet(one, label, owner) for (owner, one), label in zip(owned, labels, strict=True)]

    def _sheet(self, one: Built, number: str, owner: Owner | None = None) -> Sheet:
        lines = [self._line(ordinal, line) for ordinal, line in enumerate(one.lines, 1)]
        values: dict[str, Any] = {}
        if owner is not None:
            team_name, unit_name = self.names.get(owner, ("", ""))
            path = self._path(owner)
            used, measured = self.usage.get(owner, (0, 0))
            values = {
                "team_id": owner.team_id, "unit_id": owner.unit_id or None, "unit_path": path,
                "cost_centre": owner.cost_centre, "team_name": team_name, "unit_name": unit_name,
                "mode": self._mode(path), "used_gpu_ms": used if measured else None, "measured_gpu_ms": measured,
            }  # fmt: skip
        return self._finished(
            Statement(
                number=number, owner_kind=one.owner_kind, own_amount=one.own_amount, amount=one.amount,
                gpu_ms=one.gpu_ms, unpriced_ms=one.unpriced_ms, **values,
            ),
            lines,
        )  # fmt: skip

    def _line(self, ordinal: int, line: Line) -> StatementLine:
        return StatementLine(
            ordinal=ordinal, sort=line.sort, kind=line.kind, description=line.description, cluster_id=line.cluster_id,
            cluster_name=self.clusters.get(line.cluster_id or 0, ""), flavour_id=line.flavour_id,
            flavour_name=self.flavours.get(line.flavour_id or 0, ""), gpu_model=line.gpu_model, rate_id=line.rate_id,
            hourly=line.hourly, quantity_ms=line.quantity_ms, gpu_ms=line.gpu_ms,
            exact=None if line.exact is None else line.exact.quantize(_TWELVE), amount=line.amount,
            charge_start=line.start, charge_end=line.end, method=line.method, ratio_ppm=line.ratio_ppm,
            reference=line.reference,
        )  # fmt: skip

    def _finished(self, statement: Statement, lines: Sequence[StatementLine]) -> Sheet:
        """Fill in what all statements have, and the digest over everything."""
        statement.period, statement.currency, statement.issued_at = self.period, self.period.currency, self.now
        statement.line_count = len(lines)
        allocated = statement.gpu_ms
        statement.coverage_permille = min(1000, statement.measured_gpu_ms * 1000 // allocated) if allocated else 1000
        statement.digest = digest_of(content(statement, lines, self.rate_uids))
        return Sheet(statement, lines)

    def _summed(self, sheets: Sequence[Sheet], number: str, kind: str, **values: Any) -> Sheet:
        """Return a statement whose lines are others' totals."""
        rows = [sheet.statement for sheet in sheets]
        lines = [
            StatementLine(
                ordinal=ordinal, sort=LineSort.TEAM, description=f"{row.number} {row.team_name}"[:300],
                quantity_ms=0, gpu_ms=row.gpu_ms, exact=row.amount.quantize(_TWELVE), amount=row.amount,
                charge_start=self.period.start, charge_end=self.period.end, reference=row.uid,
            )
            for ordinal, row in enumerate(rows, 1)
        ]  # fmt: skip
        measured = sum(row.measured_gpu_ms for row in rows)
        return self._finished(
            Statement(
                number=number, owner_kind=kind, own_amount=sum((row.own_amount for row in rows), Decimal(0)),
                amount=sum((row.amount for row in rows), Decimal(0)), gpu_ms=sum(row.gpu_ms for row in rows),
                used_gpu_ms=sum(row.used_gpu_ms or 0 for row in rows) if measured else None,
                measured_gpu_ms=measured, unpriced_ms=sum(row.unpriced_ms for row in rows), **values,
            ),
            lines,
        )  # fmt: skip

    def _unit_sheets(self, teams: Sequence[Sheet]) -> list[Sheet]:
        """Return one statement per unit that has team statements in it or below."""
        found: dict[int, list[Sheet]] = {}
        for sheet in teams:
            for unit_id in sheet.statement.unit_path or [sheet.statement.unit_id or 0]:
                if unit_id in self.units:
                    found.setdefault(unit_id, []).append(sheet)
        order = sorted(found, key=lambda pk: (self.units[pk].name, pk))
        labels = numbers(self.period.month, OwnerKind.UNIT, len(order), self.edition)
        return [
            self._summed(
                found[pk], label, OwnerKind.UNIT, unit_id=pk, unit_path=list(self.units[pk].path),
                unit_name=self.units[pk].name, mode=self._mode(self.units[pk].path),
            )
            for pk, label in zip(order, labels, strict=True)
        ]  # fmt: skip

    def _centre_sheets(self, teams: Sequence[Sheet]) -> list[Sheet]:
        """Return one statement per cost centre."""
        found: dict[str, list[Sheet]] = {}
        for sheet in teams:
            if sheet.statement.cost_centre:
                found.setdefault(sheet.statement.cost_centre, []).append(sheet)
        labels = numbers(self.period.month, OwnerKind.COST_CENTRE, len(found), self.edition)
        return [
            self._summed(found[centre], label, OwnerKind.COST_CENTRE, cost_centre=centre)
            for centre, label in zip(sorted(found), labels, strict=True)
        ]


__all__ = ["Preview", "Sheet", "policy_for", "preview"]
