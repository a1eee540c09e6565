"""The observer at ten thousand namespaces, its watches cut every second: how far behind it is, and what it holds.

Against the API server that COMMONS_TEST_KUBECONFIG names, else a simulated cluster in a process of its own. The figure
of memory is this whole process, pytest included; everything made is called `bench-…` and deleted.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from apps.core import clock
from apps.core.actor import Actor
from apps.provisioning.choices import DeclarationKind, DeclarationStatus
from apps.provisioning.manifests import render
from apps.provisioning.models import Declaration, DeclaredObject, Drift, Observation, WatchCursor
from apps.provisioning.observer import Observers
from tests.bench.clusters import client_for, delete_namespaces, kubeconfig_under_test
from tests.cluster.fixtures import namespace, quota

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True), pytest.mark.cluster]

NAMESPACES = int(os.environ.get("COMMONS_BENCH_NAMESPACES", "10000"))
CHANGES = 20
RUN = uuid.uuid4().hex[:6]
BEHIND_SECONDS, RSS_MIB = 5.0, 500.0


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[str]:
    """The cluster under test."""
    with kubeconfig_under_test(tmp_path) as text:
        yield text


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _applied(cluster: Any, names: list[str], client: Any) -> None:
    """Make the namespaces with a quota each, and declare them as applied."""

    def make(name: str) -> None:
        client.apply(namespace(name))
        client.apply(quota(name, 4))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(make, names))
    now = clock.now()
    rows = Declaration.objects.bulk_create(
        [
            Declaration(
                cluster=cluster, kind=DeclarationKind.WORKSPACE, owner_uid=uuid.uuid4(), title=name, generation=1,
                observed_generation=1, status=DeclarationStatus.APPLIED, declared_at=now, applied_at=now,
            )
            for name in names
        ],
        batch_size=1000,
    )  # fmt: skip
    DeclaredObject.objects.bulk_create(
        [
            DeclaredObject(
                declaration=row, cluster=cluster, ordinal=one.ordinal, api_version=one.api_version, kind=one.key.kind,
                namespace=one.key.namespace, name=one.key.name, body=one.body, digest=one.digest, generation=1,
                applied_body=one.body,
            )
            for row in rows
            for one in render([namespace(row.title), quota(row.title, 4)])
        ],
        batch_size=1000,
    )  # fmt: skip


def _await(condition: Any, seconds: float) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - started


def test_ten_thousand_namespaces_with_watches_cut_every_second(kubeconfig: str) -> None:
    """At most five seconds behind, at most 500 MiB, one list per kind."""
    from apps.clusters.actions import register_cluster

    cluster = register_cluster(f"bench-{RUN}", slug=f"bench-{RUN}", kubeconfig=kubeconfig, actor=Actor.system("bench"))
    client = client_for(kubeconfig)
    names = [f"bench-{RUN}-{number}" for number in range(NAMESPACES)]
    observers, stop = Observers(), threading.Event()
    peak = 0.0
    try:
        _applied(cluster, names, client)
        gc.collect()
        before = _rss_mib()
        started = time.monotonic()
        observers.tend()

        def cut() -> None:
            nonlocal peak
            while not stop.wait(1.0):
                peak = max(peak, _rss_mib())
                for observer, _ in list(observers._running.values()):
                    for watcher in list(observer.watchers.values()):
                        watcher.end()

        threading.Thread(target=cut, daemon=True).start()
        seen = Observation.objects.filter(cluster=cluster, missing=False)
        _await(lambda: seen.count() >= 2 * NAMESPACES, 600)
        listed = time.monotonic() - started
        _await(lambda: WatchCursor.objects.filter(cluster=cluster, listed_at__isnull=False).count() == 2, 60)
        behind = []
        for number in range(CHANGES):
            name = names[number * (NAMESPACES // CHANGES)]
            path = f"/api/v1/namespaces/{name}/resourcequotas/gpu-quota"
            client._call(
                "PATCH", path, query=[("fieldManager", "kubectl-edit")],
                body={"spec": {"hard": {"pods": "99"}}}, content_type="application/merge-patch+json",
            )  # fmt: skip
            behind.append(_await(lambda: Drift.objects.filter(namespace=name, live="99").exists(), 30))  # noqa: B023 (awaited here)
            time.sleep(0.3)
        (observer, _) = next(iter(observers._running.values()))
        lists = {kind: watcher.lists for kind, watcher in observer.watchers.items()}
    finally:
        stop.set()
        observers.end()
        connection.close()
        client.close()
        if os.environ.get("COMMONS_TEST_KUBECONFIG"):
            delete_namespaces(kubeconfig, f"bench-{RUN}-", seconds=3600)
    print(f"\n{NAMESPACES} namespaces with a quota each; the first lists were written after {listed:.1f} s")
    middle = sorted(behind)[len(behind) // 2]
    print(f"watches cut every second: drift found after {max(behind):.2f} s at most, {middle:.2f} s in the middle")
    print(f"memory of the process: {peak:.0f} MiB at most ({before:.0f} MiB before); lists made: {lists}")
    print(f"machine: {os.cpu_count()} cores, load {' '.join(f'{x:.1f}' for x in os.getloadavg())}")
    assert max(behind) <= BEHIND_SECONDS
    assert peak <= RSS_MIB
    assert set(lists.values()) == {1}
