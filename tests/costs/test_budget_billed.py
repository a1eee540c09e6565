"""What a budget counts: what the owner is billed in the month, corrections of closed months and credits included."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.approvals.ports import FactContext, read_fact
from apps.core import clock
from apps.core.testing import assert_queries
from apps.costs import budget_figures, budget_steps
from apps.costs.models import BudgetStep, Correction, Credit, DayCharge, DistributionPolicy, Period
from apps.costs.overview import money_of
from apps.costs.statement_rows import preview
from tests.costs.frozen import open_month
from tests.costs.test_budget_steps import DAY, HOUR_MS, NOVEMBER, NOW, RATE, budget, charge
from tests.factories import client_for
from tests.metering.world import World, make_world, utc

OCTOBER_HOUR = utc(2026, 10, 30, 22)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


def correct(world: World, team: Any, gpu_hours: str, *, kind: str = "allocated", priced: bool = True) -> Correction:
    """Bill late GPU-hours of October to a team in November."""
    period, corrects = open_month(NOVEMBER), open_month(date(2026, 10, 1))
    quantity = int(Decimal(gpu_hours) * HOUR_MS)
    return Correction.objects.create(
        period=period, corrects=corrects, cluster=world.cluster, hour=OCTOBER_HOUR, hour_revision=1, kind=kind,
        team_id=team.pk, unit_id=team.unit_id, unit_path=list(team.unit.path), team_name=team.name,
        unit_name=team.unit.name, flavour_id=world.flavour.pk, gpu_model=world.flavour.gpu_model,
        rate=world.rate if priced else None, quantity_ms=quantity, gpu_ms=quantity, reason="a late hour",
    )  # fmt: skip


def give(company: Any, team: Any, amount: str, status: str = "approved") -> Credit:
    """Credit a team in November."""
    return Credit.objects.create(
        period=open_month(NOVEMBER) if status == "approved" else None, team=team, amount=Decimal(amount),
        currency="USD", reason="goodwill for the outage", status=status, proposed_by=company.finance,
        decided_by=company.auditor if status == "approved" else None, decided_at=clock.now(),
    )  # fmt: skip


def own_amounts() -> dict[str, Decimal]:
    """Return what the month's running statements say without shares of common cost."""
    sheets = preview(Period.objects.get(month=NOVEMBER)).sheets
    return {f"{s.statement.owner_kind} {s.statement.team_name or s.statement.unit_name}": s.statement.own_amount
            for s in sheets}  # fmt: skip


def shown(row: budget_figures.Standing) -> Decimal:
    return row.spent.quantized().amount


@pytest.mark.requirement("budgets-2.5", "budgets-5.2", "budgets-5.4", "costs-3.3")
def test_figure_steps_forecast_page_and_api_agree_with_the_statement(world: World, company: Any) -> None:
    team = company.finance_team
    of_team = budget(company)
    of_unit = budget(company, unit_id=company.unit.pk)
    for number in range(17):
        charge(world, team, NOVEMBER + number * DAY, 10)  # 654.50
    charge(world, company.marketing_team, NOVEMBER, 1)
    DayCharge.objects.create(
        day=NOVEMBER, cluster_id=world.cluster.pk, kind="reserved_unused", team_id=team.pk, unit_id=team.unit_id,
        team_name=team.name, flavour_id=world.flavour.pk, rate=world.rate, quantity_ms=100 * HOUR_MS,
        gpu_ms=100 * HOUR_MS,
    )  # fmt: skip
    correct(world, team, "24.5")  # 94.325
    correct(world, company.marketing_team, "-0.5")  # -1.925
    give(company, team, "40.01")
    give(company, team, "500.00", status="proposed")
    figure = Decimal("654.50") + Decimal("94.325") - Decimal("40.01")
    row = budget_figures.standing_of(of_team, NOVEMBER)
    assert (row.spent.amount, row.gpu_hours) == (figure, Decimal("194.5"))
    whole = budget_figures.standing_of(of_unit, NOVEMBER)
    assert whole.spent.amount == figure + RATE - Decimal("1.925")
    # The statement of the month as it runs says the same, to the cent.
    amounts = own_amounts()
    assert amounts[f"team {team.name}"] == shown(row)
    assert amounts[f"unit {company.unit.name}"] == shown(whole)
    # The forecast goes on with the days; what is billed besides moves it and widens nothing.
    guess = row.money_forecast
    assert guess is not None
    assert guess.mid == 300 * RATE + Decimal("94.325") - Decimal("40.01")
    assert "corrections and credits" in guess.basis
    assert row.hours_forecast is not None
    assert row.hours_forecast.mid == Decimal("324.5")
    # Steps, approvals and lists stand on it, too.
    assert budget_steps.fire_due() == 2
    assert {step.figure for step in BudgetStep.objects.filter(budget=of_team)} == {figure}
    context = FactContext("quotas.request", team.uid, team.pk, team.unit_id, clock.now())
    assert read_fact("team.budget_remaining", context) == Decimal(1000) - shown(row)
    one = money_of([team.pk], NOVEMBER)[team.pk]
    assert one.left is not None
    assert one.left.amount == Decimal(1000) - shown(row)
    assert one.adjusted is not None
    assert one.adjusted.amount == Decimal("54.315")
    client = client_for(company.finance)
    page = client.get(reverse("costs:budget-detail", kwargs={"budget_uid": of_team.uid})).content.decode()
    for text in ("708.82 USD", "654.50 USD", "94.33 USD", "-40.01 USD", "goodwill for the outage"):
        assert text in page
    below = f"{reverse('costs:correction-list')}?period=2026-11&unit={company.unit.slug}"
    listed = client.get(below).content.decode()
    assert "94.325 USD" in listed
    assert "-1.925 USD" in listed
    assert "94.325 USD" not in client.get(below.replace(company.unit.slug, company.other_unit.slug)).content.decode()
    said = client.get(f"/api/v1/budgets/{of_team.uid}/standing?month=2026-11").json()
    assert (said["spent"], said["left"], said["gpu_ms"]) == ("708.82", "291.18", int(Decimal("194.5") * HOUR_MS))
    assert sum(Decimal(part["amount"]) for part in said["parts"]) == Decimal("708.82")
    assert [part["part"] for part in said["parts"]] == ["charges", "corrections", "credits"]
    assert client.get(f"/api/v1/budgets/{of_team.uid}/standing?month=13").status_code == 400
    lead = client_for(company.lead_marketing)
    assert lead.get(f"/api/v1/budgets/{of_team.uid}/standing").status_code == 404


