"""The source of usage is away for hours: unknown meanwhile, never zero, filled afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from apps.core import clock
from apps.core.money import Money
from apps.core.testing import settle
from apps.costs.reporting import MonthReport, month_report
from apps.demo import seed
from apps.metering import actions as metering
from apps.metering import billing
from apps.metering.choices import SourceKind
from apps.metering.models import HourFact, HourStatus, IngestRun, Source
from apps.metering.selectors import completeness
from tests.acceptance.world import NOW, Stage, World, fresh, staged

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
ONLY = ("metering.", "costs.")
#: What the history file lets run at nine o'clock on a Monday: 30 + 4 + 4 + 4 + 4 + 1 + 1 GPUs.
HOURS = 6


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The sample company's own history, so that there is something to meter."""
    with staged(tmp_path) as made, clock.frozen(NOW):
        yield made


@pytest.fixture
def metered(stage: Stage, db: None) -> World:
    """One hour in the books."""
    world = fresh(stage)
    metering.register_source(
        world.cluster.pk, SourceKind.ALLOCATION, "", stage.cluster.allocation_url, NOW, actor=seed.SEEDER
    )
    stage.advance(timedelta(hours=1, minutes=15))
    settle(only=ONLY)
    assert known() == [NOW]
    return world


def known() -> list[datetime]:
    return list(HourStatus.objects.filter(revision__gt=0).order_by("hour").values_list("hour", flat=True))


def report(world: World) -> MonthReport:
    return month_report(None, billing.month_of(NOW), world.user("vp"))


@pytest.mark.requirement("resilience-5.2")
@pytest.mark.parametrize("fault", ["down", "500", "429"])
def test_hours_are_unknown_until_the_source_is_back(metered: World, fault: str) -> None:
    """Every hour missed has a row that says so; no fact, no charge of zero; then all of them are filled."""
    world = metered
    first = report(world)
    world.simulated.faults.set(fault, match="allocation|assets")
    for _ in range(HOURS):
        world.stage.advance(timedelta(hours=1))
        settle(only=ONLY)
    assert known() == [NOW]
    away = completeness(None, NOW, NOW + timedelta(hours=HOURS + 1))
    assert (away.metered, away.open) == (1, HOURS)
    assert not HourFact.objects.filter(hour__gt=NOW).exists()
    shown = report(world)
    assert shown.total == first.total
    assert not shown.completeness.complete
    source = Source.objects.get()
    assert source.failures > 0
    assert source.retry_at is not None
    assert IngestRun.objects.filter(status="failed").exists()
    assert IngestRun.objects.exclude(error="").exists()
    page = world.client("vp").get(f"/reports/monthly/business-lines/{NOW:%Y-%m}/").content.decode()
    assert "incomplete" in page.lower() or "missing" in page.lower() or "not metered" in page.lower()

    world.simulated.faults.clear()
    world.stage.advance(timedelta(hours=2))
    settle(only=ONLY)
    assert known() == [NOW + timedelta(hours=n) for n in range(HOURS + 3)]
    filled = report(world)
    hourly = Decimal("3.85") * 48  # GPUs at work at this time of a Monday with training
    assert first.total is not None
    assert filled.total is not None
    assert filled.total > first.total
    assert filled.total <= Money(hourly * (HOURS + 3), "USD")
    # Had nobody been away, it would stand the same: metering the same hours anew changes nothing.
    metering.request_hours(world.cluster.pk, NOW, NOW + timedelta(hours=HOURS + 3))
    settle(only=ONLY)
    assert report(world).total == filled.total


@pytest.mark.requirement("resilience-4.2")
def test_an_hour_read_twice_is_charged_once(metered: World) -> None:
    """The same task delivered again and again, in its own time and late."""
    before = (HourFact.objects.count(), report(metered).total)
    source = Source.objects.get()
    for _ in range(3):
        metering.ingest_hours(source.pk, NOW, NOW + timedelta(hours=1), actor=seed.SEEDER)
        settle(only=ONLY)
    assert (HourFact.objects.count(), report(metered).total) == before
