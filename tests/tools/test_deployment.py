"""The deployment files, and the checks that hold them."""

import copy
from typing import Any

import pytest
import yaml

from tools import deployment as files

CONTAINER = {
    "name": "web",
    "args": [],
    "env": [{"name": "COMMONS_SECRET_KEY", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}],
    "resources": {"limits": {"memory": "1Gi"}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
POD = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001},
    "containers": [CONTAINER],
}


def workload(spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": "web"}
    return {"kind": "Deployment", "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}}}


@pytest.mark.requirement("installation-4.3")
def test_the_committed_files_pass() -> None:
    objects, _ = files.kubernetes_objects()
    compose = yaml.safe_load(files.COMPOSE.read_text())
    assert files.schema_problems(objects) == []
    assert files.pod_problems(objects) == []
    assert files.compose_problems(compose) == []
    assert files.dockerfile_problems(files.DOCKERFILE.read_text()) == []
    assert files.process_problems(compose, objects) == []
    assert files.queue_problems(compose, objects) == []


@pytest.mark.requirement("installation-4.3")
def test_a_sound_pod_has_no_problem() -> None:
    assert files.pod_problems([workload(POD)]) == []


@pytest.mark.requirement("installation-4.3")
@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("securityContext", "runAsNonRoot"), False, "may run as root"),
        (("securityContext", "runAsUser"), 0, "may run as root"),
        (("automountServiceAccountToken",), True, "the cluster's credentials"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "may gain privileges"),
        (("containers", 0, "securityContext", "capabilities"), {}, "may gain privileges"),
        (("containers", 0, "resources"), {}, "no memory limit"),
        (("containers", 0, "env", 0), {"name": "COMMONS_SECRET_KEY", "value": "x"}, "is written out"),
    ],
)
def test_an_unsound_pod_is_reported(path: tuple[Any, ...], value: object, problem: str) -> None:
    pod = copy.deepcopy(POD)
    target: Any = pod
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    assert [problem in one for one in files.pod_problems([workload(pod)])] == [True]


@pytest.mark.requirement("installation-4.3")
@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ({"environment": {"POSTGRES_PASSWORD": "letmein"}}, "POSTGRES_PASSWORD has to come"),
        ({"environment": {"POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:-letmein}"}}, "POSTGRES_PASSWORD has to come"),
        ({"environment": {"DATABASE_URL": "postgres://me:letmein@db/x"}}, "DATABASE_URL has to come"),
        ({"privileged": True}, "root's privileges"),
        ({"user": "root"}, "root's privileges"),
    ],
)
def test_an_unsound_service_is_reported(service: dict[str, Any], problem: str) -> None:
    (found,) = files.compose_problems({"services": {"database": service}})
    assert problem in found


@pytest.mark.requirement("installation-4.3")
@pytest.mark.parametrize(
    "text", ["FROM x\n", "USER root\n", "USER 0\n", "USER 10001\nRUN x\nUSER root\n", "USER www-data\n"]
)
def test_an_image_that_may_be_root_is_reported(text: str) -> None:
    assert files.dockerfile_problems(text) != []


@pytest.mark.requirement("installation-4.3")
def test_a_missing_process_is_reported() -> None:
    compose: dict[str, Any] = {"services": {name: {} for name in files.PROCESSES - {"beat"}}}
    problems = files.process_problems(compose, [workload(POD)])
    assert problems[0] == "docker-compose.yml: lacks beat"
    assert "runs web, not beat, migrate, observer, web, worker" in problems[1]


@pytest.mark.requirement("installation-4.3")
def test_a_misspelt_field_is_reported() -> None:
    bad = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"selectr": {}}}
    assert len(files.schema_problems([bad])) == len(files.KUBERNETES_VERSIONS)


@pytest.mark.requirement("installation-4.4")
def test_every_variable_is_described_once() -> None:
    assert files.variable_problems() == []


@pytest.mark.requirement("installation-4.4")
def test_variables_are_found_however_they_are_read() -> None:
    source = """
import os
A = env.str("ONE")
B = env("TWO", default=env.int("THREE"))
C = os.environ.get("FOUR") or os.environ["FIVE"] or environment.get("SIX")
D = request.META.get("HTTP_HOST"), env.list(name)
"""
    assert files.variables_read(source) == {"ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX"}
