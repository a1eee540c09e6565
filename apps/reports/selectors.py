"""What home, the overviews and the monthly report need, composed from the rooms below."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from django.urls import reverse

from apps.core.charts import Figure, Series, horizontal_bars, hours, stacked_bars
from apps.core.formats import day as day_text
from apps.core.money import Money
from apps.costs.explaining import Effects
from apps.costs.overview import money_of
from apps.costs.reporting import MonthReport, TeamLine, month_report
from apps.metering import billing
from apps.reports import extras as beside
from apps.reports import months
from apps.reports.extra_rows import Extras
from apps.reports.folding import Folded
from apps.teams import scope
from apps.teams.models import Team, Unit


def own_teams(user: Any) -> list[Team]:
    """Return the teams in which the person is a member or lead, by name (unit-wide roles do not count)."""
    ids = set().union(*scope.of(user).teams.values())
    return list(Team.objects.filter(pk__in=ids, archived_at__isnull=True).select_related("unit").order_by("name"))


def own_units(user: Any) -> list[Unit]:
    """Return the units that the person owns or holds another unit-wide role in, highest first."""
    ids = set().union(*scope.of(user).units.values())
    return sorted(
        Unit.objects.filter(pk__in=ids, archived_at__isnull=True), key=lambda unit: (len(unit.path), unit.name)
    )


def report_units(user: Any) -> list[Unit]:
    """Return the units that the person may read the monthly report of, highest first."""
    units = [unit for unit in scope.of(user).units_with("reports.monthly.view") if unit.archived_at is None]
    return sorted(units, key=lambda unit: (len(unit.path), unit.name))


@dataclass(frozen=True, slots=True)
class TeamRow:
    """A team with its month to date. `unpriced_gpu_ms` > 0: part of the cost is unknown."""

    team: Team
    spent: Money
    unpriced_gpu_ms: int
    budget: Money | None
    left: Money | None

    @property
    def over(self) -> bool:
        """Whether more is spent than the budget holds."""
        return self.left is not None and self.left.amount < 0


def team_rows(teams: list[Team]) -> list[TeamRow]:
    """Return teams with month to date and budget (two queries). The caller has checked the scope."""
    found = money_of([team.pk for team in teams], months.this_month())
    return [
        TeamRow(team, one.spent, one.unpriced_gpu_ms, one.budget, one.left)
        for team in teams
        for one in [found[team.pk]]
    ]


def unit_rows(unit: Unit) -> list[TeamRow]:
    """Return the teams at or below `unit` with month to date and budget, by name."""
    return team_rows(_teams_below([unit]))


def home_rows(teams: list[Team], units: list[Unit]) -> list[TeamRow]:
    """Return a person's own teams and those of their units with month to date and budget, by name."""
    everything = {team.pk: team for team in [*teams, *(_teams_below(units) if units else [])]}
    return team_rows(sorted(everything.values(), key=lambda team: (team.name, team.pk)))


def _teams_below(units: list[Unit]) -> list[Team]:
    below = Team.objects.filter(unit__path__overlap=[unit.pk for unit in units], archived_at__isnull=True)
    return list(below.select_related("unit").order_by("name", "pk"))


def monthly_report(unit: Unit, month: date, user: Any) -> MonthReport:
    """Return the report of a unit and month. Raises NotVisible for a unit outside the scope."""
    return month_report(unit, month, user)


@dataclass(frozen=True, slots=True)
class DayRow:
    """A day of the report's table: GPU-hours (in gpu_ms) of each charted owner, and their sum."""

    day: date
    cells: list[tuple[int, str]]
    total_gpu_ms: int


def _day_links(slug: str, days: list[date]) -> dict[date, str]:
    """Return the address of each of a team's days: looked up once, since a month has hundreds of cells."""
    if not slug or not days:
        return {}
    known = days[0].isoformat()
    address = reverse("costs:team-day", kwargs={"team_slug": slug, "day": known})
    head, _, tail = address.rpartition(known)
    return {day: f"{head}{day.isoformat()}{tail}" for day in days}


