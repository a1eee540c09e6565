"""InferenceServices on the simulated cluster: workloads, loading, revisions, stopping."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.demo.cluster import KServeOptions, SimulatedCluster
from apps.demo.cluster.serving.status import Traffic, Workload, model_status, split
from tests.demo.cluster.conftest import Client, Obj, gpu_quota, namespace, until

SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/team/inferenceservices"
PODS = "/api/v1/namespaces/team/pods"
RELEASE = "gpu-commons/release"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedCluster]:
    folder = tmp_path_factory.mktemp("kserve")
    with SimulatedCluster(folder, kserve=KServeOptions(gateway=True), gateway=True) as cluster:
        yield cluster


@pytest.fixture
def team(served: SimulatedCluster) -> Iterator[Client]:
    """A client, with a namespace `team` of this test's own."""
    client = Client(served)
    until(lambda: client.get("/api/v1/namespaces/team")[0] == 404)
    client.apply("/api/v1/namespaces/team", namespace("team"))
    yield client
    served.faults.clear()
    client.request("DELETE", "/api/v1/namespaces/team")
    client.close()


def service(name: str = "scorer", *, uri: str = "s3://models/a", release: str = "r1", **predictor: Any) -> Obj:
    model = {
        "modelFormat": {"name": "triton"}, "storageUri": uri,
        "resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}},
    }  # fmt: skip
    spec = {
        "labels": {RELEASE: release}, "minReplicas": 1, "maxReplicas": 1, "model": model,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "annotations": {"simulated.gpu-commons.internal/load-seconds": "0.2"}, **predictor,
    }  # fmt: skip
    notes = {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "none"}
    meta = {"name": name, "annotations": notes, "labels": {"gpu-commons/endpoint": "e1"}}
    head = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return {**head, "metadata": meta, "spec": {"predictor": spec}}


def status(client: Client, name: str = "scorer") -> Obj:
    found: Obj = client.get(f"{SERVICES}/{name}")[1].get("status") or {}
    return found


def truths(client: Client, name: str = "scorer") -> dict[str, str]:
    return {each["type"]: each["status"] for each in status(client, name).get("conditions") or []}


def state(client: Client, name: str = "scorer") -> str:
    return str((status(client, name).get("modelStatus") or {}).get("transitionStatus", ""))


def pods(client: Client, **labels: str) -> list[Obj]:
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    items: list[Obj] = client.get(PODS, labelSelector=selector)[1]["items"]
    return [each for each in items if not each["metadata"].get("deletionTimestamp")]


@pytest.mark.requirement("simulated-serving-2.1")
def test_a_service_gets_pods_with_its_labels_and_becomes_ready(team: Client) -> None:
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: truths(team).get("Ready") == "True")
    (pod,) = pods(team, **{RELEASE: "r1"})
    assert pod["metadata"]["labels"]["gpu-commons/endpoint"] == "e1"
    assert pod["spec"]["nodeName"]
    assert pod["spec"]["containers"][0]["image"].startswith("kserve/tritonserver")
    found = status(team)
    assert found["modelStatus"]["states"] == {"activeModelState": "Loaded", "targetModelState": "Loaded"}
    assert (found["deploymentMode"], found["url"]) == ("Standard", "http://scorer-team.example.com")
    assert team.get("/api/v1/namespaces/team/services/scorer-predictor")[0] == 200
    runs = team.cluster.meter.runs(*_window(team))
    assert [(run.gpus, dict(run.labels)[RELEASE]) for run in runs if run.namespace == "team"] == [(1, "r1")]


def _window(client: Client) -> Any:
    from datetime import timedelta

    now = client.cluster.clock()
    return now - timedelta(minutes=1), now


@pytest.mark.requirement("simulated-serving-2.1")
def test_quota_refuses_a_service_s_pods_and_says_so(team: Client) -> None:
    team.apply("/api/v1/namespaces/team/resourcequotas/quota", gpu_quota("0"))
    team.apply(f"{SERVICES}/scorer", service())
    row = until(
        lambda: next(
            (each for each in status(team).get("conditions") or [] if "exceeded quota" in each.get("message", "")), None
        )
    )
    assert row["type"] == "PredictorReady"
    assert pods(team) == []
    team.apply("/api/v1/namespaces/team/resourcequotas/quota", gpu_quota("1"))
    until(lambda: truths(team).get("Ready") == "True")


@pytest.mark.requirement("simulated-serving-2.2")
def test_a_load_takes_its_time(team: Client) -> None:
    body = service(annotations={"simulated.gpu-commons.internal/load-seconds": "1.5"})
    team.apply(f"{SERVICES}/scorer", body)
    until(lambda: (status(team).get("modelStatus") or {}).get("states", {}).get("targetModelState") == "Loading")
    assert truths(team)["Ready"] == "False"
    until(lambda: state(team) == "UpToDate")


