"""The end of an approval racing a rollout: whatever comes first, nothing begins after the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections, transaction

from apps.approvals.models import Grant
from apps.core import clock
from apps.core.errors import NotAllowed
from apps.deployments import ending, rollout
from apps.deployments.models import Endpoint, RolloutStep
from tests.deployments.world import World, make_world
from tests.factories import make_company

pytestmark = pytest.mark.django_db(transaction=True)


def _in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001 (handed to the test, which looks at its class)
            found.append(error)
        finally:
            connections.close_all()

    return threading.Thread(target=run), found


def _blocked(count: int) -> bool:
    """Whether so many others wait for a lock that this connection holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        )
        return int(cursor.fetchone()[0]) >= count


def _wait_until_blocked() -> None:
    pause = threading.Event()
    for _ in range(500):
        if _blocked(1):
            return
        pause.wait(0.01)
    raise AssertionError("nobody waits for the lock")


@pytest.mark.requirement("rollouts-4.4")
def test_a_step_that_waits_behind_a_revocation_is_refused_and_one_before_it_is_told() -> None:
    world: World = make_world(make_company())
    first = world.live()
    second = world.load(world.release(version=world.next_version()))
    endpoint_id = second.endpoint_id
    version_grant = Grant.objects.get(scope__manifest=second.version_digest, request__subject_type="catalogue.version")
    step, stepped = _in_thread(lambda: rollout.step(endpoint_id, actor=world.actor()))
    with transaction.atomic():
        Endpoint.objects.locked(endpoint_id)
        step.start()
        _wait_until_blocked()
        Grant.objects.filter(pk=version_grant.pk).update(revoked_at=clock.now(), revoked_reason="A defect was found.")
        ending.on_version_grants_changed([world.workspaces["development"].uid])
    step.join(30)
    assert isinstance(stepped[0], NotAllowed)
    endpoint = Endpoint.objects.get(pk=endpoint_id)
    assert endpoint.traffic == 10
    kinds = list(RolloutStep.objects.filter(release=second).values_list("kind", flat=True))
    assert kinds[-2:] == ["held", "approval_ended"]
    assert endpoint.current_id == first.pk
