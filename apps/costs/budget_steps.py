"""The steps of budgets: found by a sweep over rows, written once per owner and month, told, and acted upon."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.formats import number as in_words
from apps.core.money import Money
from apps.costs import budget_figures as figures
from apps.costs import budget_requests, forecasting
from apps.costs import budget_rules as rules
from apps.costs.budget_billed import Whose, owner_of
from apps.costs.budget_figures import Standing
from apps.costs.choices import Measure
from apps.costs.events import BUDGET_REACHED, BudgetReached, month_name
from apps.costs.models import Budget, BudgetStep
from apps.metering import billing
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import Team

SYSTEM = Actor.system("costs.budgets")
#: So long the month before is looked at, too: its last hours arrive late.
AFTERMATH = timedelta(days=5)
#: Budgets whose forecast is worked out at a time.
BATCH = 200
PENDING, DONE, OVER = "pending", "done", "over"


def months_to_look_at(at: datetime) -> list[date]:
    """Return the present billing month, and before it the last one while its last days may still arrive."""
    month = billing.month_of(at)
    start, _ = billing.month_bounds(month)
    return [billing.previous(month), month] if at < start + AFTERMATH else [month]


def fire_due() -> int:
    """Write every step in per cent that a budget has passed and that is not written yet; returns how many."""
    at = clock.now()
    fired = 0
    for month in months_to_look_at(at):
        for standing in figures.standings(figures.in_force(month), month):
            fired += _fire_passed(standing, at)
    return fired


def fire_forecasts() -> int:
    """Write the forecast step where the middle of a forecast exceeds a limit; returns how many.

    From the fifth day of the month on, and only where that step is not written and the limit is not reached anyhow.
    """
    at = clock.now()
    month = billing.month_of(at)
    if billing.day_of(at).day < rules.FORECAST_FROM_DAY:
        return 0
    rows = [row for row in figures.standings(figures.in_force(month), month) if _open_measures(row)]
    fired = 0
    for low in range(0, len(rows), BATCH):
        part = rows[low : low + BATCH]
        figures.add_forecasts(part, month, at=at)
        for row in part:
            for measure, limit in _open_measures(row):
                guess = row.forecast_of(measure)
                if guess is not None and guess.mid > limit:
                    fired += fire(row.budget, month, measure, rules.FORECAST, guess.mid, limit, row.at_least, at, guess)
    return fired


def _open_measures(row: Standing) -> list[tuple[str, Decimal]]:
    written = {(step.measure, step.step) for step in row.steps}
    return [
        (measure, limit)
        for measure, figure, limit in row.measures()
        if (measure, rules.FORECAST) not in written and figure <= limit
    ]


def _fire_passed(row: Standing, at: datetime) -> int:
    written = {(step.measure, step.step) for step in row.steps}
    fired = 0
    for measure, figure, limit in row.measures():
        for step in rules.passed(figure, limit):
            if (measure, step) not in written:
                fired += fire(row.budget, row.month, measure, step, figure, limit, row.at_least, at)
    return fired


@transaction.atomic
def fire(
    budget: Budget,
    month: date,
    measure: str,
    step: str,
    figure: Decimal,
    limit: Decimal,
    at_least: bool,
    at: datetime,
    guess: forecasting.Forecast | None = None,
) -> bool:
    """Write one step with what is to be done, and tell people; False where it is written already, or holds no more."""
    owner = owner_of(budget)
    same_owner = Q(team_id=owner[1]) if owner[0] == "team" else Q(unit_id=owner[1])
    # All budgets of the owner: what one of them wrote this month, another does not write again.
    locked = {row.pk: row for row in Budget.objects.select_for_update(of=("self",)).filter(same_owner).order_by("pk")}
    written = BudgetStep.objects.filter(budget_id__in=locked, month=month, measure=measure, step=step)
    present = locked.get(budget.pk)
    if present is None or written.exists():
        return False
    now_limit = present.amount if measure == Measure.MONEY else present.gpu_hours
    if now_limit is None or not rules.reached(step, figure, Decimal(now_limit)):
        return False
    limit = Decimal(now_limit)
    row = BudgetStep.objects.create(
        budget=present,
        month=month,
        measure=measure,
        step=step,
        figure=figure.quantize(Decimal("0.000001")),
        limit=limit,
        basis=_basis(at_least, guess),
        actions=_entries(present, step, month, at),
        reached_at=at,
    )
    payload = _event(budget, row)
    team = budget.team
    audit.record(
        BUDGET_REACHED,
        payload,
        actor=SYSTEM,
        subject_type="costs.budget",
        subject_uid=budget.uid,
        team_uid=team.uid if team is not None else None,
    )
    if rules.NOTIFY in rules.actions_at(present.actions, step):
        outbox.publish(BUDGET_REACHED, payload, recipients=people_of(budget), subject_uid=budget.uid)
    return True


def _basis(at_least: bool, guess: forecasting.Forecast | None) -> dict[str, Any]:
    found: dict[str, Any] = {"at_least": at_least}
    if guess is not None:
        found |= {"low": str(guess.low), "high": str(guess.high), "basis": guess.basis, "method": guess.method}
    return found


def _entries(budget: Budget, step: str, month: date, at: datetime) -> list[dict[str, Any]]:
    """Return what is done at a step; what becomes requests is pending, and pointless once the month is over."""
    over = month < billing.month_of(at)
    found = []
    for name in rules.actions_at(budget.actions, step):
        state = DONE
        if over and name != rules.NOTIFY:
            state = OVER
        elif name in rules.REQUESTING:
            state = PENDING
        found.append({"action": name, "state": state, "requests": []})
    return found


def people_of(budget: Budget) -> list[int]:
    """Return whom a budget concerns: the team's leads, the nearest unit's owners, finance."""
    team = budget.team
    unit = team.unit if team is not None else budget.unit
    found = set(scope.holders_of_role(Role.TEAM_LEAD, team_id=team.pk)) if team is not None else set()
    path = list(unit.path) if unit is not None else []
    for unit_id in reversed(path):
        if owners := scope.holders_of_role(Role.UNIT_OWNER, unit_id=unit_id):
            found |= set(owners)
            break
    found |= set(scope.holders_of_role(Role.FINANCE))
    for unit_id in path:
        found |= set(scope.holders_of_role(Role.FINANCE, unit_id=unit_id))
    return sorted(found)


def in_measure(value: Decimal, measure: str, currency: str) -> str:
    """Return a figure of a measure with its unit."""
    if measure == Measure.MONEY:
        return str(Money(value, currency).quantized())
    return f"{in_words(int(value))} GPU-hours"


def _event(budget: Budget, row: BudgetStep) -> BudgetReached:
    words = [
        f"{rules.LABELS[entry['action']]}: {'the month is over' if entry['state'] == OVER else 'see the budget'}."
        for entry in row.actions
        if entry["action"] != rules.NOTIFY
    ]
    return BudgetReached(
        budget_uid=budget.uid,
        team_uid=budget.team.uid if budget.team is not None else None,
        unit_uid=budget.unit.uid if budget.unit is not None else None,
        owner=str(budget.team or budget.unit),
        month=month_name(row.month),
        step=row.step,
        measure=row.measure,
        figure=in_measure(row.figure, row.measure, budget.currency),
        limit=in_measure(row.limit, row.measure, budget.currency),
        at_least=bool(row.basis.get("at_least")),
        basis=str(row.basis.get("basis", "")),
        actions=words,
    )


def file_pending() -> int:
    """Make the requests that steps wait for; returns how many steps were dealt with. Safe to run again at any time."""
    at = clock.now()
    waiting = BudgetStep.objects.filter(actions__contains=[{"state": PENDING}])
    done = 0
    for step in waiting.select_related("budget__team__unit", "budget__unit").order_by("pk")[:BATCH]:
        done += _file(step, at)
    return done


def _file(step: BudgetStep, at: datetime) -> bool:
    """Make a step's requests (each in its own transaction), then write down what became of them."""
    budget = step.budget
    _, end = billing.month_bounds(step.month)
    why = (
        f"{budget.team or budget.unit}: {rules.step_label(step.step)} of the budget for {step.month:%B %Y}, "
        f"{in_measure(step.figure, step.measure, budget.currency)} of "
        f"{in_measure(step.limit, step.measure, budget.currency)}."
    )
    results: dict[str, dict[str, Any]] = {}
    for entry in step.actions:
        if entry["state"] != PENDING:
            continue
        if at >= end:
            results[entry["action"]] = entry | {"state": OVER}
            continue
        requests = budget_requests.file_requests(budget, entry["action"], why, at, end)
        results[entry["action"]] = entry | {"state": DONE, "requests": requests}
    with transaction.atomic():
        row = BudgetStep.objects.select_for_update().get(pk=step.pk)
        if not any(entry["state"] == PENDING for entry in row.actions):
            return False
        row.actions = [results.get(entry["action"], entry) for entry in row.actions]
        row.save(update_fields=["actions"])
    return True


