"""The sample company's month through the whole line: simulated cluster → allocation API over HTTP → facts → report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from apps.core import clock
from apps.core.actor import Actor
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.costs import selectors
from apps.demo.cluster import SimulatedCluster
from apps.metering import actions
from apps.metering.models import Source
from apps.quotas.models import Workspace
from tests.metering.world import World, guarantee, make_world, utc

MONTH = utc(2026, 9, 1)  # thirty days
NOW = utc(2026, 10, 3, 9)
HISTORY = Path(__file__).resolve().parents[2] / "apps" / "demo" / "cluster" / "history.json"
NAMESPACES = {"finance": "finance-production", "marketing": "marketing-production", "research": "research-development"}


@pytest.fixture
def world(company: Any) -> Iterator[World]:
    world = make_world(company.teams.values(), slug="atlas")
    for slug, namespace in NAMESPACES.items():
        Workspace.objects.filter(pk=world.workspaces[slug].pk).update(namespace=namespace)
    for slug, gpus in (("finance", 20), ("marketing", 15), ("research", 10)):
        guarantee(world, slug, gpus)
    with clock.frozen(NOW):
        yield world


def meter(world: World, directory: Path, history: Path = HISTORY) -> Any:
    def now() -> datetime:
        return NOW

    with SimulatedCluster(directory, clock=now, history_file=history) as cluster:
        Source.objects.filter(pk=world.source.pk).update(url=cluster.allocation_url)
        run = actions.ingest_hours(world.source.pk, MONTH, MONTH + timedelta(days=30), actor=Actor.system("test"))
    assert (run.status, run.error, run.hours_written) == ("succeeded", "", 720)
    return run


def hours(gpu_ms: int) -> Decimal:
    return Decimal(gpu_ms) / MILLISECONDS_PER_HOUR


@pytest.mark.requirement("costs-2.5", "metering-3.4", "metering-1.7")
def test_the_founding_month_comes_out_of_the_clusters_history(world: World, company: Any, tmp_path: Path) -> None:
    run = meter(world, tmp_path / "cluster")
    # An hour first; then windows as long as the answers allow, two requests each.
    assert 4 <= run.requests < 60
    report = selectors.month_report(company.unit, MONTH.date(), company.vp)
    found = {line.slug: (hours(line.allocated_gpu_ms), str(line.amount), f"{line.share:.1%}") for line in report.lines}
    assert found == {
        "finance": (Decimal(5760), "22,176.00 USD", "31.6%"),
        "marketing": (Decimal(3840), "14,784.00 USD", "21.1%"),
        "research": (Decimal(8640), "33,264.00 USD", "47.4%"),
    }
    assert report.total == Money(Decimal("70224.00"), "USD")
    research = next(line for line in report.lines if line.slug == "research")
    assert f"{research.idle_share:.2f}" == "0.35"
    assert (hours(report.unallocated_gpu_ms), report.unallocated_total) == (
        17_760,
        Money(Decimal("68376.00"), "USD"),
    )
    assert {line.kind for line in report.unallocated} == {"reserved_unused", "unsold"}


@pytest.mark.requirement("costs-2.5")
def test_another_history_gives_other_numbers(world: World, company: Any, tmp_path: Path) -> None:
    changed = json.loads(HISTORY.read_text())
    changed["workloads"] = [item for item in changed["workloads"] if item["namespace"] != "finance-production"]
    (tmp_path / "history.json").write_text(json.dumps(changed))
    meter(world, tmp_path / "cluster", tmp_path / "history.json")
    report = selectors.month_report(company.unit, MONTH.date(), company.vp)
    assert report.total == Money(Decimal("48048.00"), "USD")
    assert hours(report.unallocated_gpu_ms) == 17_760 + 5_760
