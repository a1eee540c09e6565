"""Pages and API of budgets: what they show, to whom, and with how many queries."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from apps.approvals import actions as approvals
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import assert_queries
from apps.costs import budget_steps, budget_views
from apps.costs.models import Budget, BudgetStep
from tests.costs.test_budget_steps import NOVEMBER, NOW, budget, charge
from tests.factories import client_for, make_team
from tests.metering.world import World, make_world

DAY = timedelta(days=1)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


def get(user: Any, name: str, query: str = "", **kwargs: Any) -> Any:
    return client_for(user).get(reverse(name, kwargs=kwargs) + query)


def text(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return " ".join(response.content.decode().split())


@pytest.mark.requirement("budgets-5.1", "budgets-3.5")
def test_the_list_shows_how_budgets_stand_at_any_number_of_them(world: World, company: Any) -> None:
    budget(company, gpu_hours=1000)
    budget(company, unit_id=company.unit.pk, amount=Decimal(2000))
    for number in range(17):
        charge(world, company.finance_team, NOVEMBER + number * DAY, 16)
    client = client_for(company.vp)
    url = reverse("costs:budget-list")
    page = text(client.get(url))
    assert "1,047.20 USD" in page
    assert "1,000.00 USD" in page
    assert "1,647.80 USD to 2,048.20 USD" in page  # a quarter less or more on the 13 days to come
    assert "Unit and below" in page
    assert "100 %" in page
    for number in range(30):
        team = make_team(f"Team {number}", company.unit)
        budget(company, team_id=team.pk)
        charge(world, team, NOVEMBER, 1, priced=number > 0)
    with assert_queries(20):
        page = text(client.get(url))
    assert "at least" in page
    rows = list(
        csv.DictReader(io.StringIO(b"".join(client.get(f"{url}?export=csv").streaming_content).decode("utf-8-sig")))
    )
    assert len(rows) == 32
    assert {row["Kind"] for row in rows} == {"Team", "Unit and below"}
    assert rows[0]["Used"] == "1.0472"
    assert text(get(company.vp, "costs:budget-list", "?whose=unit")).count("<progress") == 1
    assert "<progress" not in text(get(company.vp, "costs:budget-list", "?month=2026-10"))
    assert "1,047.20" not in text(get(company.vp_other, "costs:budget-list"))


@pytest.mark.requirement("budgets-5.2", "budgets-1.5")
def test_a_budget_its_steps_and_where_it_is_shown(world: World, company: Any) -> None:
    of_team = budget(company, actions={"100": ["stop_borrowing"]})
    of_unit = budget(company, unit_id=company.unit.pk, amount=None, gpu_hours=10_000)
    for number in range(17):
        charge(world, company.finance_team, NOVEMBER + number * DAY, 16)
    budget_steps.fire_due()
    budget_steps.fire_forecasts()
    budget_steps.file_pending()
    page = text(get(company.lead_finance, "costs:budget-detail", budget_uid=of_team.uid))
    assert "stands on the mean of" not in page  # the limit itself is exceeded: no forecast step
    assert "the mean of 17 days of November" in page
    assert "Stop borrowing: nothing to change" in page
    assert "Set the budget" not in page
    assert "Set the budget" in text(get(company.vp, "costs:budget-detail", budget_uid=of_team.uid))
    assert get(company.lead_marketing, "costs:budget-detail", budget_uid=of_team.uid).status_code == 404
    assert get(company.lead_finance, "costs:budget-detail", budget_uid=of_unit.uid).status_code == 404
    assert "Budget of November" in text(get(company.lead_finance, "reports:team", team_slug="finance"))
    assert "272 GPU-hours" in text(get(company.vp, "reports:unit", unit_slug=company.unit.slug))


@pytest.mark.requirement("budgets-5.3", "budgets-2.2", "budgets-2.1")
def test_the_form_explains_and_sets(world: World, company: Any) -> None:
    url = reverse("costs:unit-budget-set", kwargs={"unit_slug": company.unit.slug})
    client = client_for(company.vp)
    page = text(client.get(url))
    assert "No policy for quota is published yet" in page
    assert "The portal requests that nothing is borrowed until the month ends" in page
    bad = client.post(url, {"month_from": "2026-11", "version": "0"})
    assert bad.status_code == 400
    assert "Give a limit in money, in GPU-hours, or both" in bad.content.decode()
    sent = {"gpu_hours": "500", "month_from": "2026-11", "version": "0", "at_100": ["notify", "hold_admissions"]}
    done = client.post(url, sent)
    row = Budget.objects.get()
    assert done.status_code == 303
    assert done.headers["Location"] == reverse("costs:budget-detail", kwargs={"budget_uid": row.uid})
    assert (row.unit, row.amount, row.gpu_hours) == (company.unit, None, 500)
    assert row.actions["100"] == ["notify", "hold_admissions"]
    assert row.actions["50"] == []
    assert client_for(company.lead_finance).post(url, sent).status_code in (403, 404)


@pytest.mark.requirement("budgets-5.3")
@pytest.mark.parametrize(
    ("automatic", "when", "remark"),
    [
        ([["delta_gpus", "le", 2]], [], "approves by itself under “Small”"),
        ([["within_budget", "eq", "yes"]], [], ""),
        (None, [], "asks the same people"),
        (None, [["team.budget_exhausted", "eq", "yes"]], ""),
    ],
)
def test_what_the_published_policy_makes_of_it(
    company: Any, automatic: list[Any] | None, when: list[Any], remark: str
) -> None:
    owner = {"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72}
    body = {
        "validity_days": 365,
        "automatic": [{"name": "Small", "when": automatic}] if automatic else [],
        "stages": [
            owner,
            *([{**owner, "name": "Finance", "role": "finance", "scope": "installation", "when": when}] if when else []),
        ],
    }
    approvals.publish_policy("quota", "Quota", "quotas.request", body, actor=Actor.of(company.admin))
    found = budget_views.policy_remark()
    assert remark in found
    assert bool(found) == bool(remark)


@pytest.mark.requirement("budgets-5.4")
def test_budgets_and_steps_through_the_api(world: World, company: Any) -> None:
    client = client_for(company.vp)
    url = reverse("api:budget-list")
    body = {"unit": company.unit.slug, "gpu_hours": 100, "month_from": "2026-11", "actions": {"80": ["notify"]}}
    made = client.post(url, body, content_type="application/json")
    assert made.status_code == 201, made.content
    assert (made.json()["unit"], made.json()["team"], made.json()["amount"]) == (company.unit.slug, None, None)
    for wrong, name in (
        ({"team": "finance", "unit": "x"}, "team"),
        ({"unit": company.unit.slug, "actions": {"90": ["notify"]}}, "actions"),
        ({"team": "finance"}, "amount"),
    ):
        refused = client.post(url, {"month_from": "2026-11", **wrong}, content_type="application/json")
        assert refused.status_code == 400
        assert name in refused.json()["errors"]
    foreign = client_for(company.vp_other).post(url, body, content_type="application/json")
    assert foreign.status_code == 404
    charge(world, company.finance_team, date(2026, 11, 2), 90)
    budget_steps.fire_due()
    steps = client.get(reverse("api:budget-step-list") + "?step=80").json()
    assert [row["step"] for row in steps["results"]] == ["80"]
    assert BudgetStep.objects.count() == 2
    detail = reverse("api:budget-step-detail", kwargs={"uid": steps["results"][0]["uid"]})
    assert client.get(detail).json()["measure"] == "gpu_hours"
    assert client_for(company.lead_finance).get(detail).status_code == 404
    assert client_for(company.lead_finance).get(reverse("api:budget-step-list")).json()["results"] == []
