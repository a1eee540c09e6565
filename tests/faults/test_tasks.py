"""The same task delivered twice, one after the other and at once: the work is done once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.db import connection, connections

from apps.approvals.models import Grant
from apps.audit.models import AuditEvent
from apps.core.sweeps import registered
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning.models import ApplyRun, Declaration
from apps.provisioning.tasks import apply_cluster, make_plan
from apps.quotas.models import Quota, QuotaRequest
from tests.acceptance.world import Now, Stage, World, counts, fresh, history, without_workloads

pytestmark = pytest.mark.cluster
ONLY = ("provisioning.", "quotas.", "approvals.", "notifications.")


def audited(action: str, uid: Any) -> int:
    return AuditEvent.objects.filter(action=action, object_id=uid).count()


def outcome(world: World, request: QuotaRequest) -> dict[str, Any]:
    declaration = Declaration.objects.get(owner_uid=world.workspace().uid)
    return {
        "status": QuotaRequest.objects.get(pk=request.pk).status,
        "limit": world.hard(),
        "generation": declaration.generation,
        "grants": Grant.objects.count(),
        "quotas": Quota.objects.count(),
        "applied": audited("provisioning.declaration.applied", declaration.uid),
        "granted": audited("quotas.request.granted", request.uid),
        "runs": ApplyRun.objects.filter(declaration=declaration, outcome="succeeded").count(),
    }  # fmt: skip


ONCE = {
    "status": "active", "limit": "8", "generation": 1, "grants": 1, "quotas": 1, "applied": 1, "granted": 1, "runs": 1,
}  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("resilience-4.2")
def test_every_task_delivered_again_changes_nothing(world: World) -> None:
    """After the work is done, each task and each sweep runs twice more; no table gains a row."""
    request = world.ask()
    settle()
    world.approve(request)
    settle()
    assert outcome(world, request) == ONCE
    sent = len(mail.outbox)
    rows = counts()
    for _ in range(2):
        request.refresh_from_db()
        make_plan(request.plan_id)
        apply_cluster(world.cluster.pk)
        for sweep in registered():
            sweep.run()
    assert {table: n for table, n in counts().items() if n != rows[table]} == {}
    assert len(mail.outbox) == sent
    assert outcome(world, request) == ONCE


@pytest.fixture
def standing(transactional_db: None, tmp_path: Path) -> Iterator[World]:
    """The sample company, committed, on the real clock: other threads can see it."""
    with SimulatedCluster(tmp_path / "cluster", history_file=history(without_workloads, tmp_path)) as cluster:
        yield fresh(Stage(cluster, Now(), tmp_path))


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("resilience-4.2")
def test_workers_at_once_do_the_work_once(standing: World) -> None:
    """Four workers get the same messages at the same moment, twice."""
    world = standing
    request = world.ask()
    settle(only=ONLY)
    world.approve(request)
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            start.wait(10)
            for _ in range(2):
                apply_cluster(world.cluster.pk)
                for sweep in registered():
                    if sweep.name.startswith(ONLY):
                        sweep.run()
        except BaseException as error:  # noqa: BLE001 (shown by the assertion below)
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    connection.close()
    assert failures == []
    settle(only=ONLY)
    assert outcome(world, request) == ONCE
    ids = [message.extra_headers["Message-ID"] for message in mail.outbox]
    assert len(ids) == len(set(ids))
