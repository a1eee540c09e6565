"""Kueue over HTTP: its API, and Jobs and Pods that wait, start and give way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.demo.cluster import KueueOptions, SimulatedCluster, schema
from apps.demo.cluster.fields import Type
from apps.demo.cluster.kinds import Kind
from apps.demo.cluster.kueue.units import unsuitable
from tests.demo.cluster.conftest import Client, Obj, job, namespace, pod, until

KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
VISIBLE = "/apis/visibility.kueue.x-k8s.io/v1beta2"
GPU = "nvidia.com/gpu"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SimulatedCluster]:
    with SimulatedCluster(tmp_path / "state", kueue=True) as running:
        yield running


def kueue(kind: str, name: str, spec: Obj | None = None, **more: Any) -> Obj:
    body: Obj = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, **more}
    return body if spec is None else {**body, "spec": spec}


def groups(nominal: str, flavor: str = "a100", **limits: str) -> list[Obj]:
    resource = {"name": GPU, "nominalQuota": nominal, **limits}
    return [{"coveredResources": [GPU], "flavors": [{"name": flavor, "resources": [resource]}]}]


def cluster_queue(name: str, nominal: str, *, limits: Obj | None = None, **spec: Any) -> Obj:
    wanted = {
        "namespaceSelector": {},
        "resourceGroups": groups(nominal, **(limits or {})),
        "preemption": {"reclaimWithinCohort": "Any", "withinClusterQueue": "LowerPriority"},
        **spec,
    }
    return kueue("ClusterQueue", name, wanted)


def put(client: Client, body: Obj, space: str = "", **query: str) -> Any:
    plural = {
        "ResourceFlavor": "resourceflavors", "ClusterQueue": "clusterqueues", "LocalQueue": "localqueues",
        "Cohort": "cohorts", "WorkloadPriorityClass": "workloadpriorityclasses", "Workload": "workloads",
        "Topology": "topologies", "AdmissionCheck": "admissionchecks",
    }[body["kind"]]  # fmt: skip
    scope = f"/namespaces/{space}" if space else ""
    return client.apply(f"{KUEUE}{scope}/{plural}/{body['metadata']['name']}", body, **query)


def team(client: Client, name: str, nominal: str, **spec: Any) -> None:
    """A namespace with its ClusterQueue and LocalQueue `default`."""
    assert client.apply(f"/api/v1/namespaces/{name}", namespace(name))[0] == 201
    assert put(client, cluster_queue(name, nominal, **spec))[0] == 201
    assert put(client, kueue("LocalQueue", "default", {"clusterQueue": name}), name)[0] == 201


@pytest.fixture
def pool(client: Client) -> None:
    """A flavour whose nodes are the A100 nodes."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert put(client, kueue("ResourceFlavor", "a100", {"nodeLabels": labels}))[0] == 201


def submit(client: Client, space: str, name: str, gpus: int, *, klass: str = "", seconds: str = "600") -> None:
    body = job(name, gpus, seconds=seconds)
    if klass:
        body["metadata"]["labels"] = {"kueue.x-k8s.io/priority-class": klass}
    code, answer = client.post(f"/apis/batch/v1/namespaces/{space}/jobs", body)
    assert code == 201, answer


def job_of(client: Client, space: str, name: str) -> Any:
    return client.get(f"/apis/batch/v1/namespaces/{space}/jobs/{name}")[1]


def running(client: Client, space: str, name: str) -> bool:
    found = job_of(client, space, name)
    return not found["spec"].get("suspend") and (found.get("status") or {}).get("ready", 0) > 0


def workload(client: Client, space: str, owner: str) -> Any:
    items = client.get(f"{KUEUE}/namespaces/{space}/workloads")[1]["items"]
    return next((each for each in items if each["metadata"]["ownerReferences"][0]["name"] == owner), None)


def state(client: Client, space: str, owner: str, kind: str) -> Any:
    found = workload(client, space, owner) or {}
    conditions = (found.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {"status": "", "reason": "", "message": ""})


def status_of(client: Client, name: str) -> Any:
    return client.get(f"{KUEUE}/clusterqueues/{name}")[1].get("status") or {}


def use(client: Client, name: str) -> tuple[str, str]:
    row = status_of(client, name)["flavorsUsage"][0]["resources"][0]
    return row["total"], row["borrowed"]


# ---- the API


