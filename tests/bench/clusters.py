"""The API server that a benchmark measures against: a given one, or a simulated cluster in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from apps.clusters import kubeconfigs
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import NotFound
from tests.cluster.fixtures import LABELS


class ClusterProcess:
    """A simulated cluster as a process of its own, so that its work is not in the portal's figures."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "apps.demo.cluster", "--port", "0", "--state", str(folder / "state"),
             "--kubeconfig", str(self.kubeconfig), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 30
        while not self.kubeconfig.exists() or not self.kubeconfig.read_text():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError("the simulated cluster did not start")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)


@contextmanager
def kubeconfig_under_test(folder: Path, *options: str) -> Iterator[str]:
    """The text of the kubeconfig to measure against; `options` are the simulated cluster's."""
    if given := os.environ.get("COMMONS_TEST_KUBECONFIG", ""):
        yield Path(given).read_text()
        return
    process = ClusterProcess(folder, *options)
    try:
        yield process.kubeconfig.read_text()
    finally:
        process.stop()


def client_for(text: str) -> KubernetesClient:
    """A client of our own."""
    access = kubeconfigs.read_kubeconfig(text)
    return KubernetesClient(access.api_url, token=access.token, ca_pem=access.ca_certificate)


def delete_namespaces(text: str, *prefixes: str, seconds: float = 900.0) -> None:
    """Delete the namespaces with these prefixes and wait until they are gone."""
    client = client_for(text)
    until = time.monotonic() + seconds

    def left() -> list[dict]:  # type: ignore[type-arg]  # objects as they come over the wire
        found = client.list("Namespace", label_selector=",".join(f"{k}={v}" for k, v in LABELS.items())).items
        return [item for item in found if item["metadata"]["name"].startswith(prefixes)]

    for item in left():
        if not item["metadata"].get("deletionTimestamp"):
            try:
                client.delete("Namespace", item["metadata"]["name"])
            except NotFound:
                continue
    while left():
        if time.monotonic() > until:
            raise RuntimeError(f"namespaces {prefixes} are not gone after {seconds} s")
        time.sleep(1.0)
    client.close()


__all__ = ["ClusterProcess", "client_for", "delete_namespaces", "kubeconfig_under_test", "urllib3"]
