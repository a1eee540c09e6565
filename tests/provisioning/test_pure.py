"""Diff, order, ownership, retries, planner and applier, without database or network."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.clusters import errors, kinds
from apps.core.canonical import canonical_bytes
from apps.provisioning import applier, diff, ordering, ownership, planner, retries
from apps.provisioning.applier import Target, Work
from apps.provisioning.manifests import Unfit, joined, render
from apps.provisioning.ordering import Key, key_of
from tests.cluster.fixtures import LABELS, limit_range, namespace, network_policy, quota, role_binding, workspace
from tests.provisioning.fake import FakeClient

NOW = datetime(2026, 11, 18, 9, tzinfo=UTC)


def _work(manifests: list[dict[str, Any]], before: list[dict[str, Any]] = [], **kwargs: Any) -> Work:  # noqa: B006 (never changed)
    old = {key_of(m): canonical_bytes(m) for m in before}
    targets = [Target(key_of(m), canonical_bytes(m), old.get(key_of(m), b"")) for m in ordering.in_order(manifests)]
    return Work(targets, **kwargs)


# -- diff ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-2.2")
def test_spelling_is_no_difference() -> None:
    """Quantities by value, named lists by name, server fields not at all, null as absent."""
    one = quota("a", 8, **{"requests.memory": "1Gi", "requests.cpu": "1000m"})
    other = copy.deepcopy(one)
    other["spec"]["hard"].update({"requests.memory": "1024Mi", "requests.cpu": "1", "requests.nvidia.com/gpu": 8})
    other["metadata"].update(
        uid="x", resourceVersion="9", creationTimestamp="now", managedFields=[{}], annotations=None
    )
    other["status"] = {"used": {}}
    assert diff.changes(one, other) == []
    ports = [{"name": "a", "containerPort": 1}, {"name": "b", "containerPort": 2}]
    assert diff.changes({"spec": {"ports": ports}}, {"spec": {"ports": ports[::-1]}}) == []
    assert diff.declared_changes({"spec": {"ingress": []}}, {"spec": {}}) == []
    assert diff.changes({"spec": {"namespaceSelector": {}}}, {"spec": {}})
    assert diff.declared_changes({"spec": {"ingress": []}}, {"spec": {"ingress": [{}]}})


@pytest.mark.requirement("provisioning-2.2")
def test_a_difference_has_a_path_people_can_read() -> None:
    """Keys that are no identifiers in brackets, list items by name or place."""
    one, other = quota("a", 8), quota("a", 12)
    assert [c.plain() for c in diff.changes(one, other)] == [
        {"path": 'spec.hard["requests.nvidia.com/gpu"]', "before": "8", "after": "12"}
    ]
    env = {"env": [{"name": "A", "value": "1"}]}
    assert [c.text_path for c in diff.changes(env, {"env": [{"name": "A", "value": "2"}]})] == ["env[name=A].value"]
    policy, wider = network_policy("a"), network_policy("a")
    wider["spec"]["ingress"].append({})
    assert [c.text_path for c in diff.changes(policy, wider)] == ["spec.ingress[1]"]


def test_labels_and_images_are_text_never_quantities() -> None:
    """A label "1" is not "1.0"; only where the schema has quantities are they numbers."""
    assert diff.changes(namespace("a", version="1"), namespace("a", version="1.0"))
    assert diff.changes({"metadata": {"labels": {"limits": "1"}}}, {"metadata": {"labels": {"limits": "1000m"}}})
    assert diff.changes({"spec": {"suspend": True}}, {"spec": {"suspend": 1}})
    assert diff.changes({"spec": {"replicas": 0}}, {"spec": {}})


_KEYS = st.sampled_from(["hard", "name", "labels", "spec", "pods", "limits", "items", "requests.nvidia.com/gpu"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "1", "1000m", "1Gi", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.requirement("provisioning-2.2")
@given(st.dictionaries(_KEYS, _JSON, max_size=4))
def test_an_object_differs_from_itself_in_nothing(obj: dict[str, Any]) -> None:
    """Whatever its shape; and what is declared is satisfied by itself."""
    assert diff.changes(obj, copy.deepcopy(obj)) == []
    assert diff.declared_changes(obj, copy.deepcopy(obj)) == []


@given(st.dictionaries(_KEYS, _JSON, max_size=4), st.dictionaries(_KEYS, _JSON, max_size=4))
def test_differences_are_found_from_both_sides(one: dict[str, Any], other: dict[str, Any]) -> None:
    """There is a change from A to B exactly if there is one from B to A."""
    assert bool(diff.changes(one, other)) == bool(diff.changes(other, one))
    if not diff.changes(one, other):
        assert diff.declared_changes(one, other) == []


def test_what_others_add_is_no_declared_change_but_a_longer_list_is() -> None:
    """Fields that we do not declare may be anybody's; a list without names is whole."""
    declared, live = quota("a", 8), quota("a", 8, extra="5")
    assert diff.declared_changes(declared, live) == []
    assert diff.live_digest(declared, live) == diff.live_digest(declared, declared)
    binding, wider = role_binding("a"), role_binding("a")
    wider["subjects"].append({"kind": "User", "name": "mallory"})
    assert [c.text_path for c in diff.declared_changes(binding, wider)] == ["subjects[name=mallory]"]
    flavours = [{"name": "h100"}, {"name": "a100"}]
    assert diff.declared_changes({"flavors": flavours}, {"flavors": flavours[::-1]})
    assert diff.live_digest(binding, wider) != diff.live_digest(binding, binding)


