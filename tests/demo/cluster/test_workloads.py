"""Jobs, Deployments, scheduling, deletion: what people see of their work."""

from __future__ import annotations

from typing import Any

import pytest

from apps.demo.cluster.scheduler import choose, node_state, obstacles, take
from tests.demo.cluster.conftest import Client, gpu_quota, job, namespace, pod, pod_spec, until

PODS = "/api/v1/namespaces/team/pods"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
DEPLOYMENTS = "/apis/apps/v1/namespaces/team/deployments"
QUOTAS = "/api/v1/namespaces/team/resourcequotas"


def items(client: Client, path: str, **query: str) -> list[Any]:
    return list(client.get(path, **query)[1]["items"])


def condition(obj: Any, kind: str) -> Any:
    return next((each for each in obj["status"].get("conditions") or [] if each["type"] == kind), None)


@pytest.mark.requirement("simulated-cluster-4.1")
def test_a_job_runs_and_completes(client: Client, space: str) -> None:
    code, made = client.post(JOBS, job("train", 2, parallelism=2))
    assert (code, made["spec"]["backoffLimit"]) == (201, 6)
    done = until(lambda: condition(client.get(f"{JOBS}/train")[1], "Complete"))
    assert done["status"] == "True"
    status = client.get(f"{JOBS}/train")[1]["status"]
    assert (status["succeeded"], status["active"]) == (2, 0)
    assert status["completionTime"] >= status["startTime"]
    pods = items(client, PODS, labelSelector="job-name=train")
    assert [each["status"]["phase"] for each in pods] == ["Succeeded", "Succeeded"]
    assert all(each["spec"]["nodeName"].startswith("atlas-gpu-") for each in pods)
    assert pods[0]["metadata"]["ownerReferences"][0]["kind"] == "Job"
    client.request("DELETE", f"{JOBS}/train", {"propagationPolicy": "Background"})
    until(lambda: not items(client, PODS))


@pytest.mark.requirement("simulated-cluster-4.1")
def test_a_refused_job_says_why_and_runs_when_quota_comes(client: Client, space: str) -> None:
    client.post(QUOTAS, gpu_quota("1"))
    client.post(JOBS, job("train", 2))
    event = until(lambda: items(client, "/api/v1/namespaces/team/events", fieldSelector="reason=FailedCreate"))[0]
    assert event["type"] == "Warning"
    assert "exceeded quota: quota, requested: requests.nvidia.com/gpu=2" in event["message"]
    assert event["involvedObject"]["name"] == "train"
    client.apply(f"{QUOTAS}/quota", gpu_quota("2"), force="true")
    until(lambda: condition(client.get(f"{JOBS}/train")[1], "Complete"))


@pytest.mark.requirement("simulated-cluster-4.1")
def test_suspended_and_failing_jobs(client: Client, space: str) -> None:
    held = job("held")
    held["spec"]["suspend"] = True
    client.post(JOBS, held)
    until(lambda: condition(client.get(f"{JOBS}/held")[1], "Suspended"))
    assert items(client, PODS) == []
    client.request("PATCH", f"{JOBS}/held", {"spec": {"suspend": False}}, "application/merge-patch+json")
    until(lambda: condition(client.get(f"{JOBS}/held")[1], "Complete"))
    broken = job("broken", seconds="0.1")
    broken["spec"]["backoffLimit"] = 1
    broken["spec"]["template"]["metadata"]["annotations"]["simulated.gpu-commons.internal/exit-code"] = "3"
    client.post(JOBS, broken)
    failed = until(lambda: condition(client.get(f"{JOBS}/broken")[1], "Failed"))
    assert failed["reason"] == "BackoffLimitExceeded"
    pods = items(client, PODS, labelSelector="job-name=broken")
    assert [p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for p in pods] == [3, 3]


