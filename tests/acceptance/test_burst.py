"""The founding burst: 32 cloud GPUs on 48 hours a week, from a pool that is empty at rest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.clusters import capacity
from apps.clusters.models import Flavour, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.quotas import pool_calendar, selectors
from apps.quotas.assess import Extras
from apps.quotas.models import Quota, QuotaRequest
from apps.quotas.tasks import roll_quotas
from tests.acceptance.world import NOW, World

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("tests")
RESOURCE = "nvidia.com/h100"
WEEKENDS = {"days": [5], "start": "00:00", "minutes": 48 * 60}
NIGHTS = {"days": [0, 1, 2, 3], "start": "18:00", "minutes": 12 * 60}
WEEKS = 3


def elastic(world: World) -> tuple[Pool, Flavour]:
    """A pool of cloud GPUs under a resource name of their own: none at rest, 32 within fifteen minutes."""
    flavour = capacity.create_flavour(
        "H100 in the cloud", slug="h100-cloud", gpu_model="NVIDIA-H100-80GB-HBM3", resource_name=RESOURCE, actor=SYSTEM
    )
    pool = capacity.create_pool(
        world.cluster.pk, flavour.gpu_model, actor=SYSTEM, flavour_ids=[flavour.pk], kind="elastic", max_gpus=32,
        startup_minutes=15,
    )  # fmt: skip
    capacity.set_committable(pool.pk, 32, clock.now(), actor=SYSTEM, reason="Framework agreement")
    settle(only=("clusters.",))
    pool.refresh_from_db()
    return pool, flavour


def hard(world: World, team: str) -> str | None:
    """The limit of the burst's resource in a team's namespace, read from the cluster; None: there is none."""
    found = world.live.list("ResourceQuota", namespace=world.workspace(team).namespace).items
    values = [item["spec"]["hard"].get(f"requests.{RESOURCE}") for item in found]
    return next((value for value in values if value is not None), None)


def ask(world: World, flavour: Flavour, team: str, repeats: dict[str, Any]) -> QuotaRequest:
    """Ask for 32 in every window of the coming weeks and have it approved."""
    request = world.ask(
        team, 32, flavour_id=flavour.pk, extras=Extras(recurrence=repeats), valid_until=NOW + timedelta(weeks=WEEKS)
    )
    return world.approve(world.approve(request), by="admin")


@pytest.mark.requirement("inventory-4.4", "inventory-4.2")
def test_thirty_two_gpus_on_two_days_a_week(world: World) -> None:
    """Granted within what the pool can grow to; 32 inside each window and 0 outside, on the cluster itself."""
    pool, flavour = elastic(world)
    assert (pool.observed_gpus, pool.max_gpus) == (0, 32)
    draft = world.ask("finance", 8)  # an everyday quota beside it, in another pool
    world.approve(draft)
    burst = ask(world, flavour, "finance", WEEKENDS)
    assert burst.status == "scheduled"
    waits = ask(world, flavour, "marketing", WEEKENDS)
    assert waits.status == "waiting_for_capacity"
    nights = ask(world, flavour, "research", NIGHTS)  # other hours: nobody's way
    assert nights.status == "scheduled"
    rows = Quota.objects.filter(request=burst).order_by("valid")
    assert [(row.valid.upper - row.valid.lower) for row in rows] == [timedelta(hours=48)] * WEEKS
    calendar = pool_calendar.read(pool).calendar(days=7 * WEEKS)
    assert {step.committable for step in calendar} == {32}
    assert {step.promised for step in calendar} == {0, 32}
    assert max(step.promised + step.requested for step in calendar) == 64  # whoever waits is seen to ask
    assert selectors.broken_promises(pool) == []
    settle()
    for days, hour, finance, research in (
        (1, 3, "0", "32"),  # Tuesday night
        (4, 21, "0", "0"),  # Friday evening
        (5, 3, "32", "0"),  # Saturday
        (6, 21, "32", "0"),  # Sunday evening
        (7, 3, "0", "0"),  # Monday, after the window
        (12, 3, "32", "0"),  # the Saturday after
    ):
        at = world.stage.advance(NOW.replace(hour=hour) + timedelta(days=days) - clock.now())
        roll_quotas.run()
        settle(only=("quotas.", "provisioning."))
        assert (hard(world, "finance"), hard(world, "research")) == (finance, research), at
    waits.refresh_from_db()
    assert waits.status == "waiting_for_capacity"
    assert selectors.broken_promises(pool) == []
    assert world.hard("finance") == "8"  # the everyday quota was never touched
