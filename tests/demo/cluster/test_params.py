"""Definitions that bring kinds of their own, and admission policies with parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.demo.cluster import SimulatedCluster
from tests.demo.cluster.conftest import Client, Obj, namespace, until

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
GROUP = "lists.example.com"
ALLOWED = f"/apis/{GROUP}/v1/namespaces/team/allowlists"
MAPS = "/api/v1/namespaces/team/configmaps"


def definition(**schema: Any) -> Obj:
    entry = {
        "type": "object", "required": ["uri"],
        "properties": {
            "uri": {"type": "string", "pattern": "^[a-z0-9]+://"}, "expires": {"type": "string", "format": "date-time"},
            "traffic": {"type": "integer", "minimum": 0, "maximum": 100, "default": 100},
        },
    }  # fmt: skip
    entries = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uri"], "items": entry}
    spec = {
        "type": "object", "properties": {"entries": entries, "mode": {"type": "string", "enum": ["Audit", "Deny"]}},
        "x-kubernetes-validations": [{"rule": "size(self.entries) <= 3", "message": "three at most"}], **schema,
    }  # fmt: skip
    version = {
        "name": "v1", "served": True, "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"allowlists.{GROUP}"},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "versions": [version],
            "names": {"plural": "allowlists", "kind": "AllowList", "shortNames": ["al"]},
        },
    }  # fmt: skip


def allowed(*uris: str, **spec: Any) -> Obj:
    entries = [{"uri": uri} for uri in uris]
    head = {"apiVersion": f"{GROUP}/v1", "kind": "AllowList", "metadata": {"name": "approved"}}
    return {**head, "spec": {"entries": entries, **spec}}


def define(client: Client) -> None:
    assert client.apply(f"{DEFINITIONS}/allowlists.{GROUP}", definition())[0] == 201


@pytest.mark.requirement("simulated-serving-1.1")
def test_a_definition_brings_its_kind(client: Client, space: str) -> None:
    assert client.get(ALLOWED)[0] == 404
    define(client)
    code, found = client.get(f"{DEFINITIONS}/allowlists.{GROUP}")
    assert {each["type"]: each["status"] for each in found["status"]["conditions"]}["Established"] == "True"
    code, found = client.apply(f"{ALLOWED}/approved", allowed("s3://a", "s3://b"))
    assert (code, found["spec"]["entries"][0]) == (201, {"uri": "s3://a", "traffic": 100})
    assert client.apply(f"{ALLOWED}/approved", allowed("s3://a"))[1]["spec"]["entries"] == [
        {"uri": "s3://a", "traffic": 100}
    ]
    assert [each["name"] for each in client.get(f"/apis/{GROUP}/v1")[1]["resources"]] == ["allowlists"]
    assert client.get(ALLOWED)[1]["items"][0]["kind"] == "AllowList"


@pytest.mark.requirement("simulated-serving-1.1")
@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"mode": "Loud"}, "spec.mode"),
        ({"entries": [{"uri": "nowhere"}]}, "spec.entries[0].uri"),
        ({"entries": [{"uri": "s3://a", "traffic": 101}]}, "spec.entries[0].traffic"),
        ({"entries": [{"expires": "2026-01-01T00:00:00Z"}]}, "spec.entries[0].uri"),
        ({"entries": [{"uri": "s3://a", "expires": "soon"}]}, "spec.entries[0].expires"),
        ({"entries": [{"uri": f"s3://{n}"} for n in "abcd"]}, "spec"),
    ],
)
def test_a_definition_s_schema_is_held(client: Client, space: str, spec: Obj, field: str) -> None:
    define(client)
    code, refusal = client.post(ALLOWED, {**allowed(), "spec": {"entries": [], **spec}})
    assert code == 422
    assert field in [each["field"] for each in refusal["details"]["causes"]]


@pytest.mark.requirement("simulated-serving-1.1")
def test_unknown_fields_of_a_defined_kind_are_refused_by_apply(client: Client, space: str) -> None:
    define(client)
    code, refusal = client.apply(f"{ALLOWED}/approved", allowed("s3://a", colour="red"))
    assert code == 500
    assert ".spec.colour: field not declared in schema" in refusal["message"]


@pytest.mark.requirement("simulated-serving-1.1")
def test_a_definition_that_goes_takes_its_objects_along(client: Client, space: str) -> None:
    define(client)
    client.apply(f"{ALLOWED}/approved", allowed("s3://a"))
    assert client.request("DELETE", f"{DEFINITIONS}/allowlists.{GROUP}")[0] == 200
    assert client.get(ALLOWED)[0] == 404
    kinds = {"allowlists"}
    until(lambda: not any(set(key) & kinds for key in client.cluster.store.query("SELECT kind FROM objects")))
    define(client)
    until(lambda: client.get(ALLOWED)[1]["items"] == [])


@pytest.mark.requirement("simulated-serving-1.1")
def test_defined_kinds_outlive_a_restart_and_go_with_their_namespace(tmp_path: Path) -> None:
    for start in range(2):
        with SimulatedCluster(tmp_path) as cluster:
            client = Client(cluster)
            if not start:
                client.apply("/api/v1/namespaces/team", namespace("team"))
                define(client)
                client.apply(f"{ALLOWED}/approved", allowed("s3://a"))
            else:
                assert client.get(f"{ALLOWED}/approved")[1]["spec"]["entries"][0]["uri"] == "s3://a"
                client.request("DELETE", "/api/v1/namespaces/team")
                until(lambda used=client: used.get("/api/v1/namespaces/team")[0] == 404)
                assert cluster.store.query("SELECT name FROM objects WHERE name = 'approved'") == []
            client.close()


@pytest.mark.requirement("simulated-serving-1.1")
def test_a_definition_that_cannot_be_served_is_refused(client: Client) -> None:
    body = definition()
    body["metadata"]["name"] = "wrong"
    body["spec"]["versions"][0]["storage"] = False
    code, refusal = client.post(DEFINITIONS, body)
    assert code == 422
    assert {"metadata.name", "spec.versions"} <= {each["field"] for each in refusal["details"]["causes"]}
    bad = definition(**{"x-kubernetes-validations": [{"rule": "elf > 1"}]})
    assert "undeclared reference to 'elf'" in client.post(DEFINITIONS, bad)[1]["message"]


# ---- parameters


def policy(client: Client, ref: Obj, actions: list[str], **more: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    spec = {
        "paramKind": {"apiVersion": f"{GROUP}/v1", "kind": "AllowList"},
        "matchConstraints": {"resourceRules": [rule]},
        "variables": [{"name": "uris", "expression": "has(object.data) ? object.data.map(k, object.data[k]) : []"}],
        "validations": [
            {
                "expression": "variables.uris.all(u, params.spec.entries.exists(e, e.uri == u))",
                "messageExpression": "'not approved: ' + variables.uris.join(', ')",
            }
        ],
        **more,
    }
    head: Obj = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "approved"}}
    kind = "ValidatingAdmissionPolicy"
    code, answer = client.apply(
        f"{ADMISSION}/validatingadmissionpolicies/approved", {**head, "kind": kind, "spec": spec}
    )
    assert code == 201, answer
    space = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team"}}}
    binding = {"policyName": "approved", "validationActions": actions, "paramRef": ref, "matchResources": space}
    code, answer = client.apply(
        f"{ADMISSION}/validatingadmissionpolicybindings/approved", {**head, "kind": f"{kind}Binding", "spec": binding}
    )
    assert code == 201, answer


def holding(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture
def listed(client: Client, space: str) -> Client:
    define(client)
    client.apply(f"{ALLOWED}/approved", allowed("s3://a", "s3://b"))
    return client


@pytest.mark.requirement("simulated-serving-1.2")
def test_a_policy_is_judged_by_the_request_s_own_parameters(listed: Client) -> None:
    policy(listed, {"name": "approved", "parameterNotFoundAction": "Deny"}, ["Deny"])
    assert listed.post(MAPS, holding("good", model="s3://a"))[0] == 201
    code, refusal = listed.post(MAPS, holding("bad", model="s3://c"))
    assert code == 422
    assert refusal["message"].endswith("denied request: not approved: s3://c")
    listed.apply(f"{ALLOWED}/approved", allowed("s3://c"))
    assert listed.post(MAPS, holding("bad", model="s3://c"))[0] == 201


@pytest.mark.requirement("simulated-serving-1.2")
@pytest.mark.parametrize(("action", "code"), [("Deny", 422), ("Allow", 201)])
@pytest.mark.parametrize("actions", [["Deny"], ["Audit"]])
def test_missing_parameters_deny_or_allow(listed: Client, action: str, code: int, actions: list[str]) -> None:
    """A binding that only audits denies, too, where its parameters are missing: so does a real server."""
    policy(listed, {"name": "other", "parameterNotFoundAction": action}, actions)
    status, answer = listed.post(MAPS, holding("any", model="s3://a"))
    assert status == code
    if code == 422:
        assert "no params found for policy binding with `Deny` parameterNotFoundAction" in answer["message"]


@pytest.mark.requirement("simulated-serving-1.2")
def test_every_selected_parameter_must_hold(listed: Client) -> None:
    ref = {"selector": {"matchLabels": {"team": "a"}}, "parameterNotFoundAction": "Deny"}
    policy(listed, ref, ["Deny"])
    assert listed.post(MAPS, holding("none", model="s3://a"))[0] == 422
    for name, uris in (("one", ["s3://a", "s3://b"]), ("two", ["s3://a"])):
        body = allowed(*uris)
        body["metadata"] = {"name": name, "labels": {"team": "a"}}
        listed.apply(f"{ALLOWED}/{name}", body)
    assert listed.post(MAPS, holding("both", model="s3://a"))[0] == 201
    assert listed.post(MAPS, holding("onlyone", model="s3://b"))[0] == 422


@pytest.mark.requirement("simulated-serving-1.2")
def test_a_fixed_place_of_parameters_and_an_unknown_kind_of_them(listed: Client) -> None:
    listed.apply("/api/v1/namespaces/other", namespace("other"))
    body = allowed("s3://z")
    listed.apply(f"/apis/{GROUP}/v1/namespaces/other/allowlists/approved", body)
    ref = {"name": "approved", "namespace": "other", "parameterNotFoundAction": "Deny"}
    policy(listed, ref, ["Deny"])
    assert listed.post(MAPS, holding("z", model="s3://z"))[0] == 201
    assert listed.post(MAPS, holding("a", model="s3://a"))[0] == 422
    listed.request("DELETE", f"{DEFINITIONS}/allowlists.{GROUP}")
    code, refusal = listed.post(MAPS, holding("q", model="s3://z"))
    assert code == 422
    assert "not known" in refusal["message"]


@pytest.mark.requirement("simulated-serving-1.2")
def test_pods_of_controllers_are_judged_under_the_controller_s_name(listed: Client) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    expression = "object.spec.containers.all(c, params.spec.entries.exists(e, c.image == e.uri))"
    policy(
        listed, {"name": "approved", "parameterNotFoundAction": "Deny"}, ["Deny"],
        matchConstraints={"resourceRules": [rule]}, variables=[], validations=[
            {"expression": expression, "messageExpression": "'refused for ' + request.userInfo.username"}
        ],
    )  # fmt: skip
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "x", "image": "example/model:1"}]},
    }
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}
    assert listed.post("/apis/apps/v1/namespaces/team/deployments", body)[0] == 201

    def failure() -> str:
        status = listed.get("/apis/apps/v1/namespaces/team/deployments/x")[1].get("status") or {}
        rows = {each["type"]: each["message"] for each in status.get("conditions") or []}
        return str(rows.get("ReplicaFailure", ""))

    until(failure)
    assert "refused for system:serviceaccount:kube-system:replicaset-controller" in failure()
