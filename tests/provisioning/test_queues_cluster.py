"""Queues of a cluster with Kueue, simulated: what waits is seen at its place, what starts leaves its wait behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.clusters.models import Cluster
from apps.core.testing import settle
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import queues
from apps.provisioning.models import Observation, QueueEntry, QueueWait
from tests.cluster.fixtures import LABELS, client_of, declare, fresh_namespace, namespace, register

pytestmark = [pytest.mark.django_db, pytest.mark.cluster]
API = "kueue.x-k8s.io/v1beta2"
GPU = "nvidia.com/gpu"


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[SimulatedCluster]:
    """A cluster of its own, with Kueue."""
    with SimulatedCluster(tmp_path / "state", kueue=True) as running:
        yield running


def _object(kind: str, name: str, spec: dict[str, Any], ns: str = "") -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "labels": dict(LABELS)}
    if ns:
        meta["namespace"] = ns
    return {"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}


def _queue(ns: str, nominal: int) -> list[dict[str, Any]]:
    """A namespace with its queue, as a workspace declares it."""
    resource = {"name": GPU, "nominalQuota": str(nominal)}
    groups = [{"coveredResources": [GPU], "flavors": [{"name": "a100", "resources": [resource]}]}]
    return [
        namespace(ns),
        _object("ClusterQueue", ns, {"namespaceSelector": {}, "resourceGroups": groups}),
        _object("LocalQueue", "default", {"clusterQueue": ns}, ns),
    ]


def _job(ns: str, name: str, gpus: int) -> dict[str, Any]:
    resources = {"limits": {GPU: str(gpus)}, "requests": {GPU: str(gpus)}}
    container = {"name": "main", "image": "registry.example.com/train:1", "resources": resources}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": ns},
        "spec": {"template": template},
    }  # fmt: skip


def _await(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.1)


@pytest.mark.requirement("feasibility-3.1", "feasibility-3.2", "feasibility-3.5")
def test_what_waits_is_seen_at_its_place_until_it_starts(simulated: SimulatedCluster) -> None:
    cluster: Cluster = register(simulated)
    cluster.kueue_mode = "jobs"
    cluster.capabilities = {"kueue": {"installed": True, "api_versions": ["v1beta2"], "visibility": True}}
    cluster.save()
    ns = fresh_namespace()
    flavour = _object("ResourceFlavor", "a100", {"nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}})
    declare(cluster, [flavour], kind="baseline", owner_uid=cluster.uid, title="Baseline")
    declare(cluster, _queue(ns, 4))
    settle(only=("provisioning.apply_due", "provisioning.observe_clusters"))
    client = client_of(simulated)
    for name in ("first", "second", "third"):
        client.create(_job(ns, name, 3))

    def waiting() -> list[QueueEntry]:
        queues.observe_queues(cluster.pk)
        return list(QueueEntry.objects.filter(namespace=ns).order_by("position_cluster"))

    _await(lambda: len(waiting()) == 2 and QueueWait.objects.count() == 1)
    entries = waiting()
    assert [(one.position_cluster, one.position_local) for one in entries] == [(0, 0), (1, 1)]
    assert {one.reason for one in entries} == {"WaitingForQuota"}
    assert {one.requests[GPU] for one in entries} == {3}
    assert entries[0].cluster_queue == ns
    (wait,) = QueueWait.objects.all()
    assert (wait.cluster_queue, wait.requests) == (ns, {GPU: 3})
    settle(only=("provisioning.apply_due", "provisioning.observe_clusters"))
    status = Observation.objects.get(cluster=cluster, kind="ClusterQueue", name=ns).status
    assert status["pending"] == 2
    assert status["flavours"]["a100"][GPU]["used"] == "3"
    started = next(job["metadata"]["name"] for job in client.list("Job", ns).items if not job["spec"].get("suspend"))
    client.delete("Job", started, ns)
    _await(lambda: len(waiting()) == 1 and QueueWait.objects.count() == 2)
