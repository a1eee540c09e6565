"""A priced cluster with metered weeks, and the simulated cluster where workloads are really stopped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from apps.approvals import actions as approvals
from apps.core import clock
from apps.core.actor import Actor
from apps.metering import actions as metering
from tests.cluster.fixtures import simulated, simulator
from tests.factories import Company
from tests.metering.world import FakeAdapter, World, make_world, utc
from tests.quotas.conftest import POLICY

__all__ = ["simulated", "simulator"]

HOUR = timedelta(hours=1)
#: A Wednesday, ten minutes past the hour: 08:00 is the last whole hour.
NOW = utc(2026, 11, 18, 9, 10)
END = utc(2026, 11, 18, 9)
START = END - timedelta(days=14)


@pytest.fixture
def world(company: Company) -> Iterator[World]:
    """One cluster with 50 A100, a price and a workspace per team; the quota policy is published."""
    with clock.frozen(NOW):
        made = make_world(company.teams.values())
        approvals.publish_policy("quota", "Quota", "quotas.request", POLICY, actor=Actor.of(company.admin))
        yield made


def ingest(world: World, holdings: list[Any], start: datetime = START, end: datetime = END, **extra: Any) -> None:
    """Meter a time with these holdings, day by day as the sweep does."""
    adapter = FakeAdapter(holdings, **extra)
    while start < end:
        until = min(start + timedelta(days=1), end)
        metering.ingest_hours(world.source.pk, start, until, actor=Actor.system("test"), adapter=adapter)
        start = until
