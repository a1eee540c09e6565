"""LIST and WATCH: complete, in order, resumable, and 410 instead of a hole."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from apps.clusters import errors, kinds
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.demo.cluster import SimulatedCluster
from tests.cluster.fixtures import client_of, namespace, quota

pytestmark = pytest.mark.cluster


@pytest.mark.requirement("clusters-2.4")
def test_a_list_is_complete_over_many_pages(api: KubernetesClient, space: str) -> None:
    """Items carry their type; the selector is kept from page to page."""
    api.apply(namespace(space))
    for number in range(7):
        api.apply(quota(space, number, name=f"quota-{number}"))
    listing = api.list("ResourceQuota", space, label_selector=kinds.MANAGED_SELECTOR, limit=3)
    assert sorted(item["metadata"]["name"] for item in listing.items) == [f"quota-{n}" for n in range(7)]
    assert {item["kind"] for item in listing.items} == {"ResourceQuota"}
    assert api.list("ResourceQuota", space, label_selector="gpu-commons/managed=no").items == []


@pytest.mark.requirement("clusters-2.5", "provisioning-4.2")
def test_a_watch_resumes_where_it_ended(api: KubernetesClient, space: str) -> None:
    """Nothing is lost between two watches, nothing comes twice."""
    api.apply(namespace(space))
    version = api.list("ResourceQuota", label_selector=kinds.MANAGED_SELECTOR).resource_version

    def next_event(after: str) -> Any:
        stream = api.watch("ResourceQuota", after, label_selector=kinds.MANAGED_SELECTOR, seconds=30)
        for event in stream:
            if event.type != "BOOKMARK" and event.object["metadata"]["namespace"] == space:
                stream.close()
                return event
        raise AssertionError("the watch ended without an event")

    api.apply(quota(space, 1))
    added = next_event(version)
    assert added.type == "ADDED"
    api.apply(quota(space, 2))
    seen = next_event(added.resource_version)
    while seen.object["spec"]["hard"]["requests.nvidia.com/gpu"] != "2":  # the status of the first may come before
        seen = next_event(seen.resource_version)
    assert seen.type == "MODIFIED"
    api.delete("ResourceQuota", "gpu-quota", space)
    while seen.type != "DELETED":
        seen = next_event(seen.resource_version)


@pytest.mark.requirement("clusters-2.5")
def test_a_version_that_is_no_longer_kept_is_gone(api: KubernetesClient, tmp_path: Path) -> None:
    """Never answered with a hole. A real server compacts its first versions in time; the simulated one keeps few."""
    with ExitStack() as stack:
        if real := bool(os.environ.get("COMMONS_TEST_KUBECONFIG")):
            # A server that was started minutes ago may still hold its whole history, and then answers from it.
            first = next(iter(api.watch("Namespace", "1", seconds=1)), None) if _keeps_first_version(api) else None
            if first is not None:
                assert first.type == "ADDED"
                return
        else:
            api = client_of(stack.enter_context(SimulatedCluster(tmp_path, watch_history=3)))
            for number in range(8):
                api.apply(namespace("gone", number=str(number)))
        with pytest.raises((errors.Gone, errors.InvalidObject)):
            list(api.watch("Namespace", "1", seconds=1 if real else 5))


def _keeps_first_version(api: KubernetesClient) -> bool:
    try:
        return next(iter(api.watch("Namespace", "1", seconds=1)), None) is not None
    except (errors.Gone, errors.InvalidObject):
        return False
