"""The clients people and the portal use: kubectl and the official Python client."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.demo.cluster import SimulatedCluster
from apps.demo.cluster.protobuf import decode_access_review
from apps.demo.cluster.tables import duration
from tests.demo.cluster.conftest import Client, gpu_quota, job, namespace, pod, until

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def kubectl(cluster: SimulatedCluster, tmp_path: Path) -> Kubectl:
    """Run kubectl; `user` and `groups` choose whose kubeconfig."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")

    def run(*arguments: str, stdin: Any = None, user: str = "", groups: list[str] | None = None) -> Any:
        config = cluster.write_kubeconfig(tmp_path / f"config-{user or 'admin'}", user, groups)
        assert config.stat().st_mode & 0o077 == 0
        return subprocess.run(
            [program, "--kubeconfig", str(config), "--cache-dir", str(tmp_path / "cache"), *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def ok(result: Any) -> str:
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


@pytest.mark.cluster
@pytest.mark.requirement("simulated-cluster-1.2")
def test_kubectl_applies_gets_describes_and_deletes(kubectl: Kubectl, client: Client) -> None:
    assert "v1.36.0+simulated" in ok(kubectl("version"))
    assert (
        ok(kubectl("apply", "--server-side", "-f", "-", stdin=namespace("team")))
        == "namespace/team serverside-applied\n"
    )
    body = {**gpu_quota("8", pods="10"), "metadata": {"name": "gpu", "namespace": "team"}}
    ok(kubectl("apply", "--server-side", "--validate=false", "-f", "-", stdin=body))
    until(lambda: client.get("/api/v1/namespaces/team/resourcequotas/gpu")[1]["status"].get("hard"))
    lines = ok(kubectl("get", "resourcequota", "-A")).splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "REQUEST", "LIMIT", "AGE"]
    assert "pods: 0/10, requests.nvidia.com/gpu: 0/8" in lines[1]
    described = ok(kubectl("describe", "quota", "gpu", "-n", "team"))
    assert [line.split() for line in described.splitlines()][-1] == ["requests.nvidia.com/gpu", "0", "8"]
    assert "pods, requests.nvidia.com/gpu" not in ok(kubectl("describe", "namespace", "team"))
    ok(
        kubectl(
            "apply",
            "-f",
            "-",
            stdin={**job("train", 1, seconds="0.2"), "metadata": {"name": "train", "namespace": "team"}},
        )
    )
    ok(kubectl("wait", "--for=condition=complete", "job/train", "-n", "team", "--timeout=60s"))
    assert "1/1" in ok(kubectl("get", "job", "-n", "team"))
    assert "Completed" in ok(kubectl("get", "pods", "-n", "team", "-o", "wide"))
    assert "SuccessfulCreate" in ok(kubectl("describe", "job", "train", "-n", "team"))
    assert "atlas-gpu-01" in ok(kubectl("get", "nodes", "-l", "nvidia.com/gpu.count=8"))
    assert "nvidia.com/gpu:     8" in ok(kubectl("describe", "node", "atlas-gpu-01"))
    ok(kubectl("delete", "namespace", "team", "--timeout=60s"))
    assert "team" not in ok(kubectl("get", "namespaces"))


@pytest.mark.cluster
@pytest.mark.requirement("simulated-cluster-1.2")
def test_kubectl_client_side_apply_label_and_rollout(kubectl: Kubectl) -> None:
    ok(kubectl("apply", "-f", "-", stdin=namespace("team")))
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "server", "namespace": "team"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "example/c:1"}]},
            },
        },
    }
    assert "created" in ok(kubectl("apply", "-f", "-", stdin=body))
    assert "unchanged" in ok(kubectl("apply", "-f", "-", stdin=body))
    assert "successfully rolled out" in ok(kubectl("rollout", "status", "deploy/server", "-n", "team", "--timeout=60s"))
    ok(kubectl("label", "deploy", "server", "x=y", "-n", "team"))
    ok(kubectl("rollout", "restart", "deploy/server", "-n", "team"))
    assert "successfully rolled out" in ok(kubectl("rollout", "status", "deploy/server", "-n", "team", "--timeout=60s"))
    misspelt = {**body, "spec": {**body["spec"], "replikas": 3}}
    result = kubectl("apply", "-f", "-", stdin=misspelt)
    assert 'unknown field "spec.replikas"' in result.stderr


@pytest.mark.cluster
@pytest.mark.requirement("simulated-cluster-1.2")
def test_kubectl_reports_conflicts(kubectl: Kubectl, client: Client, space: str) -> None:
    client.apply(f"{space}/resourcequotas/quota", gpu_quota("8"))
    mine = {**gpu_quota("9"), "metadata": {"name": "quota", "namespace": "team"}}
    result = kubectl("apply", "--server-side", "-f", "-", stdin=mine)
    assert result.returncode != 0
    assert (
        'Apply failed with 1 conflict: conflict with "gpu-commons": .spec.hard.requests.nvidia.com/gpu' in result.stderr
    )
    ok(kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=mine))


