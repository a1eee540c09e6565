"""A thousand workspaces of five objects: what the portal adds to the time that the API server itself needs.

Measured against the API server that COMMONS_TEST_KUBECONFIG names (rights to make namespaces), else a simulated cluster
in a process of its own. The floor is a bare keep-alive PATCH of the same bodies at the same number in flight; both are
measured in turns, so that other work on the machine hits them alike. Everything made is called `bench-…` and deleted.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3
from django.db import connection, transaction

from apps.clusters import kinds, kubeconfigs
from apps.core.actor import Actor
from apps.provisioning import actions, running
from apps.provisioning.choices import DeclarationStatus
from apps.provisioning.manifests import render
from apps.provisioning.models import ApplyRun, Declaration
from tests.bench.clusters import delete_namespaces, kubeconfig_under_test
from tests.cluster.fixtures import workspace

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True), pytest.mark.cluster]

WORKSPACES = int(os.environ.get("COMMONS_BENCH_WORKSPACES", "1000"))
ROUNDS = 4
LANES = running.LANES
RUN = uuid.uuid4().hex[:6]
APPLY_FACTOR, RECONCILE_FACTOR, RECONCILE_CPU_SECONDS = 1.3, 5.0, 3.0


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[str]:
    """The cluster under test."""
    with kubeconfig_under_test(tmp_path) as text:
        yield text


def _register(text: str) -> Any:
    from apps.clusters.actions import register_cluster

    return register_cluster(f"bench-{RUN}", slug=f"bench-{RUN}", kubeconfig=text, actor=Actor.system("bench"))


def _declare(cluster: Any, ns: str, gpus: int = 8) -> Declaration:
    with transaction.atomic():
        return actions.declare(
            cluster.pk, "workspace", uuid.uuid4(), ns, None, workspace(ns, gpus), grant_uid=None,
            actor=Actor.system("bench"),
        )  # fmt: skip


class Floor:
    """Bare requests: one keep-alive connection per lane, prepared bodies, nothing read but the status."""

    def __init__(self, text: str) -> None:
        access = kubeconfigs.read_kubeconfig(text)
        ca = access.ca_certificate or None
        self.pool = urllib3.connectionpool.connection_from_url(
            access.api_url, maxsize=LANES, block=True, retries=False, **({"ca_cert_data": ca} if ca else {})
        )
        self.headers = {
            "Authorization": f"Bearer {access.token}", "Content-Type": "application/apply-patch+yaml",
            "Accept": "application/json",
        }  # fmt: skip

    def apply(self, names: list[str]) -> float:
        """PATCH the objects of every workspace, `LANES` workspaces at once; returns seconds."""
        work = []
        for name in names:
            requests = []
            for one in render(workspace(name)):
                kind = kinds.KINDS[one.key.kind]
                path = f"{kind.in_namespace}/{one.key.name}".replace("{namespace}", one.key.namespace)
                requests.append((f"{path}?fieldManager=gpu-commons&force=false&fieldValidation=Strict", one.body))
            work.append(requests)

        def lane(requests: list[tuple[str, bytes]]) -> None:
            for path, body in requests:
                answer = self.pool.request("PATCH", path, body=body, headers=self.headers)
                assert answer.status in (200, 201), (answer.status, answer.data[:300])

        started = time.monotonic()
        with ThreadPoolExecutor(LANES) as pool:
            list(pool.map(lane, work))
        return time.monotonic() - started

    def lists(self) -> float:
        """LIST the five kinds by label, page by page; returns seconds."""
        started = time.monotonic()
        for name in ("Namespace", "LimitRange", "ResourceQuota", "RoleBinding", "NetworkPolicy"):
            token = ""
            while True:
                query = f"?limit=500&labelSelector={kinds.MANAGED_SELECTOR.replace('/', '%2F').replace('=', '%3D')}"
                answer = self.pool.request(
                    "GET", kinds.KINDS[name].collection + query + (f"&continue={token}" if token else ""),
                    headers=self.headers,
                )  # fmt: skip
                token = (json.loads(answer.data).get("metadata") or {}).get("continue") or ""
                if not token:
                    break
        return time.monotonic() - started


def _drain(cluster: Any) -> None:
    while running.apply_cluster(cluster.pk)[1]:
        pass


def _cpu() -> tuple[float, float]:
    """CPU seconds so far of this process, and of the database's process that serves it (0 where it is elsewhere)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        stat = Path(f"/proc/{cursor.fetchone()[0]}/stat")
    text = stat.read_text() if stat.exists() else ""
    if "(postgres" not in text:
        return time.process_time(), 0.0
    fields = text.rsplit(") ", 1)[1].split()  # proc(5): utime and stime are the 12th and 13th after the name
    return time.process_time(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _apply_ours(cluster: Any, names: list[str]) -> tuple[float, float, float]:
    """Apply workspaces of these names; returns (seconds, CPU seconds of the worker, of its database process)."""
    for name in names:
        _declare(cluster, name)
    started, before = time.monotonic(), _cpu()
    _drain(cluster)
    took, after = time.monotonic() - started, _cpu()
    left = Declaration.objects.exclude(status=DeclarationStatus.APPLIED)
    assert not left.exists(), [(row.title, row.last_error) for row in left[:5]]
    return took, after[0] - before[0], after[1] - before[1]


def _reconcile(cluster: Any) -> tuple[float, float]:
    """Everything once more although nothing has changed; returns (seconds, CPU seconds)."""
    Declaration.objects.filter(cluster=cluster).update(status=DeclarationStatus.APPLYING, observed_generation=0)
    started, cpu = time.monotonic(), time.process_time()
    _drain(cluster)
    return time.monotonic() - started, time.process_time() - cpu


def test_apply_a_thousand_workspaces(kubeconfig: str) -> None:
    """At most 1.3 times the floor; a reconcile without change within 5 times the LISTs and 3 CPU seconds."""
    cluster, floor = _register(kubeconfig), Floor(kubeconfig)
    share = WORKSPACES // ROUNDS
    bare: list[float] = []
    bare_cpu = 0.0
    measured: list[tuple[float, float, float]] = []
    try:
        floor.apply([f"bench-{RUN}-warm"])
        _apply_ours(cluster, [f"bench-{RUN}-warm-ours"])
        for turn in range(ROUNDS):
            bare_cpu -= time.process_time()
            bare.append(floor.apply([f"bench-{RUN}-floor-{turn}-{n}" for n in range(share)]))
            bare_cpu += time.process_time()
            measured.append(_apply_ours(cluster, [f"bench-{RUN}-ours-{turn}-{n}" for n in range(share)]))
        calls = [row for run in ApplyRun.objects.order_by("-pk")[:share] for row in run.results]
        delete_namespaces(kubeconfig, f"bench-{RUN}-floor-", f"bench-{RUN}-warm")
        lists = min(floor.lists() for _ in range(3))
        again = [_reconcile(cluster) for _ in range(3)]
        same = [row for run in ApplyRun.objects.order_by("-pk")[:share] for row in run.results]
    finally:
        delete_namespaces(kubeconfig, f"bench-{RUN}-")
    ours, worker, database = ([one[n] for one in measured] for n in range(3))
    factor = sum(ours) / sum(bare)
    seconds, cpu = (min(pair[n] for pair in again) for n in (0, 1))
    print(f"\n{share * ROUNDS} workspaces × 5 objects, {LANES} in flight, in {ROUNDS} turns each")
    print(f"bare PATCHes: {sum(bare):.1f} s ({', '.join(f'{one:.1f}' for one in bare)})")
    print(f"the portal:   {sum(ours):.1f} s ({', '.join(f'{one:.1f}' for one in ours)}), {factor:.2f} times")
    print(f"CPU: bare PATCHes {bare_cpu:.1f} s; worker {sum(worker):.1f} s, its database process {sum(database):.1f} s")
    print(f"bare LISTs: {lists:.2f} s; reconcile without change: {seconds:.2f} s, {cpu:.2f} s of CPU")
    print(f"machine: {os.cpu_count()} cores, load {' '.join(f'{x:.1f}' for x in os.getloadavg())}")
    assert {row["verb"] for row in calls} == {"apply"}
    assert not same
    assert factor <= APPLY_FACTOR
    assert seconds <= RECONCILE_FACTOR * lists
    assert cpu <= RECONCILE_CPU_SECONDS
