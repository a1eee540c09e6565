"""Nodes by rules: MIG, time slicing, cordoned, CPU only, elastic groups, and nodes that come later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.demo.cluster import SimulatedCluster
from apps.demo.cluster.history import DEFAULT_FILE, BadRules, parse
from tests.demo.cluster.conftest import Client, namespace, pod, until

H100 = {
    "resource": "nvidia.com/gpu", "product": "NVIDIA-H100-80GB-HBM3", "model": "H100", "memoryMiB": 81559,
    "family": "hopper", "machine": "example-h100",
}  # fmt: skip
SIZE = {"cpu": 64, "memoryGiB": 512}


def history(folder: Path, *more: Any, groups: Any = None) -> Path:
    document = json.loads(DEFAULT_FILE.read_text())
    document["nodes"] += more
    if groups:
        document["nodeGroups"] = groups
    path = folder / "history.json"
    path.write_text(json.dumps(document))
    return path


def node(client: Client, name: str) -> Any:
    return client.get(f"/api/v1/nodes/{name}")[1]


@pytest.mark.requirement("simulated-operations-4.1")
def test_sliced_and_shared_nodes_look_as_feature_discovery_labels_them(tmp_path: Path) -> None:
    mixed = {"strategy": "mixed", "profiles": {"1g.10gb": 14, "3g.40gb": 4}}
    single = {"strategy": "single", "profiles": {"1g.10gb": 56}}
    rows = (
        {"name": "mixed", "gpus": 4, **SIZE, "gpu": H100, "mig": mixed},
        {"name": "single", "gpus": 8, **SIZE, "mig": single},
        {"name": "shared", "gpus": 2, **SIZE, "timeSlicing": {"replicas": 4}},
        {"name": "renamed", "gpus": 2, **SIZE, "timeSlicing": {"replicas": 4, "rename": True}},
        {"name": "away", "gpus": 8, **SIZE, "unschedulable": True},
        {"name": "cpu", "gpus": 0, **SIZE, "labels": {"example.com/class": "standard"}},
    )
    with SimulatedCluster(tmp_path / "state", history_file=history(tmp_path, *rows)) as one:
        client = Client(one)
        found = {name: node(client, name) for name in ("mixed", "single", "shared", "renamed", "away", "cpu")}
        client.close()
    labels = {name: each["metadata"]["labels"] for name, each in found.items()}
    gpus = {
        name: {key: value for key, value in each["status"]["allocatable"].items() if key.startswith("nvidia.com/")}
        for name, each in found.items()
    }
    assert gpus["mixed"] == {"nvidia.com/mig-1g.10gb": "14", "nvidia.com/mig-3g.40gb": "4"}
    assert labels["mixed"]["nvidia.com/mig.strategy"] == "mixed"
    assert labels["mixed"]["nvidia.com/gpu.count"] == "4"
    assert labels["mixed"]["nvidia.com/mig-1g.10gb.count"] == "14"
    assert labels["mixed"]["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert gpus["single"] == {"nvidia.com/gpu": "56"}
    assert labels["single"]["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"
    assert gpus["shared"] == {"nvidia.com/gpu": "8"}
    assert labels["shared"]["nvidia.com/gpu.product"].endswith("-SHARED")
    assert (labels["shared"]["nvidia.com/gpu.replicas"], labels["shared"]["nvidia.com/gpu.count"]) == ("4", "2")
    assert gpus["renamed"] == {"nvidia.com/gpu.shared": "8"}
    assert found["away"]["spec"]["unschedulable"] is True
    assert gpus["cpu"] == {}
    assert labels["cpu"]["example.com/class"] == "standard"


@pytest.mark.requirement("simulated-operations-4.2")
def test_an_elastic_group_grows_after_its_start_time_and_shrinks(tmp_path: Path) -> None:
    group = {
        "name": "cloud", "max": 2, "startSeconds": 0.4, "idleSeconds": 0.4,
        "node": {"gpus": 8, **SIZE, "labels": {"pool": "cloud"}},
    }  # fmt: skip
    with SimulatedCluster(tmp_path / "state", history_file=history(tmp_path, groups=[group])) as one:
        client = Client(one)
        client.apply("/api/v1/namespaces/team", namespace("team"))
        assert node(client, "cloud-01").get("reason") == "NotFound"
        for number in range(3):
            body = pod(f"p{number}", 8)
            body["spec"]["nodeSelector"] = {"pool": "cloud"}
            client.post("/api/v1/namespaces/team/pods", body)
        path = "/api/v1/namespaces/team/pods"

        def running() -> int:
            return len(client.get(path, fieldSelector="status.phase=Running")[1]["items"])

        until(lambda: running() == 2)
        assert node(client, "cloud-03").get("reason") == "NotFound"
        for number in range(3):
            client.request("DELETE", f"{path}/p{number}", {"gracePeriodSeconds": 0})
        until(lambda: node(client, "cloud-01").get("reason") == node(client, "cloud-02").get("reason") == "NotFound")
        client.close()


@pytest.mark.requirement("simulated-operations-4.3")
def test_nodes_that_the_file_gains_come_and_deleted_ones_stay_away(tmp_path: Path) -> None:
    with SimulatedCluster(tmp_path / "state", history_file=history(tmp_path)) as one:
        client = Client(one)
        client.request("DELETE", "/api/v1/nodes/atlas-gpu-07")
        client.close()
    later = history(tmp_path, {"name": "late", "gpus": 4, **SIZE})
    with SimulatedCluster(tmp_path / "state", history_file=later) as one:
        client = Client(one)
        assert node(client, "late")["status"]["allocatable"]["nvidia.com/gpu"] == "4"
        assert node(client, "atlas-gpu-07")["reason"] == "NotFound"
        client.close()


@pytest.mark.requirement("simulated-operations-4.1")
@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"mig": {"strategy": "odd", "profiles": {"1g.10gb": 7}}}, "mig"),
        ({"mig": {"strategy": "single", "profiles": {"1g.10gb": 7, "2g.20gb": 1}}}, "mig"),
        ({"timeSlicing": {}}, "timeSlicing.replicas"),
    ],
)
def test_rules_that_make_no_sense_are_refused(change: Any, place: str) -> None:
    document = json.loads(DEFAULT_FILE.read_text())
    document["nodes"].append({"name": "odd", "gpus": 1, **SIZE, **change})
    with pytest.raises(BadRules, match=place):
        parse(document)
