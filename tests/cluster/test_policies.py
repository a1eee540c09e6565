"""The guard: a ValidatingAdmissionPolicy that denies what is not exempt, warns or audits, and lets controllers work."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.quotas.guard_policy import guard_manifests
from tests.cluster.conftest import PREFIX, await_that, fresh
from tests.cluster.fixtures import LABELS, namespace, quota
from tests.cluster.helpers import merge_patch, thing

pytestmark = pytest.mark.cluster

_MARK = "gpu-commons-test/guard"
_CONTROLLERS = (
    "request.userInfo.username.startsWith('system:serviceaccount:kube-system:') || "
    "request.userInfo.username == 'system:kube-controller-manager'"
)


@pytest.fixture(autouse=True)
def _policies(served: frozenset[str]) -> None:
    if "admissionregistration.k8s.io" not in served:
        pytest.skip("admissionregistration.k8s.io is not served on this cluster")


@pytest.fixture
def myself(api: KubernetesClient) -> str:
    """Who the suite is for the server."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    answer = api._call("POST", path, body=review, content_type="application/json").object
    return str(answer["status"]["userInfo"]["username"])


def guard(api: KubernetesClient, name: str, exempt: str, actions: list[str]) -> None:
    """Protect quotas that bear this guard's mark. `exempt` is the expression of who may write."""
    marked = (
        f"(object != null && has(object.metadata.labels) && '{_MARK}' in object.metadata.labels && "
        f"object.metadata.labels['{_MARK}'] == '{name}') || "
        f"(oldObject != null && has(oldObject.metadata.labels) && '{_MARK}' in oldObject.metadata.labels && "
        f"oldObject.metadata.labels['{_MARK}'] == '{name}')"
    )
    rule = {
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["resourcequotas"],
    }  # fmt: skip
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "marked", "expression": marked}],
        "variables": [{"name": "exempt", "expression": exempt}],
        "validations": [{"expression": "variables.exempt", "message": "owned by GPU Commons"}],
    }
    api.apply(thing("ValidatingAdmissionPolicy", name, spec=spec))
    binding = {"policyName": name, "validationActions": actions}
    api.apply(thing("ValidatingAdmissionPolicyBinding", name, spec=binding))


def _marked(space: str, name: str, gpus: int = 1, own: str = "gpu-quota") -> dict[str, Any]:
    body = quota(space, gpus, name=own)
    body["metadata"]["labels"][_MARK] = name
    return body


def _refused(api: KubernetesClient, body: dict[str, Any]) -> Any:
    try:
        api.apply(body, dry_run=True)
    except errors.ClusterError as error:
        return error
    return None


def _lift(api: KubernetesClient, name: str) -> None:
    api.delete("ValidatingAdmissionPolicyBinding", name)
    api.delete("ValidatingAdmissionPolicy", name)


@pytest.mark.requirement("simulated-operations-2.1")
def test_deny_refuses_who_is_not_exempt(api: KubernetesClient, space: str, myself: str) -> None:
    """422 with the guard's words, in a dry run, too; the exempt and the unmarked pass."""
    api.apply(namespace(space))
    name = fresh()
    guard(api, name, "request.userInfo.username == 'nobody'", ["Deny"])
    error = await_that(lambda: _refused(api, _marked(space, name)))
    assert isinstance(error, errors.InvalidObject)
    words = f"ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: owned by GPU Commons"
    assert words in str(error)
    api.apply(quota(space, 1, name="unmarked"))
    guard(api, name, f"request.userInfo.username == '{myself}'", ["Deny"])
    await_that(lambda: _refused(api, _marked(space, name)) is None)
    assert api.apply(_marked(space, name)).status == 201
    _lift(api, name)


@pytest.mark.requirement("simulated-operations-2.2")
def test_warn_and_audit_let_the_write_through(api: KubernetesClient, space: str) -> None:
    """The warning is the guard's sentence; audit goes to the cluster's own log."""
    api.apply(namespace(space))
    name = fresh()
    guard(api, name, "request.userInfo.username == 'nobody'", ["Warn", "Audit"])
    answer = await_that(lambda: (found := api.apply(_marked(space, name), dry_run=True)).warnings and found)
    assert answer.status == 201
    words = f"Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{name}': owned by GPU Commons"
    assert any(words in warning for warning in answer.warnings)
    _lift(api, name)


@pytest.mark.requirement("simulated-operations-2.3")
def test_a_namespace_goes_where_its_controller_is_exempt(api: KubernetesClient, space: str, myself: str) -> None:
    """What Deny protects must not keep a namespace from ending."""
    api.apply(namespace(space))
    name = fresh()
    guard(api, name, f"request.userInfo.username == '{myself}' || {_CONTROLLERS}", ["Deny"])
    api.apply(_marked(space, name))
    api.delete("Namespace", space)
    await_that(lambda: space not in [n["metadata"]["name"] for n in api.list("Namespace").items], seconds=60)
    _lift(api, name)


def _own_guard(api: KubernetesClient, name: str, portal: str) -> None:
    """Declare the portal's guard as it is shipped, under another name and for the namespaces of that label alone."""
    policy, binding = guard_manifests("deny", portal, {})
    for manifest in (policy, binding):
        manifest["metadata"]["name"] = name
    policy["spec"]["matchConstraints"]["namespaceSelector"] = {"matchLabels": {_MARK: name}}
    binding["spec"]["policyName"] = name
    api.apply(policy)
    api.apply(binding)


@pytest.mark.requirement("drift-3.1", "drift-3.2")
def test_the_portals_own_guard(api: KubernetesClient, myself: str) -> None:
    """Content, label and object stay; finalizers, annotations and further labels pass; the portal itself may all."""
    name, space = fresh(), fresh()
    api.apply(namespace(space, **{_MARK: name}))
    api.apply(quota(space, 1))

    def edit(**changes: Any) -> Exception | None:
        try:
            merge_patch(api, thing("ResourceQuota", "gpu-quota", space) | changes, "kubectl-edit")
        except errors.ClusterError as error:
            return error
        return None

    try:
        _own_guard(api, name, "nobody@example.com")
        identity = {"name": "gpu-quota", "namespace": space}
        # Each time another number: one that lives already is no change, and passes.
        numbers = itertools.count(90)
        assert isinstance(await_that(lambda: edit(spec={"hard": {"pods": str(next(numbers))}})), errors.Forbidden)
        unlabelled = {"metadata": {**identity, "labels": dict.fromkeys(LABELS)}}
        assert "GPU Commons owns this object" in str(edit(**unlabelled))
        assert edit(metadata={**identity, "annotations": {"note": "looked at"}, "labels": {"cost": "12"}}) is None
        with pytest.raises(errors.Forbidden):
            api.delete("ResourceQuota", "gpu-quota", space)
        _own_guard(api, name, myself)
        await_that(lambda: edit(spec={"hard": {"pods": "7"}}) is None)
        assert api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]["pods"] == "7"
    finally:
        _lift(api, name)


@pytest.mark.requirement("simulated-operations-2.5")
@pytest.mark.parametrize("expression", ["objct.x == 1", "1 +"])
def test_an_expression_that_cannot_work_is_refused(api: KubernetesClient, expression: str) -> None:
    """At once, and where it stands."""
    assert PREFIX  # named so that the sweep finds it, were it taken
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression}]}
    with pytest.raises(errors.InvalidObject, match="compilation failed"):
        api.apply(thing("ValidatingAdmissionPolicy", fresh(), spec=spec))
