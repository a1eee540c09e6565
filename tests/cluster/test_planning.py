"""Plan, apply, plan: empty at the end, whatever was there before."""

from __future__ import annotations

import copy
import re

import pytest

from apps.clusters import errors, kinds
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.provisioning import diff, ownership, planner
from apps.provisioning.ordering import Key
from apps.provisioning.takeover import Last
from tests.cluster.fixtures import limit_range, network_policy, quota, role_binding, workspace
from tests.cluster.helpers import Manifest, as_another, merge_patch, run_apply, run_next

pytestmark = pytest.mark.cluster


@pytest.mark.requirement("provisioning-3.10", "provisioning-2.1", "provisioning-2.2", "provisioning-3.2")
def test_plan_apply_plan_is_empty(api: KubernetesClient, space: str) -> None:
    """For a new workspace, for a change, with quantities in other spellings; applying again writes nothing."""
    manifests = workspace(space)
    planned = planner.make(api, manifests)
    assert {entry["operation"] for entry in planned} == {"create"}
    assert run_apply(api, manifests).succeeded
    assert planner.is_empty(planner.make(api, manifests))
    again = run_apply(api, manifests)
    assert again.succeeded
    assert {row["verb"] for row in again.results} == {"get"}
    spelt = copy.deepcopy(manifests)
    spelt[0]["spec"]["hard"].update({"requests.memory": "1024Mi"})
    assert not planner.is_empty(planner.make(api, spelt))
    assert run_apply(api, spelt).succeeded
    spelt[0]["spec"]["hard"].update({"requests.memory": "1Gi"})
    assert planner.is_empty(planner.make(api, spelt))


