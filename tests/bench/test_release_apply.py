"""Decision to applied InferenceService: the last approver's decision until the object is there through the API.

The way measured is the production one: `decide` (lock, rule, grant, rendering, declaration, audit) → its commit → the
nudge that it left → a worker → server-side apply → GET through the API. A thread stands in for the Celery worker, so
the delivery of the message is not in the figure; database, transactions and the API server over TLS are real, all on
this machine: a simulated cluster in a process of its own, with KServe's kinds. Production's policy asks the owner of
the unit; nothing is decided by a rule.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.app.task import Task
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.clusters import crypto, kubeconfigs
from apps.clusters.choices import Health
from apps.clusters.errors import NotFound
from apps.core import clock
from apps.deployments.models import Release
from tests.bench.clusters import client_for, kubeconfig_under_test
from tests.bench.test_apply_latency import Worker
from tests.deployments.world import World, make_world
from tests.factories import make_company

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True), pytest.mark.cluster]

RELEASES, WARM = 20, 2
TARGET_SECONDS = 1.0
ENVIRONMENT = "production"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker that gets the nudges that name a cluster to apply, and no others."""
    made = Worker()

    def apply_async(self: Task[Any, Any], args: Any = None, kwargs: Any = None, **options: Any) -> None:
        if self.name == "provisioning.apply_cluster":
            made.nudges.put(args[0])

    monkeypatch.setattr(Task, "apply_async", apply_async)
    yield made
    made.stop()


def _world(kubeconfig: str) -> World:
    """The world of the deployments' tests, with room for every release, on the cluster under test."""
    access = kubeconfigs.read_kubeconfig(kubeconfig)
    return make_world(
        make_company(), guaranteed=2 * (RELEASES + WARM + 1), api_url=access.api_url,
        ca_certificate=access.ca_certificate, credentials=crypto.encrypt(access.token), health=Health.HEALTHY,
        last_seen_at=clock.now(),
    )  # fmt: skip


def _decided(world: World, release: Release, client: Any) -> tuple[float, float, float]:
    """Approve: seconds until the decision is committed, until the object is there, and of this thread's CPU."""
    namespace = world.workspaces[ENVIRONMENT].namespace
    cpu, began = time.thread_time(), time.monotonic()
    world.approve(release)
    committed, cpu = time.monotonic() - began, time.thread_time() - cpu
    while True:
        try:
            client.get("InferenceService", f"{release.endpoint.name}-r{release.number}", namespace)
            return committed, time.monotonic() - began, cpu
        except NotFound:
            assert time.monotonic() - began < 60, "not there within a minute"
            time.sleep(0.005)


def test_decision_to_inference_service(tmp_path: Path, worker: Worker) -> None:
    """p95 at most one second."""
    with kubeconfig_under_test(tmp_path, "--kserve", "--gateway") as text:
        world, client = _world(text), client_for(text)
        namespace = world.workspaces[ENVIRONMENT].namespace
        client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        committed: list[float] = []
        applied: list[float] = []
        cpu: list[float] = []
        load = os.getloadavg()[0]
        for number in range(WARM + RELEASES):
            release = world.ask(ENVIRONMENT, name=f"bench-{uuid.uuid4().hex[:6]}")
            assert release.status == "in_review"
            figures = _decided(world, release, client)
            if number >= WARM:
                for samples, figure in zip((committed, applied, cpu), figures, strict=True):
                    samples.append(figure)
        release = world.ask(ENVIRONMENT, name="bench-counted")
        with CaptureQueriesContext(connection) as captured:
            world.approve(release)
        client.close()
    p95 = statistics.quantiles(applied, n=20)[-1]
    print(f"\n  decision to InferenceService: p50 {statistics.median(applied) * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms")
    print(
        f"  of it the decision until its commit: p50 {statistics.median(committed) * 1000:.0f} ms, p95"
        f" {statistics.quantiles(committed, n=20)[-1] * 1000:.0f} ms; CPU p50 {statistics.median(cpu) * 1000:.0f} ms,"
        f" {len(captured)} statements"
    )
    print(f"  {platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    assert p95 <= TARGET_SECONDS
