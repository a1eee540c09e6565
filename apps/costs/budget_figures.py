"""How budgets stand: what is billed, in money and GPU-hours, where the month will end, which steps were reached.

A team's figure is what carries the team, a unit's what carries a unit at or below it: as of the hour it was metered.
Billed are allocated GPU time and, where they have a price, the resources beside it, corrections and credits
(`budget_billed`). A fixed number of statements.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

from django.db.models import Q, QuerySet, Sum

from apps.core import clock
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs import budget_rules as rules
from apps.costs.budget_billed import CHARGES, Asked, Billed, Whose, charged, ledger, owner_of
from apps.costs.budget_billed import billed as all_billed
from apps.costs.choices import Measure
from apps.costs.forecasting import WEEK, WEEKS, Forecast, forecast, moved
from apps.costs.models import Budget, BudgetStep
from apps.costs.tally import Tally, amount_of
from apps.metering import billing
from apps.metering.choices import METERED
from apps.metering.models import HourStatus

#: A day counts as full once its last hour is final (design §7: two hours after it ended).
FINAL_AFTER = timedelta(hours=2)
HISTORY = timedelta(days=WEEK * WEEKS)


@dataclass(slots=True)
class Standing:
    """How one budget stands in a month: what is billed in it, against the limits.

    Forecasts are added by `add_forecasts`; None: too little to say.
    """

    budget: Budget
    month: date
    billed: Billed
    money_forecast: Forecast | None = None
    hours_forecast: Forecast | None = None
    unknown_days: int = 0
    steps: list[BudgetStep] = field(default_factory=list)

    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = self.billed.total

    @property
    def spent(self) -> Money:
        """What is billed so far, exact; the priced part of it. Below zero where credits are more than the rest."""
        return amount_of(self.tally.product, self.tally.currency)

    @property
    def at_least(self) -> bool:
        """Whether part of the quantity has no price, so that the money is at least this much."""
        return self.tally.unpriced_ms > 0

    @property
    def gpu_ms(self) -> int:
        """Allocated GPU time billed so far."""
        return self.tally.gpu_ms

    @property
    def gpu_hours(self) -> Decimal:
        """Allocated GPU-hours billed so far."""
        with localcontext() as context:
            context.prec = 60
            return Decimal(self.tally.gpu_ms) / MILLISECONDS_PER_HOUR

    def measures(self) -> list[tuple[str, Decimal, Decimal]]:
        """Return (measure, figure, limit) for each limit that the budget has."""
        found: list[tuple[str, Decimal, Decimal]] = []
        if self.budget.amount is not None:
            found.append((str(Measure.MONEY), self.spent.amount, self.budget.amount))
        if self.budget.gpu_hours is not None:
            found.append((str(Measure.GPU_HOURS), self.gpu_hours, Decimal(self.budget.gpu_hours)))
        return found

    def forecast_of(self, measure: str) -> Forecast | None:
        """Return the forecast of a measure."""
        return self.money_forecast if measure == Measure.MONEY else self.hours_forecast

    @property
    def share(self) -> Decimal | None:
        """The greatest share of a limit that is used (1 = all of it); None where a limit of zero is exceeded."""
        shares = []
        for _, figure, limit in self.measures():
            if limit:
                shares.append(figure / limit)
            elif figure:
                return None
        return max(shares, default=Decimal(0))

    @property
    def left(self) -> Money | None:
        """What is left of the money; None without a limit in money, or where part of the cost is unknown."""
        limit = self.budget.monthly
        return None if limit is None or self.at_least else (limit - self.spent).quantized()

    @property
    def reached(self) -> str:
        """The highest step in per cent that is passed now, "" for none."""
        found = [step for _, figure, limit in self.measures() for step in rules.passed(figure, limit)]
        return max(found, key=int, default="")


def in_force(month: date, budgets: QuerySet[Budget] | None = None) -> list[Budget]:
    """Return the budget of each owner that counts for a month: the latest one set for it or an earlier month."""
    rows = Budget.objects.all() if budgets is None else budgets
    return list(
        rows.filter(month_from__lte=month.replace(day=1))
        .select_related("team__unit", "unit", "set_by")
        .order_by("team_id", "unit_id", "-month_from")
        .distinct("team_id", "unit_id")
    )


def budget_of(owner: Whose, month: date) -> Budget | None:
    """Return an owner's budget for a month; None: none set."""
    kind, pk = owner
    rows = Budget.objects.filter(**{f"{kind}_id": pk}, month_from__lte=month.replace(day=1))
    return rows.select_related("team__unit", "unit", "set_by").order_by("-month_from").first()


def standings(budgets: Sequence[Budget], month: date) -> list[Standing]:
    """Return how budgets stand in a month, in their order: a handful of statements, whatever their number."""
    first = month.replace(day=1)
    found = all_billed(Asked.about(budgets), first)
    steps: dict[Whose, list[BudgetStep]] = {}
    for step in steps_of(budgets, first):
        steps.setdefault(owner_of(step.budget), []).append(step)
    return [
        Standing(
            budget=budget,
            month=first,
            billed=found.get(owner_of(budget)) or Billed(),
            steps=steps.get(owner_of(budget), []),
        )
        for budget in budgets
    ]


def standing_of(budget: Budget, month: date) -> Standing:
    """Return how one budget stands, with its forecasts."""
    (found,) = standings([budget], month)
    add_forecasts([found], month)
    return found