def test_what_somebody_adds_inside_a_list_is_told_from_what_the_server_fills_in() -> None:
    """By what the server answered when it was applied; and selectors are whole."""
    declared = network_policy("a")
    declared["spec"]["ingress"] = [{"ports": [{"port": 80}]}]
    settled = copy.deepcopy(declared)
    settled["spec"]["ingress"][0]["ports"][0]["protocol"] = "TCP"  # a default
    assert diff.declared_changes(declared, settled) == []
    assert diff.declared_changes(declared, settled, settled) == []
    widened = copy.deepcopy(settled)
    widened["spec"]["ingress"][0]["ports"][0]["endPort"] = 65535
    found = [c.text_path for c in diff.declared_changes(declared, widened, settled)]
    assert found == ["spec.ingress[0].ports[0].endPort"]
    narrowed = copy.deepcopy(settled)
    narrowed["spec"]["podSelector"] = {"matchLabels": {"app": "other"}}
    assert [c.text_path for c in diff.declared_changes(declared, narrowed)] == ["spec.podSelector.matchLabels.app"]


# -- order, manifests ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-3.1")
def test_dependencies_come_first() -> None:
    """Namespace, LimitRange, ResourceQuota, RBAC, NetworkPolicy; removal the other way round."""
    expected = ["Namespace", "LimitRange", "ResourceQuota", "RoleBinding", "NetworkPolicy"]
    assert [m["kind"] for m in ordering.in_order(workspace("a"))] == expected
    keys = [key_of(m) for m in workspace("a")]
    assert [key.kind for key in ordering.removal_order(keys)] == expected[::-1]


@pytest.mark.requirement("provisioning-1.1")
def test_bytes_do_not_depend_on_the_order_given() -> None:
    """Canonical, sorted, joined to one canonical list."""
    objects = workspace("a")
    assert joined(render(objects)) == joined(render(objects[::-1]))
    assert joined(render(objects)) == canonical_bytes(ordering.in_order(objects))


def _without_label(manifest: dict[str, Any]) -> dict[str, Any]:
    del manifest["metadata"]["labels"]
    return manifest


@pytest.mark.requirement("provisioning-1.3")
@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}, "does not know the kind"),
        ({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x", "labels": LABELS}}, "never declared"),
        ({**quota("a", 1), "apiVersion": "v2"}, "spoken as v1"),
        (_without_label(quota("a", 1)), "lacks the label"),
        ({**quota("a", 1), "status": {}}, "only the server writes"),
        (quota("../b", 1), "no namespace"),
        (quota("", 1), "no namespace"),
        (quota("a", 1, name="a/b"), "no name"),
        ({**namespace("a"), "spec": {"x": 1.5}}, "float"),
    ],
)  # fmt: skip
def test_what_cannot_be_declared_is_refused_by_name(manifest: dict[str, Any], says: str) -> None:
    """Before a byte is stored."""
    with pytest.raises(Unfit, match=says):
        render([manifest])
    with pytest.raises(Unfit, match="given twice"):
        render([quota("a", 1), quota("a", 2)])


