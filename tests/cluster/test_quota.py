"""ResourceQuota: what is admitted, with and without scopes."""

from __future__ import annotations

from typing import Any

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from tests.cluster.conftest import await_that
from tests.cluster.fixtures import namespace, quota
from tests.cluster.helpers import pod

pytestmark = pytest.mark.cluster


def test_the_quota_admits_up_to_its_hard_limit(api: KubernetesClient, space: str) -> None:
    """The next pod is forbidden with the numbers, in a dry run, too; the status tells the use."""
    api.apply(namespace(space))
    api.apply(quota(space, 2))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = api.get("ResourceQuota", "gpu-quota", space).get("status") or {}
        return found

    await_that(lambda: "hard" in status())
    api.create(pod(space, "one", 2))
    await_that(lambda: status().get("used", {}).get("requests.nvidia.com/gpu") == "2")
    for dry_run in (True, False):
        with pytest.raises(errors.Forbidden, match="exceeded quota: gpu-quota"):
            api.create(pod(space, "two", 1), dry_run=dry_run)
    api.apply(quota(space, 1))  # lowering below use is taken
    await_that(lambda: status().get("hard", {}).get("requests.nvidia.com/gpu") == "1")
    assert status()["used"]["requests.nvidia.com/gpu"] == "2"
