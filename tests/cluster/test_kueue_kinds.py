"""What the API server itself holds to of Kueue's kinds: immutability, atomic lists, limits, status. No controller."""

from __future__ import annotations

from typing import Any

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from tests.cluster.conftest import fresh
from tests.cluster.fixtures import namespace
from tests.cluster.helpers import GPU, Manifest, as_another, cluster_queue, groups, thing

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kueue")]


@pytest.mark.requirement("simulated-kueue-1.4")
def test_a_local_queue_never_changes_its_cluster_queue(api: KubernetesClient, space: str) -> None:
    """Not by force either: moving a team is a new LocalQueue."""
    api.apply(namespace(space))
    api.apply(thing("LocalQueue", "default", space, spec={"clusterQueue": "one"}))
    for force in (False, True):
        with pytest.raises(errors.InvalidObject, match="field is immutable"):
            api.apply(thing("LocalQueue", "default", space, spec={"clusterQueue": "two"}), force=force)


@pytest.mark.requirement("simulated-kueue-1.3")
def test_resource_groups_are_one_field(api: KubernetesClient) -> None:
    """Whoever changes a number of them owns all of them; admission checks are a map by name."""
    name = fresh()
    api.apply(cluster_queue(name, "one", "8"))
    bare: Manifest = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": name}}
    with pytest.raises(errors.ConflictError) as caught:
        as_another(api, {**bare, "spec": {"resourceGroups": groups("one", "9")}}, "other", force=False)
    assert [cause["field"] for cause in caught.value.causes] == [".spec.resourceGroups"]
    as_another(api, {**bare, "spec": {"resourceGroups": groups("two", "1")}}, "other")
    assert api.get("ClusterQueue", name)["spec"]["resourceGroups"] == groups("two", "1")
    for manager, check in (("first", "a"), ("second", "b")):
        checks = {"admissionChecks": [{"name": check}]}
        as_another(api, {**bare, "spec": {"admissionChecksStrategy": checks}}, manager, force=False)
    found = api.get("ClusterQueue", name)["spec"]["admissionChecksStrategy"]["admissionChecks"]
    assert [each["name"] for each in found] == ["a", "b"]


_BAD: list[tuple[str, Any, str]] = [
    ("ClusterQueue", {"resourceGroups": groups("f", "8", borrowingLimit="1")}, "borrowingLimit must be nil"),
    # By the schema, or where the controller runs by its webhook, which comes first.
    ("ClusterQueue", {"resourceGroups": groups("f", "lots")}, "should match|quantities must match"),
    ("ClusterQueue", {"stopPolicy": "Nope"}, "supported values"),
    ("ClusterQueue", {"cohortName": "Bad_Name"}, "should match"),
    ("ClusterQueue", {"preemption": {"borrowWithinCohort": {"policy": "LowerPriority"}}}, "reclaimWithinCohort=Never"),
    ("ClusterQueue", {"bogus": 1}, "field not declared in schema"),
    (
        "ClusterQueue",
        {"resourceGroups": [{"coveredResources": ["cpu", GPU], "flavors": groups("f", "1")[0]["flavors"]}]},
        "same number of resources",
    ),
    ("ResourceFlavor", {"topologyName": "t"}, "at least one nodeLabel"),
    ("ResourceFlavor", {"nodeTaints": [{"key": "a", "effect": "Nope"}]}, "supported taint effect"),
    ("ResourceFlavor", {"nodeLabels": {f"example.com/{n}": "x" for n in range(9)}}, "at most 8"),
    ("Topology", {}, "Required value"),
    ("AdmissionCheck", {}, "Required value"),
]


@pytest.mark.requirement("simulated-kueue-1.4", "clusters-2.3")
@pytest.mark.parametrize(("kind", "spec", "words"), _BAD)
def test_what_the_definitions_refuse(api: KubernetesClient, kind: str, spec: Any, words: str) -> None:
    """422, or 500 for an unknown field in an apply; the client calls both invalid."""
    with pytest.raises(errors.InvalidObject, match=words):
        api.apply(thing(kind, fresh(), spec=spec))


@pytest.mark.requirement("simulated-kueue-1.4")
def test_a_topology_never_changes_its_levels(api: KubernetesClient) -> None:
    """Not by force either."""
    name = fresh()
    api.apply(thing("Topology", name, spec={"levels": [{"nodeLabel": "example.com/rack"}]}))
    with pytest.raises(errors.InvalidObject, match="field is immutable"):
        api.apply(thing("Topology", name, spec={"levels": [{"nodeLabel": "example.com/row"}]}), force=True)


@pytest.mark.requirement("simulated-kueue-1.2")
def test_defaults_are_filled_in_and_not_owned(api: KubernetesClient) -> None:
    """So that a queue reads back complete and still shows no drift."""
    name = fresh()
    made = api.apply(thing("ClusterQueue", name, spec={"resourceGroups": groups("f", "8")})).object
    assert made["spec"]["queueingStrategy"] == "BestEffortFIFO"
    assert made["spec"]["stopPolicy"] == "None"
    assert made["spec"]["preemption"]["reclaimWithinCohort"] == "Never"
    entry = next(each for each in made["metadata"]["managedFields"] if each["operation"] == "Apply")
    assert set(entry["fieldsV1"]["f:spec"]) == {"f:resourceGroups"}
    assert made["metadata"]["generation"] == 1
    again = api.apply(thing("ClusterQueue", name, spec={"resourceGroups": groups("f", "9")})).object
    assert again["metadata"]["generation"] == 2


@pytest.mark.requirement("simulated-kueue-3.6")
def test_a_workload_is_stopped_by_its_active_field(api: KubernetesClient, space: str) -> None:
    """Under a manager of its own, by force: whoever created the workload holds the defaulted field."""
    api.apply(namespace(space))
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}}
    spec = {"podSets": [{"name": "main", "count": 1, "template": template}], "queueName": "none"}
    body = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": {"name": "w", "namespace": space}}
    base = "/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/workloads"
    made = api._call(
        "POST", base, {"namespace": space}, query=[("fieldManager", "job-controller")], body={**body, "spec": spec},
        content_type="application/json",
    ).object  # fmt: skip
    assert made["spec"]["active"] is True
    path, media = f"{base}/{{name}}", "application/apply-patch+yaml"
    where = {"namespace": space, "name": "w"}
    for force in ("false", "true"):
        query = [("fieldManager", "gpu-commons-idle"), ("force", force)]
        off = {**body, "spec": {"active": False}}
        if force == "false":
            with pytest.raises(errors.ConflictError):
                api._call("PATCH", path, where, query=query, body=off, content_type=media)
        else:
            assert api._call("PATCH", path, where, query=query, body=off, content_type=media).object["spec"][
                "active"
            ] is False  # fmt: skip
