"""The API server under test: the simulated cluster, or the one that COMMONS_TEST_KUBECONFIG names."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.clusters import kubeconfigs
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import NotFound
from tests.cluster.fixtures import simulator

__all__ = ["simulator"]

#: Everything the suite makes is called so; nothing else is touched.
PREFIX = f"gpu-commons-test-{uuid.uuid4().hex[:6]}"


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest) -> Iterator[KubernetesClient]:
    """A client for the cluster under test, with all that the suite made removed afterwards."""
    given = os.environ.get("COMMONS_TEST_KUBECONFIG", "")
    text = Path(given).read_text() if given else request.getfixturevalue("simulator").kubeconfig()
    access = kubeconfigs.read_kubeconfig(text)
    client = KubernetesClient(access.api_url, token=access.token, ca_pem=access.ca_certificate)
    yield client
    for item in client.list("Namespace").items:
        if item["metadata"]["name"].startswith(PREFIX):
            _delete(client, item["metadata"]["name"])
    await_that(
        lambda: not [i for i in client.list("Namespace").items if i["metadata"]["name"].startswith(PREFIX)], seconds=120
    )
    client.close()


def _delete(client: KubernetesClient, name: str) -> None:
    try:
        client.delete("Namespace", name)
    except NotFound:
        return


@pytest.fixture
def space() -> str:
    """The name of a namespace of this test's own; the session removes it."""
    return f"{PREFIX}-{uuid.uuid4().hex[:6]}"


def await_that(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Wait until `condition` gives something; controllers take their time. Fails after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.05)
    return found
