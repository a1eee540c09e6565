"""Quota, limits, Pod Security, priorities; who may do what."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import pytest

from apps.demo.cluster import SimulatedCluster
from apps.demo.cluster.auth import Tokens
from apps.demo.cluster.podsecurity import violations
from tests.demo.cluster.conftest import Client, gpu_quota, namespace, pod, pod_spec, quota, until

QUOTAS = "/api/v1/namespaces/team/resourcequotas"
PODS = "/api/v1/namespaces/team/pods"
LIMITS = "/api/v1/namespaces/team/limitranges"


@pytest.mark.requirement("simulated-cluster-3.1")
@pytest.mark.parametrize("dry", ["", "All"])
def test_the_ninth_gpu_is_refused_with_the_real_sentence(client: Client, space: str, dry: str) -> None:
    client.post(QUOTAS, gpu_quota("8"))
    assert client.post(PODS, pod("big", 8))[0] == 201
    code, answer = client.post(PODS, pod("one", 1), dryRun=dry)
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert answer["message"] == (
        'pods "one" is forbidden: exceeded quota: quota, requested: requests.nvidia.com/gpu=1, '
        "used: requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8"
    )


@pytest.mark.requirement("simulated-cluster-3.1")
def test_finished_pods_free_quota_and_use_is_shown(client: Client, space: str) -> None:
    client.post(QUOTAS, gpu_quota("2", pods="2"))
    client.post(PODS, pod("short", 2, seconds="0.2"))
    assert client.get(f"{QUOTAS}/quota")[1]["status"]["used"] == {"pods": "1", "requests.nvidia.com/gpu": "2"}
    until(lambda: client.get(f"{PODS}/short")[1]["status"]["phase"] == "Succeeded")
    until(lambda: client.get(f"{QUOTAS}/quota")[1]["status"]["used"]["requests.nvidia.com/gpu"] == "0")
    assert client.post(PODS, pod("next", 2))[0] == 201


@pytest.mark.requirement("simulated-cluster-3.1")
def test_a_quota_below_use_is_accepted_and_admits_nothing(client: Client, space: str) -> None:
    client.post(QUOTAS, gpu_quota("4"))
    client.post(PODS, pod("running", 4))
    assert client.apply(f"{QUOTAS}/quota", gpu_quota("1"), force="true")[0] == 200
    status = until(lambda: _status_with(client, "1"))
    assert status["used"]["requests.nvidia.com/gpu"] == "4"
    assert client.get(f"{PODS}/running")[0] == 200
    assert client.post(PODS, pod("more", 1))[0] == 403


def _status_with(client: Client, hard: str) -> Any:
    status = client.get(f"{QUOTAS}/quota")[1]["status"]
    return status if status["hard"]["requests.nvidia.com/gpu"] == hard else None


@pytest.mark.requirement("simulated-cluster-3.1")
def test_many_at_once_never_exceed_the_quota(client: Client, space: str) -> None:
    client.post(QUOTAS, gpu_quota("5"))
    codes: list[int] = []

    def create(number: int) -> None:
        mine = Client(client.cluster)
        codes.append(mine.post(PODS, pod(f"p{number}", 1))[0])
        mine.close()

    threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [201] * 5 + [403] * 7
    assert len(client.get(PODS)[1]["items"]) == 5


@pytest.mark.requirement("simulated-cluster-3.2")
def test_bare_and_limit_keys_of_gpus_are_stored_and_never_enforced(client: Client, space: str) -> None:
    body = quota(pods="10")
    body["spec"]["hard"] |= {
        "nvidia.com/gpu": "0",
        "limits.nvidia.com/gpu": "0",
        "requests.nvidia.com/mig-1g.10gb": "1500m",
    }
    assert client.post(QUOTAS, body)[0] == 201
    assert client.post(PODS, pod("p", 8))[0] == 201
    status = until(lambda: client.get(f"{QUOTAS}/quota")[1]["status"])
    assert "nvidia.com/gpu" not in status["used"]


@pytest.mark.requirement("simulated-cluster-3.2")
def test_cpu_and_memory_must_be_stated_where_a_quota_names_them(client: Client, space: str) -> None:
    client.post(QUOTAS, quota(requests_cpu="2", limits_memory="4Gi"))
    _, answer = client.post(PODS, pod("p"))
    assert answer["message"] == (
        'pods "p" is forbidden: failed quota: quota: must specify limits.memory for: main; requests.cpu for: main'
    )
    stated = {"limits": {"cpu": "2", "memory": "1Gi"}}
    assert client.post(PODS, pod("p", **stated))[0] == 201
    _, answer = client.post(PODS, pod("q", **stated))
    assert "requested: requests.cpu=2, used: requests.cpu=2, limited: requests.cpu=2" in answer["message"]


@pytest.mark.requirement("simulated-cluster-3.2")
def test_object_counts_and_priority_scopes(client: Client, space: str) -> None:
    counted = quota("counts")
    counted["spec"]["hard"] = {"count/limitranges": "0"}
    client.post(QUOTAS, counted)
    body = {"metadata": {"name": "l"}, "spec": {"limits": []}}
    assert "exceeded quota: counts, requested: count/limitranges=1" in client.post(LIMITS, body)[1]["message"]
    priority = {"metadata": {"name": "production"}, "value": 1000}
    assert client.post("/apis/scheduling.k8s.io/v1/priorityclasses", priority)[0] == 201
    scope = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["production"]}]}
    client.post(QUOTAS, quota("scoped", scope=scope, pods="0"))
    assert client.post(PODS, pod("plain"))[0] == 201
    urgent = pod("urgent")
    urgent["spec"]["priorityClassName"] = "production"
    assert "exceeded quota: scoped" in client.post(PODS, urgent)[1]["message"]
    urgent["spec"]["priorityClassName"] = "unknown"
    assert "no PriorityClass with name unknown was found" in client.post(PODS, urgent)[1]["message"]


@pytest.mark.requirement("simulated-cluster-3.3")
def test_limit_range_defaults_and_bounds(client: Client, space: str) -> None:
    item = {
        "type": "Container",
        "default": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "0"},
        "defaultRequest": {"cpu": "500m"},
        "max": {"cpu": "4", "nvidia.com/gpu": "8"},
    }
    code, answer = client.post(LIMITS, {"metadata": {"name": "limits"}, "spec": {"limits": [item]}})
    assert code == 201
    assert answer["spec"]["limits"][0]["defaultRequest"]["memory"] == "2Gi"
    _, made = client.post(PODS, pod("p"))
    resources = made["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "500m", "memory": "2Gi", "nvidia.com/gpu": "0"}
    assert resources["limits"]["cpu"] == "1"
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"].startswith("LimitRanger plugin set: ")
    code, answer = client.post(PODS, pod("big", 9))
    assert answer["message"] == (
        'pods "big" is forbidden: maximum nvidia.com/gpu usage per Container is 8, but limit is 9'
    )


@pytest.mark.requirement("simulated-cluster-3.3")
def test_a_maximum_without_a_default_becomes_the_default(client: Client, space: str) -> None:
    item = {"type": "Container", "max": {"nvidia.com/gpu": "8"}}
    client.post(LIMITS, {"metadata": {"name": "limits"}, "spec": {"limits": [item]}})
    _, made = client.post(PODS, pod("innocent"))
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "8"}


@pytest.mark.requirement("simulated-cluster-3.3")
def test_pod_security_refuses_pods_and_warns_about_templates(client: Client) -> None:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    client.post("/api/v1/namespaces", namespace("strict", **labels))
    code, answer = client.post("/api/v1/namespaces/strict/pods", pod("p"))
    assert code == 403
    assert 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false' in answer["message"]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec()}
    body = {
        "metadata": {"name": "d"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    assert client.post("/apis/apps/v1/namespaces/strict/deployments", body)[0] == 201
    assert 'would violate PodSecurity \\"restricted:latest\\"' in client.last.headers["Warning"]
    good = pod("good")
    good["spec"]["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    good["spec"]["containers"][0]["securityContext"] = own
    assert client.post("/api/v1/namespaces/strict/pods", good)[0] == 201


@pytest.mark.requirement("simulated-cluster-3.3")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostNetwork": True}, "host namespaces (hostNetwork=true)"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "hostPath volumes"),
        ({"containers": [{"name": "c", "securityContext": {"privileged": True}}]}, "privileged"),
        ({"containers": [{"name": "c", "ports": [{"hostPort": 1, "containerPort": 1}]}]}, "hostPort"),
        ({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["NET_RAW"]}}}]}, "non-default"),
    ],
)
def test_baseline_controls(change: dict[str, Any], said: str) -> None:
    assert violations(pod_spec(), "baseline") == []
    (found,) = violations({**pod_spec(), **change}, "baseline")
    assert found.startswith(said)


@pytest.mark.requirement("simulated-cluster-3.4")
def test_tokens_and_bindings(cluster: SimulatedCluster, client: Client, space: str) -> None:
    nobody, wrong = Client(cluster, ""), Client(cluster, "wrong")
    assert nobody.get("/api/v1/namespaces")[0] == 401
    assert wrong.get("/version")[0] == 401
    assert nobody.get("/readyz") == (200, b"ok")
    lead = Client(cluster, cluster.token_for("lead@example.com", ["finance"]))
    code, answer = lead.post(PODS, pod("p"))
    assert (code, answer["message"]) == (
        403,
        'pods is forbidden: User "lead@example.com" cannot create resource "pods" in API group "" '
        'in the namespace "team"',
    )
    bind(client, "edit", "finance")
    assert lead.post(PODS, pod("p"))[0] == 201
    assert lead.get(QUOTAS)[0] == 200
    assert lead.get("/api/v1/namespaces/team")[0] == 200
    assert lead.post(QUOTAS, quota(pods="1"))[0] == 403
    assert lead.get("/api/v1/nodes")[1]["message"].endswith("at the cluster scope")
    assert lead.apply("/api/v1/namespaces/team/pods/new", pod("new"))[0] == 201
    assert lead.post("/simulated/faults", {"mode": "down"})[0] == 403
    for each in (nobody, wrong, lead):
        each.close()


def bind(client: Client, role: str, group: str) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings"
    body = {
        "metadata": {"name": f"{group}-{role}"},
        "roleRef": {"kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "Group", "name": group}],
    }
    assert client.post(path, body)[0] == 201


@pytest.mark.requirement("simulated-cluster-3.4")
def test_reviews_answer_by_the_same_rules(cluster: SimulatedCluster, client: Client, space: str) -> None:
    bind(client, "view", "finance")
    lead = Client(cluster, cluster.token_for("lead@example.com", ["finance"]))

    def allowed(verb: str, resource: str, where: str) -> bool:
        wanted = {"verb": verb, "resource": resource, "namespace": where, "group": ""}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        code, answer = lead.post(path, {"spec": {"resourceAttributes": wanted}})
        assert code == 201
        return bool(answer["status"]["allowed"])

    assert allowed("list", "pods", "team")
    assert not allowed("create", "pods", "team")
    assert not allowed("list", "pods", "default")
    _, who = lead.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert who["status"]["userInfo"] == {"username": "lead@example.com", "groups": ["finance", "system:authenticated"]}
    lead.close()


@pytest.mark.requirement("simulated-cluster-3.4")
def test_nobody_grants_more_than_they_have(cluster: SimulatedCluster, client: Client, space: str) -> None:
    bind(client, "admin", "finance")
    lead = Client(cluster, cluster.token_for("lead@example.com", ["finance"]))
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings"
    body = {"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}
    code, answer = lead.post(path, {**body, "subjects": [{"kind": "User", "name": "lead@example.com"}]})
    assert code == 403
    assert "attempting to grant RBAC permissions not currently held" in answer["message"]
    body["roleRef"] = {"kind": "ClusterRole", "name": "view"}
    assert lead.post(path, {**body, "subjects": [{"kind": "User", "name": "friend@example.com"}]})[0] == 201
    lead.close()


@pytest.mark.requirement("simulated-cluster-3.4")
def test_the_tokens_file_is_read_again_when_it_changes(
    cluster: SimulatedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster.tokens.path
    path.write_text(json.dumps({"secret": {"user": "new@example.com", "groups": ["system:masters"]}}))
    person = Client(cluster, "secret")
    assert person.get("/api/v1/nodes")[0] == 200
    path.write_text("{ half")
    os.utime(path, ns=(1, 1))
    assert person.get("/api/v1/nodes")[0] == 200
    assert "keeping the last good one" in capsys.readouterr().err
    path.write_text("{}")
    os.utime(path, ns=(2, 2))
    assert person.get("/api/v1/nodes")[0] == 401
    person.close()


@pytest.mark.requirement("simulated-cluster-3.4")
def test_another_process_can_issue_tokens_through_the_file(cluster: SimulatedCluster) -> None:
    token = Tokens(cluster.tokens.path).issue("admin@example.com", ["system:masters"])
    assert Tokens(cluster.tokens.path).issue("admin@example.com", ["system:masters"]) == token
    assert cluster.tokens.path.stat().st_mode & 0o077 == 0
    person = Client(cluster, token)
    assert person.get("/api/v1/nodes")[0] == 200
    person.close()


@pytest.mark.requirement("simulated-cluster-3.2")
def test_keys_of_kinds_that_are_not_served_are_tracked_at_nothing(client: Client, space: str) -> None:
    body = quota(pods="1", requests_storage="1Ti", persistentvolumeclaims="4")
    body["spec"]["hard"]["count/inferenceservices.serving.kserve.io"] = "2"
    client.post(QUOTAS, body)
    used = until(lambda: client.get(f"{QUOTAS}/quota")[1]["status"].get("used"))
    assert used == {
        "pods": "0",
        "requests.storage": "0",
        "persistentvolumeclaims": "0",
        "count/inferenceservices.serving.kserve.io": "0",
    }
    client.post(PODS, pod("p"))
    assert client.get(f"{QUOTAS}/quota")[1]["status"]["hard"]["requests.storage"] == "1Ti"
