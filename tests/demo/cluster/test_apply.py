"""Server-side apply: ownership, conflicts, pruning, and the errors of a real server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.demo.cluster import ownership
from apps.demo.cluster.apply import clone, server_side_apply
from apps.demo.cluster.errors import ApiError
from apps.demo.cluster.kinds import QUOTA
from apps.demo.cluster.schema import type_of
from tests.demo.cluster.conftest import APPLY, Client, namespace, quota, until

PATH = "/api/v1/namespaces/team/resourcequotas/quota"


@pytest.mark.requirement("simulated-cluster-2.1")
def test_apply_records_ownership_and_repeating_changes_nothing(client: Client, space: str) -> None:
    body = quota(pods="10", requests_memory="1024Gi")
    code, created = client.apply(PATH, body)
    assert code == 201
    (entry,) = created["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["fieldsType"]) == ("gpu-commons", "Apply", "FieldsV1")
    assert entry["fieldsV1"] == {"f:spec": {"f:hard": {"f:pods": {}, "f:requests.memory": {}}}}
    assert created["spec"]["hard"]["requests.memory"] == "1Ti"
    # The controller's first status write is not the repetition's doing.
    until(lambda: client.get(PATH)[1]["status"].get("hard"))
    before = client.get(PATH)[1]
    code, again = client.apply(PATH, body)
    assert (code, again) == (200, before)


@pytest.mark.requirement("simulated-cluster-2.2")
@pytest.mark.parametrize("dry", ["", "All"])
def test_conflict_names_field_and_manager(client: Client, space: str, dry: str) -> None:
    client.apply(PATH, quota(pods="10"))
    code, answer = client.apply(PATH, quota(pods="11"), manager="other", dryRun=dry)
    assert (code, answer["reason"]) == (409, "Conflict")
    (cause,) = answer["details"]["causes"]
    assert cause["reason"] == "FieldManagerConflict"
    assert cause["field"] == ".spec.hard.pods"
    assert cause["message"] == 'conflict with "gpu-commons"'
    assert client.get(PATH)[1]["spec"]["hard"] == {"pods": "10"}


@pytest.mark.requirement("simulated-cluster-2.2")
def test_conflict_with_a_plain_edit_names_its_version(client: Client, space: str) -> None:
    client.apply(PATH, quota(pods="10"))
    client.request(
        "PATCH", PATH, {"spec": {"hard": {"pods": "12"}}}, "application/merge-patch+json", fieldManager="kubectl-edit"
    )
    code, answer = client.apply(PATH, quota(pods="10"))
    assert code == 409
    assert answer["details"]["causes"][0]["message"] == 'conflict with "kubectl-edit" using v1'
    edited = next(e for e in client.get(PATH)[1]["metadata"]["managedFields"] if e["manager"] == "kubectl-edit")
    assert edited["operation"] == "Update"
    assert edited["time"].endswith("Z")


@pytest.mark.requirement("simulated-cluster-2.2")
def test_force_takes_the_field_over(client: Client, space: str) -> None:
    client.apply(PATH, quota(pods="10", requests_cpu="5"))
    code, answer = client.apply(PATH, quota(pods="11"), manager="other", force="true")
    assert code == 200
    owners = {e["manager"]: e["fieldsV1"]["f:spec"]["f:hard"] for e in answer["metadata"]["managedFields"]}
    assert owners == {"other": {"f:pods": {}}, "gpu-commons": {"f:requests.cpu": {}}}


@pytest.mark.requirement("simulated-cluster-2.2")
def test_the_same_value_is_shared_without_conflict(client: Client, space: str) -> None:
    client.apply(PATH, quota(pods="10"))
    assert client.apply(PATH, quota(pods="10"), manager="other")[0] == 200
    assert client.apply(PATH, quota(requests_cpu="1"))[1]["spec"]["hard"] == {"pods": "10", "requests.cpu": "1"}


@pytest.mark.requirement("simulated-cluster-2.3")
def test_a_dropped_field_goes_and_a_shared_one_stays(client: Client, space: str) -> None:
    client.apply(PATH, quota(pods="10", requests_cpu="4"))
    client.apply(PATH, quota(requests_cpu="4"), manager="other")
    _, answer = client.apply(PATH, {**quota(), "spec": {}})
    assert answer["spec"]["hard"] == {"requests.cpu": "4"}


@pytest.mark.requirement("simulated-cluster-2.3")
def test_labels_of_others_survive(client: Client, space: str) -> None:
    client.request("PATCH", space, {"metadata": {"labels": {"x": "y"}}}, "application/merge-patch+json")
    _, answer = client.apply(space, namespace("team", managed="true"))
    assert answer["metadata"]["labels"] == {"x": "y", "managed": "true", "kubernetes.io/metadata.name": "team"}
    _, answer = client.apply(space, namespace("team"))
    assert "managed" not in answer["metadata"]["labels"]


@pytest.mark.requirement("simulated-cluster-2.4")
def test_errors_of_a_real_server(client: Client, space: str) -> None:
    code, answer = client.apply(PATH, {**quota(pods="1"), "spec": {"hard": {}, "hrad": {}}}, fieldValidation="Strict")
    assert code == 500
    assert answer["message"].endswith(".spec.hrad: field not declared in schema")
    assert client.apply(PATH, quota(pods="ten"))[0] == 500
    code, answer = client.apply("/api/v1/namespaces/none/resourcequotas/q", quota("q", pods="1"), dryRun="All")
    assert (code, answer["message"]) == (404, 'namespaces "none" not found')


def binding(role: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "people"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team"}],
    }


@pytest.mark.requirement("simulated-cluster-2.4")
def test_role_ref_cannot_change_even_by_force(client: Client, space: str) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings/people"
    assert client.apply(path, binding("edit"))[0] == 201
    code, answer = client.apply(path, binding("view"), force="true")
    assert (code, answer["reason"]) == (422, "Invalid")
    assert answer["details"]["causes"][0]["field"] == "roleRef"


@pytest.mark.requirement("simulated-cluster-2.4")
def test_terminating_namespace_refuses_new_objects_but_not_old_ones(client: Client, space: str) -> None:
    client.apply(PATH, {**quota(pods="1"), "metadata": {"name": "quota", "finalizers": ["example.com/hold"]}})
    assert client.request("DELETE", space)[1]["status"]["phase"] == "Terminating"
    code, answer = client.apply("/api/v1/namespaces/team/resourcequotas/new", quota("new", pods="1"))
    assert code == 403
    assert "because it is being terminated" in answer["message"]
    assert answer["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert (
        client.apply(PATH, {**quota(pods="2"), "metadata": {"name": "quota", "finalizers": ["example.com/hold"]}})[0]
        == 200
    )
    assert client.apply(space, namespace("team"))[0] == 200


@pytest.mark.requirement("simulated-cluster-1.5")
def test_malformed_applies(client: Client, space: str) -> None:
    code, answer = client.request("PATCH", PATH, quota(pods="1"), APPLY)
    assert code == 422
    assert "is required for apply patch" in answer["message"]
    assert client.apply(PATH, quota("another", pods="1"))[0] == 400
    with_managers = {**quota(pods="1"), "metadata": {"name": "quota", "managedFields": [{"manager": "x"}]}}
    assert client.apply(PATH, with_managers)[1]["message"] == "metadata.managedFields must be nil"
    code, answer = client.request("PATCH", PATH, quota(pods="1"), "text/plain")
    assert (code, answer["reason"]) == (415, "UnsupportedMediaType")


HARD = st.dictionaries(
    st.sampled_from(["pods", "requests.cpu", "requests.memory", "count/jobs.batch"]), st.integers(0, 3)
)


@pytest.mark.requirement("simulated-cluster-2.1")
@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), HARD, st.booleans()), max_size=8))
def test_every_manager_owns_what_it_applied_last_and_did_not_lose(
    steps: list[tuple[str, dict[str, int], bool]],
) -> None:
    live: dict[str, Any] | None = None
    kind = type_of(QUOTA)
    wanted: dict[str, dict[str, str]] = {}

    def run(manager: str, hard: dict[str, str], force: bool) -> dict[str, Any]:
        config = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}
        if not hard:
            del config["spec"]
        merged, managers = server_side_apply(
            live,
            config,
            kind,
            manager=manager,
            api_version="v1",
            subresource="",
            force=force,
            now="2026-01-01T00:00:00Z",
            finish=clone,
        )
        merged["metadata"]["managedFields"] = [each.wire() for each in managers]
        return merged

    for manager, numbers, force in steps:
        hard = {key: str(value) for key, value in numbers.items()}
        clash = {
            key
            for other, theirs in wanted.items()
            if other != manager
            for key, value in theirs.items()
            if key in hard and hard[key] != value
        }
        if clash and not force:
            with pytest.raises(ApiError) as refused:
                run(manager, hard, force)
            assert {cause["field"] for cause in refused.value.details["causes"]} == {f".spec.hard.{k}" for k in clash}
            continue
        live = run(manager, hard, force)
        for other in wanted:
            wanted[other] = {key: value for key, value in wanted[other].items() if key not in clash}
        wanted[manager] = hard
        union = {key: value for each in wanted.values() for key, value in each.items()}
        assert (live.get("spec") or {}).get("hard", {}) == union
        owned = {
            each.name: {path[-1].removeprefix("f:") for path in each.fields} for each in ownership.managers_of(live)
        }
        assert owned == {name: set(each) for name, each in wanted.items() if each}
        assert run(manager, hard, force) == live


@pytest.mark.requirement("simulated-cluster-2.1")
def test_fields_v1_round_trip_with_list_items() -> None:
    fields = frozenset(
        {
            ("f:spec", "f:containers", 'k:{"name":"a"}'),
            ("f:spec", "f:containers", 'k:{"name":"a"}', "f:image"),
            ("f:metadata", "f:finalizers", 'v:"x"'),
        }
    )
    wire = ownership.encode(fields)
    assert wire["f:spec"]["f:containers"]['k:{"name":"a"}'] == {".": {}, "f:image": {}}
    assert ownership.decode(wire) == fields
    assert (
        ownership.dotted(("f:spec", "f:containers", 'k:{"name":"a"}', "f:image")) == '.spec.containers[name="a"].image'
    )
