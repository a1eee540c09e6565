"""A cluster per test, and a small client that speaks to it over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3

from apps.demo.cluster import SimulatedCluster

Obj = dict[str, Any]
APPLY = "application/apply-patch+yaml"


class Client:
    """Requests with a bearer token; returns (status code, decoded body)."""

    def __init__(self, cluster: SimulatedCluster, token: str | None = None) -> None:
        self.cluster = cluster
        self.token = cluster.admin_token if token is None else token
        self.pool = urllib3.PoolManager(ca_certs=str(cluster.ca_file), retries=False, maxsize=8)
        self.last: Any = None

    def request(self, method: str, path: str, body: Any = None, media: str = "application/json", **query: str) -> Any:
        url = f"{self.cluster.url}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": media}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body)
        self.last = self.pool.request(method, url, body=data, headers=headers, timeout=20)
        return self.last.status, self.last.json() if self.last.data[:1] in (b"{", b"[") else self.last.data

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, **query)

    def post(self, path: str, body: Obj, **query: str) -> Any:
        return self.request("POST", path, body, **query)

    def apply(self, path: str, body: Obj, manager: str = "gpu-commons", **query: str) -> Any:
        return self.request("PATCH", path, body, APPLY, fieldManager=manager, **query)

    def close(self) -> None:
        self.pool.clear()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimulatedCluster]:
    with SimulatedCluster(tmp_path / "state") as running:
        yield running


@pytest.fixture
def client(cluster: SimulatedCluster) -> Iterator[Client]:
    made = Client(cluster)
    yield made
    made.close()


@pytest.fixture
def space(client: Client) -> str:
    """A namespace to work in."""
    assert client.apply("/api/v1/namespaces/team", namespace("team"))[0] == 201
    return "/api/v1/namespaces/team"


def namespace(name: str, **labels: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def quota(name: str = "quota", *, scope: Obj | None = None, **hard: str) -> Obj:
    spec: Obj = {"hard": {key.replace("__", "/").replace("_", "."): value for key, value in hard.items()}}
    if scope:
        spec["scopeSelector"] = scope
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec}


def gpu_quota(gpus: str, name: str = "quota", **more: str) -> Obj:
    body = quota(name, **more)
    body["spec"]["hard"]["requests.nvidia.com/gpu"] = gpus
    return body


def pod_spec(gpus: int = 0, seconds: str = "", **resources: Obj) -> Obj:
    amounts = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "restartPolicy": "Never" if seconds else "Always",
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "containers": [{"name": "main", "image": "example/image:1", "resources": {"limits": amounts, **resources}}],
    }


def pod(name: str, gpus: int = 0, seconds: str = "", **resources: Obj) -> Obj:
    notes = {"simulated.gpu-commons.internal/run-seconds": seconds} if seconds else {}
    meta = {"name": name, "annotations": notes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec(gpus, seconds, **resources)}


def job(name: str, gpus: int = 1, parallelism: int = 1, seconds: str = "0.3") -> Obj:
    template = {
        "metadata": {"annotations": {"simulated.gpu-commons.internal/run-seconds": seconds}},
        "spec": pod_spec(gpus, seconds),
    }
    spec = {"parallelism": parallelism, "completions": parallelism, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Wait for a condition to hold and return its value; the test fails when the time is up."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            value = condition()
        except LookupError:  # A status that its controller has not written yet.
            value = None
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout} s in vain")
        time.sleep(0.02)