@pytest.mark.requirement("budgets-2.5")
@pytest.mark.parametrize("keeper", ["owners", "platform"])
def test_a_corrected_reservation_counts_where_the_statement_has_it(world: World, company: Any, keeper: str) -> None:
    DistributionPolicy.objects.create(
        number=9, name="Common cost", month_from=date(2026, 2, 1), rules={"reserved_unused": keeper}, status="approved"
    )
    charge(world, company.finance_team, NOVEMBER, 10)
    correct(world, company.finance_team, "2", kind="reserved_unused")
    row = budget_figures.standing_of(budget(company), NOVEMBER)
    assert row.spent.amount == (12 if keeper == "owners" else 10) * RATE
    assert row.gpu_hours == 10  # nothing was held of it
    assert own_amounts()[f"team {company.finance_team.name}"] == shown(row)


@pytest.mark.requirement("budgets-2.5", "budgets-2.4")
@pytest.mark.parametrize("charged_in", ["before", "after", "both", "never"])
def test_a_credit_counts_for_the_unit_whose_statement_it_is_on(world: World, company: Any, charged_in: str) -> None:
    team, former, later = company.finance_team, company.unit, company.other_unit
    if charged_in in ("before", "both"):
        charge(world, team, NOVEMBER, 10)
    team.unit = later
    team.save()
    if charged_in in ("after", "both"):
        charge(world, team, NOVEMBER + DAY, 10)
    give(company, team, "5.00")
    for unit in (former, later, company.root):
        row = budget_figures.standing_of(budget(company, unit_id=unit.pk), NOVEMBER)
        assert own_amounts().get(f"unit {unit.name}", Decimal(0)) == shown(row), unit.name


@pytest.mark.requirement("budgets-3.5", "budgets-2.5")
def test_what_has_no_price_is_never_hidden_by_a_correction(world: World, company: Any) -> None:
    charge(world, company.finance_team, NOVEMBER, 3, priced=False)
    correct(world, company.finance_team, "-3", priced=False)
    give(company, company.finance_team, "5.00")
    row = budget_figures.standing_of(budget(company), NOVEMBER)
    assert row.at_least
    assert (row.left, row.spent.amount) == (None, Decimal(-5))
    client = client_for(company.finance)
    page = client.get(reverse("costs:budget-detail", kwargs={"budget_uid": row.budget.uid}))
    assert "at least -5.00 USD" in page.content.decode()
    assert 'value="-' not in page.content.decode()


@pytest.mark.requirement("budgets-5.1")
def test_the_list_takes_no_statement_a_budget_more(world: World, company: Any) -> None:
    budget(company)
    budget(company, unit_id=company.unit.pk)
    for team in (company.finance_team, company.marketing_team):
        charge(world, team, NOVEMBER, 1)
        correct(world, team, "1")
        give(company, team, "1.00")
    client = client_for(company.vp)
    with assert_queries(20):
        assert "6.70 USD" in client.get(reverse("costs:budget-list")).content.decode()