def remaining(team_id: int, at: datetime) -> Money | None:
    """Return what is left of a team's budget in money in the billing month of a moment; negative when overspent.

    None without such a budget, or where part of the cost is unknown: a limit must not be checked against a guess.
    """
    month = billing.month_of(at)
    budget = budget_of(("team", team_id), month)
    if budget is None or budget.amount is None:
        return None
    (row,) = standings([budget], month)
    return row.left


def steps_of(budgets: Sequence[Budget], month: date | None = None) -> list[BudgetStep]:
    """Return the steps that the owners of these budgets reached (in a month), latest first, whichever budget stood."""
    teams = [b.team_id for b in budgets if b.team_id is not None]
    units = [b.unit_id for b in budgets if b.unit_id is not None]
    rows = BudgetStep.objects.filter(Q(budget__team_id__in=teams) | Q(budget__unit_id__in=units))
    if month is not None:
        rows = rows.filter(month=month)
    return list(rows.select_related("budget").order_by("-month", "-reached_at", "-pk")[: 20_000 if month else 200])


def add_forecasts(rows: Iterable[Standing], month: date, *, at: datetime | None = None) -> None:
    """Work out where a month will end for each row: six statements, whatever their number.

    Full are the days that ended two hours ago; one in which an hour of a cluster that the owner used is missing or
    incomplete is unknown, and so is every day of history before the owner's first.
    """
    rows = list(rows)
    if not rows:
        return
    first = month.replace(day=1)
    length = calendar.monthrange(first.year, first.month)[1]
    last = min(billing.day_of((at or clock.now()) - FINAL_AFTER), billing.following(first))
    full = max(0, (last - first).days)
    since = first - HISTORY
    days, clusters = _days([row.budget for row in rows], since, billing.following(first))
    holes = _holes({cluster for found in clusters.values() for cluster in found}, since, billing.following(first))
    for row in rows:
        owner = owner_of(row.budget)
        found = days.get(owner, {})
        unknown = {day for cluster in clusters.get(owner, ()) for day in holes.get(cluster, ())}
        begun = min(found, default=None)

        def at_day(day: date, what: str, found: Any = found, unknown: Any = unknown, begun: Any = begun) -> Any:
            if day in unknown or begun is None or (day < begun and day < first):
                return None
            tally = found.get(day)
            if tally is None:
                return 0
            if what == "hours":
                return tally.gpu_ms
            amount = tally.amount
            return None if amount is None else amount.amount

        row.unknown_days = sum(first + timedelta(days=n) in unknown for n in range(full))
        for what in ("money", "hours"):
            values = [at_day(first + timedelta(days=n), what) for n in range(full)]
            history = [at_day(since + timedelta(days=n), what) for n in range(HISTORY.days)]
            # What is billed besides the month's own charges is known: it is no part of the days to come.
            own = row.billed.of(CHARGES)
            total: Decimal | int = amount_of(own.product, own.currency).amount if what == "money" else own.gpu_ms
            besides = (row.spent.amount if what == "money" else row.gpu_ms) - total
            known = sum((value for value in values if value is not None), Decimal(0))
            guess = forecast(values, length, history, running=max(Decimal(0), total - known), month=first)
            guess = guess and moved(guess, besides)
            if what == "money":
                row.money_forecast = guess
            else:
                row.hours_forecast = guess and _in_hours(guess)


def _in_hours(guess: Forecast) -> Forecast:
    """Return a forecast in GPU-milliseconds as one in GPU-hours."""
    low, mid, high = (
        (value / MILLISECONDS_PER_HOUR).quantize(Decimal("0.000001")) for value in (guess.low, guess.mid, guess.high)
    )
    return Forecast(low, mid, high, guess.basis, guess.method)


def _days(
    budgets: Sequence[Budget], first: date, end: date
) -> tuple[dict[Whose, dict[date, Tally]], dict[Whose, set[int]]]:
    """Return each owner's days, and the clusters it was charged for on."""
    asked = Asked.about(budgets)
    days: dict[Whose, dict[date, Tally]] = {}
    clusters: dict[Whose, set[int]] = {}
    grouped = (
        charged(asked, first, end)
        .values_list("day", "team_id", "unit_id", "cluster_id", "rate__amount", "rate__currency")
        .annotate(Sum("quantity_ms"), Sum("gpu_ms"))
        .order_by("day", "team_id", "unit_id", "cluster_id", "rate__amount", "rate__currency")
    )
    for day, team_id, unit_id, cluster_id, hourly, code, quantity, gpu_ms in grouped.iterator(chunk_size=5000):
        for owner in asked.owners(team_id, unit_id):
            tally = days.setdefault(owner, {}).setdefault(day, Tally(ledger()))
            tally.add(int(quantity), int(gpu_ms), hourly, code)
            clusters.setdefault(owner, set()).add(cluster_id)
    return days, clusters


def _holes(clusters: Collection[int], first: date, end: date) -> dict[int, set[date]]:
    """Return for each cluster the billing days in which an hour is missing or incomplete."""
    start, stop = billing.day_start(first), billing.day_start(end)
    rows = HourStatus.objects.filter(cluster_id__in=sorted(clusters), hour__gte=start, hour__lt=stop)
    found: dict[int, set[date]] = {}
    for cluster_id, hour in rows.exclude(state__in=METERED).values_list("cluster_id", "hour"):
        found.setdefault(cluster_id, set()).add(billing.day_of(hour))
    return found
