"""The ladder where Kueue hands GPUs out: the workspace's queue is held with the end and opens with the next quota."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.accounts.models import User
from apps.core import clock
from apps.quotas.assess import Extras
from apps.quotas.choices import Rung
from apps.quotas.models import Workspace
from apps.quotas.tasks import climb_ladder, roll_quotas
from tests.quotas.conftest import World
from tests.quotas.test_kueue_baseline import declared, deputy, use_kueue, with_baseline

__all__ = ["deputy"]
pytestmark = pytest.mark.django_db


def queue(world: World) -> str:
    manifests = declared(world.workspaces["finance"].uid)
    return str(next(one for one in manifests if one["kind"] == "ClusterQueue")["spec"]["stopPolicy"])


@pytest.mark.requirement("quota-time-4.1", "quota-time-4.2", "quota-time-2.1")
def test_the_queue_is_held_at_the_end_and_opens_with_the_quota_that_begins(world: World, deputy: User) -> None:
    start = clock.now().replace(microsecond=0)
    with clock.frozen(start):
        use_kueue(world)
        with_baseline(world, deputy)
        world.granted(guaranteed=10, valid_until=start + timedelta(days=5), extras=Extras(serving=2))
        world.granted(guaranteed=6, valid_from=start + timedelta(days=6), valid_until=start + timedelta(days=9))
        assert queue(world) == "None"
        clock.advance(timedelta(days=5))
        roll_quotas.run()
        climb_ladder.run()
        assert queue(world) == "Hold"
        assert Workspace.objects.get(pk=world.workspaces["finance"].pk).rung == Rung.STOPPED_ADMITTING
        clock.advance(timedelta(days=1))
        # In the very generation that raises the limits, not a sweep later.
        roll_quotas.run()
        assert queue(world) == "None"
        climb_ladder.run()
        assert Workspace.objects.get(pk=world.workspaces["finance"].pk).rung == Rung.NONE
        assert climb_ladder.run() == 0
