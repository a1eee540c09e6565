"""Kueue's kinds under any sequence of failures: what is declared lives in the end, and then a plan is empty."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.clusters import errors
from apps.provisioning import applier, planner
from apps.provisioning.ordering import Key, key_of
from tests.cluster.fixtures import LABELS, namespace
from tests.provisioning.fake import FakeClient, leaves
from tests.provisioning.test_pure import _FAULTS, _work

Manifest = dict[str, Any]
API = "kueue.x-k8s.io/v1beta2"
QUEUE = Key("ClusterQueue", "", "finance-production")
_LIMIT = st.none() | st.integers(0, 64)
#: Per flavour: (name, guaranteed, borrow, lend); the order of flavours is the order in which Kueue tries them.
_FLAVOURS = st.lists(
    st.tuples(st.sampled_from(["h100", "a100", "mig-1g"]), st.integers(0, 64), _LIMIT, _LIMIT),
    min_size=1, max_size=3, unique_by=lambda row: row[0],
)  # fmt: skip
#: A generation of a queue: its flavours, its unit's place in the tree, what its end-of-quota rung says, its weight.
_GENERATIONS = st.lists(
    st.tuples(
        _FLAVOURS, st.sampled_from(["", "platform"]), st.sampled_from(["None", "Hold", "HoldAndDrain"]),
        st.sampled_from(["", "1", "2500m"]),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def _object(kind: str, name: str, spec: Manifest | None, ns: str = "") -> Manifest:
    meta: Manifest = {"name": name, "labels": dict(LABELS)} | ({"namespace": ns} if ns else {})
    return {"apiVersion": API, "kind": kind, "metadata": meta} | ({"spec": spec} if spec is not None else {})


def _quota(guaranteed: int, borrow: int | None, lend: int | None) -> Manifest:
    limits = {"borrowingLimit": borrow, "lendingLimit": lend}
    named = {name: str(value) for name, value in limits.items() if value is not None}
    return {"name": "nvidia.com/gpu", "nominalQuota": str(guaranteed)} | named


def _manifests(flavours: list[tuple[str, int, int | None, int | None]], parent: str, stop: str, weight: str) -> Any:
    group = {
        "coveredResources": ["nvidia.com/gpu"],
        "flavors": [{"name": name, "resources": [_quota(*numbers)]} for name, *numbers in flavours],
    }
    spec: Manifest = {
        "cohortName": "unit-finance", "resourceGroups": [group], "stopPolicy": stop,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "a"}},
        "preemption": {"reclaimWithinCohort": "Any"},
    } | ({"fairSharing": {"weight": weight}} if weight else {})  # fmt: skip
    return [
        _object("LocalQueue", "default", {"clusterQueue": QUEUE.name}, "a"),
        _object("ClusterQueue", QUEUE.name, spec),
        _object("Cohort", "unit-finance", {"parentName": parent} if parent else {"fairSharing": {"weight": "1"}}),
        *(_object("ResourceFlavor", name, {"nodeLabels": {"gpu": name}}) for name in ("h100", "a100", "mig-1g")),
        namespace("a"),
    ]


def _values(spec: Manifest) -> Manifest:
    return {
        ".".join(path): value for path, value in leaves(spec) if value != {}
    }  # a map with nothing in it says nothing


@pytest.mark.requirement("provisioning-3.10", "provisioning-3.4")
@settings(max_examples=120, deadline=None)
@given(_GENERATIONS, _FAULTS)
def test_queues_converge_after_any_sequence_of_failures(generations: list[Any], faults: list[Any]) -> None:
    """Generations supersede half-applied ones; in the end every field lives as declared last and none of an older."""
    client = FakeClient()
    client.failures = list(faults)
    recorded: list[Manifest] = []
    manifests: list[Manifest] = []
    for generation in generations:
        manifests = _manifests(*generation)
        outcome = applier.run(client, _work(manifests, recorded))
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
    for declared in manifests:
        lives = client.objects[key_of(declared)].get("spec", {})
        assert _values(lives) == _values(declared.get("spec", {}))
    client.writes.clear()
    assert applier.run(client, _work(manifests, manifests)).succeeded
    assert client.writes == []


@pytest.mark.requirement("provisioning-3.10")
@settings(max_examples=60, deadline=None)
@given(_FLAVOURS, st.integers(0, 64))
def test_a_queue_edited_by_hand_is_in_the_plan_until_it_is_taken_back(flavours: Any, nominal: int) -> None:
    """Another's numbers are a conflict that a plan shows; taking the fields over makes the plan empty again."""
    client = FakeClient()
    manifests = _manifests(flavours, "", "None", "")
    assert applier.run(client, _work(manifests)).succeeded
    edited = [{"coveredResources": ["nvidia.com/gpu"], "flavors": [
        {"name": "h100", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": str(nominal + 1000)}]}]}]  # fmt: skip
    client.edit(QUEUE, ("spec", "resourceGroups"), edited)
    assert not planner.is_empty(planner.make(client, manifests))
    assert applier.run(client, _work(manifests, manifests)).stop_class == "conflict"
    assert applier.run(client, _work(manifests, manifests, take_over=True)).succeeded
    assert planner.is_empty(planner.make(client, manifests))


@pytest.mark.requirement("provisioning-3.4")
def test_a_queue_before_its_cohort_never_is() -> None:
    """What others need is applied first, and a failure in between leaves nothing that hangs in the air."""
    client = FakeClient()
    client.failures = [None] * 9 + [("before", errors.ServerError("500", status=500))]
    applier.run(client, _work(_manifests([("h100", 8, None, None)], "", "None", "")))
    made = [key.kind for _, key in client.writes]
    order = ["Namespace", "ResourceFlavor", "ResourceFlavor", "ResourceFlavor", "Cohort", "ClusterQueue", "LocalQueue"]
    assert made == order[: len(made)]
    assert len(made) < len(order)