def exhausted(team_id: int, at: datetime) -> bool:
    """Whether a reached step with *require approval*, of the team or of a unit above it, still holds in this month."""
    month = billing.month_of(at)
    team = Team.objects.select_related("unit").filter(pk=team_id).first()
    if team is None:
        return False
    owned = Q(budget__team_id=team_id) | Q(budget__unit_id__in=list(team.unit.path))
    steps = BudgetStep.objects.filter(owned, month=month, actions__contains=[{"action": rules.REQUIRE_APPROVAL}])
    found: dict[Whose, list[BudgetStep]] = {}
    for step in steps.select_related("budget"):
        found.setdefault(owner_of(step.budget), []).append(step)
    if not found:
        return False
    budgets = [budget for owner in found if (budget := figures.budget_of(owner, month)) is not None]
    return any(_holds(found[owner_of(row.budget)], row) for row in figures.standings(budgets, month))


def _holds(steps: Iterable[BudgetStep], row: Standing) -> bool:
    """Whether one of the steps is still reached under the limit as it is now."""
    measures = {measure: (figure, limit) for measure, figure, limit in row.measures()}
    for step in steps:
        if step.measure not in measures:
            continue
        figure, limit = measures[step.measure]
        if step.step == rules.FORECAST:
            figure = max(figure, step.figure)
        if rules.reached(step.step, figure, limit):
            return True
    return False
