"""The API server under test: a simulated cluster with every add-on, or the one that COMMONS_TEST_KUBECONFIG names."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.clusters import errors, kubeconfigs
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import NotFound
from apps.demo.cluster import SimulatedCluster
from tests.cluster.fixtures import LABELS

#: Everything the suite makes is called so; nothing else is touched.
PREFIX = f"gpu-commons-test-{uuid.uuid4().hex[:6]}"
#: Cluster-wide kinds the suite makes, in the order in which they go: what refuses writes first, namespaces before the
#: queues that their workloads are in.
_SWEPT = (
    "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy", "Namespace", "ClusterQueue", "Cohort",
    "ResourceFlavor", "Topology", "AdmissionCheck", "WorkloadPriorityClass", "PriorityClass", "ClusterRoleBinding",
    "ClusterRole", "Node",
)  # fmt: skip


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedCluster]:
    """The simulated cluster of this suite, with every add-on; bookmarks every half second."""
    folder = tmp_path_factory.mktemp("conformance")
    with SimulatedCluster(folder, bookmark_seconds=0.5, kueue=True, kserve=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> str:
    """The kubeconfig of the cluster under test, as text."""
    given = os.environ.get("COMMONS_TEST_KUBECONFIG", "")
    return Path(given).read_text() if given else str(request.getfixturevalue("simulator").kubeconfig())


@pytest.fixture(scope="session")
def api(kubeconfig: str) -> Iterator[KubernetesClient]:
    """A client for the cluster under test, with all that the suite made removed afterwards."""
    yield from _client(kubeconfig)


def _client(text: str) -> Iterator[KubernetesClient]:
    access = kubeconfigs.read_kubeconfig(text)
    client = KubernetesClient(access.api_url, token=access.token, ca_pem=access.ca_certificate)
    yield client
    _sweep(client)
    await_that(lambda: not any(_ours(client, kind) for kind in _SWEPT), seconds=120)
    client.close()


def _ours(client: KubernetesClient, kind: str) -> list[str]:
    try:
        items = client.list(kind).items
    except NotFound:
        return []  # the cluster does not serve the kind
    return [item["metadata"]["name"] for item in items if item["metadata"]["name"].startswith(PREFIX)]


def _sweep(client: KubernetesClient) -> None:
    for kind in _SWEPT:
        for name in _ours(client, kind):
            try:
                client.delete(kind, name)
            except (NotFound, errors.ConflictError):
                continue  # it is going already
        if kind == "Namespace":
            await_that(lambda: not _ours(client, "Namespace"), seconds=120)


@pytest.fixture
def space() -> str:
    """The name of a namespace of this test's own; the session removes it."""
    return fresh()


def fresh() -> str:
    """A name that the session sweeps, for whatever kind."""
    return f"{PREFIX}-{uuid.uuid4().hex[:6]}"


@pytest.fixture(scope="session")
def served(api: KubernetesClient) -> frozenset[str]:
    """The API groups of the cluster under test."""
    return frozenset(group["name"] for group in api.groups()["groups"])


@pytest.fixture
def kueue(served: frozenset[str]) -> None:
    """Only where Kueue's kinds are installed."""
    if "kueue.x-k8s.io" not in served:
        pytest.skip("Kueue's CustomResourceDefinitions are not installed on this cluster")


@pytest.fixture(scope="session")
def kueue_runs(api: KubernetesClient, served: frozenset[str]) -> bool:
    """Whether Kueue's controller is at work: a ClusterQueue gets a status within ten seconds."""
    if "kueue.x-k8s.io" not in served:
        return False
    name = fresh()
    meta = {"name": name, "labels": dict(LABELS)}
    api.apply({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": meta, "spec": {}})
    try:
        await_that(lambda: (api.get("ClusterQueue", name).get("status") or {}).get("conditions"), seconds=10)
    except AssertionError:
        return False
    return True


@pytest.fixture
def controller(kueue: None, kueue_runs: bool) -> None:
    """Only where Kueue's controller runs."""
    if not kueue_runs:
        pytest.skip("Kueue's controller does not run here: a ClusterQueue got no status")


def await_that(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Wait until `condition` gives something; controllers take their time. Fails after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.05)
    return found
