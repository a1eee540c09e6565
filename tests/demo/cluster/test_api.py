"""Reading and writing objects: status codes, selectors, paging, watches, dry runs, the object model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from apps.demo.cluster import SimulatedCluster, patches, quantity, schema
from apps.demo.cluster.errors import ApiError
from apps.demo.cluster.fields import Type
from tests.demo.cluster.conftest import Client, gpu_quota, namespace, pod, quota, until

QUOTAS = "/api/v1/namespaces/team/resourcequotas"
PODS = "/api/v1/namespaces/team/pods"


@pytest.mark.requirement("simulated-cluster-1.1")
def test_it_says_what_it_is(client: Client) -> None:
    assert client.get("/version")[1]["gitVersion"] == "v1.36.0+simulated"
    nodes = client.get("/api/v1/nodes")[1]["items"]
    assert len(nodes) == 9
    assert all(node["metadata"]["labels"]["simulated.gpu-commons.internal/node"] == "true" for node in nodes)
    gpus = [int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in nodes]
    assert sum(gpus) == 50
    labels = nodes[-1]["metadata"]["labels"]
    assert (labels["nvidia.com/gpu.product"], labels["nvidia.com/gpu.count"]) == ("NVIDIA-A100-SXM4-80GB", "2")
    assert client.cluster._server is not None
    assert client.cluster._server.server_address[0] == "127.0.0.1"


@pytest.mark.requirement("simulated-cluster-1.5")
def test_create_update_delete_with_the_usual_codes(client: Client, space: str) -> None:
    code, made = client.post(QUOTAS, quota(pods="4"))
    assert (code, made["metadata"]["namespace"]) == (201, "team")
    code, answer = client.post(QUOTAS, quota(pods="4"))
    assert (code, answer["reason"]) == (409, "AlreadyExists")
    stale = {**made, "spec": {"hard": {"pods": "5"}}}
    code, fresh = client.request("PUT", f"{QUOTAS}/quota", {**stale, "metadata": {"name": "quota"}})
    assert (code, fresh["spec"]["hard"]["pods"], fresh["metadata"]["uid"]) == (200, "5", made["metadata"]["uid"])
    code, answer = client.request("PUT", f"{QUOTAS}/quota", stale)
    assert (code, answer["reason"]) == (409, "Conflict")
    assert "the object has been modified" in answer["message"]
    code, answer = client.request("DELETE", f"{QUOTAS}/quota", {"preconditions": {"uid": "someone-else"}})
    assert code == 409
    code, answer = client.request("DELETE", f"{QUOTAS}/quota")
    assert (code, answer["status"]) == (200, "Success")
    code, answer = client.get(f"{QUOTAS}/quota")
    assert (code, answer["message"]) == (404, 'resourcequotas "quota" not found')
    assert client.get("/apis/example.com/v1/things")[0] == 404
    assert client.request("PUT", QUOTAS, quota())[0] == 405
    assert client.post(QUOTAS, {"metadata": {"generateName": "q-"}})[1]["metadata"]["name"].startswith("q-")


@pytest.mark.requirement("simulated-cluster-1.5")
@pytest.mark.parametrize(
    ("media", "patch"),
    [
        ("application/merge-patch+json", {"spec": {"hard": {"pods": None, "requests.cpu": "2"}}}),
        ("application/strategic-merge-patch+json", {"spec": {"hard": {"pods": None, "requests.cpu": "2000m"}}}),
        (
            "application/json-patch+json",
            [
                {"op": "test", "path": "/spec/hard/pods", "value": "4"},
                {"op": "move", "from": "/spec/hard/pods", "path": "/spec/hard/requests.cpu"},
                {"op": "replace", "path": "/spec/hard/requests.cpu", "value": 2},
            ],
        ),
    ],
)
def test_patches(client: Client, space: str, media: str, patch: Any) -> None:
    client.post(QUOTAS, quota(pods="4"))
    code, answer = client.request("PATCH", f"{QUOTAS}/quota", patch, media)
    assert (code, answer["spec"]["hard"]) == (200, {"requests.cpu": "2"})


@pytest.mark.requirement("simulated-cluster-1.5")
def test_strategic_patch_unites_containers_by_name() -> None:
    old = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}
    new = {"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "$patch": "delete"}]}}
    result = patches.strategic_patch(old, new, schema.TYPES["Pod"])
    assert result == {"spec": {"containers": [{"name": "b", "image": "2"}]}}


@pytest.mark.requirement("simulated-cluster-1.5")
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # the cases of RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_its_rfc(target: Any, patch: Any, result: Any) -> None:
    assert patches.merge_patch(target, patch) == result


@pytest.mark.requirement("simulated-cluster-1.5")
@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "test", "path": "/spec/hard/pods", "value": "5"}, 422),
        ({"op": "remove", "path": "/spec/hard/nothing"}, 422),
        ({"op": "replace", "path": "/spec/soft", "value": 1}, 422),
        ({"op": "add", "path": "/spec/hard/pods"}, 400),
        ({"op": "add", "path": "no pointer", "value": 1}, 400),
        ({"op": "fold", "path": "/spec"}, 400),
        ({"path": "/spec"}, 400),
        ({"op": "add", "path": "/metadata/finalizers/3", "value": "x"}, 422),
    ],
)
def test_json_patches_that_do_not_fit(operation: Any, code: int) -> None:
    target = {"metadata": {"finalizers": ["a"]}, "spec": {"hard": {"pods": "4"}}}
    with pytest.raises(ApiError) as refused:
        patches.json_patch(target, [operation])
    assert refused.value.code == code
    assert target == {"metadata": {"finalizers": ["a"]}, "spec": {"hard": {"pods": "4"}}}


@pytest.mark.requirement("simulated-cluster-1.5")
def test_dry_runs_leave_no_trace(client: Client, space: str) -> None:
    client.post(QUOTAS, gpu_quota("1"))
    until(lambda: client.get(f"{QUOTAS}/quota")[1]["status"].get("hard"))
    before = (client.get("/api/v1/namespaces")[1], client.get(QUOTAS)[1]["items"], client.get(PODS)[1]["items"])
    until(lambda: client.get("/api/v1/namespaces/team/serviceaccounts/default")[0] == 200)
    rv = client.cluster.store.rv
    assert client.post("/api/v1/namespaces", namespace("other"), dryRun="All")[0] == 201
    code, answer = client.post(PODS, pod("p", 1), dryRun="All")
    assert (code, answer["metadata"].get("resourceVersion")) == (201, None)
    assert client.post(PODS, pod("p", 2), dryRun="All")[0] == 403
    merge = "application/merge-patch+json"
    code, answer = client.request("PATCH", f"{QUOTAS}/quota", {"spec": {"hard": {"pods": "9"}}}, merge, dryRun="All")
    assert (code, answer["spec"]["hard"]["pods"]) == (200, "9")
    assert answer["metadata"]["resourceVersion"] == client.get(f"{QUOTAS}/quota")[1]["metadata"]["resourceVersion"]
    assert client.request("DELETE", f"{QUOTAS}/quota", {"dryRun": ["All"]})[0] == 200
    after = (client.get("/api/v1/namespaces")[1], client.get(QUOTAS)[1]["items"], client.get(PODS)[1]["items"])
    assert [each["metadata"]["name"] for each in after[0]["items"]] == [
        e["metadata"]["name"] for e in before[0]["items"]
    ]
    assert [each["spec"] for each in after[1]] == [each["spec"] for each in before[1]]
    assert after[2] == []
    assert client.cluster.store.rv == rv


@pytest.mark.requirement("simulated-cluster-1.5")
def test_validation_names_the_field(client: Client, space: str) -> None:
    code, answer = client.post("/api/v1/namespaces", namespace("Not_A_Name"))
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "metadata.name")
    code, answer = client.post(QUOTAS, quota(pods="1.5"))
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec.hard[pods]")
    half = pod("p")
    half["spec"]["containers"][0]["resources"] = {
        "limits": {"nvidia.com/gpu": "1"},
        "requests": {"nvidia.com/gpu": "2"},
    }
    code, answer = client.post(PODS, half)
    assert "must be equal to nvidia.com/gpu limit of 1" in answer["message"]
    half["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "500m"}}
    assert "must be an integer" in client.post(PODS, half)[1]["message"]
    half["spec"]["containers"][0]["resources"] = {"requests": {"nvidia.com/gpu": "1"}}
    assert "Limit must be set for non overcommitable resources" in client.post(PODS, half)[1]["message"]


@pytest.mark.requirement("simulated-cluster-1.6")
def test_unknown_fields_as_asked(client: Client, space: str) -> None:
    body = {**quota(pods="1"), "spec": {"hard": {"pods": "1"}, "hrad": {"pods": "2"}}}
    code, answer = client.post(QUOTAS, body, fieldValidation="Strict")
    assert (code, answer["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.hrad"' in answer["message"]
    code, answer = client.post(QUOTAS, body)
    assert (code, answer["spec"]) == (201, {"hard": {"pods": "1"}})
    assert client.last.headers["Warning"] == '299 - "unknown field \\"spec.hrad\\""'
    code, answer = client.post(QUOTAS, quota("wrong", pods="x"))
    assert code == 400
    assert "quantities must match the regular expression" in answer["message"]


@pytest.mark.requirement("simulated-cluster-1.6")
@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("0.5", "500m"),
        ("1.5Gi", "1536Mi"),
        ("2048Gi", "2Ti"),
        (8, "8"),
        ("1500m", "1500m"),
        ("1000k", "1M"),
        ("1e3", "1e3"),
        ("0", "0"),
        ("512", "512"),
        ("100Ki", "100Ki"),
    ],
)
def test_quantities_are_stored_canonically(given: Any, stored: str) -> None:
    assert quantity.canonical(given) == stored
    assert quantity.parse(stored) == quantity.parse(given)


@pytest.mark.requirement("simulated-cluster-1.6")
@pytest.mark.parametrize("bad", ["", "1 Gi", "1GB", "--1", "Gi", "1.2.3", None, True])
def test_what_is_no_quantity_is_refused(bad: Any) -> None:
    with pytest.raises(quantity.BadQuantity):
        quantity.canonical(bad)


def _official(version: str = "v1.36.0-local-strict") -> dict[str, Any]:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    folder = Path(validate.__file__).parent / "kubernetes-json-schema" / version
    if not folder.exists():
        pytest.skip(f"kubernetes-validate has no schemas {version}")
    return {"_definitions": json.loads((folder / "_definitions.json").read_text())}


def _compare(ours: Type, theirs: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    while "$ref" in theirs:
        theirs = definitions[theirs["$ref"].rpartition("/")[2]]
    if ours.shape == "struct":
        names = set(theirs.get("properties", {}))
        yield from (f"{path}.{name} is unknown to us" for name in names - set(ours.fields))
        yield from (f"{path}.{name} is our invention" for name in set(ours.fields) - names)
        for name in names & set(ours.fields):
            yield from _compare(ours.fields[name], theirs["properties"][name], definitions, f"{path}.{name}")
    elif ours.shape == "list" and ours.item is not None:
        yield from _compare(ours.item, theirs.get("items", {}), definitions, f"{path}[]")


@pytest.mark.requirement("simulated-cluster-1.6")
@pytest.mark.parametrize("kind", sorted(each.kind for each in schema.KINDS if not each.custom))
def test_fields_are_those_of_the_official_schemas(kind: str) -> None:
    documents = _official()
    definitions = documents["_definitions"]["$defs"]
    kinds = next(k for k in schema.KINDS if k.kind == kind)
    names = [
        name
        for name, each in definitions.items()
        if {"group": kinds.group, "version": kinds.version, "kind": kind}
        in each.get("x-kubernetes-group-version-kind", [])
    ]
    name = min(names, key=len)
    assert list(_compare(schema.SERVED[kind], definitions[name], definitions, kind)) == []


@pytest.mark.requirement("simulated-cluster-1.3")
def test_selectors(client: Client) -> None:
    for name, team in (("a", "x"), ("b", "y"), ("c", "")):
        client.post("/api/v1/namespaces", namespace(name, **({"team": team} if team else {})))

    def names(**query: str) -> list[str]:
        items = client.get("/api/v1/namespaces", **query)[1]["items"]
        return [each["metadata"]["name"] for each in items if len(each["metadata"]["name"]) == 1]

    assert names(labelSelector="team=x") == ["a"]
    assert names(labelSelector="team in (x, y),team!=x") == ["b"]
    assert names(labelSelector="!team") == ["c"]
    assert names(labelSelector="team notin (x)") == ["b", "c"]
    assert names(labelSelector="team") == ["a", "b"]
    assert names(fieldSelector="metadata.name=b") == ["b"]
    assert names(fieldSelector="status.phase!=Active") == []
    assert client.get("/api/v1/namespaces", fieldSelector="spec.nonsense=1")[0] == 400
    assert client.get("/api/v1/namespaces", labelSelector="a b c")[0] == 400


@pytest.mark.requirement("simulated-cluster-1.3")
def test_pages_come_from_one_snapshot(client: Client, space: str) -> None:
    for number in range(5):
        client.post(QUOTAS, quota(f"q{number}", pods="1"))
    _, first = client.get(QUOTAS, limit="2")
    assert first["metadata"]["remainingItemCount"] == 3
    assert "kind" not in first["items"][0], "list items of a real server bear no kind"
    client.request("DELETE", f"{QUOTAS}/q3")
    _, second = client.get(QUOTAS, **{"limit": "2", "continue": first["metadata"]["continue"]})
    _, third = client.get(QUOTAS, **{"limit": "2", "continue": second["metadata"]["continue"]})
    seen = [each["metadata"]["name"] for page in (first, second, third) for each in page["items"]]
    assert seen == ["q0", "q1", "q2", "q3", "q4"]
    assert "continue" not in third["metadata"]
    client.cluster._resources.lister.expire_tokens()
    code, answer = client.get(QUOTAS, **{"limit": "2", "continue": first["metadata"]["continue"]})
    assert (code, answer["reason"]) == (410, "Expired")


class Watcher:
    """Reads a watch stream in a thread."""

    def __init__(self, client: Client, path: str, **query: str) -> None:
        self.events: list[Any] = []
        self.ended = threading.Event()
        url = f"{client.cluster.url}{path}?watch=true&" + "&".join(f"{k}={v}" for k, v in query.items())
        self.pool = urllib3.PoolManager(ca_certs=str(client.cluster.ca_file), retries=False)
        self.response = self.pool.request(
            "GET", url, headers={"Authorization": f"Bearer {client.token}"}, preload_content=False, timeout=30
        )
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        rest = b""
        try:
            for piece in self.response.stream(65536):
                *lines, rest = (rest + piece).split(b"\n")
                self.events += [json.loads(line) for line in lines]
        except urllib3.exceptions.HTTPError:
            self.events.append({"type": "CUT"})
        self.ended.set()

    def close(self) -> None:
        self.thread.join(30)
        self.response.release_conn()
        self.pool.clear()

    def types(self) -> list[str]:
        return [each["type"] for each in self.events]


@pytest.mark.requirement("simulated-cluster-1.4")
def test_watch_streams_later_changes_in_order(client: Client, space: str) -> None:
    client.post(QUOTAS, quota("old", pods="1"))
    until(lambda: client.get(f"{QUOTAS}/old")[1]["status"].get("hard"))
    rv = client.get(QUOTAS)[1]["metadata"]["resourceVersion"]
    watcher = Watcher(client, QUOTAS, resourceVersion=rv, timeoutSeconds="2", allowWatchBookmarks="true")
    client.post(QUOTAS, {**quota("new", pods="1"), "metadata": {"name": "new", "labels": {"a": "b"}}})
    client.request("DELETE", f"{QUOTAS}/new")
    client.post("/api/v1/namespaces", namespace("elsewhere"))
    watcher.close()
    kinds = [kind for kind in watcher.types() if kind != "MODIFIED"]
    assert kinds == ["ADDED", "DELETED", "BOOKMARK"]
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in watcher.events]
    assert versions == sorted(versions)
    assert versions[0] > int(rv)
    assert watcher.events[0]["object"]["kind"] == "ResourceQuota"


@pytest.mark.requirement("simulated-cluster-1.4")
def test_watch_with_a_selector_sees_objects_enter_and_leave(client: Client, space: str) -> None:
    rv = client.get("/api/v1/namespaces")[1]["metadata"]["resourceVersion"]
    watcher = Watcher(client, "/api/v1/namespaces", resourceVersion=rv, labelSelector="in%3Dyes", timeoutSeconds="2")
    merge = "application/merge-patch+json"
    client.request("PATCH", space, {"metadata": {"labels": {"in": "yes"}}}, merge)
    client.request("PATCH", space, {"metadata": {"labels": {"more": "1"}}}, merge)
    client.request("PATCH", space, {"metadata": {"labels": {"in": None}}}, merge)
    watcher.close()
    assert watcher.types() == ["ADDED", "MODIFIED", "DELETED"]


@pytest.mark.requirement("simulated-cluster-1.4")
def test_watch_from_nothing_begins_with_what_is_there(client: Client, space: str) -> None:
    watcher = Watcher(client, "/api/v1/namespaces", timeoutSeconds="1")
    watcher.close()
    names = [each["object"]["metadata"]["name"] for each in watcher.events]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system", "team"]
    watcher = Watcher(
        client, "/api/v1/namespaces", timeoutSeconds="1", sendInitialEvents="true", allowWatchBookmarks="true"
    )
    watcher.close()
    marks = [e["object"]["metadata"].get("annotations") for e in watcher.events if e["type"] == "BOOKMARK"]
    assert marks[0] == {"k8s.io/initial-events-end": "true"}


@pytest.mark.requirement("simulated-cluster-1.4")
def test_watch_of_a_forgotten_version_gets_410(client: Client, space: str) -> None:
    client.cluster.store.forget_history()
    client.post("/api/v1/namespaces", namespace("later"))
    watcher = Watcher(client, "/api/v1/namespaces", resourceVersion="1", timeoutSeconds="2")
    watcher.close()
    (event,) = watcher.events
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


@pytest.mark.requirement("simulated-cluster-6.1")
def test_state_survives_and_goes_on_on_the_same_port(tmp_path: Path) -> None:
    first = SimulatedCluster(tmp_path).start()
    client = Client(first)
    client.post("/api/v1/namespaces", namespace("kept"))
    token, port, authority, rv = first.admin_token, first.port, first.ca_pem, first.store.rv
    person = first.token_for("lead@example.com", ["team"])
    client.close()
    first.close()
    with SimulatedCluster(tmp_path, port) as second:
        assert (second.admin_token, second.ca_pem) == (token, authority)
        assert second.token_for("lead@example.com", ["team"]) == person
        again = Client(second)
        code, _ = again.get("/api/v1/namespaces/kept")
        assert code == 200
        assert int(again.post("/api/v1/namespaces", namespace("more"))[1]["metadata"]["resourceVersion"]) > rv
        again.close()
