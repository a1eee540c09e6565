"""What the portal believes of Kueue's controller: borrow, reclaim, hold, drain, a lowered nominal, the pending list."""

from __future__ import annotations

from typing import Any

import pytest

from apps.clusters.clients.kubernetes import KubernetesClient
from tests.cluster.conftest import await_that, fresh
from tests.cluster.fixtures import namespace
from tests.cluster.helpers import GPU, cluster_queue, job, thing

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("controller")]


class Pool:
    """A cohort with teams in it; every team has a namespace, a ClusterQueue of its name and a LocalQueue."""

    def __init__(self, api: KubernetesClient) -> None:
        self.api = api
        self.flavor, self.cohort = fresh(), fresh()
        api.apply(thing("ResourceFlavor", self.flavor))
        api.apply(thing("Cohort", self.cohort))

    def team(self, nominal: int) -> str:
        name = fresh()
        self.api.apply(namespace(name, **{"kueue.x-k8s.io/managed-namespace": "true"}))
        self.quota(name, nominal)
        self.api.apply(thing("LocalQueue", "default", name, spec={"clusterQueue": name}))
        return name

    def quota(self, name: str, nominal: int, **spec: Any) -> None:
        self.api.apply(cluster_queue(name, self.flavor, str(nominal), cohortName=self.cohort, **spec))

    def submit(self, team: str, name: str, gpus: int) -> None:
        body = job(team, name, gpus)
        body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
        # What a queue does not cover it does not admit, and these cover GPUs only.
        only_gpus = {"requests": {GPU: str(gpus)}, "limits": {GPU: str(gpus)}}
        body["spec"]["template"]["spec"]["containers"][0]["resources"] = only_gpus
        self.api.create(body)

    def suspended(self, team: str, name: str) -> bool:
        return bool(self.api.get("Job", name, team)["spec"].get("suspend"))

    def status(self, team: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get("ClusterQueue", team).get("status") or {}
        return found

    def use(self, team: str) -> tuple[str, str]:
        rows = self.status(team).get("flavorsUsage") or [{"resources": [{}]}]
        row = rows[0]["resources"][0]
        return row.get("total", "0"), row.get("borrowed", "0")


@pytest.fixture
def pool(api: KubernetesClient) -> Pool:
    """A pool of this test's own."""
    return Pool(api)


@pytest.mark.requirement("simulated-kueue-3.1", "simulated-kueue-3.4")
def test_borrowed_quota_goes_back_to_its_owner(pool: Pool) -> None:
    """Jobs start suspended; a borrower is evicted when the owner comes."""
    lender, borrower = pool.team(2), pool.team(1)
    for name in ("one", "two", "three"):
        pool.submit(borrower, name, 1)
        await_that(lambda name=name: not pool.suspended(borrower, name))
    await_that(lambda: pool.use(borrower) == ("3", "2"))
    pool.submit(lender, "mine", 2)
    await_that(lambda: not pool.suspended(lender, "mine"), seconds=60)
    assert sum(pool.suspended(borrower, name) for name in ("one", "two", "three")) == 2
    await_that(lambda: pool.status(borrower).get("pendingWorkloads") == 2)
    await_that(lambda: pool.use(borrower) == ("1", "0"))


@pytest.mark.requirement("simulated-kueue-3.5")
def test_hold_keeps_what_runs_and_drain_stops_it(pool: Pool) -> None:
    """The two steps of the expiry ladder."""
    team = pool.team(2)
    pool.submit(team, "old", 1)
    await_that(lambda: not pool.suspended(team, "old"))
    pool.quota(team, 2, stopPolicy="Hold")
    await_that(lambda: (pool.status(team).get("conditions") or [{}])[0].get("reason") == "Stopped")
    pool.submit(team, "new", 1)
    await_that(lambda: pool.status(team).get("pendingWorkloads") == 1)
    assert pool.suspended(team, "new")
    assert not pool.suspended(team, "old")
    pool.quota(team, 2, stopPolicy="HoldAndDrain")
    await_that(lambda: pool.suspended(team, "old"))
    pool.quota(team, 2, stopPolicy="None")
    await_that(lambda: not pool.suspended(team, "old") and not pool.suspended(team, "new"), seconds=60)


@pytest.mark.requirement("simulated-kueue-3.7")
def test_a_lowered_nominal_evicts_nobody_until_the_owner_comes(pool: Pool) -> None:
    """The excess shows as borrowed, and is reclaimed first thing."""
    shrunk, grown = pool.team(2), pool.team(0)
    pool.submit(shrunk, "w", 2)
    await_that(lambda: not pool.suspended(shrunk, "w"))
    pool.quota(shrunk, 0)
    pool.quota(grown, 2)
    await_that(lambda: pool.use(shrunk) == ("2", "2"))
    assert not pool.suspended(shrunk, "w")
    pool.submit(grown, "mine", 2)
    await_that(lambda: not pool.suspended(grown, "mine"), seconds=60)
    assert pool.suspended(shrunk, "w")


@pytest.mark.requirement("simulated-kueue-3.10")
def test_the_pending_list_counts_from_zero(api: KubernetesClient, served: frozenset[str], pool: Pool) -> None:
    """In the ClusterQueue and in the LocalQueue."""
    if "visibility.kueue.x-k8s.io" not in served:
        pytest.skip("the visibility API is not served on this cluster")
    team = pool.team(0)
    for name in ("one", "two"):
        pool.submit(team, name, 1)
        await_that(lambda: api.list("Job", team).items)
    await_that(lambda: pool.status(team).get("pendingWorkloads") == 2)
    base = "/apis/visibility.kueue.x-k8s.io/v1beta2"
    found = api.get_path(f"{base}/clusterqueues/{{name}}/pendingworkloads", {"name": team})["items"]
    assert [each["positionInClusterQueue"] for each in found] == [0, 1]
    where = {"namespace": team, "name": "default"}
    path = f"{base}/namespaces/{{namespace}}/localqueues/{{name}}/pendingworkloads"
    found = api.get_path(path, where, query=[("limit", "1"), ("offset", "1")])["items"]
    assert [each["positionInLocalQueue"] for each in found] == [1]