@pytest.mark.requirement("provisioning-3.3", "provisioning-4.3")
@pytest.mark.parametrize("kind", ["ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"])
def test_a_foreign_change_is_seen_stops_and_can_be_taken_over(api: KubernetesClient, space: str, kind: str) -> None:
    """Whatever the kind: the diff finds it, apply stops before writing, take-over restores it."""
    manifests = workspace(space)
    assert run_apply(api, manifests).succeeded
    changed = {
        "ResourceQuota": quota(space, 99), "LimitRange": limit_range(space),
        "NetworkPolicy": network_policy(space), "RoleBinding": role_binding(space, "gpu-commons:others"),
    }[kind]  # fmt: skip
    if kind == "LimitRange":
        changed["spec"]["limits"][0]["default"]["cpu"] = "7"
    if kind == "NetworkPolicy":
        changed["spec"]["ingress"] = [{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]
    as_another(api, changed, "somebody")
    declared = next(m for m in manifests if m["kind"] == kind)
    live = api.get(kind, declared["metadata"]["name"], space)
    found = diff.declared_changes(declared, live)
    assert found
    owner = ownership.foreign_owner(live, found[0].path)
    assert owner is not None
    assert owner.manager == "somebody"
    stopped = run_apply(api, manifests)
    assert stopped.stop_class == "conflict"
    assert not any(row["verb"] == "apply" for row in stopped.results)
    assert run_apply(api, manifests, take_over=True).succeeded
    assert planner.is_empty(planner.make(api, manifests))


@pytest.mark.requirement("provisioning-3.11", "provisioning-3.10")
@pytest.mark.parametrize("kind", ["ResourceQuota", "LimitRange", "NetworkPolicy", "RoleBinding"])
@pytest.mark.parametrize("how", ["apply", "merge"])
def test_who_shares_a_field_is_no_conflict_until_it_lives_differently(
    api: KubernetesClient, space: str, kind: str, how: str
) -> None:
    """Edited and set back by another manager: planned as taken over, applied, and the plan after it is empty."""
    last: dict[Key, Last] = {}
    first = workspace(space)
    assert run_next(api, first, last).succeeded
    declared = next(m for m in first if m["kind"] == kind)
    edited = _edited(declared)
    for body in (edited, declared):
        if how == "apply":
            as_another(api, body, "somebody")
        else:
            merge_patch(api, body, "somebody")
    assert not diff.declared_changes(declared, api.get(kind, declared["metadata"]["name"], space))
    changed = [edited if m["kind"] == kind else m for m in first]
    entry = next(e for e in planner.make(api, changed, last=last) if e["kind"] == kind)
    assert entry["conflicts"] == []
    assert {one["manager"] for one in entry["taken_over"]} == {"somebody"}
    outcome = run_next(api, changed, last)
    assert outcome.succeeded, outcome.stop
    assert {one["manager"] for row in outcome.results for one in row.get("taken_over", [])} == {"somebody"}
    assert planner.is_empty(planner.make(api, changed, last=last))
    # What somebody changes again is a conflict as before.
    other = _edited(edited)
    (as_another if how == "apply" else merge_patch)(api, other, "somebody")
    third = [_edited(other) if m["kind"] == kind else m for m in first]
    assert [e["kind"] for e in planner.make(api, third, last=last) if e["conflicts"]] == [kind]
    stopped = run_next(api, third, last)
    assert (stopped.stop_class, [row for row in stopped.results if row["verb"] == "apply"]) == ("conflict", [])


@pytest.mark.requirement("provisioning-3.11")
def test_an_apply_of_a_version_that_has_moved_on_is_refused(api: KubernetesClient, space: str) -> None:
    """With force, too: what was looked at is what is overwritten, or nothing."""
    run_apply(api, workspace(space))
    before = api.get("ResourceQuota", "gpu-quota", space)["metadata"]["resourceVersion"]
    as_another(api, quota(space, 99), "somebody")
    body = quota(space, 3)
    body["metadata"]["resourceVersion"] = before
    with pytest.raises(errors.StaleRead):
        api.apply(body, force=True)
    assert api.get("ResourceQuota", "gpu-quota", space)["spec"]["hard"]["requests.nvidia.com/gpu"] == "99"


def _edited(manifest: Manifest) -> Manifest:
    """Another value in a field of this object."""
    out = copy.deepcopy(manifest)
    match out["kind"]:
        case "ResourceQuota":
            hard = out["spec"]["hard"]
            hard["requests.nvidia.com/gpu"] = str(int(hard["requests.nvidia.com/gpu"]) + 3)
        case "LimitRange":
            default = out["spec"]["limits"][0]["default"]
            default["cpu"] = {"7": "9", "9": "11"}.get(default["cpu"], "7")
        case "NetworkPolicy":
            app = f"other-{len(str(out['spec']))}"
            out["spec"]["ingress"] = [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]
        case _:
            out["subjects"] = [{**out["subjects"][0], "name": out["subjects"][0]["name"] + "-x"}]
    return out


@pytest.mark.requirement("provisioning-3.6")
def test_a_planned_removal_is_carried_out_and_a_namespace_stays(api: KubernetesClient, space: str) -> None:
    """With a precondition on what was read."""
    manifests = workspace(space)
    assert run_apply(api, manifests).succeeded
    rest = [m for m in manifests if m["kind"] != "RoleBinding"]
    binding = Key("RoleBinding", space, "team-leads")
    entries = planner.make(api, rest, [m for m in manifests if m["kind"] == "RoleBinding"])
    assert planner.plans_removal(entries, binding)
    assert run_apply(api, rest, unplanned=[binding]).stop_class == "unplanned_removal"
    assert run_apply(api, rest, remove=[binding]).removed == [binding]
    assert api.list("RoleBinding", space, label_selector=kinds.MANAGED_SELECTOR).items == []
    assert run_apply(api, [], remove=[Key("Namespace", "", space)]).stop_class == "unplanned_removal"
    assert api.get("Namespace", space)
    with pytest.raises(errors.ConflictError):
        api.delete("ResourceQuota", "gpu-quota", space, uid="00000000-0000-0000-0000-000000000000")


@pytest.mark.requirement("clusters-3.3")
def test_nodes_and_version_can_be_read(api: KubernetesClient) -> None:
    """What the probe needs."""
    assert re.match(r"v\d+\.\d+", api.version()["gitVersion"])
    assert api.groups()["groups"]
    assert isinstance(api.list("Node").items, list)
