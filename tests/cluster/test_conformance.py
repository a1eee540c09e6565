"""The portal's cluster work against a Kubernetes API, whichever it is: client, planner, applier.

By default the simulated cluster; with COMMONS_TEST_KUBECONFIG any other (a token in it, rights to make namespaces and
what lives in them). Only objects with the suite's own prefix are made, and all are removed.
"""

from __future__ import annotations

import copy
import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from apps.clusters import errors, kinds
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.core.canonical import canonical_bytes
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import applier, diff, ordering, ownership, planner
from apps.provisioning.applier import Target, Work
from apps.provisioning.ordering import Key, key_of
from tests.cluster.conftest import await_that
from tests.cluster.fixtures import client_of, limit_range, namespace, network_policy, quota, role_binding, workspace

pytestmark = pytest.mark.cluster


def _apply(api: KubernetesClient, manifests: list[dict[str, Any]], **kwargs: Any) -> applier.Outcome:
    targets = [Target(key_of(m), canonical_bytes(m)) for m in ordering.in_order(manifests)]
    return applier.run(api, Work(targets, **kwargs))


def _as_another(api: KubernetesClient, manifest: dict[str, Any], manager: str, *, force: bool = True) -> None:
    """Apply as another field manager."""
    entry, meta = kinds.of(manifest), manifest["metadata"]
    api._call(
        "PATCH", f"{entry.in_namespace}/{{name}}", {"namespace": meta.get("namespace", ""), "name": meta["name"]},
        query=[("fieldManager", manager), ("force", str(force).lower())], body=json.dumps(manifest).encode(),
        content_type="application/apply-patch+yaml",
    )  # fmt: skip


def _bare(manifest: dict[str, Any], **hard: str) -> dict[str, Any]:
    """A quota that states only these keys, as somebody else would apply it."""
    meta = {"name": manifest["metadata"]["name"], "namespace": manifest["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}}


def _pod(space: str, name: str, gpus: int) -> dict[str, Any]:
    resources = {
        "requests": {"cpu": "10m", "nvidia.com/gpu": str(gpus)},
        "limits": {"cpu": "20m", "nvidia.com/gpu": str(gpus)},
    }
    container = {"name": "main", "image": "registry.example.com/none:1", "resources": resources}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": space},
        "spec": {"containers": [container], "restartPolicy": "Never"},
    }  # fmt: skip


# -- server-side apply ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-3.1")
def test_apply_creates_and_a_second_apply_is_a_no_op(api: KubernetesClient, space: str) -> None:
    """201, then 200 with the same resource version; we own exactly what we stated."""
    assert api.apply(namespace(space)).status == 201
    first, second = api.apply(limit_range(space)), api.apply(limit_range(space))
    assert (first.status, second.status) == (201, 200)
    assert first.object["metadata"]["resourceVersion"] == second.object["metadata"]["resourceVersion"]
    api.apply(quota(space, 8))
    live = api.get("ResourceQuota", "gpu-quota", space)
    assert ownership.holds_anything(live)
    assert not ownership.held_beyond(live, quota(space, 8))
    assert ownership.held_beyond(live, _bare(quota(space, 8), pods="50"))


@pytest.mark.requirement("provisioning-3.1")
def test_a_dropped_field_that_only_we_held_is_pruned(api: KubernetesClient, space: str) -> None:
    """Server-side apply removes what its only owner no longer states."""
    api.apply(namespace(space))
    api.apply(quota(space, 8, **{"requests.memory": "1Gi"}))
    api.apply(quota(space, 8))
    assert "requests.memory" not in api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]