@pytest.mark.requirement("simulated-kueue-1.1")
def test_without_the_option_there_is_no_kueue(tmp_path: Path) -> None:
    with SimulatedCluster(tmp_path / "plain") as plain:
        client = Client(plain)
        names = [each["name"] for each in client.get("/apis")[1]["groups"]]
        assert not [name for name in names if "kueue" in name or "kserve" in name or "metrics" in name]
        assert client.get(f"{KUEUE}/clusterqueues")[0] == 404
        client.close()


@pytest.mark.requirement("simulated-kueue-1.1")
def test_groups_resources_and_configuration_can_be_discovered(client: Client, cluster: SimulatedCluster) -> None:
    names = [each["name"] for each in client.get("/apis")[1]["groups"]]
    assert {"kueue.x-k8s.io", "visibility.kueue.x-k8s.io"} <= set(names)
    plurals = {each["name"] for each in client.get(KUEUE)[1]["resources"]}
    assert {"clusterqueues/status", "workloads/status", "resourceflavors"} <= plurals
    assert not {"resourceflavors/status", "topologies/status", "workloadpriorityclasses/status"} & plurals
    found = client.get("/api/v1/namespaces/kueue-system/configmaps/kueue-manager-config")[1]
    settings = yaml.safe_load(found["data"]["controller_manager_config.yaml"])
    assert "pod" in settings["integrations"]["frameworks"]
    assert "fairSharing" not in settings


@pytest.mark.requirement("simulated-kueue-1.1")
def test_the_configuration_follows_the_options(tmp_path: Path) -> None:
    selector = {"matchLabels": {"managed-by-kueue": "true"}}
    for options in (KueueOptions(), KueueOptions(pods=False, fair_sharing=True, managed_selector=selector)):
        with SimulatedCluster(tmp_path / "state", kueue=options) as one:
            client = Client(one)
            found = client.get("/api/v1/namespaces/kueue-system/configmaps/kueue-manager-config")[1]
            client.close()
    settings = yaml.safe_load(found["data"]["controller_manager_config.yaml"])
    assert settings["integrations"]["frameworks"] == ["batch/job"]
    assert "fairSharing" in settings
    assert settings["managedJobsNamespaceSelector"] == selector


@pytest.mark.requirement("simulated-kueue-1.2")
def test_defaults_and_quantities_are_those_of_the_definitions(client: Client) -> None:
    code, made = put(client, kueue("ClusterQueue", "q", {"resourceGroups": groups("8000m")}))
    assert code == 201
    assert made["spec"] == {
        "flavorFungibility": {"whenCanBorrow": "MayStopSearch", "whenCanPreempt": "TryNextFlavor"},
        "preemption": {
            "borrowWithinCohort": {"policy": "Never"}, "reclaimWithinCohort": "Never", "withinClusterQueue": "Never"
        },
        "queueingStrategy": "BestEffortFIFO",
        "resourceGroups": groups("8000m"),
        "stopPolicy": "None",
    }  # fmt: skip
    owned = made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
    assert owned == {"f:resourceGroups": {}}
    items = client.get(f"{KUEUE}/clusterqueues")[1]["items"]
    assert items[0]["kind"] == "ClusterQueue", "items of custom resources bear their kind"


@pytest.mark.requirement("simulated-kueue-1.3")
def test_resource_groups_are_one_field_and_checks_are_many(client: Client) -> None:
    checks = {"admissionChecks": [{"name": "one"}]}
    put(client, kueue("ClusterQueue", "q", {"resourceGroups": groups("8"), "admissionChecksStrategy": checks}))
    code, answer = put(client, kueue("ClusterQueue", "q", {"resourceGroups": groups("9")}), manager="other")
    assert (code, answer["reason"]) == (409, "Conflict")
    assert answer["details"]["causes"][0]["field"] == ".spec.resourceGroups"
    more = {"admissionChecksStrategy": {"admissionChecks": [{"name": "two"}]}}
    code, answer = put(client, kueue("ClusterQueue", "q", more), manager="other")
    assert code == 200
    assert [each["name"] for each in answer["spec"]["admissionChecksStrategy"]["admissionChecks"]] == ["one", "two"]