@pytest.mark.requirement("simulated-serving-2.2", "simulated-serving-4.3")
def test_a_failing_load_blocks_the_new_and_keeps_the_old(team: Client) -> None:
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: state(team) == "UpToDate")
    team.cluster.faults.set("load-fails", match="models/b")
    team.apply(f"{SERVICES}/scorer", service(uri="s3://models/b", release="r2"))
    until(lambda: state(team) == "BlockedByFailedLoad")
    found = status(team)["modelStatus"]
    assert found["lastFailureInfo"]["reason"] == "ModelLoadFailed"
    assert "simulated fault" in found["lastFailureInfo"]["message"]
    assert found["states"] == {"activeModelState": "Loaded", "targetModelState": "FailedToLoad"}
    (old,) = pods(team, **{RELEASE: "r1"})
    assert {each["type"]: each["status"] for each in old["status"]["conditions"]}["Ready"] == "True"
    team.cluster.faults.clear()
    until(lambda: state(team) == "UpToDate")


@pytest.mark.requirement("simulated-serving-2.2")
def test_an_annotation_makes_a_load_fail(team: Client) -> None:
    notes = {
        "simulated.gpu-commons.internal/fail-load": "no such format",
        "simulated.gpu-commons.internal/load-seconds": "0",
    }
    team.apply(f"{SERVICES}/scorer", service(annotations=notes))
    until(lambda: state(team) == "BlockedByFailedLoad")
    assert status(team)["modelStatus"]["lastFailureInfo"]["message"] == "no such format"


@pytest.mark.requirement("simulated-serving-2.4")
def test_stop_takes_pods_away_and_keeps_the_object(team: Client) -> None:
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: truths(team).get("Ready") == "True")
    stopped = service()
    stopped["metadata"]["annotations"]["serving.kserve.io/stop"] = "true"
    team.apply(f"{SERVICES}/scorer", stopped)
    until(lambda: truths(team).get("Stopped") == "True" and not pods(team))
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: truths(team).get("Ready") == "True")


@pytest.mark.requirement("simulated-serving-2.1")
def test_a_service_that_goes_takes_everything_along(team: Client) -> None:
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: truths(team).get("Ready") == "True")
    team.request("DELETE", f"{SERVICES}/scorer")
    until(lambda: not pods(team) and not team.get("/apis/apps/v1/namespaces/team/deployments")[1]["items"])
    assert not team.get("/api/v1/namespaces/team/services")[1]["items"]