@pytest.mark.requirement("clusters-2.3", "provisioning-2.4")
def test_a_conflict_names_manager_and_field_and_force_takes_over(api: KubernetesClient, space: str) -> None:
    """In a dry run, too."""
    api.apply(namespace(space))
    api.apply(quota(space, 8))
    _as_another(api, _bare(quota(space, 8), **{"requests.nvidia.com/gpu": "99"}), "kubectl-edit")
    for dry_run in (True, False):
        with pytest.raises(errors.ConflictError) as caught:
            api.apply(quota(space, 8), dry_run=dry_run)
        assert [cause["manager"] for cause in caught.value.causes] == ["kubectl-edit"]
        assert "requests.nvidia.com/gpu" in caught.value.causes[0]["field"]
    live = api.get("ResourceQuota", "gpu-quota", space)
    owner = ownership.foreign_owner(live, ("spec", "hard", "requests.nvidia.com/gpu"))
    assert owner is not None
    assert owner.manager == "kubectl-edit"
    assert owner.at is not None
    api.apply(quota(space, 8), force=True)
    assert api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]["requests.nvidia.com/gpu"] == "8"


@pytest.mark.requirement("provisioning-2.1")
def test_a_dry_run_changes_nothing(api: KubernetesClient, space: str) -> None:
    """Neither creates nor updates."""
    assert api.apply(namespace(space), dry_run=True).status == 201
    with pytest.raises(errors.NotFound):
        api.get("Namespace", space)
    api.apply(namespace(space))
    api.apply(quota(space, 8))
    answered = api.apply(quota(space, 12), dry_run=True)
    assert answered.object["spec"]["hard"]["requests.nvidia.com/gpu"] == "12"
    assert api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]["requests.nvidia.com/gpu"] == "8"


@pytest.mark.requirement("provisioning-2.3")
def test_a_namespace_that_does_not_exist_is_not_found(api: KubernetesClient, space: str) -> None:
    """In a dry run, too: that is why new workspaces are planned as rendered."""
    for dry_run in (True, False):
        with pytest.raises(errors.NotFound):
            api.apply(quota(space, 8), dry_run=dry_run)


@pytest.mark.requirement("clusters-2.3")
def test_what_does_not_fit_the_schema_is_invalid(api: KubernetesClient, space: str) -> None:
    """An unknown field and a malformed quantity in an apply, an unknown field in a create, a changed roleRef."""
    api.apply(namespace(space))
    misspelt = quota(space, 8)
    misspelt["spec"]["hrd"] = {}
    with pytest.raises(errors.InvalidObject):
        api.apply(misspelt)
    with pytest.raises(errors.InvalidObject):
        api.apply(quota(space, 8, **{"requests.memory": "lots"}))
    with pytest.raises(errors.InvalidObject):
        api.create(misspelt, dry_run=True)
    api.apply(role_binding(space))
    other = role_binding(space)
    other["roleRef"]["name"] = "view"
    with pytest.raises(errors.InvalidObject):
        api.apply(other, force=True)


# -- quota ----------------------------------------------------------------------------------------------------------


def test_the_quota_admits_up_to_its_hard_limit(api: KubernetesClient, space: str) -> None:
    """The next pod is forbidden with the numbers, in a dry run, too; the status tells the use."""
    api.apply(namespace(space))
    api.apply(quota(space, 2))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = api.get("ResourceQuota", "gpu-quota", space).get("status") or {}
        return found

    await_that(lambda: "hard" in status())
    api.create(_pod(space, "one", 2))
    await_that(lambda: status().get("used", {}).get("requests.nvidia.com/gpu") == "2")
    for dry_run in (True, False):
        with pytest.raises(errors.Forbidden, match="exceeded quota: gpu-quota"):
            api.create(_pod(space, "two", 1), dry_run=dry_run)
    api.apply(quota(space, 1))  # lowering below use is taken
    await_that(lambda: status().get("hard", {}).get("requests.nvidia.com/gpu") == "1")
    assert status()["used"]["requests.nvidia.com/gpu"] == "2"