_BAD: list[tuple[Obj, int, str]] = [
    (cluster_queue("q", "8", limits={"borrowingLimit": "2"}), 422, "borrowingLimit must be nil when cohort is empty"),
    (cluster_queue("q", "lots"), 422, "in body should match"),
    (cluster_queue("q", "8", stopPolicy="Nope"), 422, 'supported values: "None", "Hold", "HoldAndDrain"'),
    (
        cluster_queue("q", "8", preemption={"borrowWithinCohort": {"policy": "LowerPriority"}}), 422,
        "reclaimWithinCohort=Never and borrowWithinCohort.Policy!=Never",
    ),
    (cluster_queue("q", "8", cohortName="Bad_Name"), 422, "spec.cohortName in body should match"),
    (cluster_queue("q", "-1"), 403, "must be greater than or equal to 0"),
    (cluster_queue("q", "8", limits={"lendingLimit": "9"}, cohortName="c"), 403, "less than or equal to the nominalQ"),
    (cluster_queue("q", "8", bogus=1), 500, ".spec.bogus: field not declared in schema"),
    (cluster_queue("q", "8", resourceGroups=groups("1") + groups("2")), 403, "Duplicate value"),
    (kueue("ResourceFlavor", "f", {"topologyName": "t"}), 422, "at least one nodeLabel is required"),
    (kueue("ResourceFlavor", "f", {"nodeTaints": [{"key": "a", "effect": "No"}]}), 422, "supported taint effect"),
    (kueue("ResourceFlavor", "f", {"nodeLabels": {str(n): "x" for n in range(9)}}), 422, "must have at most 8 items"),
    (kueue("Topology", "t", {}), 422, "spec.levels: Required value"),
    (kueue("WorkloadPriorityClass", "w", description="x"), 422, "value: Required value"),
    (kueue("AdmissionCheck", "a", {}), 422, "spec.controllerName: Required value"),
]  # fmt: skip


@pytest.mark.requirement("simulated-kueue-1.4")
@pytest.mark.parametrize(("body", "code", "text"), _BAD)
def test_what_the_definitions_and_webhooks_refuse(client: Client, body: Obj, code: int, text: str) -> None:
    got, answer = put(client, body)
    assert (got, text in answer["message"]) == (code, True), answer


@pytest.mark.requirement("simulated-kueue-1.4")
def test_a_local_queue_stays_with_its_cluster_queue(client: Client, space: str) -> None:
    put(client, kueue("LocalQueue", "default", {"clusterQueue": "a"}), "team")
    for force in ("false", "true"):
        code, answer = put(client, kueue("LocalQueue", "default", {"clusterQueue": "b"}), "team", force=force)
        assert (code, answer["reason"]) == (422, "Invalid")
        assert answer["details"]["causes"][0]["message"] == 'Invalid value: "b": field is immutable'


@pytest.mark.requirement("simulated-kueue-1.2")
def test_strategic_merge_is_not_spoken_for_custom_resources(client: Client) -> None:
    put(client, kueue("ClusterQueue", "q", {}))
    path, patch = f"{KUEUE}/clusterqueues/q", {"spec": {"stopPolicy": "Hold"}}
    assert client.request("PATCH", path, patch, "application/strategic-merge-patch+json")[0] == 415
    assert client.request("PATCH", path, patch, "application/merge-patch+json")[0] == 200


# ---- admission


