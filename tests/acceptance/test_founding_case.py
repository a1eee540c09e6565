"""The founding case out of the history file: seeded, metered hour by hour over HTTP, priced, reported."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from apps.core import clock
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.testing import settle
from apps.costs import selectors
from apps.costs.reporting import MonthReport, month_report
from apps.demo import seed
from apps.metering import actions as metering
from apps.metering import billing
from apps.metering.models import Source
from tests.acceptance.world import NOW, World, seeded, staged

pytestmark = pytest.mark.django_db
MONTH = date(2026, 9, 1)


def report_of(world: World, days: int = 30) -> MonthReport:
    """Meter the last `days` of September from the cluster's allocation API; return the report as the VP reads it."""
    _, end = billing.month_bounds(MONTH)
    start = end - timedelta(days=days)
    run = metering.ingest_hours(Source.objects.get().pk, start, end, actor=seed.SEEDER)
    assert (run.status, run.error, run.hours_written) == ("succeeded", "", 24 * days)
    settle(only=("costs.",))
    return month_report(None, MONTH, world.user("vp"))


def hours(gpu_ms: int) -> Decimal:
    return Decimal(gpu_ms) / MILLISECONDS_PER_HOUR


def usd(text: str) -> Money:
    return Money(Decimal(text), "USD")


@pytest.mark.requirement("sample-company-1.6", "resilience-1.1")
def test_a_thirty_day_month_is_the_founding_case(tmp_path: Path) -> None:
    """Seeded as the demo is, read over HTTP from the cluster's allocation API, priced by the published card."""
    with clock.frozen(NOW), staged(tmp_path) as stage:
        world = seeded(stage)
        report = report_of(world)
        page = world.client("vp").get("/reports/monthly/business-lines/2026-09/")
        days = selectors.team_month_days(world.workspace().team, MONTH, world.user("finance-lead"))
    lines = {line.slug: line for line in report.lines}
    assert {slug: (hours(line.allocated_gpu_ms), line.amount) for slug, line in lines.items()} == {
        "finance": (5_760, usd("22176.00")),
        "marketing": (3_840, usd("14784.00")),
        "research": (8_640, usd("33264.00")),
    }
    assert (hours(report.allocated_gpu_ms), report.total) == (18_240, usd("70224.00"))
    assert [f"{lines[slug].share:.1%}" for slug in ("finance", "marketing", "research")] == ["31.6%", "21.1%", "47.4%"]
    assert lines["research"].idle_share == Decimal("0.35")
    assert (hours(report.unallocated_gpu_ms), report.unallocated_total) == (17_760, usd("68376.00"))
    by_kind: dict[str, Decimal] = {}
    for line in report.unallocated:
        by_kind[line.kind] = by_kind.get(line.kind, Decimal(0)) + hours(line.gpu_ms)
    assert set(by_kind) == {"reserved_unused", "unsold"}
    assert {line.owner for line in report.unallocated if line.kind == "reserved_unused"} == {
        "Finance", "Marketing", "Research",
    }  # fmt: skip
    assert sum(by_kind.values()) == 17_760
    assert sum((line.amount for line in report.unallocated if line.amount), usd("0")) == usd("68376.00")
    assert report.completeness.metered == report.completeness.expected == 720
    assert page.status_code == 200
    text = page.content.decode()
    for said in ("70,224.00", "22,176.00", "14,784.00", "33,264.00", "68,376.00", "18,240"):
        assert said in text
    assert sum((day.amount for day in days if day.amount), usd("0")) == usd("22176.00")


@pytest.mark.requirement("sample-company-1.7")
@pytest.mark.parametrize(("weeks", "trained"), [(4, 1_440), (3, 0)])
def test_another_history_gives_other_figures(tmp_path: Path, weeks: int, trained: int) -> None:
    """The last three days of the month hold the fourth week's training, or not, as the history file says."""

    def train(rules: dict[str, Any]) -> None:
        training = next(one for one in rules["workloads"] if one["name"] == "fraud-training")
        training["schedule"]["first"] = weeks

    with clock.frozen(NOW), staged(tmp_path, train) as stage:
        world = seeded(stage)
        report = report_of(world, days=3)
    lines = {line.slug: hours(line.allocated_gpu_ms) for line in report.lines if line.allocated_gpu_ms}
    others = {"marketing": Decimal(3 * 128), "research": Decimal(3 * 288)}
    assert lines == ({"finance": Decimal(trained)} if trained else {}) | others
    allocated = 3 * (128 + 288) + trained
    assert report.total == usd("3.85") * allocated
    assert hours(report.unallocated_gpu_ms) == 3 * 24 * 50 - allocated