# -- namespaces that go ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-3.4")
def test_a_terminating_namespace_is_waited_for_and_made_anew(api: KubernetesClient, space: str) -> None:
    """While it goes, the outcome is an error to be retried; once it is gone, everything is made again."""
    manifests = workspace(space)
    assert _apply(api, manifests).succeeded
    api.delete("Namespace", space)

    def settled() -> bool:
        outcome = _apply(api, manifests)
        assert not outcome.stop, outcome.stop
        assert outcome.error is None or isinstance(outcome.error, errors.Terminating | errors.NotFound)
        return outcome.succeeded

    await_that(settled, seconds=90)
    assert planner.is_empty(planner.make(api, manifests))


# -- list, watch ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("clusters-2.4")
def test_a_list_is_complete_over_many_pages(api: KubernetesClient, space: str) -> None:
    """Items carry their type; the selector is kept from page to page."""
    api.apply(namespace(space))
    for number in range(7):
        api.apply(quota(space, number, name=f"quota-{number}"))
    listing = api.list("ResourceQuota", space, label_selector=kinds.MANAGED_SELECTOR, limit=3)
    assert sorted(item["metadata"]["name"] for item in listing.items) == [f"quota-{n}" for n in range(7)]
    assert {item["kind"] for item in listing.items} == {"ResourceQuota"}
    assert api.list("ResourceQuota", space, label_selector="gpu-commons/managed=no").items == []


@pytest.mark.requirement("clusters-2.5", "provisioning-4.2")
def test_a_watch_resumes_where_it_ended(api: KubernetesClient, space: str) -> None:
    """Nothing is lost between two watches, nothing comes twice."""
    api.apply(namespace(space))
    version = api.list("ResourceQuota", label_selector=kinds.MANAGED_SELECTOR).resource_version

    def next_event(after: str) -> Any:
        stream = api.watch("ResourceQuota", after, label_selector=kinds.MANAGED_SELECTOR, seconds=30)
        for event in stream:
            if event.type != "BOOKMARK" and event.object["metadata"]["namespace"] == space:
                stream.close()
                return event
        raise AssertionError("the watch ended without an event")

    api.apply(quota(space, 1))
    added = next_event(version)
    assert added.type == "ADDED"
    api.apply(quota(space, 2))
    seen = next_event(added.resource_version)
    while seen.object["spec"]["hard"]["requests.nvidia.com/gpu"] != "2":  # the status of the first may come before
        seen = next_event(seen.resource_version)
    assert seen.type == "MODIFIED"
    api.delete("ResourceQuota", "gpu-quota", space)
    while seen.type != "DELETED":
        seen = next_event(seen.resource_version)


@pytest.mark.requirement("clusters-2.5")
def test_a_version_that_is_no_longer_kept_is_gone(api: KubernetesClient, tmp_path: Path) -> None:
    """Never answered with a hole. A real server compacts its first versions in time; the simulated one keeps few."""
    with ExitStack() as stack:
        if real := bool(os.environ.get("COMMONS_TEST_KUBECONFIG")):
            # A server that was started minutes ago may still hold its whole history, and then answers from it.
            first = next(iter(api.watch("Namespace", "1", seconds=1)), None) if _keeps_first_version(api) else None
            if first is not None:
                assert first.type == "ADDED"
                return
        else:
            api = client_of(stack.enter_context(SimulatedCluster(tmp_path, watch_history=3)))
            for number in range(8):
                api.apply(namespace("gone", number=str(number)))
        with pytest.raises((errors.Gone, errors.InvalidObject)):
            list(api.watch("Namespace", "1", seconds=1 if real else 5))


def _keeps_first_version(api: KubernetesClient) -> bool:
    try:
        return next(iter(api.watch("Namespace", "1", seconds=1)), None) is not None
    except (errors.Gone, errors.InvalidObject):
        return False


