"""Budgets: who sets them, which steps fire and how often, what they ask of the quota room, and what policies read."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from hypothesis import given
from hypothesis import strategies as st

from apps.approvals import actions as approvals
from apps.approvals.ports import FactContext, read_fact
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.costs import budget_actions, budget_figures, budget_requests, budget_steps
from apps.costs import budget_rules as rules
from apps.costs.models import Budget, BudgetStep, DayCharge
from apps.metering.models import HourStatus
from apps.quotas.ladder import ExpiryPolicy
from apps.quotas.models import Quota, QuotaRequest
from tests.factories import grant, make_user
from tests.metering.world import World, make_world, utc

NOW = utc(2026, 11, 18, 9)
NOVEMBER = date(2026, 11, 1)
DAY = timedelta(days=1)
HOUR_MS = 3_600_000
#: What one GPU-hour costs in `make_world`.
RATE = Decimal("3.85")


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


def charge(world: World, team: Any, day: date, gpu_hours: int, *, priced: bool = True) -> None:
    """Charge a team for GPU-hours of a day."""
    DayCharge.objects.create(
        day=day,
        cluster_id=world.cluster.pk,
        kind="allocated",
        team_id=team.pk,
        unit_id=team.unit_id,
        team_name=team.name,
        flavour_id=world.flavour.pk,
        gpu_model=world.flavour.gpu_model,
        rate=world.rate if priced else None,
        quantity_ms=gpu_hours * HOUR_MS,
        gpu_ms=gpu_hours * HOUR_MS,
    )


def budget(company: Any, **changes: Any) -> Budget:
    """Set the Finance team's budget as finance."""
    values: dict[str, Any] = {
        "team_id": None if "unit_id" in changes else company.finance_team.pk,
        "amount": Decimal("1000.00"),
        "gpu_hours": None,
        "month_from": NOVEMBER,
        "actor": Actor.of(company.finance),
    }
    return budget_actions.set_limits(**(values | changes))


def steps(**where: Any) -> list[str]:
    return [row.step for row in BudgetStep.objects.filter(**where).order_by("pk")]


# ---------------------------------------------------------------- setting


