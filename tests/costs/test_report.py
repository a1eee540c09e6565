"""The month report and budgets: scope, completeness, change, and a bounded number of queries."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from apps.approvals.ports import FactContext
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.money import Money
from apps.core.testing import assert_queries
from apps.costs import actions, facts, rollups, selectors
from apps.costs.models import Budget
from apps.costs.reporting import OTHERS
from apps.metering import actions as metering
from tests.factories import make_team
from tests.metering.world import FakeAdapter, World, guarantee, hold, make_world, utc

HOUR = timedelta(hours=1)
NOW = utc(2026, 11, 18, 9)
DAY = utc(2026, 11, 10)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        foreign = make_team("Elsewhere", company.other_unit)
        world = make_world([*company.teams.values(), foreign])
        guarantee(world, "elsewhere", 5)
        guarantee(world, "research", 3)
        yield world


def ingest(world: World, holdings: list[Any], start: Any = DAY, hours: int = 24, **extra: Any) -> None:
    metering.ingest_hours(
        world.source.pk, start, start + hours * HOUR, actor=Actor.system("test"), adapter=FakeAdapter(holdings, **extra)
    )


@pytest.mark.requirement("costs-2.4", "costs-2.1")
def test_scope_of_a_report(world: World, company: Any) -> None:
    ingest(
        world,
        [
            hold("a", "finance-prod", DAY, DAY + HOUR, 2),
            hold("b", "elsewhere-prod", DAY, DAY + HOUR, 1),
            hold("c", "stray", DAY, DAY + HOUR, 1),
        ],
    )
    month = DAY.date()
    vp = selectors.month_report(company.unit, month, company.vp)
    assert [line.name for line in vp.lines] == ["Finance"]
    reserved = {line.owner: line.gpu_ms for line in vp.unallocated if line.kind == "reserved_unused"}
    assert reserved == {"Research": 3 * 24 * 3_600_000, OTHERS: (5 * 24 - 1) * 3_600_000}
    everything = selectors.month_report(None, month, company.auditor)
    assert [line.name for line in everything.lines] == ["Elsewhere", "Finance", "No owner known"]
    assert everything.allocated_gpu_ms + everything.unallocated_gpu_ms == 24 * 50 * 3_600_000
    with pytest.raises(NotVisible):
        selectors.month_report(company.unit, month, company.vp_other)
    other = selectors.month_report(company.other_unit, month, company.vp_other)
    assert [line.name for line in other.lines] == ["Elsewhere"]
    assert "Research" not in {line.owner for line in other.unallocated}


@pytest.mark.requirement("costs-2.2")
def test_open_hours_are_named_and_unmeasured_use_is_unknown(world: World, company: Any) -> None:
    hole = DAY + 3 * HOUR
    ingest(world, [hold("a", "finance-prod", DAY, DAY + 10 * HOUR, 2)], absent={hole})
    report = selectors.month_report(None, DAY.date(), company.vp)
    assert not report.completeness.complete
    assert report.completeness.metered == 23
    day = selectors.month_report(None, DAY.date(), company.vp).completeness
    assert day.open == day.expected - 23
    line = report.lines[0]
    assert (line.used_gpu_ms, line.coverage_permille, line.idle_gpu_ms) == (None, 0, 0)
    assert line.allocated_gpu_ms == 9 * 2 * 3_600_000


@pytest.mark.requirement("costs-2.1")
def test_change_against_the_month_before(world: World, company: Any) -> None:
    october = utc(2026, 10, 10)
    ingest(world, [hold("a", "finance-prod", october, october + 2 * HOUR, 1)], october)
    ingest(world, [hold("b", "finance-prod", DAY, DAY + 5 * HOUR, 1), hold("c", "research-prod", DAY, DAY + HOUR, 1)])
    report = selectors.month_report(None, DAY.date(), company.vp)
    changes = {line.slug: line.change for line in report.lines}
    assert changes == {"finance": Money(Decimal("11.55"), "USD"), "research": None}
    assert report.change == Money(Decimal("15.40"), "USD")


@pytest.mark.requirement("costs-2.6")
def test_ten_queries_at_any_size(world: World, company: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO teams_team (uid, version, updated_at, name, slug, cost_centre, colour, unit_id)"
            " SELECT gen_random_uuid(), 1, now(), 'Team ' || n, 'team-' || n, 'CC', 0, %s"
            " FROM generate_series(1, 120) n",
            [company.unit.pk],
        )
        for table, columns, values in (
            (
                "costs_daycharge",
                "kind, rate_id, quantity_ms, gpu_ms",
                f"'allocated', {world.rate.pk}, 3600000, 3600000",
            ),
            (
                "metering_dayusage",
                "allocated_gpu_ms, used_gpu_ms, measured_gpu_ms, idle_gpu_ms, workloads",
                "3600000, 1800000, 3600000, 0, 1",
            ),
        ):
            cursor.execute(
                f"INSERT INTO {table} (day, cluster_id, team_id, unit_id, cost_centre, team_name,"  # noqa: S608 (own names)
                " unit_name, gpu_model,"
                f" {columns}) SELECT day, %s, t.id, t.unit_id, 'CC', t.name, '', 'A100', {values}"
                " FROM teams_team t, generate_series(date '2026-10-01', date '2026-11-17', interval '1 day') day"
                " WHERE t.slug LIKE 'team-%%'",
                [world.cluster.pk],
            )
    first = date(2026, 10, 1)
    rollups.roll_up(world.cluster.pk, [first + timedelta(days=number) for number in range(48)])
    with assert_queries(10):
        report = selectors.month_report(company.unit, DAY.date(), company.vp)
    assert len(report.lines) == 120
    assert report.total == Money(120 * 17 * Decimal("3.85"), "USD")
    assert len({cell.team_id for cell in report.by_day}) == 11
    assert sum((cell.amount for cell in report.by_day if cell.amount), Money.zero("USD")) == report.total


# ---------------------------------------------------------------- budgets


@pytest.mark.requirement("costs-3.1")
def test_a_budget_counts_until_the_next_one(company: Any) -> None:
    team, actor = company.finance_team, Actor.of(company.finance)
    with clock.frozen(NOW):
        actions.set_budget(team.pk, Decimal("1000.00"), date(2026, 11, 15), actor=actor)
        actions.set_budget(team.pk, Decimal("2500.00"), date(2027, 1, 1), actor=Actor.of(company.vp))
    found = {
        m: selectors.budget_for(team.pk, date(2026 + (m > 12), (m - 1) % 12 + 1, 20)) for m in (10, 11, 12, 13, 14)
    }
    one, two = Money(Decimal("1000.00"), "USD"), Money(Decimal("2500.00"), "USD")
    assert found == {10: None, 11: one, 12: one, 13: two, 14: two}
    assert AuditEvent.objects.filter(action="costs.budget.set").count() == 2


@pytest.mark.requirement("costs-3.1", "costs-3.2")
def test_who_may_set_what(company: Any) -> None:
    team = company.finance_team
    with clock.frozen(NOW):
        for name in ("lead_finance", "member_finance", "vp_other", "admin", "auditor", "compliance"):
            with pytest.raises(NotAllowed):
                actions.set_budget(team.pk, Decimal(1), date(2026, 11, 1), actor=Actor.of(company[name]))
        actor = Actor.of(company.vp)
        for amount, month, currency, field in (
            ("-1", date(2026, 11, 1), "", "amount"),
            ("0.001", date(2026, 11, 1), "", "amount"),
            ("NaN", date(2026, 11, 1), "", "amount"),
            ("1", date(2026, 10, 31), "", "month_from"),
            ("1", date(2026, 11, 1), "EUR", "currency"),
        ):
            with pytest.raises(Invalid) as refused:
                actions.set_budget(team.pk, Decimal(amount), month, actor=actor, currency=currency)
            assert list(refused.value.errors) == [field]
        budget = actions.set_budget(team.pk, Decimal("0"), date(2026, 11, 1), actor=actor, expected_version=0)
        with pytest.raises(Conflict):
            actions.set_budget(team.pk, Decimal("5"), date(2026, 11, 1), actor=actor, expected_version=0)
        actions.set_budget(team.pk, Decimal("5"), date(2026, 11, 1), actor=actor, expected_version=budget.version)
    assert Budget.objects.get().amount == 5


@pytest.mark.requirement("costs-3.3")
def test_budget_remaining_for_policies(world: World, company: Any) -> None:
    team = company.finance_team
    context = FactContext("quotas.request", team.uid, team.pk, company.unit.pk, NOW)
    assert facts.team_budget_remaining(context) is None
    actions.set_budget(team.pk, Decimal("100.00"), date(2026, 11, 1), actor=Actor.of(company.finance))
    assert facts.team_budget_remaining(context) == Decimal("100.00")
    ingest(world, [hold("a", "finance-prod", DAY, DAY + 10 * HOUR, 3)])
    assert facts.team_budget_remaining(context) == Decimal("-15.50")
    assert selectors.month_to_date(team, at=NOW) == Money(Decimal("115.5"), "USD")