@pytest.mark.requirement("simulated-serving-2.1")
def test_old_words_of_the_mode_are_rewritten(team: Client) -> None:
    body = service(minReplicas=0)
    body["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "RawDeployment"
    made = team.post(SERVICES, body)[1]
    assert made["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"


@pytest.mark.requirement("simulated-serving-2.3")
def test_standard_mode_ignores_the_canary_percentage(team: Client) -> None:
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: state(team) == "UpToDate")
    team.apply(f"{SERVICES}/scorer", service(uri="s3://models/b", release="r2", canaryTrafficPercent=10))
    until(lambda: [each["metadata"]["labels"][RELEASE] for each in pods(team)] == ["r2"])
    assert "traffic" not in status(team)["components"]["predictor"]


@pytest.mark.requirement("simulated-serving-2.3")
def test_knative_splits_traffic_between_revisions(team: Client) -> None:
    def asked(uri: str, release: str, **more: Any) -> None:
        body = service(uri=uri, release=release, **more)
        body["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Knative"
        team.apply(f"{SERVICES}/scorer", body)

    def shares() -> dict[str, int]:
        component = (status(team).get("components") or {}).get("predictor") or {}
        return {each["revisionName"][-1]: each["percent"] for each in component.get("traffic") or []}

    def running() -> list[str]:
        return sorted(each["metadata"]["labels"][RELEASE] for each in pods(team))

    asked("s3://models/a", "r1")
    until(lambda: shares() == {"1": 100})
    asked("s3://models/b", "r2", canaryTrafficPercent=10)
    until(lambda: shares() == {"1": 90, "2": 10})
    assert running() == ["r1", "r2"]
    asked("s3://models/b", "r2", canaryTrafficPercent=50)
    until(lambda: shares() == {"1": 50, "2": 50})
    asked("s3://models/b", "r2")
    until(lambda: shares() == {"2": 100} and running() == ["r2"])
    component = status(team)["components"]["predictor"]
    assert component["latestRolledoutRevision"].endswith("00002")
    assert component["previousRolledoutRevision"].endswith("00001")
    asked("s3://models/b", "r2", canaryTrafficPercent=0)
    until(lambda: shares() == {"1": 100} and running() == ["r1"])


@pytest.mark.requirement("simulated-serving-2.3")
@pytest.mark.parametrize(
    ("ready", "percent", "before", "after"),
    [
        (False, 10, Traffic((("a", 100),), "a", ""), Traffic((("a", 100),), "a", "")),
        (True, None, Traffic((), "", ""), Traffic((("b", 100),), "b", "")),
        (True, 10, Traffic((), "", ""), Traffic((("b", 100),), "b", "")),
        (True, 10, Traffic((("a", 100),), "a", ""), Traffic((("b", 10), ("a", 90)), "a", "")),
        (True, 0, Traffic((("b", 10), ("a", 90)), "a", ""), Traffic((("a", 100),), "a", "")),
        (True, 100, Traffic((("b", 10), ("a", 90)), "a", ""), Traffic((("b", 100),), "b", "a")),
        (True, 0, Traffic((("b", 100),), "b", "a"), Traffic((("a", 100),), "b", "a")),
        (True, 0, Traffic((("b", 100),), "b", ""), Traffic((("b", 100),), "b", "")),
    ],
)
def test_how_knative_splits(ready: bool, percent: int | None, before: Traffic, after: Traffic) -> None:
    assert split("b", ready, percent, before) == after


@pytest.mark.requirement("simulated-serving-2.2")
@pytest.mark.parametrize(
    ("work", "transition", "states"),
    [
        (Workload("w", 1, 1), "UpToDate", ("Loaded", "Loaded")),
        (Workload("w", 0, 0), "UpToDate", ("Standby", "Standby")),
        (Workload("w", 1, 0), "InProgress", ("Pending", "Pending")),
        (Workload("w", 1, 0, loading=True, stale_ready=1), "InProgress", ("Loaded", "Loading")),
        (Workload("w", 1, 0, failure="x"), "BlockedByFailedLoad", ("FailedToLoad", "FailedToLoad")),
        (Workload("w", 2, 1, failure="x"), "BlockedByFailedLoad", ("Loaded", "FailedToLoad")),
    ],
)
def test_model_states(work: Workload, transition: str, states: tuple[str, str]) -> None:
    found = model_status(work, "2026-01-01T00:00:00Z")
    assert found["transitionStatus"] == transition
    assert (found["states"]["activeModelState"], found["states"]["targetModelState"]) == states


@pytest.mark.requirement("simulated-serving-2.5")
def test_the_fitting_storage_container_runs_before_the_model(team: Client) -> None:
    container = {"name": "checker", "image": "example/checker@sha256:" + "a" * 64}
    spec = {"container": container, "supportedUriFormats": [{"regex": "^s3://models/"}]}
    head = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterStorageContainer"}
    path = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers/checker"
    team.apply(path, {**head, "metadata": {"name": "checker"}, "spec": spec})
    team.apply(f"{SERVICES}/scorer", service())
    until(lambda: state(team) == "UpToDate")
    (pod,) = pods(team)
    (starter,) = pod["spec"]["initContainers"]
    assert (starter["image"], starter["args"]) == (container["image"], ["s3://models/a", "/mnt/models"])
    (ended,) = pod["status"]["initContainerStatuses"]
    assert ended["state"]["terminated"]["exitCode"] == 0
    team.request("DELETE", path)
    team.apply(f"{SERVICES}/scorer", service(uri="oci://example/model@sha256:" + "b" * 64, release="r2"))
    until(lambda: [each["metadata"]["labels"][RELEASE] for each in pods(team)] == ["r2"])
    (pod,) = pods(team)
    assert [each["name"] for each in pod["spec"]["containers"]] == ["kserve-container", "modelcar"]
    assert "initContainers" not in pod["spec"]


@pytest.mark.requirement("simulated-serving-2.5", "simulated-serving-4.3")
def test_the_verifying_container_leaves_its_verdict_and_refuses_other_bytes(team: Client) -> None:
    path = "metadata.annotations['gpu-commons/files-digest']"
    variable = {"name": "GPU_COMMONS_FILES_DIGEST", "valueFrom": {"fieldRef": {"fieldPath": path}}}
    container = {"name": "storage-initializer", "image": "example/verifier@sha256:" + "a" * 64, "env": [variable]}
    spec = {"container": container, "supportedUriFormats": [{"prefix": "gpu-commons+s3://"}]}
    head = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterStorageContainer"}
    address = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers/verifying"
    team.apply(address, {**head, "metadata": {"name": "verifying"}, "spec": spec})
    digest = "0123456789abcdef" * 4
    notes = {"gpu-commons/files-digest": digest, "simulated.gpu-commons.internal/load-seconds": "0"}
    team.apply(f"{SERVICES}/scorer", service(uri="gpu-commons+s3://models/a", annotations=notes))
    until(lambda: state(team) == "UpToDate")
    told = json.loads(pods(team)[0]["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"])
    assert (told["files"], told["verdict"], told["simulated"]) == (digest, "verified", True)
    team.cluster.faults.set("tampered", match="models/b")
    team.apply(f"{SERVICES}/scorer", service(uri="gpu-commons+s3://models/b", release="r2", annotations=notes))
    until(lambda: state(team) == "BlockedByFailedLoad")
    assert "the files are not the approved ones" in status(team)["modelStatus"]["lastFailureInfo"]["message"]
    team.request("DELETE", address)


@pytest.mark.requirement("simulated-serving-2.1")
def test_everything_stands_again_after_a_restart(tmp_path: Path) -> None:
    for start in range(2):
        with SimulatedCluster(tmp_path, kserve=True) as cluster:
            client = Client(cluster)
            if not start:
                client.apply("/api/v1/namespaces/team", namespace("team"))
                client.apply(f"{SERVICES}/scorer", service())
            until(lambda used=client: truths(used).get("Ready") == "True")
            assert len(pods(client)) == 1
            client.close()