@pytest.mark.requirement("budgets-2.2")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": Decimal(-1)}, "amount"),
        ({"amount": Decimal("1.005")}, "amount"),
        ({"gpu_hours": -1}, "gpu_hours"),
        ({"currency": "EUR"}, "currency"),
        ({"month_from": date(2026, 10, 1)}, "month_from"),
        ({"actions": {"90": ["notify"]}}, "actions"),
        ({"actions": {"100": ["kill"]}}, "at_100"),
    ],
)
def test_what_a_budget_cannot_be(world: World, company: Any, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        budget(company, **changes)
    assert set(refused.value.errors) == {field}
    assert not Budget.objects.exists()


@pytest.mark.requirement("budgets-2.1", "budgets-2.3")
def test_who_sets_which_budget(world: World, company: Any) -> None:
    of_team = budget(company, gpu_hours=500, actions={"100": ["notify", "require_approval"]})
    assert (of_team.amount, of_team.gpu_hours, of_team.version) == (Decimal("1000.00"), 500, 1)
    of_unit = budget(company, unit_id=company.unit.pk, amount=None, gpu_hours=0, actor=Actor.of(company.vp))
    assert (of_unit.unit, of_unit.monthly) == (company.unit, None)
    for stranger in (company.lead_finance, company.vp_other, company.auditor):
        with pytest.raises(NotAllowed):
            budget(company, amount=Decimal(7), actor=Actor.of(stranger))
    with pytest.raises(Conflict):
        budget(company, amount=Decimal(8), expected_version=0)
    # A number alone changes neither the other limit nor the actions of the month.
    later = budget(company, amount=Decimal(9), gpu_hours=500, month_from=date(2026, 12, 1))
    assert later.actions == {"100": ["notify", "require_approval"]}
    assert [row.amount for row in Budget.objects.filter(team=company.finance_team).order_by("month_from")] == [
        Decimal(1000),
        Decimal(9),
    ]


# ---------------------------------------------------------------- figures


@pytest.mark.requirement("budgets-2.4", "budgets-3.5")
def test_a_unit_is_everything_below_as_of_the_charge(world: World, company: Any) -> None:
    finance, marketing = company.finance_team, company.marketing_team
    of_unit = budget(company, unit_id=company.unit.pk)
    of_root = budget(company, unit_id=company.root.pk)
    of_other = budget(company, unit_id=company.other_unit.pk)
    charge(world, finance, date(2026, 11, 2), 10)
    charge(world, marketing, date(2026, 11, 3), 5)
    marketing.unit = company.other_unit
    marketing.save()
    charge(world, marketing, date(2026, 11, 4), 2)
    charge(world, finance, date(2026, 10, 31), 100)
    rows = budget_figures.standings([of_unit, of_root, of_other], NOVEMBER)
    assert [row.spent.amount for row in rows] == [15 * RATE, 17 * RATE, 2 * RATE]
    assert [row.at_least for row in rows] == [False, False, False]
    charge(world, finance, date(2026, 11, 5), 1, priced=False)
    (row,) = budget_figures.standings([of_unit], NOVEMBER)
    assert row.at_least
    assert (row.spent.amount, row.gpu_hours, row.left) == (15 * RATE, 16, None)


@pytest.mark.requirement("budgets-1.5", "budgets-1.1")
def test_a_forecast_leaves_out_days_with_missing_hours(world: World, company: Any) -> None:
    of_team = budget(company)
    for number in range(17):
        charge(world, company.finance_team, NOVEMBER + number * DAY, 10)
    for number in range(60):
        charge(world, company.finance_team, NOVEMBER - (number + 1) * DAY, 10)
    row = budget_figures.standing_of(of_team, NOVEMBER)
    assert row.money_forecast is not None
    assert row.hours_forecast is not None
    assert row.money_forecast.mid == 300 * RATE
    assert row.hours_forecast.mid == 300
    assert row.money_forecast.basis == "17 days of November and the weekdays of 8 weeks before"
    HourStatus.objects.create(cluster=world.cluster, hour=utc(2026, 11, 7, 3), state="missing", reason="no data")
    row = budget_figures.standing_of(of_team, NOVEMBER)
    assert row.unknown_days == 1
    assert row.money_forecast is not None
    assert row.money_forecast.basis.startswith("16 days of November")
    assert row.money_forecast.low >= row.spent.amount


# ---------------------------------------------------------------- steps


@pytest.mark.requirement("budgets-3.1")
@given(
    figure=st.decimals(min_value=0, max_value=10**6, places=2),
    limit=st.decimals(min_value=0, max_value=10**6, places=2),
)
def test_steps_are_passed_in_order(figure: Decimal, limit: Decimal) -> None:
    found = rules.passed(figure, limit)
    assert found == tuple(str(p) for p in rules.PERCENTS)[: len(found)]
    assert ("100" in found) == (figure > 0 and figure >= limit)


@pytest.mark.requirement("budgets-3.1", "budgets-3.3")
def test_every_step_fires_once_and_people_are_told(world: World, company: Any) -> None:
    of_team = budget(company)
    charge(world, company.finance_team, date(2026, 11, 2), 129)  # 496.65
    assert budget_steps.fire_due() == 0
    charge(world, company.finance_team, date(2026, 11, 3), 1)
    assert budget_steps.fire_due() == 1
    assert budget_steps.fire_due() == 0
    # After an outage, all that was passed in the meantime, each once.
    charge(world, company.finance_team, date(2026, 11, 4), 200)
    assert budget_steps.fire_due() == 3
    assert budget_steps.fire_due() == 0
    assert steps(budget=of_team) == ["50", "80", "100", "120"]
    first = BudgetStep.objects.get(step="50")
    assert (first.figure, first.limit, first.month) == (Decimal("500.5"), Decimal(1000), NOVEMBER)
    told = OutboxMessage.objects.filter(event="costs.budget.reached")
    assert told.count() == 4
    expected = {company.lead_finance.pk, company.vp.pk, company.finance.pk}
    assert all(set(message.recipient_ids) == expected for message in told)
    assert told.order_by("pk")[0].payload["figure"] == "500.50 USD"


@pytest.mark.requirement("budgets-3.3")
def test_the_month_before_is_looked_at_while_its_last_days_arrive(world: World, company: Any) -> None:
    of_team = budget(company, actions={"100": ["notify", "stop_borrowing"]})
    charge(world, company.finance_team, date(2026, 11, 30), 300)
    with clock.frozen(utc(2026, 12, 3)):
        assert budget_steps.fire_due() == 3
    assert {row.month for row in BudgetStep.objects.filter(budget=of_team)} == {NOVEMBER}
    # What would change quotas has no object any more.
    assert [entry["state"] for entry in BudgetStep.objects.get(step="100").actions] == ["done", "over"]
    assert budget_steps.file_pending() == 0
    with clock.frozen(utc(2026, 12, 20)):
        charge(world, company.finance_team, date(2026, 11, 30), 300)
        assert budget_steps.fire_due() == 0


@pytest.mark.requirement("budgets-3.4")
def test_lowering_fires_and_raising_does_not_fire_again(world: World, company: Any) -> None:
    charge(world, company.finance_team, date(2026, 11, 2), 100)  # 385.00
    budget(company)
    assert budget_steps.fire_due() == 0
    budget(company, amount=Decimal(400))
    assert budget_steps.fire_due() == 2
    budget(company, amount=Decimal(10_000))
    assert budget_steps.fire_due() == 0
    budget(company, amount=Decimal(300))
    assert budget_steps.fire_due() == 2
    assert sorted(steps()) == ["100", "120", "50", "80"]


@pytest.mark.requirement("budgets-3.4")
def test_another_budget_of_the_same_month_does_not_repeat_steps(world: World, company: Any) -> None:
    with clock.frozen(utc(2026, 10, 20)):
        budget(company, month_from=date(2026, 10, 1))
    charge(world, company.finance_team, date(2026, 11, 2), 150)
    assert budget_steps.fire_due() == 1
    assert budget(company, amount=Decimal(1001)).month_from == NOVEMBER
    assert budget_steps.fire_due() == 0


@pytest.mark.requirement("budgets-3.1", "budgets-3.5")
def test_gpu_hours_have_steps_of_their_own_and_money_is_at_least(world: World, company: Any) -> None:
    budget(company, gpu_hours=100)
    charge(world, company.finance_team, date(2026, 11, 2), 130)
    charge(world, company.finance_team, date(2026, 11, 3), 10, priced=False)
    assert budget_steps.fire_due() == 5
    assert steps(measure="gpu_hours") == ["50", "80", "100", "120"]
    assert steps(measure="money") == ["50"]
    assert BudgetStep.objects.get(measure="money").basis == {"at_least": True}


@pytest.mark.requirement("budgets-3.2", "budgets-3.3")
def test_a_forecast_beyond_the_limit_fires_once_from_the_fifth_day_on(world: World, company: Any) -> None:
    of_team = budget(company)
    for number in range(4):
        charge(world, company.finance_team, NOVEMBER + number * DAY, 10)
    with clock.frozen(utc(2026, 11, 4, 23)):
        assert budget_steps.fire_forecasts() == 0
    with clock.frozen(utc(2026, 11, 5, 3)):
        assert budget_steps.fire_forecasts() == 1
        assert budget_steps.fire_forecasts() == 0
    row = BudgetStep.objects.get(budget=of_team)
    assert (row.step, row.figure, row.limit) == ("forecast", 300 * RATE, Decimal(1000))
    assert row.basis["basis"].startswith("the mean of 4 days of November")
    budget(company, amount=Decimal(1100))
    assert budget_steps.fire_forecasts() == 0


# ---------------------------------------------------------------- actions


def _context(team: Any) -> FactContext:
    return FactContext("quotas.request", team.uid, team.pk, team.unit_id, clock.now())


@pytest.mark.requirement("budgets-4.1")
def test_policies_read_that_a_budget_is_exhausted(world: World, company: Any) -> None:
    team = company.finance_team
    budget(company, unit_id=company.unit.pk, actions={"100": ["require_approval"]})
    charge(world, company.marketing_team, date(2026, 11, 2), 259)
    budget_steps.fire_due()
    assert read_fact("team.budget_exhausted", _context(team)) == "no"
    charge(world, team, date(2026, 11, 3), 1)
    assert read_fact("team.budget_exhausted", _context(team)) == "no"  # not before the step is written
    budget_steps.fire_due()
    assert read_fact("team.budget_exhausted", _context(team)) == "yes"
    team.unit = company.other_unit
    team.save()
    assert read_fact("team.budget_exhausted", _context(team)) == "no"
    team.unit = company.unit
    team.save()
    budget(company, unit_id=company.unit.pk, amount=Decimal(1002))
    assert read_fact("team.budget_exhausted", _context(team)) == "no"
    charge(world, team, date(2026, 11, 4), 1)
    assert read_fact("team.budget_exhausted", _context(team)) == "yes"
    with clock.frozen(utc(2026, 12, 1)):
        assert read_fact("team.budget_exhausted", _context(team)) == "no"


def _policy(company: Any, *, automatic: bool = True) -> None:
    body = {
        "validity_days": 365,
        "automatic": [{"name": "Within budget", "when": [["within_budget", "eq", "yes"]]}] if automatic else [],
        "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72}],
    }
    approvals.publish_policy("quota", "Quota", "quotas.request", body, actor=Actor.of(company.admin))


def _hold(world: World, until: datetime | None = None, **changes: Any) -> Quota:
    values: dict[str, Any] = {"guaranteed": 8, "borrow_mode": "limited", "borrow_limit": 4}
    return Quota.objects.create(
        workspace=world.workspaces["finance"],
        flavour=world.flavour,
        valid=DateTimeTZRange(utc(2026, 1, 1), until, "[)"),
        **(values | changes),
    )


@pytest.mark.requirement("budgets-4.2", "budgets-4.4")
def test_stop_borrowing_is_requested_until_the_month_ends(world: World, company: Any) -> None:
    _policy(company)
    _hold(world)
    budget(company, actions={"100": ["stop_borrowing"], "120": ["stop_borrowing"]})
    charge(world, company.finance_team, date(2026, 11, 2), 260)
    assert budget_steps.fire_due() == 3
    assert budget_steps.file_pending() == 1
    assert budget_steps.file_pending() == 0
    request = QuotaRequest.objects.get()
    # Finance set it and may not request quota: the portal asks in the name of the nearest unit's owner.
    assert (request.requester, request.status) == (company.vp, "in_review")
    assert (request.guaranteed, request.borrow_mode, request.valid_until) == (8, "none", utc(2026, 12, 1))
    assert "100 % of the budget for November 2026, 1,001.00 USD of 1,000.00 USD" in request.reason
    step = BudgetStep.objects.get(step="100")
    assert step.actions[0]["state"] == "done"
    (entry,) = step.actions[0]["requests"]
    assert (entry["workspace"], entry["request"]) == ("finance-prod", str(request.uid))
    # A later step finds it asked for already, and links the same request.
    charge(world, company.finance_team, date(2026, 11, 3), 100)
    budget_steps.fire_due()
    assert budget_steps.file_pending() == 1
    (again,) = BudgetStep.objects.get(step="120").actions[0]["requests"]
    assert again["request"] == str(request.uid)
    assert again["text"].startswith("Not requested: There is already an open request")
    assert QuotaRequest.objects.count() == 1


@pytest.mark.requirement("budgets-4.1", "budgets-4.2")
def test_who_may_request_asks_in_their_own_name_and_no_policy_takes_it_for_within_budget(
    world: World, company: Any
) -> None:
    _policy(company)
    _hold(world, until=utc(2026, 11, 25))
    budget(company, actions={"100": ["require_approval", "stop_borrowing"]}, actor=Actor.of(company.vp))
    charge(world, company.finance_team, date(2026, 11, 2), 260)
    budget_steps.fire_due()
    budget_steps.file_pending()
    request = QuotaRequest.objects.get()
    assert (request.requester, request.status) == (company.vp, "in_review")
    assert request.valid_until == utc(2026, 11, 25)
    assert request.approval is not None
    assert request.approval.facts["team.budget_exhausted"] == "yes"
    assert request.approval.facts["within_budget"] == "no"


@pytest.mark.requirement("budgets-4.3", "budgets-4.4")
def test_holding_keeps_what_serves_and_never_lets_a_policy_drain(world: World, company: Any) -> None:
    _policy(company, automatic=False)
    quota = _hold(world, serving=3)
    wanted = budget_requests.wanted_of(quota.workspace, "hold_admissions", NOW, utc(2026, 12, 1))
    assert [(one.guaranteed, one.until, one.note) for one in wanted] == [(3, utc(2026, 12, 1), "")]
    Quota.objects.update(serving=0)
    (none_kept,) = budget_requests.wanted_of(quota.workspace, "hold_admissions", NOW, utc(2026, 12, 1))
    assert none_kept.guaranteed == 0
    draining = ExpiryPolicy(last_rung="drained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_requests.expiry, "approved_policy", lambda workspace: draining)
        (kept,) = budget_requests.wanted_of(quota.workspace, "hold_admissions", NOW, utc(2026, 12, 1))
    assert kept.guaranteed == 1
    assert "would drain what runs" in kept.note
    budget(company, actions={"100": ["hold_admissions"]})
    charge(world, company.finance_team, date(2026, 11, 2), 260)
    budget_steps.fire_due()
    budget_steps.file_pending()
    request = QuotaRequest.objects.get()
    assert (request.guaranteed, request.borrow_mode, request.valid_until) == (0, "none", utc(2026, 12, 1))
    approval = request.approval
    assert approval is not None
    # The unit's owner is the requester: the parent unit's owner decides.
    owner = make_user("head@example.com")
    grant(owner, "unit_owner", unit=company.root)
    approvals.decide(
        approval.pk, "approve", "As the budget says.", actor=Actor.of(owner), expected_digest=approval.subject_digest
    )
    held = Quota.objects.filter(workspace=quota.workspace).order_by("valid")
    assert [(row.guaranteed, row.borrow_mode) for row in held] == [(8, "limited"), (0, "none"), (8, "limited")]


@pytest.mark.requirement("budgets-4.4")
def test_where_there_is_nothing_to_change_the_step_says_so(world: World, company: Any) -> None:
    _hold(world, borrow_mode="none", borrow_limit=0)
    budget(company, actions={"50": ["stop_borrowing"], "80": ["hold_admissions"]})
    charge(world, company.finance_team, date(2026, 11, 2), 208)
    budget_steps.fire_due()
    assert budget_steps.file_pending() == 2
    nothing = BudgetStep.objects.get(step="50").actions[0]
    assert (nothing["state"], nothing["requests"]) == ("done", [])
    # No policy is published: refused by the quota room, with its reason on the step.
    (refused,) = BudgetStep.objects.get(step="80").actions[0]["requests"]
    assert refused["request"] is None
    assert refused["text"].startswith("Not requested: ")
    assert not QuotaRequest.objects.exists()
