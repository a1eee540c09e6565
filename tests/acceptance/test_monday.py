"""Monday, 3 a.m.: Finance trains on everything it may borrow, and Marketing's inference never notices.

What the portal renders is applied to a simulated cluster whose Kueue follows the real one's arithmetic and preemption
(docs/kueue.md); then Finance submits, Marketing scales out, and the owners of what was lent take it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.clusters import kinds
from apps.demo.cluster import KueueOptions, SimulatedCluster
from apps.quotas import kueue_baseline, kueue_rules, priorities
from apps.quotas.kueue import QueueSpec, Share
from apps.quotas.kueue_baseline import CohortSpec, FlavourSpec
from apps.quotas.manifests import Manifest, WorkspaceSpec, workspace_manifests
from tests.demo.cluster.conftest import Client, job, pod, until

GPU, MODEL = "nvidia.com/gpu", "NVIDIA-A100-SXM4-80GB"
LABELS = {"gpu-commons/managed": "true"}
#: team → (environment, guaranteed, borrow, serving); 45 of the simulated cluster's GPUs are promised.
TEAMS = {
    "marketing": ("production", 15, 0, 10),
    "finance": ("staging", 20, 25, 0),
    "research": ("development", 10, 0, 0),
}
QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"


def workspace(team: str, mode: str) -> list[Manifest]:
    environment, guaranteed, borrow, serving = TEAMS[team]
    share = Share("a100-80gb", GPU, guaranteed, guaranteed + borrow, serving=serving)
    spec = WorkspaceSpec(
        namespace=f"{team}-{environment}",
        workspace_uid="00000000-0000-4000-8000-000000000001",
        team_slug=team,
        environment=environment,
        group_prefix="gpu-commons:",
        cpu_cores=1024,
        memory_gib=8192,
        storage_gib=1024,
        pods=200,
        gpus={GPU: share.maximum},
        shares=[share],
        priorities=True,
        queue=QueueSpec("business-lines", mode),
    )
    return workspace_manifests(spec)


def everything(mode: str) -> list[Manifest]:
    flavour = FlavourSpec("a100-80gb", {"nvidia.com/gpu.product": MODEL}, [{"key": GPU, "operator": "Exists"}])
    cohorts = [CohortSpec("example-group"), CohortSpec("business-lines", "example-group")]
    found = priorities.priority_manifests(LABELS, kueue=True)
    found += kueue_baseline.kueue_manifests([flavour], cohorts, LABELS)
    return found + [manifest for team in TEAMS for manifest in workspace(team, mode)]


def restricted(spec: dict[str, Any], priority: str) -> None:
    """Make a pod one that production workspaces take, of this priority."""
    spec["priorityClassName"] = priority
    spec["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec["containers"][0]["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Night:
    """The cluster at night, with what people do on it."""

    def __init__(self, client: Client, mode: str) -> None:
        self.client, self.mode = client, mode
        self.spaces = {team: f"{team}-{values[0]}" for team, values in TEAMS.items()}

    def declare(self) -> None:
        manifests = everything(self.mode)
        assert kueue_rules.check(manifests) == []
        for manifest in sorted(manifests, key=lambda one: kinds.of(one).order):
            kind, meta = kinds.of(manifest), manifest["metadata"]
            place = kind.in_namespace.format(namespace=meta.get("namespace", ""))
            code, answer = self.client.apply(f"{place}/{meta['name']}", manifest)
            assert code in (200, 201), answer

    def serve(self, name: str, gpus: int) -> Any:
        """Start an inference pod of Marketing with production priority; returns the answer."""
        body = pod(name, gpus)
        restricted(body["spec"], priorities.PRODUCTION)
        if self.mode == "pods":
            body["metadata"]["labels"] = {QUEUE: "default", PRIORITY: priorities.PRODUCTION}
        return self.client.post(f"/api/v1/namespaces/{self.spaces['marketing']}/pods", body)

    def train(self, team: str, name: str, gpus: int) -> None:
        body = job(name, 1, parallelism=gpus, seconds="600")  # one GPU a pod, so that nodes are no limit
        body["metadata"]["labels"] = {QUEUE: "default", PRIORITY: priorities.BATCH}
        restricted(body["spec"]["template"]["spec"], priorities.BATCH)
        code, answer = self.client.post(f"/apis/batch/v1/namespaces/{self.spaces[team]}/jobs", body)
        assert code == 201, answer

    def started(self, team: str) -> set[str]:
        """Return the jobs of a team that run now."""
        items = self.client.get(f"/apis/batch/v1/namespaces/{self.spaces[team]}/jobs")[1]["items"]
        return {
            one["metadata"]["name"]
            for one in items
            if not one["spec"].get("suspend")
            and (one.get("status") or {}).get("ready", 0) == one["spec"]["parallelism"]
        }

    def serving(self) -> dict[str, tuple[str, str]]:
        """Return Marketing's inference pods: name → (uid, phase)."""
        items = self.client.get(f"/api/v1/namespaces/{self.spaces['marketing']}/pods")[1]["items"]
        pods = [one for one in items if one["spec"].get("priorityClassName") == priorities.PRODUCTION]
        return {one["metadata"]["name"]: (one["metadata"]["uid"], one["status"]["phase"]) for one in pods}

    def all_serve(self, count: int) -> bool:
        phases = [phase for _, phase in self.serving().values()]
        return phases == ["Running"] * count