@pytest.mark.cluster
@pytest.mark.requirement("simulated-cluster-3.4")
def test_kubectl_as_a_person(kubectl: Kubectl, client: Client, space: str) -> None:
    binding = {
        "metadata": {"name": "people"},
        "roleRef": {"kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "Group", "name": "finance"}],
    }
    client.post("/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings", binding)
    me = {"user": "lead@example.com", "groups": ["finance"]}
    assert "lead@example.com" in ok(kubectl("auth", "whoami", **me))
    assert ok(kubectl("auth", "can-i", "create", "pods", "-n", "team", **me)) == "yes\n"
    assert kubectl("auth", "can-i", "create", "pods", "-n", "default", **me).stdout == "no\n"
    mine = pod("mine", 1)
    mine["metadata"]["namespace"] = "team"
    ok(kubectl("apply", "-f", "-", stdin=mine, **me))
    assert "mine" in ok(kubectl("get", "pods", "-n", "team", **me))
    result = kubectl("get", "pods", "-A", **me)
    assert 'User "lead@example.com" cannot list resource "pods" in API group "" at the cluster scope' in result.stderr


@pytest.fixture
def official(cluster: SimulatedCluster) -> Any:
    kubernetes = pytest.importorskip("kubernetes", reason="the official client is not installed")
    config = kubernetes.client.Configuration()
    config.host = cluster.url
    config.ssl_ca_cert = str(cluster.ca_file)
    config.api_key = {"BearerToken": f"Bearer {cluster.admin_token}"}
    api = kubernetes.client.ApiClient(config)
    yield kubernetes, api
    api.rest_client.pool_manager.clear()


@pytest.mark.cluster
@pytest.mark.requirement("simulated-cluster-1.2")
def test_the_official_client_reads_typed_objects(official: Any, client: Client, space: str) -> None:
    kubernetes, api = official
    core = kubernetes.client.CoreV1Api(api)
    client.post(f"{space}/pods", pod("p", 1))
    until(lambda: client.get(f"{space}/pods/p")[1]["status"]["phase"] == "Running")
    (found,) = core.list_namespaced_pod("team").items
    assert found.spec.node_name == "atlas-gpu-07"
    assert found.status.container_statuses[0].ready is True
    assert len(core.list_node().items) == 9
    assert kubernetes.client.VersionApi(api).get_code().git_version == "v1.36.0+simulated"
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.read_namespaced_resource_quota("none", "team")
    assert refused.value.status == 404


@pytest.mark.cluster
@pytest.mark.requirement("simulated-cluster-1.2")
def test_the_official_client_applies_raw(official: Any, client: Client, space: str) -> None:
    _, api = official
    request = api.param_serialize(
        "PATCH",
        "/api/v1/namespaces/{namespace}/resourcequotas/{name}",
        path_params={"namespace": "team", "name": "quota"},
        query_params=[("fieldManager", "gpu-commons"), ("dryRun", "All"), ("fieldValidation", "Strict")],
        header_params={"Accept": "application/json", "Content-Type": "application/apply-patch+yaml"},
        body=gpu_quota("4"),
        auth_settings=["BearerToken"],
    )
    answer = api.call_api(*request, _request_timeout=(3, 20))
    answer.read()
    assert answer.status == 201
    assert json.loads(answer.data)["spec"]["hard"] == {"requests.nvidia.com/gpu": "4"}
    assert client.get(f"{space}/resourcequotas/quota")[0] == 404


@pytest.mark.requirement("simulated-cluster-1.2")
def test_names_cannot_escape_their_path(client: Client, space: str) -> None:
    assert client.get("/api/v1/namespaces/team/pods/..%2F..%2Fdefault")[0] == 404
    assert client.get("/api/v1/namespaces/team/pods/../../nodes")[0] == 404


@pytest.mark.requirement("simulated-cluster-1.2")
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "5s"),
        (119, "119s"),
        (125, "2m5s"),
        (600, "10m"),
        (3600 * 3 + 60, "3h1m"),
        (86400 * 2, "2d"),
        (86400 * 400, "400d"),
    ],
)
def test_ages_read_as_in_kubectl(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.requirement("simulated-cluster-1.5")
def test_other_protobuf_and_garbage_are_refused(client: Client, space: str) -> None:
    media = "application/vnd.kubernetes.protobuf"
    assert client.request("POST", f"{space}/pods", {}, media)[0] == 415
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert client.request("POST", path, {}, media)[0] == 400
    assert client.request("POST", f"{space}/pods", "not an object")[0] == 400
    assert decode_access_review(b"k8s\x00") == {"spec": {}}