def deployment(replicas: int, image: str = "example/a:1", gpus: int = 0) -> Any:
    spec = pod_spec(gpus)
    spec["containers"][0]["image"] = image
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "server"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "server"}},
            "template": {"metadata": {"labels": {"app": "server"}}, "spec": spec},
        },
    }


@pytest.mark.requirement("simulated-cluster-4.1")
def test_a_deployment_scales_rolls_and_reports(client: Client, space: str) -> None:
    path = f"{DEPLOYMENTS}/server"
    client.apply(path, deployment(3))
    until(lambda: client.get(path)[1]["status"].get("readyReplicas") == 3)
    client.apply(path, deployment(1))
    until(lambda: len(items(client, PODS)) == 1)
    generation = client.apply(path, deployment(1, "example/a:2"))[1]["metadata"]["generation"]
    assert generation == 3
    until(lambda: [each["spec"]["containers"][0]["image"] for each in items(client, PODS)] == ["example/a:2"])
    status = until(lambda: _settled(client.get(path)[1], generation))
    assert (status["updatedReplicas"], status["availableReplicas"]) == (1, 1)


def _settled(obj: Any, generation: int) -> Any:
    status = obj["status"]
    return status if status.get("observedGeneration") == generation and status.get("readyReplicas") else None


@pytest.mark.requirement("simulated-cluster-4.1")
def test_a_deployment_shows_what_quota_refused(client: Client, space: str) -> None:
    client.post(QUOTAS, gpu_quota("1"))
    client.apply(f"{DEPLOYMENTS}/server", deployment(2, gpus=1))
    failure = until(lambda: condition(client.get(f"{DEPLOYMENTS}/server")[1], "ReplicaFailure"))
    assert failure["reason"] == "FailedCreate"
    assert "exceeded quota" in failure["message"]


@pytest.mark.requirement("simulated-cluster-4.2")
def test_a_pod_that_fits_nowhere_waits_with_the_schedulers_sentence(client: Client, space: str) -> None:
    client.post(PODS, pod("huge", 9))
    found = until(lambda: condition(client.get(f"{PODS}/huge")[1], "PodScheduled"))
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert found["message"] == (
        "0/9 nodes are available: 9 Insufficient nvidia.com/gpu. preemption: 0/9 nodes are available: "
        "9 Preemption is not helpful for scheduling."
    )
    events = until(lambda: items(client, "/api/v1/namespaces/team/events", fieldSelector="reason=FailedScheduling"))
    assert events[0]["message"] == found["message"]


@pytest.mark.requirement("simulated-cluster-4.2")
def test_waiting_pods_are_bound_when_room_appears(client: Client, space: str) -> None:
    selector = {"kubernetes.io/hostname": "atlas-gpu-07"}
    for name in ("first", "second"):
        body = pod(name, 2)
        body["spec"]["nodeSelector"] = selector
        client.post(PODS, body)
    until(lambda: client.get(f"{PODS}/first")[1]["status"]["phase"] == "Running")
    why = until(lambda: condition(client.get(f"{PODS}/second")[1], "PodScheduled"))["message"]
    assert why == (
        "0/9 nodes are available: 1 Insufficient nvidia.com/gpu, 8 node(s) didn't match Pod's node affinity/selector. "
        "preemption: 0/9 nodes are available: 8 Preemption is not helpful for scheduling, "
        "1 No preemption victims found for incoming pod."
    )
    client.request("DELETE", f"{PODS}/first", {"gracePeriodSeconds": 0})
    until(lambda: client.get(f"{PODS}/second")[1]["status"]["phase"] == "Running")


@pytest.mark.requirement("simulated-cluster-4.2")
def test_nodes_are_never_overcommitted(client: Client, space: str) -> None:
    for number in range(30):
        client.post(PODS, pod(f"p{number}", 3))
    until(lambda: len(items(client, PODS, fieldSelector="status.phase=Running")) == 12)
    held: dict[str, int] = {}
    for each in items(client, PODS, fieldSelector="spec.nodeName!="):
        held[each["spec"]["nodeName"]] = held.get(each["spec"]["nodeName"], 0) + 3
    assert held == {f"atlas-gpu-0{n}": 6 for n in range(1, 7)}


