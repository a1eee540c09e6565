"""Namespaces that go, and come again."""

from __future__ import annotations

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.provisioning import planner
from tests.cluster.conftest import await_that
from tests.cluster.fixtures import workspace
from tests.cluster.helpers import run_apply

pytestmark = pytest.mark.cluster


@pytest.mark.requirement("provisioning-3.4")
def test_a_terminating_namespace_is_waited_for_and_made_anew(api: KubernetesClient, space: str) -> None:
    """While it goes, the outcome is an error to be retried; once it is gone, everything is made again."""
    manifests = workspace(space)
    assert run_apply(api, manifests).succeeded
    api.delete("Namespace", space)

    def settled() -> bool:
        outcome = run_apply(api, manifests)
        assert not outcome.stop, outcome.stop
        assert outcome.error is None or isinstance(outcome.error, errors.Terminating | errors.NotFound)
        return outcome.succeeded

    await_that(settled, seconds=90)
    assert planner.is_empty(planner.make(api, manifests))