@pytest.fixture(params=["jobs", "pods"])
def night(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Night]:
    mode = str(request.param)
    with SimulatedCluster(tmp_path / "state", kueue=KueueOptions(pods=mode == "pods")) as cluster:
        client = Client(cluster)
        made = Night(client, mode)
        made.declare()
        yield made
        client.close()


@pytest.mark.requirement("kueue-2.2", "kueue-2.1")
def test_training_that_borrows_never_evicts_inference(night: Night) -> None:
    for number in range(4):
        assert night.serve(f"inference-{number}", 2)[0] == 201
    until(lambda: night.all_serve(4))
    before = night.serving()

    # Finance fills its own 20 GPUs, then all that idles and is lent: 5 of Marketing's, 10 of Research's.
    for number in range(12):
        night.train("finance", f"train-{number:02d}", 5)
    until(lambda: len(night.started("finance")) == 7)
    assert night.serving() == before

    # Marketing scales out within its serving share. It is never lent, so nobody has to give way for it.
    assert night.serve("inference-4", 2)[0] == 201
    until(lambda: night.all_serve(5))
    assert {name: uid for name, (uid, _) in night.serving().items() if name in before} == {
        name: uid for name, (uid, _) in before.items()
    }
    # Beyond the share production priority ends: production fits in what is guaranteed.
    refused = {"jobs": 10, "pods": 15}[night.mode]
    code, answer = night.serve("too-many", refused - 10 + 1)
    assert code == 403
    assert "exceeded quota" in answer["message"]

    # Research and Marketing want their own back for training: borrowed jobs of Finance give way, nothing else does.
    night.train("research", "own", 10)
    night.train("marketing", "retrain", 5)
    until(lambda: night.started("research") == {"own"} and night.started("marketing") == {"retrain"})
    until(lambda: len(night.started("finance")) == 4)
    assert night.all_serve(5)
    assert {name: uid for name, (uid, _) in night.serving().items() if name in before} == {
        name: uid for name, (uid, _) in before.items()
    }


@pytest.mark.requirement("kueue-2.1")
def test_nobody_outside_of_production_borrows_its_priority(night: Night) -> None:
    body = pod("cheat", 1)
    body["spec"]["priorityClassName"] = priorities.PRODUCTION
    for team in ("finance", "research"):
        code, answer = night.client.post(f"/api/v1/namespaces/{night.spaces[team]}/pods", body)
        assert code == 403
        assert priorities.SCOPED_QUOTA in answer["message"]


@pytest.mark.requirement("kueue-2.2")
def test_who_may_evict_whom_is_declared_for_every_queue(night: Night) -> None:
    rules = [m["spec"]["preemption"] for m in everything(night.mode) if m["kind"] == "ClusterQueue"]
    assert rules == [
        {"reclaimWithinCohort": "Any", "borrowWithinCohort": {"policy": "Never"}, "withinClusterQueue": "LowerPriority"}
    ] * len(TEAMS)
    evicts = {m["metadata"]["name"] for m in everything(night.mode)
              if m["kind"] == "PriorityClass" and m["preemptionPolicy"] != "Never"}  # fmt: skip
    assert evicts == {priorities.PRODUCTION}
