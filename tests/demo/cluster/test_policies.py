"""ValidatingAdmissionPolicies: what they match, how they answer, and who is exempt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.demo.cluster.conftest import Client, Obj, gpu_quota, until

API = "/apis/admissionregistration.k8s.io/v1"
QUOTAS = "/api/v1/namespaces/team/resourcequotas"
MANAGED = (
    "(object != null && has(object.metadata.labels) && 'gpu-commons/managed' in object.metadata.labels) || "
    "(oldObject != null && has(oldObject.metadata.labels) && 'gpu-commons/managed' in oldObject.metadata.labels)"
)
PORTAL = "request.userInfo.username == 'portal' || request.userInfo.groups.exists(g, g.startsWith('system:masters'))"


def guard(client: Client, actions: list[str], *, match: Obj | None = None, **spec: Any) -> Any:
    rule = {
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["resourcequotas"],
    }  # fmt: skip
    body = {
        "matchConstraints": {"resourceRules": [rule], **(match or {})},
        "matchConditions": [{"name": "managed", "expression": MANAGED}],
        "validations": [{"expression": "variables.exempt", "message": "owned by the portal"}],
        "variables": [{"name": "exempt", "expression": PORTAL}],
        **spec,
    }
    kinds = "ValidatingAdmissionPolicy"
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "guard"}}
    answer = client.apply(f"{API}/validatingadmissionpolicies/guard", {**head, "kind": kinds, "spec": body})
    if answer[0] not in (200, 201):
        return answer
    binding = {**head, "kind": f"{kinds}Binding", "spec": {"policyName": "guard", "validationActions": actions}}
    return client.apply(f"{API}/validatingadmissionpolicybindings/guard", binding)


@pytest.fixture
def lead(client: Client, space: str) -> Client:
    """Somebody with all rights in the namespace who is not the portal."""
    token = client.cluster.token_for("lead@example.com", ["finance"])
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "finance"},
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "Group", "name": "finance", "apiGroup": "rbac.authorization.k8s.io"}],
    }  # fmt: skip
    assert client.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body)[0] == 201
    return Client(client.cluster, token)


def owned(gpus: str) -> Obj:
    body = gpu_quota(gpus)
    body["metadata"]["labels"] = {"gpu-commons/managed": "true"}
    return body


@pytest.mark.requirement("simulated-operations-2.1")
def test_deny_answers_as_a_real_server(client: Client, lead: Client) -> None:
    assert guard(client, ["Deny"])[0] == 201
    assert client.apply(f"{QUOTAS}/quota", owned("8"))[0] == 201
    wanted = (
        "resourcequotas \"quota\" is forbidden: ValidatingAdmissionPolicy 'guard' with binding 'guard' "
        "denied request: owned by the portal"
    )
    for dry in ({}, {"dryRun": "All"}):
        code, answer = lead.apply(f"{QUOTAS}/quota", owned("9"), manager="lead", force="true", **dry)
        assert (code, answer["reason"], answer["message"]) == (422, "Invalid", wanted)
    code, answer = lead.request("DELETE", f"{QUOTAS}/quota")
    assert code == 422
    patch = {"metadata": {"labels": None}}
    assert lead.request("PATCH", f"{QUOTAS}/quota", patch, "application/merge-patch+json")[0] == 422
    assert lead.post(QUOTAS, gpu_quota("1", "their-own"))[0] == 201
    lead.close()


@pytest.mark.requirement("simulated-operations-2.2")
def test_audit_counts_and_warn_warns(client: Client, lead: Client) -> None:
    guard(client, ["Audit", "Warn"])
    assert lead.post(QUOTAS, owned("1"))[0] == 201
    text = "Validation failed for ValidatingAdmissionPolicy 'guard' with binding 'guard': owned by the portal"
    assert text in lead.last.headers["Warning"]
    lead.post(QUOTAS, gpu_quota("2", "free"))
    lead.apply(f"{QUOTAS}/dry", owned("1") | {"metadata": {"name": "dry"}}, dryRun="All")
    assert lead.get("/simulated/audit")[0] == 403
    log = client.get("/simulated/audit")[1]
    assert log["count"] == 1
    assert (log["entries"][0]["user"], log["entries"][0]["operation"]) == ("lead@example.com", "CREATE")
    lead.close()


@pytest.mark.requirement("simulated-operations-2.3")
def test_a_namespace_goes_only_where_its_controller_is_exempt(client: Client, space: str) -> None:
    guard(client, ["Deny"])
    client.post(QUOTAS, owned("1"))
    client.request("DELETE", space)
    with pytest.raises(pytest.fail.Exception):
        until(lambda: client.get(space)[0] == 404, timeout=2)
    more = f"{PORTAL} || request.userInfo.username == 'system:serviceaccount:kube-system:namespace-controller'"
    guard(client, ["Deny"], variables=[{"name": "exempt", "expression": more}])
    until(lambda: client.get(space)[0] == 404)


@pytest.mark.requirement("simulated-operations-2.4")
def test_selectors_and_failure_policy(client: Client, lead: Client) -> None:
    client.request(
        "PATCH", "/api/v1/namespaces/team", {"metadata": {"labels": {"guarded": "no"}}}, "application/merge-patch+json"
    )
    guard(client, ["Deny"], match={"namespaceSelector": {"matchLabels": {"guarded": "yes"}}})
    assert lead.post(QUOTAS, owned("1"))[0] == 201
    guard(client, ["Deny"], match={"objectSelector": {"matchLabels": {"other": "x"}}})
    assert lead.apply(f"{QUOTAS}/quota", owned("2"), force="true")[0] == 200
    broken = [{"expression": "object.data.nope == 'x'"}]
    guard(client, ["Deny"], validations=broken, matchConditions=[])
    code, answer = lead.post(QUOTAS, gpu_quota("1", "q"))
    assert code == 422
    assert "expression 'object.data.nope == 'x'' resulted in error: no such key: data" in answer["message"]
    guard(client, ["Deny"], validations=broken, matchConditions=[], failurePolicy="Ignore")
    assert lead.post(QUOTAS, gpu_quota("1", "q"))[0] == 201
    said = [{"expression": "object.metadata.name == 'x'", "messageExpression": "'no: ' + object.metadata.name"}]
    guard(client, ["Deny"], validations=said, matchConditions=[])
    assert lead.post(QUOTAS, gpu_quota("1", "r"))[1]["message"].endswith("denied request: no: r")
    guard(client, ["Deny"], validations=[{"expression": "object.metadata.name == 'x'", "reason": "Forbidden"}],
          matchConditions=[])  # fmt: skip
    code, answer = lead.post(QUOTAS, gpu_quota("1", "s"))
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert "failed expression: object.metadata.name == 'x'" in answer["message"]
    lead.close()


@pytest.mark.requirement("simulated-operations-2.5")
@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"validations": [{"expression": "objct.x == 1"}]}, "undeclared reference to 'objct'"),
        ({"validations": [{"expression": "1 +"}]}, "compilation failed: ERROR: <input>:"),
        ({"validations": []}, "validations or auditAnnotations must contain at least one item"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(client: Client, spec: Obj, text: str) -> None:
    code, answer = guard(client, ["Deny"], **spec)
    assert (code, text in answer["message"]) == (422, True), answer


@pytest.mark.requirement("simulated-operations-2.5")
@pytest.mark.parametrize(
    ("actions", "text"),
    [
        ([], "at least one validation action is required"),
        (["Warn", "Deny"], 'Invalid value: ["Warn","Deny"]: must not contain both Deny and Warn'),
        (["Nope"], 'Unsupported value: "Nope": supported values: "Audit", "Deny", "Warn"'),
    ],
)
def test_a_binding_that_cannot_work_is_refused(client: Client, actions: list[str], text: str) -> None:
    code, answer = guard(client, actions)
    assert (code, text in answer["message"]) == (422, True), answer
