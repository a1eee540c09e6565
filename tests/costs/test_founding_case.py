"""The founding case: fifty A100 at $3.85, three teams, one 30-day month, to the cent (numbers only here)."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from apps.core import clock
from apps.core.actor import Actor
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs import selectors
from apps.metering import actions
from tests.metering.world import FakeAdapter, World, guarantee, hold, make_world, utc

MONTH = utc(2026, 9, 1)  # thirty days
NOW = utc(2026, 10, 3, 9)


def founding_month() -> list[Any]:
    """Finance trains on 30 GPUs for two days each of four weeks; marketing serves and tries; research idles at 35 %."""
    end = MONTH + timedelta(days=30)
    found = []
    for week in range(4):
        start = MONTH + timedelta(days=7 * week + 1)
        found.append(hold(f"fraud-training-{week}", "finance-prod", start, start + timedelta(hours=48), 30, used=0.81))
    found.append(hold("recommendation", "marketing-prod", MONTH, end, 4, used=0.43))
    for day in (0, 3, 4, 5, 6, 10, 11, 12, 13, 17):  # never while finance trains: 30 + 12 + 12 > 50
        start = MONTH + timedelta(days=day, hours=8)
        found.append(hold(f"experiment-{day}", "marketing-prod", start, start + timedelta(hours=12), 8, used=0.66))
    for day in range(30):
        start = MONTH + timedelta(days=day)
        # 12 GPUs around the clock a day make 288; 35 % of them, 100.8 GPU-hours, stand idle.
        busy = start + timedelta(hours=15, minutes=36)
        found.append(hold(f"study-{day}", "research-prod", start, busy, 12, used=0.72))
        idle = start + timedelta(hours=24) - (start + timedelta(hours=15, minutes=36))
        found.append(hold(f"notebook-{day}", "research-prod", busy, busy + idle, 12, used=0.003))
    return found


@pytest.fixture
def world(company: Any) -> World:
    world = make_world(company.teams.values())
    guarantee(world, "finance", 20)
    guarantee(world, "marketing", 15)
    guarantee(world, "research", 10)
    return world


def ingest(world: World, start: datetime, end: datetime, adapter: FakeAdapter) -> Any:
    return actions.ingest_hours(world.source.pk, start, end, actor=Actor.system("test"), adapter=adapter)


def hours(gpu_ms: int) -> Decimal:
    return Decimal(gpu_ms) / MILLISECONDS_PER_HOUR


@pytest.mark.requirement("costs-2.5", "costs-2.1", "costs-1.4", "costs-1.5")
def test_founding_month(company: Any, world: World) -> None:
    with clock.frozen(NOW):
        run = ingest(world, MONTH, MONTH + timedelta(days=30), FakeAdapter(founding_month()))
        assert (run.status, run.hours_written) == ("succeeded", 720)
        report = selectors.month_report(None, MONTH.date(), company.vp)
    lines = {line.slug: line for line in report.lines}
    assert {slug: hours(line.allocated_gpu_ms) for slug, line in lines.items()} == {
        "finance": 5760,
        "marketing": 3840,
        "research": 8640,
    }
    assert {slug: str(line.amount) for slug, line in lines.items()} == {
        "finance": "22,176.00 USD",
        "marketing": "14,784.00 USD",
        "research": "33,264.00 USD",
    }
    assert report.total == Money(Decimal("70224.00"), "USD")
    assert hours(report.allocated_gpu_ms) == 18_240
    assert [f"{lines[s].share:.1%}" for s in ("finance", "marketing", "research")] == ["31.6%", "21.1%", "47.4%"]
    assert f"{lines['research'].idle_share:.2f}" == "0.35"
    assert lines["research"].idle_amount == Money(Decimal("11642.40"), "USD")
    assert hours(report.unallocated_gpu_ms) == 17_760
    assert report.unallocated_total == Money(Decimal("68376.00"), "USD")
    kinds = {line.kind for line in report.unallocated}
    assert kinds == {"reserved_unused", "unsold"}
    owners = {line.owner for line in report.unallocated if line.kind == "reserved_unused"}
    assert owners == {"Finance", "Marketing"}
    assert report.completeness.expected == report.completeness.final == 720
    assert sum((cell.amount for cell in report.by_day if cell.amount), Money.zero("USD")) == report.total


@pytest.mark.requirement("costs-2.5")
def test_another_history_gives_other_numbers(company: Any, world: World) -> None:
    fewer = [holding for holding in founding_month() if holding.name != "fraud-training-3"]
    with clock.frozen(NOW):
        ingest(world, MONTH, MONTH + timedelta(days=30), FakeAdapter(fewer))
        report = selectors.month_report(None, MONTH.date(), company.vp)
    assert report.total == Money(Decimal("70224.00") - 30 * 48 * Decimal("3.85"), "USD")
    assert hours(report.unallocated_gpu_ms) == 17_760 + 30 * 48


@pytest.mark.requirement("costs-2.3")
def test_every_level_adds_up_to_the_one_above(company: Any, world: World) -> None:
    with clock.frozen(NOW):
        ingest(world, MONTH, MONTH + timedelta(days=30), FakeAdapter(founding_month()))
        team = company.research_team
        days = selectors.team_month_days(team, MONTH.date(), company.lead_research)
        assert sum((day.amount for day in days), Money.zero("USD")) == Money(Decimal("33264.00"), "USD")
        day = days[4]
        rows = selectors.day_workloads(team, day.day, company.lead_research, total=day.amount)
        assert sum((row.amount for row in rows), Money.zero("USD")) == day.amount
        assert sum(row.allocated_gpu_ms for row in rows) == day.allocated_gpu_ms
        row = rows[0]
        facts = selectors.workload_hours(
            team,
            day.day,
            company.lead_research,
            workload_name=row.workload_name,
            cluster_id=row.cluster_id,
            namespace=row.namespace,
        )
        assert sum(line.fact.allocated_gpu_ms for line in facts) == row.allocated_gpu_ms
        detail = selectors.fact_detail(facts[0].fact.uid, company.lead_research)
    assert detail.proof is not None
    assert detail.proof.exchanges[0]["query"] == "query"
    assert len(detail.proof.exchanges[0]["sha256"]) == 64
    assert detail.charges[0].rate == world.rate