def charted(report: MonthReport) -> tuple[list[str], list[DayRow], Figure]:
    """Return (names of the charted owners, one row a day, the stacked chart): the same figures drawn and written."""
    by_team: dict[int | None, TeamLine] = {line.team_id: line for line in report.lines}
    present = sorted(
        {cell.team_id for cell in report.by_day},
        key=lambda key: (key is None, by_team[key].name if key in by_team else ""),
    )
    cells = {(cell.day, cell.team_id): cell.gpu_ms for cell in report.by_day}
    days = sorted({cell.day for cell in report.by_day})
    names = [by_team[key].name if key is not None and key in by_team else "Other" for key in present]
    slugs = [by_team[key].slug if key is not None and key in by_team else "" for key in present]
    links = [_day_links(slug, days) for slug in slugs]
    rows = []
    for day in days:
        row = [(cells.get((day, key), 0), link.get(day, "")) for key, link in zip(present, links, strict=True)]
        rows.append(DayRow(day, row, sum(value for value, _ in row)))
    series = [
        Series(
            name,
            [hours(row.cells[index][0]) for row in rows],
            colour=by_team[key].colour if key is not None and key in by_team else "other",
            links=[row.cells[index][1] for row in rows],
        )
        for index, (key, name) in enumerate(zip(present, names, strict=True))
    ]
    figure = stacked_bars(days, series, unit="GPU-hours", title="Allocated GPU-hours by day and team")
    return names, rows, figure


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the explained change: where it begins and ends, and by how much it moves."""

    name: str
    amount: Money
    begins: Money
    total: bool = False


def steps(effects: Effects, before: str, after: str) -> list[Step]:
    """Return the way from one month's cost to the next: price, quantity and mix between the two."""
    zero = Money.zero(effects.before.currency)
    found = [Step(before, effects.before, zero, True)]
    at = effects.before
    for name, amount in effects.parts:
        found.append(Step(name, amount, at))
        at = at + amount
    return [*found, Step(after, effects.after, zero, True)]


def explained_figure(found: list[Step]) -> Figure:
    """Return the steps as a waterfall: each bar begins where the one before it ended."""
    figure = horizontal_bars(
        [step.name for step in found],
        [Series("Cost", [step.amount for step in found], "accent")],
        unit=found[0].amount.currency,
        title="What moved the cost",
    )
    figure["data"][0]["base"] = [float(step.begins.amount) for step in found]
    return figure


@dataclass(frozen=True, slots=True)
class Explained:
    """Why the cost changed: of the unit and of each team shown."""

    whole: Effects
    steps: list[Step]
    figure: Figure
    teams: list[tuple[TeamLine, Effects]]


def explained(report: MonthReport, shown: Folded) -> Explained | None:
    """Explain the change of the unit and of the teams shown; None where one of the months is unknown."""
    whole = report.effects()
    if whole is None:
        return None
    report.read_changes(shown.lines)
    way = steps(whole, f"{billing.previous(report.month):%B %Y}", f"{report.month:%B %Y}")
    teams = [(line, found) for line in shown.lines if (found := report.effects_of(line)) is not None]
    return Explained(whole, way, explained_figure(way), teams)


def report_extras(unit: Unit, report: MonthReport, shown: Folded, user: Any) -> Extras:
    """Return what stands beside the figures; freezes the report's lines where the month is closed."""
    units = [one.pk for one in scope.of(user).units_with("reports.monthly.view") if unit.pk in one.path]
    return beside.read(unit, report, units, shown.lines)


def so_far_hint(extras: Extras) -> str:
    """Say which days of a running month stand beside which of the month before; "" where none do."""
    span = extras.so_far
    if span is None:
        return ""
    return f"{span.start.day}–{day_text(span.end)} against {span.before_start.day}–{day_text(span.before_end)}"


def report_context(unit: Unit, month: date, report: MonthReport, user: Any) -> dict[str, Any]:
    """Return what the report's page shows beside the report itself: chart and table by day, neighbouring months."""
    names, rows, figure = charted(report)
    after = billing.following(month)
    return {
        "unit": unit,
        "month": month,
        "month_text": f"{month:%Y-%m}",
        "names": names,
        "day_rows": rows,
        "figure": figure,
        "earlier": f"{billing.previous(month):%Y-%m}",
        "later": f"{after:%Y-%m}" if after <= months.this_month() else "",
        "running": month >= months.this_month(),
        "units": report_units(user),
        "pool_total": _sum(report.total, report.unallocated_total),
        "pool_gpu_ms": report.allocated_gpu_ms + report.unallocated_gpu_ms,
        "unpriced_any": bool(report.unpriced_gpu_ms or any(line.unpriced_gpu_ms for line in report.unallocated)),
        "resources": report.resource_total is not None,
    }


def _sum(first: Money | None, second: Money | None) -> Money | None:
    if first is None or second is None:
        return first or second
    return first + second