# -- plan, apply, plan ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-3.10", "provisioning-2.1", "provisioning-2.2", "provisioning-3.2")
def test_plan_apply_plan_is_empty(api: KubernetesClient, space: str) -> None:
    """For a new workspace, for a change, with quantities in other spellings; applying again writes nothing."""
    manifests = workspace(space)
    planned = planner.make(api, manifests)
    assert {entry["operation"] for entry in planned} == {"create"}
    assert _apply(api, manifests).succeeded
    assert planner.is_empty(planner.make(api, manifests))
    again = _apply(api, manifests)
    assert again.succeeded
    assert {row["verb"] for row in again.results} == {"get"}
    spelt = copy.deepcopy(manifests)
    spelt[0]["spec"]["hard"].update({"requests.memory": "1024Mi"})
    assert not planner.is_empty(planner.make(api, spelt))
    assert _apply(api, spelt).succeeded
    spelt[0]["spec"]["hard"].update({"requests.memory": "1Gi"})
    assert planner.is_empty(planner.make(api, spelt))


@pytest.mark.requirement("provisioning-3.3", "provisioning-4.3")
@pytest.mark.parametrize("kind", ["ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"])
def test_a_foreign_change_is_seen_stops_and_can_be_taken_over(api: KubernetesClient, space: str, kind: str) -> None:
    """Whatever the kind: the diff finds it, apply stops before writing, take-over restores it."""
    manifests = workspace(space)
    assert _apply(api, manifests).succeeded
    changed = {
        "ResourceQuota": quota(space, 99), "LimitRange": limit_range(space),
        "NetworkPolicy": network_policy(space), "RoleBinding": role_binding(space, "gpu-commons:others"),
    }[kind]  # fmt: skip
    if kind == "LimitRange":
        changed["spec"]["limits"][0]["default"]["cpu"] = "7"
    if kind == "NetworkPolicy":
        changed["spec"]["ingress"] = [{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]
    _as_another(api, changed, "somebody")
    declared = next(m for m in manifests if m["kind"] == kind)
    live = api.get(kind, declared["metadata"]["name"], space)
    found = diff.declared_changes(declared, live)
    assert found
    owner = ownership.foreign_owner(live, found[0].path)
    assert owner is not None
    assert owner.manager == "somebody"
    stopped = _apply(api, manifests)
    assert stopped.stop_class == "conflict"
    assert not any(row["verb"] == "apply" for row in stopped.results)
    assert _apply(api, manifests, take_over=True).succeeded
    assert planner.is_empty(planner.make(api, manifests))


@pytest.mark.requirement("provisioning-3.6")
def test_a_planned_removal_is_carried_out_and_a_namespace_stays(api: KubernetesClient, space: str) -> None:
    """With a precondition on what was read."""
    manifests = workspace(space)
    assert _apply(api, manifests).succeeded
    rest = [m for m in manifests if m["kind"] != "RoleBinding"]
    binding = Key("RoleBinding", space, "team-leads")
    entries = planner.make(api, rest, [m for m in manifests if m["kind"] == "RoleBinding"])
    assert planner.plans_removal(entries, binding)
    assert _apply(api, rest, unplanned=[binding]).stop_class == "unplanned_removal"
    assert _apply(api, rest, remove=[binding]).removed == [binding]
    assert api.list("RoleBinding", space, label_selector=kinds.MANAGED_SELECTOR).items == []
    assert _apply(api, [], remove=[Key("Namespace", "", space)]).stop_class == "unplanned_removal"
    assert api.get("Namespace", space)
    with pytest.raises(errors.ConflictError):
        api.delete("ResourceQuota", "gpu-quota", space, uid="00000000-0000-0000-0000-000000000000")


@pytest.mark.requirement("clusters-3.3")
def test_nodes_and_version_can_be_read(api: KubernetesClient) -> None:
    """What the probe needs."""
    assert re.match(r"v\d+\.\d+", api.version()["gitVersion"])
    assert api.groups()["groups"]
    assert isinstance(api.list("Node").items, list)
