"""Routes of the costs room: what `world.metered` cost, and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from apps.core import clock
from apps.costs import whatif_questions as questions
from apps.costs.models import Budget, BudgetStep, WhatIfRun
from apps.metering import billing
from apps.quotas.models import Workspace
from tests.metering.world import MODEL
from tests.sweep.routes.metering import FACTS
from tests.sweep.types import Route

#: Those who see the Finance team's money.
_SEE = {"member_finance", "lead_finance", "vp", "compliance", "finance", "admin", "auditor"}
_SET = {"vp", "finance"}


def build(world: SimpleNamespace) -> None:
    """A budget of the Finance team and one of the foreign tenant."""
    month = billing.month_of(clock.now())
    make = Budget.objects.create
    world.budget = make(team=world.company.finance_team, month_from=month, amount=Decimal("43219.87"), currency="USD")
    world.budget_step = BudgetStep.objects.create(
        budget=world.budget,
        month=month,
        measure="money",
        step="50",
        figure=Decimal("21609.94"),
        limit=Decimal("43219.87"),
        actions=[{"action": "notify", "state": "done", "requests": []}],
        reached_at=clock.now(),
    )
    now = clock.hour_floor(clock.now())
    question = questions.Question(now - timedelta(days=200), now, scale=Decimal(2))
    world.whatif_run = WhatIfRun.objects.create(requested_by=world.company.vp, question=question.plain())
    make(team=world.foreign_team, month_from=month, amount=Decimal("98765.43"), currency="USD")
    world.keep_secret("43,219.87", "43219.87", sees={"member_finance", "lead_finance", "vp"})
    world.keep_secret("98,765.43", "98765.43", sees={"vp_other"})


def _month(world: Any) -> Mapping[str, Any]:
    return {"team_slug": "finance", "month": f"{billing.month_of(world.fact.hour):%Y-%m}"}


def _day(world: Any) -> Mapping[str, Any]:
    return {"team_slug": "finance", "day": billing.day_of(world.fact.hour).isoformat()}


def _resource_day(world: Any) -> Mapping[str, Any]:
    return {"team_slug": "finance", "day": billing.day_of(world.resource_fact.hour).isoformat()}


def _resource_fact(world: Any) -> Mapping[str, Any]:
    fact = world.resource_fact
    return {"hour": f"{fact.hour:%Y-%m-%dT%H}", "fact_uid": fact.uid}


def _spare_day(world: Any) -> Mapping[str, Any]:
    return {"day": billing.day_of(world.fact.hour).isoformat()}


def _team(world: Any) -> Mapping[str, Any]:
    return {"team_slug": "finance"}


def _unit(world: Any) -> Mapping[str, Any]:
    return {"unit_slug": world.company.unit.slug}


def _workspace(world: Any) -> Mapping[str, Any]:
    return {"workspace_uid": Workspace.objects.filter(team=world.company.finance_team).earliest("pk").uid}


def _fact(world: Any) -> Mapping[str, Any]:
    return {"fact_uid": world.fact.uid}


def _whatif_run(world: Any) -> Mapping[str, Any]:
    return {"run_uid": world.whatif_run.uid}


def _budget(world: Any) -> Mapping[str, Any]:
    return {"team": "finance", "amount": "12.50", "month_from": f"{billing.month_of(clock.now()):%Y-%m}"}


ROUTES: dict[str, Route] = {
    "costs:team-list": Route(allowed=FACTS),
    "costs:team-month": Route(allowed=_SEE, kwargs=_month),
    "costs:team-day": Route(allowed=_SEE, kwargs=_day),
    "costs:workload-day": Route(
        allowed=_SEE, kwargs=_day, query="?cluster=metered&namespace=finance-prod&name=nightly"
    ),
    "costs:fact-detail": Route(allowed=_SEE, kwargs=_fact),
    "costs:resource-day": Route(
        allowed=_SEE, kwargs=_resource_day, query="?cluster=metered&namespace=finance-prod&name=fraud-model"
    ),
    "costs:resource-fact": Route(allowed=_SEE, kwargs=_resource_fact),
    "costs:unallocated-month": Route(
        allowed={"vp", "compliance", "finance", "admin", "auditor"},
        kwargs=lambda world: {"month": f"{billing.month_of(world.fact.hour):%Y-%m}"},
        query="?unit=retail-bank&kind=reserved_unused",
        note="of a unit: by everybody who sees charges of that unit",
    ),
    "costs:unallocated-day": Route(allowed=FACTS, kwargs=_spare_day, note="sums of the pools that each is charged on"),
    "costs:unallocated-hours": Route(
        allowed=FACTS,
        kwargs=_spare_day,
        query=f"?cluster=metered&model={MODEL}&kind=unsold",
    ),
    "costs:capacity-hour": Route(
        allowed=FACTS,
        kwargs=lambda world: {"cluster_slug": "metered", "hour": f"{world.fact.hour:%Y-%m-%dT%H}"},
        query=f"?model={MODEL}",
        note="other owners under one name",
    ),
    "costs:class-list": Route(allowed={"finance", "admin", "auditor"}),
    "costs:class-assign": Route(allowed={"finance"}, kwargs=_workspace),
    "costs:class-assign#POST": Route(allowed={"finance"}, kwargs=_workspace, method="POST"),
    "costs:whatif": Route(allowed={"vp", "vp_other", "finance", "admin", "auditor"}, query="?scale=1.05"),
    "costs:whatif#POST": Route(
        allowed={"vp", "vp_other", "finance", "admin", "auditor"}, query="?scale=1.05", method="POST"
    ),
    "costs:whatif-run": Route(allowed={"vp"}, kwargs=_whatif_run),
    "costs:charge-list": Route(allowed=FACTS),
    "costs:budget-list": Route(allowed=FACTS),
    "costs:budget-detail": Route(allowed=_SEE, kwargs=lambda world: {"budget_uid": world.budget.uid}),
    "costs:unit-budget-set": Route(allowed=_SET, kwargs=_unit),
    "costs:unit-budget-set#POST": Route(allowed=_SET, kwargs=_unit, method="POST"),
    "costs:budget-set": Route(allowed=_SET, kwargs=_team),
    "costs:budget-set#POST": Route(allowed=_SET, kwargs=_team, method="POST"),
    "api:charge-list": Route(allowed=FACTS),
    "api:charge-detail": Route(
        allowed=_SEE, kwargs=lambda world: {"uid": world.fact.uid}, note="a whole fact's charge has the fact's uid"
    ),
    "api:budget-list": Route(allowed=FACTS),
    "api:budget-list#POST": Route(allowed=_SET, method="POST", data=_budget),
    "api:budget-step-list": Route(allowed=FACTS),
    "api:budget-step-detail": Route(allowed=_SEE, kwargs=lambda world: {"uid": world.budget_step.uid}),
    "api:budget-detail": Route(allowed=_SEE, kwargs=lambda world: {"uid": world.budget.uid}),
    "api:budget-standing": Route(allowed=_SEE, kwargs=lambda world: {"uid": world.budget.uid}),
}