# -- ownership ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-4.3")
def test_who_changed_a_field_and_when() -> None:
    """The nearest holder of the path; not us, not the status writer."""
    fields = {"f:spec": {"f:hard": {"f:requests.nvidia.com/gpu": {}}}}
    obj = {
        "metadata": {
            "managedFields": [
                {"manager": "gpu-commons", "operation": "Apply", "time": "2026-11-01T00:00:00Z",
                 "fieldsV1": {"f:spec": {"f:hard": {"f:pods": {}}}}},
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-11-20T08:30:00Z", "fieldsV1": fields},
                {"manager": "controller", "operation": "Update", "subresource": "status", "fieldsV1": {"f:spec": {}}},
            ]
        }
    }  # fmt: skip
    owner = ownership.foreign_owner(obj, ("spec", "hard", "requests.nvidia.com/gpu"))
    assert owner is not None
    assert (owner.manager, owner.operation) == ("kubectl-edit", "Update")
    assert owner.at == datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
    assert ownership.foreign_owner(obj, ("metadata", "labels", "x")) is None


def test_list_items_are_found_by_their_keys() -> None:
    """`k:` entries; and what we hold beyond what is declared is noticed."""
    ours = {"manager": "gpu-commons", "operation": "Apply"}
    trie = {"f:spec": {"f:ports": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:value": {}}}}}
    obj = {"metadata": {"managedFields": [{**ours, "fieldsV1": trie}]}}
    path = ("spec", "ports", "name=a", "value")
    assert [owner.manager for owner in ownership.owners_of(obj, path)] == ["gpu-commons"]
    declared = {"spec": {"ports": [{"name": "a", "value": 1}]}}
    assert not ownership.held_beyond(obj, declared)
    assert ownership.held_beyond(obj, {"spec": {"ports": [{"name": "a"}]}})
    assert ownership.held_beyond(obj, {"spec": {"ports": [{"name": "b", "value": 1}]}})
    assert ownership.held_beyond(obj, {"spec": {}})


# -- retries ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-3.4")
@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_pauses_grow_to_a_limit_and_keep_to_what_the_server_asked(attempts: int, spread: float) -> None:
    """Never nothing, never more than five minutes on our own account, never before Retry-After."""
    pause = (retries.retry_at(errors.Unreachable("x"), attempts, NOW, spread=spread) - NOW).total_seconds()
    assert 0.5 <= pause <= 300
    later = (retries.retry_at(errors.Unreachable("x"), attempts + 1, NOW, spread=spread) - NOW).total_seconds()
    assert later >= pause
    asked = retries.retry_at(errors.Throttled("x", retry_after=900), attempts, NOW, spread=spread)
    assert asked == NOW + timedelta(seconds=900)


@pytest.mark.requirement("provisioning-3.4")
@pytest.mark.parametrize("error", [errors.Forbidden("x"), errors.InvalidObject("x"), errors.ConflictError("x")])
def test_what_no_retry_can_help_is_not_retried(error: errors.ClusterError) -> None:
    """A person has to act."""
    with pytest.raises(ValueError, match="not to be retried"):
        retries.retry_at(error, 1, NOW)


# -- planner ------------------------------------------------------------------------------------------------------


def _entry(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["kind"] == kind)


@pytest.mark.requirement("provisioning-2.3")
def test_a_new_workspace_is_planned_as_rendered() -> None:
    """Its namespace is checked by the server, what lives in it cannot be yet."""
    entries = planner.make(FakeClient(), workspace("a"))
    assert _entry(entries, "Namespace")["server_checked"] is True
    assert {e["server_checked"] for e in entries if e["kind"] != "Namespace"} == {False}
    assert {e["operation"] for e in entries} == {"create"}
    shown = {c["path"]: c["after"] for c in _entry(entries, "ResourceQuota")["changes"]}
    assert shown['spec.hard["requests.nvidia.com/gpu"]'] == "8"
    assert not any(path in shown for path in ("kind", "metadata.name"))


@pytest.mark.requirement("provisioning-2.1")
def test_a_plan_shows_what_the_server_would_change() -> None:
    """Before and after, only where it changes."""
    client = FakeClient()
    applier.run(client, _work(workspace("a")))
    entries = planner.make(client, workspace("a", 12))
    assert _entry(entries, "ResourceQuota")["changes"] == [
        {"path": 'spec.hard["requests.nvidia.com/gpu"]', "before": "8", "after": "12"}
    ]
    assert {e["operation"] for e in entries if e["kind"] != "ResourceQuota"} == {"unchanged"}
    assert planner.is_empty(planner.make(client, workspace("a")))


@pytest.mark.requirement("provisioning-2.4")
def test_a_plan_tells_conflicts() -> None:
    """With manager and field; the change shown is what taking over would give."""
    client = FakeClient()
    applier.run(client, _work(workspace("a")))
    client.edit(Key("ResourceQuota", "a", "gpu-quota"), ("spec", "hard", "pods"), "999")
    entry = _entry(planner.make(client, workspace("a")), "ResourceQuota")
    assert [c["manager"] for c in entry["conflicts"]] == ["kubectl-edit"]
    assert entry["changes"] == [{"path": "spec.hard.pods", "before": "999", "after": "50"}]
    assert not planner.is_empty([entry])


@pytest.mark.requirement("provisioning-3.6")
def test_a_plan_names_removals_and_what_stays() -> None:
    """Namespaces and volume claims are left where they are."""
    client = FakeClient()
    applier.run(client, _work(workspace("a")))
    keep = [m for m in workspace("a") if m["kind"] in ("ResourceQuota", "LimitRange")]
    gone = [m for m in workspace("a") if m not in keep]
    entries = planner.make(client, keep, gone)
    operations = {e["kind"]: e["operation"] for e in entries if e["kind"] not in ("ResourceQuota", "LimitRange")}
    assert operations == {"Namespace": "retain", "RoleBinding": "remove", "NetworkPolicy": "remove"}
    assert planner.plans_removal(entries, Key("RoleBinding", "a", "team-leads"))
    assert not planner.plans_removal(entries, Key("Namespace", "", "a"))


# -- applier ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("provisioning-3.2")
def test_applying_twice_writes_nothing() -> None:
    """Not even a request that changes nothing."""
    client = FakeClient()
    assert applier.run(client, _work(workspace("a"))).succeeded
    client.writes.clear()
    outcome = applier.run(client, _work(workspace("a"), workspace("a")))
    assert outcome.succeeded
    assert client.writes == []
    assert {row["verb"] for row in outcome.results} == {"get"}


@pytest.mark.requirement("provisioning-3.3")
def test_a_conflict_stops_before_anything_is_written() -> None:
    """What moved since it was applied is asked by a dry run first."""
    client = FakeClient()
    applier.run(client, _work(workspace("a")))
    client.edit(Key("NetworkPolicy", "a", "default-deny"), ("spec", "policyTypes"), ["Egress"])
    client.writes.clear()
    outcome = applier.run(client, _work(workspace("a", 12), workspace("a")))
    assert (outcome.stop_class, client.writes) == ("conflict", [])
    assert "kubectl-edit" in outcome.stop
    taken = applier.run(client, _work(workspace("a", 12), workspace("a"), take_over=True))
    assert taken.succeeded
    assert planner.is_empty(planner.make(client, workspace("a", 12)))


@pytest.mark.requirement("provisioning-3.3")
def test_a_field_the_server_rewrites_stops() -> None:
    """What lives there would not be what was approved."""

    class Rewriting(FakeClient):
        def apply(self, *args: Any, **kwargs: Any) -> Any:
            answer = super().apply(*args, **kwargs)
            if answer.object["kind"] == "ResourceQuota":
                answer.object["spec"]["hard"]["pods"] = "10"
            return answer

    outcome = applier.run(Rewriting(), _work(workspace("a")))
    assert outcome.stop_class == "rewritten"
    assert "spec.hard.pods from 50 to 10" in outcome.stop


@pytest.mark.requirement("provisioning-3.6")
def test_only_planned_removals_happen() -> None:
    """And never a namespace, whatever the work says."""
    client = FakeClient()
    applier.run(client, _work(workspace("a")))
    rest = [m for m in workspace("a") if m["kind"] != "RoleBinding"]
    binding = Key("RoleBinding", "a", "team-leads")
    stopped = applier.run(client, _work(rest, workspace("a"), unplanned=[binding]))
    assert stopped.stop_class == "unplanned_removal"
    assert binding in client.objects
    assert applier.run(client, _work(rest, workspace("a"), remove=[binding])).succeeded
    assert binding not in client.objects
    outcome = applier.run(client, _work(rest, rest, remove=[Key("Namespace", "", "a")]))
    assert outcome.stop_class == "unplanned_removal"
    assert Key("Namespace", "", "a") in client.objects
    # An object somebody has made their own is not ours to delete.
    applier.run(client, _work(workspace("a")))
    client.objects[binding]["metadata"]["labels"] = {}
    assert applier.run(client, _work(rest, workspace("a"), remove=[binding])).stop_class == "unplanned_removal"


def test_a_dropped_field_is_given_up_even_if_no_record_of_it_was_kept() -> None:
    """A generation that was applied but never recorded leaves nothing behind."""
    client = FakeClient()
    first = workspace("a")
    second = [quota("a", 8, **{"requests.memory": "1Gi"}) if m["kind"] == "ResourceQuota" else m for m in first]
    applier.run(client, _work(first))
    applier.run(client, _work(second, first))  # its worker died before it recorded this
    assert applier.run(client, _work(first, first)).succeeded
    assert "requests.memory" not in client.objects[Key("ResourceQuota", "a", "gpu-quota")]["spec"]["hard"]


def test_a_terminating_namespace_is_waited_for() -> None:
    """Applying to it would answer 200 and vanish."""
    client = FakeClient()
    applier.run(client, _work(workspace("a")))
    client.objects[Key("Namespace", "", "a")]["metadata"]["deletionTimestamp"] = "2026-11-20T08:00:00Z"
    outcome = applier.run(client, _work(workspace("a", 9), workspace("a")))
    assert isinstance(outcome.error, errors.Terminating)


_ERRORS = st.sampled_from(
    [errors.Unreachable("cut"), errors.Throttled("slow down"), errors.ServerError("500", status=500),
     errors.StaleRead("moved"), errors.Terminating("going")]
)  # fmt: skip
_FAULTS = st.lists(st.none() | st.tuples(st.sampled_from(["before", "after"]), _ERRORS), max_size=40)
_GPUS = st.integers(0, 64)


@pytest.mark.requirement("provisioning-3.10", "provisioning-3.4")
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_GPUS, st.booleans()), min_size=1, max_size=4), _FAULTS)
def test_any_sequence_of_failures_converges(generations: list[tuple[int, bool]], faults: list[Any]) -> None:
    """Failures before and after effect, in any order, generations superseding half-applied ones: in the end what is
    declared lives, a plan is empty, and applying again writes nothing."""
    client = FakeClient()
    client.failures = list(faults)
    recorded: list[dict[str, Any]] = []
    manifests: list[dict[str, Any]] = []
    for gpus, with_memory in generations:
        manifests = workspace("a", gpus)
        if with_memory:
            manifests[0] = quota("a", gpus, **{"requests.memory": "1Gi"})
        outcome = applier.run(client, _work(manifests, recorded))  # one attempt, then perhaps superseded
        assert not outcome.stop
        if outcome.succeeded:
            recorded = manifests
    for _ in range(len(faults) + 2):
        outcome = applier.run(client, _work(manifests, recorded))
        assert not outcome.stop
        if outcome.succeeded:
            break
    assert outcome.succeeded
    client.failures = []
    assert planner.is_empty(planner.make(client, manifests))
    hard = client.objects[Key("ResourceQuota", "a", "gpu-quota")]["spec"]["hard"]
    assert hard == manifests[0]["spec"]["hard"]
    client.writes.clear()
    assert applier.run(client, _work(manifests, manifests)).succeeded
    assert client.writes == []


@pytest.mark.requirement("provisioning-3.7")
def test_every_request_is_noted() -> None:
    """With verb, status and duration, failures with their words."""
    client = FakeClient()
    client.failures = [None, None, ("before", errors.ServerError("boom", status=500))]
    outcome = applier.run(client, _work(workspace("a")))
    assert [row["verb"] for row in outcome.results] == ["get", "apply", "apply"]
    assert outcome.results[-1]["status"] == 500
    assert outcome.results[-1]["error"] == "boom"
    assert all(row["ms"] >= 0 for row in outcome.results)


def test_the_kind_table_orders_what_is_declared_before_what_depends_on_it() -> None:
    """A namespace comes before everything that lives in one."""
    assert all(kind.order > 0 for name, kind in kinds.KINDS.items() if name != "Namespace")
    assert json.loads(canonical_bytes(limit_range("a")))["kind"] == "LimitRange"