@pytest.mark.requirement("simulated-kueue-3.1", "simulated-kueue-3.2")
def test_a_job_waits_suspended_until_there_is_quota(client: Client, pool: None) -> None:
    team(client, "vision", "2")
    submit(client, "vision", "first", 2)
    made = job_of(client, "vision", "first")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "default"
    until(lambda: running(client, "vision", "first"))
    started = job_of(client, "vision", "first")["spec"]["template"]["spec"]
    assert started["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    submit(client, "vision", "second", 1)
    waiting = until(lambda: state(client, "vision", "second", "QuotaReserved")["reason"] and state(
        client, "vision", "second", "QuotaReserved"
    ))  # fmt: skip
    assert (waiting["status"], waiting["reason"]) == ("False", "WaitingForQuota")
    assert job_of(client, "vision", "second")["spec"]["suspend"] is True
    until(lambda: status_of(client, "vision").get("pendingWorkloads") == 1)
    found = status_of(client, "vision")
    assert (found["admittedWorkloads"], found["reservingWorkloads"]) == (1, 1)
    assert found["flavorsReservation"] == [
        {"name": "a100", "resources": [{"name": GPU, "total": "2", "borrowed": "0"}]}
    ]
    local = client.get(f"{KUEUE}/namespaces/vision/localqueues/default")[1]["status"]
    assert local["flavorsUsage"] == [{"name": "a100", "resources": [{"name": GPU, "total": "2"}]}]
    assert local["conditions"][0]["reason"] == "Ready"
    client.request("DELETE", "/apis/batch/v1/namespaces/vision/jobs/first")
    until(lambda: running(client, "vision", "second"))


@pytest.mark.requirement("simulated-kueue-3.2")
def test_a_job_that_can_never_fit_says_so(client: Client, pool: None) -> None:
    team(client, "vision", "2")
    submit(client, "vision", "huge", 4)
    until(lambda: state(client, "vision", "huge", "QuotaReserved")["reason"] == "ExceedsMaxQuota")


@pytest.mark.requirement("simulated-kueue-3.3")
def test_a_finished_job_frees_its_quota(client: Client, pool: None) -> None:
    team(client, "vision", "1")
    submit(client, "vision", "quick", 1, seconds="0.2")
    until(lambda: state(client, "vision", "quick", "Finished")["status"] == "True")
    until(lambda: use(client, "vision") == ("0", "0"))


@pytest.mark.requirement("simulated-kueue-3.4")
def test_an_owner_reclaims_what_others_borrowed(client: Client, pool: None) -> None:
    put(client, kueue("Cohort", "company", {}))
    team(client, "lender", "4", cohortName="company")
    team(client, "borrower", "2", cohortName="company")
    for number in range(3):
        submit(client, "borrower", f"b{number}", 2)
        until(lambda number=number: running(client, "borrower", f"b{number}"))
    until(lambda: use(client, "borrower") == ("6", "4"))
    submit(client, "lender", "mine", 2)
    until(lambda: running(client, "lender", "mine"))
    evicted = [n for n in range(3) if job_of(client, "borrower", f"b{n}")["spec"]["suspend"]]
    assert len(evicted) == 1
    until(lambda: use(client, "borrower") == ("4", "2"))
    gone = f"b{evicted[0]}"
    assert state(client, "borrower", gone, "Preempted")["reason"] == "InCohortReclamation"
    evicted_by = state(client, "borrower", gone, "Evicted")
    assert (evicted_by["status"], evicted_by["reason"]) == ("True", "Preempted")
    assert "preemptor path: /company/lender; preemptee path: /company/borrower" in evicted_by["message"]
    assert "nodeSelector" not in job_of(client, "borrower", gone)["spec"]["template"]["spec"]
    client.request("DELETE", "/apis/batch/v1/namespaces/lender/jobs/mine")
    until(lambda: running(client, "borrower", gone))
    assert state(client, "borrower", gone, "Evicted")["status"] == "False"


@pytest.mark.requirement("simulated-kueue-3.5")
def test_hold_admits_nothing_new_and_drain_evicts(client: Client, pool: None) -> None:
    team(client, "vision", "4")
    submit(client, "vision", "old", 1)
    until(lambda: running(client, "vision", "old"))
    put(client, cluster_queue("vision", "4", stopPolicy="Hold"))
    until(lambda: status_of(client, "vision")["conditions"][0]["reason"] == "Stopped")
    submit(client, "vision", "new", 1)
    until(lambda: state(client, "vision", "new", "QuotaReserved")["message"] == "ClusterQueue vision is stopped")
    assert running(client, "vision", "old")
    put(client, cluster_queue("vision", "4", stopPolicy="HoldAndDrain"))
    until(lambda: job_of(client, "vision", "old")["spec"]["suspend"])
    until(lambda: state(client, "vision", "old", "Evicted")["reason"] == "ClusterQueueStopped")
    put(client, cluster_queue("vision", "4"))
    until(lambda: running(client, "vision", "old") and running(client, "vision", "new"))


@pytest.mark.requirement("simulated-kueue-3.6")
def test_a_deactivated_workload_is_evicted_and_comes_back(client: Client, pool: None) -> None:
    team(client, "vision", "4")
    submit(client, "vision", "idle", 1)
    until(lambda: running(client, "vision", "idle"))
    name = workload(client, "vision", "idle")["metadata"]["name"]
    body = kueue("Workload", name, {"active": False})
    assert put(client, body, "vision", manager="gpu-commons-idle", force="true")[0] == 200
    until(lambda: job_of(client, "vision", "idle")["spec"]["suspend"])
    until(lambda: state(client, "vision", "idle", "Evicted")["reason"] == "Deactivated")
    until(lambda: status_of(client, "vision")["admittedWorkloads"] == 0)
    put(client, kueue("Workload", name, {"active": True}), "vision", manager="gpu-commons-idle", force="true")
    until(lambda: running(client, "vision", "idle"))


@pytest.mark.requirement("simulated-kueue-3.7")
def test_a_lowered_quota_evicts_nobody_and_shows_as_borrowed(client: Client, pool: None) -> None:
    team(client, "shrunk", "4", cohortName="company")
    submit(client, "shrunk", "w", 4)
    until(lambda: running(client, "shrunk", "w"))
    put(client, cluster_queue("shrunk", "1", cohortName="company"))
    until(lambda: use(client, "shrunk") == ("4", "3"))
    assert running(client, "shrunk", "w")


@pytest.mark.requirement("simulated-kueue-3.8")
def test_reasons_why_a_queue_admits_nothing(client: Client, pool: None) -> None:
    team(client, "vision", "4", resourceGroups=groups("4", "h100"))
    until(lambda: status_of(client, "vision").get("conditions"))
    found = status_of(client, "vision")["conditions"][0]
    assert (found["status"], found["reason"]) == ("False", "FlavorNotFound")
    path = f"{KUEUE}/namespaces/vision/localqueues/default"
    local = until(lambda: (client.get(path)[1].get("status") or {}).get("conditions"))[0]
    assert local["reason"] == "ClusterQueueIsInactive"
    put(client, kueue("ResourceFlavor", "h100", {}))
    until(lambda: status_of(client, "vision")["conditions"][0]["reason"] == "Ready")
    put(client, kueue("ClusterQueue", "vision", {"resourceGroups": groups("4", "h100")}))
    submit(client, "vision", "outside", 1)
    until(
        lambda: "doesn't match ClusterQueue selector" in state(client, "vision", "outside", "QuotaReserved")["message"]
    )


@pytest.mark.requirement("simulated-kueue-2.1")
def test_a_flavour_with_a_topology_takes_only_what_asks_for_a_placement() -> None:
    def asks(**notes: str) -> list[tuple[str, str]]:
        template = {"metadata": {"annotations": notes}, "spec": {}}
        workload = {"spec": {"podSets": [{"name": "main", "count": 1, "template": template}]}}
        return unsuitable(workload, {"a100": {"spec": {"topologyName": "racks"}}}, placed=placed)

    placed = False
    assert asks() == [("a100", 'Flavor "a100" supports only TopologyAwareScheduling')]
    assert asks(**{"kueue.x-k8s.io/podset-required-topology": "rack"}) == []
    placed = True  # all flavours of its queue have one
    assert asks() == []


@pytest.mark.requirement("simulated-kueue-2.2")
def test_what_a_limit_range_will_add_counts(client: Client, pool: None) -> None:
    team(client, "vision", "4")
    limits = {"limits": [{"type": "Container", "default": {GPU: "2"}, "defaultRequest": {GPU: "2"}}]}
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults"}, "spec": limits}
    assert client.apply("/api/v1/namespaces/vision/limitranges/defaults", body)[0] == 201
    submit(client, "vision", "unsaid", 0)
    until(lambda: use(client, "vision") == ("2", "0"))


@pytest.mark.requirement("simulated-kueue-3.9")
def test_pods_are_gated_where_the_integration_is_on(client: Client, pool: None) -> None:
    team(client, "vision", "1")
    pods = "/api/v1/namespaces/vision/pods"
    client.post(pods, pod("one", 1))
    client.post(pods, pod("two", 1))
    until(lambda: client.get(f"{pods}/one")[1]["status"]["phase"] == "Running")
    second = client.get(f"{pods}/two")[1]
    assert second["spec"]["schedulingGates"] == [{"name": "kueue.x-k8s.io/admission"}]
    client.request("DELETE", f"{pods}/one", {"gracePeriodSeconds": 0})
    until(lambda: client.get(f"{pods}/two")[1]["status"]["phase"] == "Running")


@pytest.mark.requirement("simulated-kueue-3.9")
def test_namespaces_outside_the_selector_are_left_alone(tmp_path: Path) -> None:
    options = KueueOptions(managed_selector={"matchLabels": {"managed-by-kueue": "true"}})
    with SimulatedCluster(tmp_path / "state", kueue=options) as one:
        client = Client(one)
        team(client, "vision", "0")
        submit(client, "vision", "free", 1)
        until(lambda: running(client, "vision", "free"))
        client.close()


@pytest.mark.requirement("simulated-kueue-3.10")
def test_pending_workloads_in_order_with_positions(client: Client, pool: None) -> None:
    put(client, kueue("WorkloadPriorityClass", "production", value=100))
    team(client, "vision", "0")
    for number in range(3):
        submit(client, "vision", f"w{number}", 1)
        until(lambda number=number: workload(client, "vision", f"w{number}"))
    submit(client, "vision", "urgent", 1, klass="production")
    until(lambda: workload(client, "vision", "urgent"))
    code, found = client.get(f"{VISIBLE}/clusterqueues/vision/pendingworkloads")
    assert (code, found["kind"]) == (200, "PendingWorkloadsSummary")
    names = [each["metadata"]["ownerReferences"][0]["name"] for each in found["items"]]
    assert names == ["urgent", "w0", "w1", "w2"]
    assert [each["positionInClusterQueue"] for each in found["items"]] == [0, 1, 2, 3]
    assert found["items"][0]["priority"] == 100
    path = f"{VISIBLE}/namespaces/vision/localqueues/default/pendingworkloads"
    page = client.get(path, limit="2", offset="1")[1]["items"]
    assert [each["positionInLocalQueue"] for each in page] == [1, 2]
    assert client.get(f"{VISIBLE}/clusterqueues/none/pendingworkloads")[0] == 404
    assert client.get(path, limit="x")[0] == 400


@pytest.mark.requirement("simulated-kueue-3.5")
def test_a_deleted_queue_waits_for_its_workloads(client: Client, pool: None) -> None:
    team(client, "vision", "1")
    submit(client, "vision", "w", 1)
    until(lambda: running(client, "vision", "w"))
    client.request("DELETE", f"{KUEUE}/clusterqueues/vision")
    until(lambda: status_of(client, "vision")["conditions"][0]["reason"] == "Terminating")
    client.request("DELETE", "/apis/batch/v1/namespaces/vision/jobs/w")
    until(lambda: client.get(f"{KUEUE}/clusterqueues/vision")[0] == 404)


# ---- the definitions


@lru_cache(maxsize=1)
def _definitions() -> dict[str, Any]:
    """Kueue's CustomResourceDefinitions by kind, where the reference material lies beside the checkout."""
    path = Path(__file__).parents[4] / "shared/data/crds/kueue.yaml"
    if not path.exists():
        pytest.skip("Kueue's CustomResourceDefinitions are not beside this checkout")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # four megabytes: ten times faster in C
    documents = [each for each in yaml.load_all(path.read_text(), Loader=loader) if each]
    out = {}
    for each in documents:
        version = next(v for v in each["spec"]["versions"] if v["storage"])
        out[each["spec"]["names"]["kind"]] = version
    return out


def _differences(ours: Type, theirs: Obj, path: str) -> Iterator[str]:
    if ours.shape == "struct":
        names = set(theirs.get("properties", {})) - {"metadata"}
        yield from (f"{path}.{name} is unknown to us" for name in names - set(ours.fields))
        yield from (f"{path}.{name} is our invention" for name in set(ours.fields) - names - {"metadata"})
        for name in names & set(ours.fields):
            yield from _differences(ours.fields[name], theirs["properties"][name], f"{path}.{name}")
    elif ours.shape == "list" and ours.item is not None:
        relation = {"map": "listmap", "set": "set"}.get(theirs.get("x-kubernetes-list-type", "atomic"), "atomic")
        if relation != ours.relation and "resourceGroups" not in path:
            yield f"{path} is {relation}, not {ours.relation}"
        yield from _differences(ours.item, theirs.get("items", {}), f"{path}[]")


@pytest.mark.requirement("simulated-kueue-1.2")
@pytest.mark.parametrize("kind", [each for each in schema.KINDS if each.addon == "kueue"], ids=lambda kind: kind.kind)
def test_fields_are_those_of_the_definitions(kind: Kind) -> None:
    """Below resource groups everything is atomic, whatever the lists in there are called."""
    version = _definitions()[kind.kind]
    assert list(_differences(schema.type_of(kind), version["schema"]["openAPIV3Schema"], kind.kind)) == []
    assert kind.has_status == ("status" in (version.get("subresources") or {}))