def _node(name: str = "n", gpus: str = "8", **spec: Any) -> Any:
    amounts = {"cpu": "8", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": gpus}
    conditions = [{"type": "Ready", "status": spec.pop("ready", "True")}]
    return {
        "metadata": {"name": name, "labels": {"zone": "a", "memory": "80"}},
        "spec": spec,
        "status": {"allocatable": amounts, "conditions": conditions},
    }


def _affine(key: str, operator: str, *values: str) -> Any:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    needed = {"nodeSelectorTerms": [term]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": needed}}
    return {"spec": {**pod_spec(), "affinity": affinity}}


@pytest.mark.requirement("simulated-cluster-4.2")
@pytest.mark.parametrize(
    ("body", "node", "reason"),
    [
        ({"spec": {}}, _node(unschedulable=True), "node(s) were unschedulable"),
        ({"spec": {}}, _node(ready="False"), "node(s) had untolerated taint {node.kubernetes.io/not-ready: }"),
        (
            {"spec": {"containers": []}},
            _node(taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]),
            "node(s) had untolerated taint {k: v}",
        ),
        (_affine("zone", "NotIn", "a"), _node(), "node(s) didn't match Pod's node affinity/selector"),
        (_affine("memory", "Gt", "80"), _node(), "node(s) didn't match Pod's node affinity/selector"),
        (_affine("memory", "Gt", "40"), _node(), ""),
        (_affine("zone", "Exists"), _node(), ""),
        ({"spec": pod_spec(limits={}, requests={"cpu": "9"})}, _node(), "Insufficient cpu"),
    ],
)
def test_filters(body: Any, node: Any, reason: str) -> None:
    found, _ = obstacles(body, node_state(node))
    assert found == ([reason] if reason else [])


@pytest.mark.requirement("simulated-cluster-4.2")
def test_pods_are_packed_where_least_is_left() -> None:
    states = [node_state(_node("a")), node_state(_node("b"))]
    half = {"spec": pod_spec(requests={"nvidia.com/gpu": "4"})}
    take(states[1], half)
    chosen, _ = choose(half, states)
    assert chosen is states[1]
    assert choose({"spec": pod_spec(1)}, [])[1] == "no nodes available to schedule pods"


@pytest.mark.requirement("simulated-cluster-4.3")
def test_a_namespace_goes_with_its_contents(client: Client, space: str) -> None:
    until(lambda: client.get("/api/v1/namespaces/team/serviceaccounts/default")[0] == 200)
    client.post(PODS, pod("p"))
    client.post(QUOTAS, gpu_quota("1"))
    code, answer = client.request("DELETE", space)
    assert (code, answer["status"]["phase"]) == (200, "Terminating")
    assert client.post(PODS, pod("late"))[0] == 403
    until(lambda: client.get(space)[0] == 404)
    assert client.post("/api/v1/namespaces", namespace("team"))[0] == 201
    assert items(client, PODS) == []
    assert items(client, QUOTAS) == []
    assert client.request("DELETE", "/api/v1/namespaces/default")[0] == 403


@pytest.mark.requirement("simulated-cluster-4.3")
def test_finalizers_hold_a_namespace_back(client: Client, space: str) -> None:
    body = gpu_quota("1")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    client.post(QUOTAS, body)
    client.request("DELETE", space)
    until(lambda: client.get(f"{QUOTAS}/quota")[1]["metadata"].get("deletionTimestamp"))
    code, answer = client.request("DELETE", space)
    assert (code, answer["reason"]) == (409, "Conflict")
    assert client.get(space)[0] == 200
    patch = {"metadata": {"finalizers": None}}
    client.request("PATCH", f"{QUOTAS}/quota", patch, "application/merge-patch+json")
    until(lambda: client.get(space)[0] == 404)


@pytest.mark.requirement("simulated-cluster-4.2")
def test_a_deleted_pod_ends_gracefully_and_frees_its_place(client: Client, space: str) -> None:
    client.post(PODS, pod("p", 8))
    until(lambda: client.get(f"{PODS}/p")[1]["status"]["phase"] == "Running")
    _, answer = client.request("DELETE", f"{PODS}/p")
    assert answer["metadata"]["deletionTimestamp"]
    until(lambda: client.get(f"{PODS}/p")[0] == 404)


def _class(client: Client, name: str, value: int, policy: str = "PreemptLowerPriority") -> None:
    body = {
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
        "preemptionPolicy": policy,
    }  # fmt: skip
    assert client.post("/apis/scheduling.k8s.io/v1/priorityclasses", body)[0] == 201


def _ranked(name: str, gpus: int, klass: str = "") -> Any:
    body = pod(name, gpus)
    body["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "atlas-gpu-01"}
    if klass:
        body["spec"]["priorityClassName"] = klass
    return body


@pytest.mark.requirement("simulated-operations-1.1")
def test_a_pod_of_higher_priority_evicts_the_least_important(client: Client, space: str) -> None:
    _class(client, "production", 1000)
    _class(client, "batch", 10)
    for name, gpus, klass in (("served", 4, "production"), ("low", 2, ""), ("mid", 2, "batch")):
        client.post(PODS, _ranked(name, gpus, klass))
        until(lambda name=name: client.get(f"{PODS}/{name}")[1]["status"]["phase"] == "Running")
    client.post(PODS, _ranked("urgent", 2, "production"))
    until(lambda: client.get(f"{PODS}/urgent")[1]["status"]["phase"] == "Running")
    assert client.get(f"{PODS}/low")[0] == 404
    assert client.get(f"{PODS}/mid")[1]["status"]["phase"] == "Running"
    events = items(client, "/api/v1/namespaces/team/events", fieldSelector="reason=Preempted")
    uid = client.get(f"{PODS}/urgent")[1]["metadata"]["uid"]
    assert [each["message"] for each in events] == [f"Preempted by pod {uid} on node atlas-gpu-01"]
    client.post(PODS, _ranked("peer", 8, "production"))
    until(lambda: condition(client.get(f"{PODS}/peer")[1], "PodScheduled"))
    assert client.get(f"{PODS}/served")[1]["status"]["phase"] == "Running"


@pytest.mark.requirement("simulated-operations-1.1")
def test_a_class_that_never_preempts_waits(client: Client, space: str) -> None:
    _class(client, "patient", 1000, "Never")
    client.post(PODS, _ranked("low", 8))
    until(lambda: client.get(f"{PODS}/low")[1]["status"]["phase"] == "Running")
    client.post(PODS, _ranked("waiting", 2, "patient"))
    until(lambda: condition(client.get(f"{PODS}/waiting")[1], "PodScheduled"))
    assert client.get(f"{PODS}/low")[1]["status"]["phase"] == "Running"


@pytest.mark.requirement("simulated-operations-1.2")
@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ({"scopeName": "PriorityClass", "operator": "In"}, "must be at least one value"),
        ({"scopeName": "PriorityClass", "operator": "Exists", "values": ["x"]}, "must be no value"),
        ({"scopeName": "Nope", "operator": "Exists"}, "unsupported scope"),
        ({"scopeName": "Terminating", "operator": "In", "values": ["x"]}, "must be 'Exists' when scope is any of"),
    ],
)
def test_quota_scopes_are_checked(client: Client, space: str, expression: Any, text: str) -> None:
    body = gpu_quota("1")
    body["spec"]["scopeSelector"] = {"matchExpressions": [expression]}
    code, answer = client.post(QUOTAS, body)
    assert (code, text in answer["message"]) == (422, True)
