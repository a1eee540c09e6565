"""The renderer of queues: golden files, the schemas of Kueue's CRDs, the rules that Kueue itself would check."""

from __future__ import annotations

import copy
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from apps.clusters import kinds
from apps.provisioning.manifests import render
from apps.quotas import kueue, kueue_baseline, kueue_rules, priorities
from apps.quotas.kueue import QueueSpec, Share
from apps.quotas.kueue_baseline import CohortSpec, FlavourSpec
from apps.quotas.manifests import Manifest, with_quota, without_gpus, workspace_manifests
from apps.quotas.use_it import Place, ready_made
from tests.quotas.crds import crd_errors
from tests.quotas.test_manifests import GOLDEN, spec

GPU, MIG1, MIG3 = "nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb"
LABELS = {"gpu-commons/managed": "true", "gpu-commons/baseline": "true"}
A100 = Share("a100-80gb", GPU, 16, 16)


def queued(environment: str, shares: list[Share], *, mode: str = "jobs", rung: str = "none", **more: Any) -> Any:
    limits: dict[str, int] = {}
    for share in shares:
        limits[share.resource] = limits.get(share.resource, 0) + share.maximum
    queue = QueueSpec("business-lines", mode, rung=rung, namespace_labels={"kueue.x-k8s.io/managed-namespace": "true"})
    return spec(environment, gpus=limits, shares=shares, priorities=True, queue=queue, **more)


CASES: dict[str, Any] = {
    "plain-mig-mixed": spec("development", gpus={GPU: 4, MIG1: 14, MIG3: 2}),
    "plain-time-sliced": spec("development", gpus={"nvidia.com/gpu.shared": 20}),
    "kueue-borrow-none": queued("development", [A100, Share("h100-80gb", GPU)]),
    "kueue-borrow-limited": queued("development", [Share("a100-80gb", GPU, 16, 24)]),
    "kueue-borrow-unlimited": queued("development", [Share("a100-80gb", GPU, 16, 50)]),
    "kueue-lend-none": queued("development", [Share("a100-80gb", GPU, 16, 16, lend=0)]),
    "kueue-lend-limited": queued("development", [Share("a100-80gb", GPU, 16, 16, lend=6)]),
    "kueue-serving-jobs": queued("production", [Share("a100-80gb", GPU, 16, 20, serving=6)]),
    "kueue-serving-pods": queued("production", [Share("a100-80gb", GPU, 16, 20, serving=6)], mode="pods"),
    "kueue-mig-mixed": queued("staging", [Share("a100-1g", MIG1, 14, 14), Share("a100-3g", MIG3, 2, 4)]),
    "kueue-time-sliced": queued("development", [A100, Share("a100-quarter", GPU, 8, 8)]),
    "kueue-cpu-class": queued("development", [A100, Share("epyc", "cpu", 128, 192)]),
    "kueue-hold": queued("production", [A100], rung="stopped_admitting"),
    "kueue-hold-and-drain": queued("production", [A100], rung="drained"),
}


def baseline() -> list[Manifest]:
    nodes = [{"cloud.provider.com/topology-block": "b1", "cloud.provider.com/topology-rack": f"r{n}"} for n in (1, 2)]
    toleration = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
    taint = {"key": GPU, "value": "true", "effect": "NoSchedule"}
    flavours = [
        FlavourSpec(
            "a100-80gb", {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, [toleration], [taint],
            kueue_baseline.levels_of(nodes),
        ),
        FlavourSpec("h100-80gb", {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, [toleration]),
    ]  # fmt: skip
    cohorts = [CohortSpec("example-group"), CohortSpec("business-lines", "example-group")]
    return priorities.priority_manifests(LABELS, kueue=True) + kueue_baseline.kueue_manifests(flavours, cohorts, LABELS)


def rendered(name: str) -> list[Manifest]:
    return baseline() if name == "baseline-kueue" else workspace_manifests(CASES[name])


NAMES = [*CASES, "baseline-kueue"]


@pytest.mark.requirement("kueue-1.1")
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    path = Path(GOLDEN) / f"{name}.yaml"
    text = yaml.safe_dump_all(rendered(name), sort_keys=False)
    if os.environ.get("COMMONS_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.requirement("kueue-1.2")
@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("name", NAMES)
def test_the_official_schemas_take_the_core_kinds(name: str, version: str) -> None:
    core = [m for m in rendered(name) if not m["apiVersion"].startswith("kueue")]
    for manifest in core:
        kubernetes_validate.validate(manifest, version, strict=True)
    assert core


@pytest.mark.requirement("kueue-1.2")
@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_of_kueues_crds_take_every_object(name: str) -> None:
    objects = [m for m in rendered(name) if m["apiVersion"].startswith("kueue")]
    assert [error for manifest in objects for error in crd_errors(manifest)] == []


@pytest.mark.requirement("kueue-1.2")
@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_declared_and_pass_the_rules(name: str) -> None:
    manifests = rendered(name)
    assert kueue_rules.check(manifests) == []
    order = [kinds.KINDS[one.key.kind].order for one in render(manifests)]
    assert order == sorted(order)


def entry(manifests: list[Manifest], flavour: str) -> Manifest:
    queue = kueue.queue_of(manifests)
    assert queue is not None
    groups = queue["spec"]["resourceGroups"]
    found: Manifest = next(f for g in groups for f in g["flavors"] if f["name"] == flavour)["resources"][0]
    return found


@pytest.mark.requirement("kueue-1.3")
@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("kueue-borrow-none", ("16", "0", None)),
        ("kueue-borrow-limited", ("16", "8", None)),
        ("kueue-borrow-unlimited", ("16", "34", None)),
        ("kueue-lend-none", ("16", "0", "0")),
        ("kueue-lend-limited", ("16", "0", "6")),
        ("kueue-serving-jobs", ("10", "4", None)),
        ("kueue-serving-pods", ("16", "4", "10")),
    ],
)
def test_guaranteed_borrow_and_lend_in_kueues_words(name: str, numbers: tuple[str, str, str | None]) -> None:
    found = entry(rendered(name), "a100-80gb")
    assert (found["nominalQuota"], found["borrowingLimit"], found.get("lendingLimit")) == numbers


@pytest.mark.requirement("kueue-1.5")
@pytest.mark.parametrize(
    ("rung", "policy"),
    [("none", "None"), ("stopped_admitting", "Hold"), ("drained", "HoldAndDrain"), ("archived", "HoldAndDrain")],
)
def test_the_ladder_at_the_end_of_quota_moves_the_stop_policy_alone(rung: str, policy: str) -> None:
    stored = rendered("kueue-borrow-none")
    moved = kueue.with_stop_policy(stored, rung)
    queue, before = kueue.queue_of(moved), kueue.queue_of(stored)
    assert queue is not None
    assert before is not None
    assert queue["spec"]["stopPolicy"] == policy
    assert {**queue, "spec": {**queue["spec"], "stopPolicy": "None"}} == before
    assert [m for m in moved if m["kind"] != "ClusterQueue"] == [m for m in stored if m["kind"] != "ClusterQueue"]


@pytest.mark.requirement("kueue-2.1")
def test_production_priority_is_kept_to_production_and_its_share() -> None:
    def scoped(name: str) -> dict[str, str]:
        return next(m for m in rendered(name) if m["metadata"]["name"] == priorities.SCOPED_QUOTA)["spec"]["hard"]  # type: ignore[no-any-return]  # a manifest

    assert scoped("kueue-borrow-limited") == {"pods": "0"}
    assert scoped("kueue-serving-jobs") == {"requests.nvidia.com/gpu": "6"}
    assert scoped("kueue-serving-pods") == {"requests.nvidia.com/gpu": "16"}
    without = workspace_manifests(spec("production", shares=[Share("a100", GPU, 16, 20)], priorities=True))
    assert without[-1]["spec"]["hard"] == {"requests.nvidia.com/gpu": "16"}
    assert without[-1]["spec"]["scopeSelector"]["matchExpressions"][0]["values"] == ["gpu-commons-production"]


@pytest.mark.requirement("kueue-1.4")
def test_a_change_of_quota_moves_its_numbers_in_all_three_places_and_nothing_else() -> None:
    stored = rendered("kueue-serving-jobs")
    before = copy.deepcopy(stored)
    share = Share("a100-80gb", GPU, 20, 30, lend=3, serving=4)
    moved = with_quota(stored, {GPU: 30}, [share])
    assert stored == before
    assert moved[2]["spec"]["hard"]["requests.nvidia.com/gpu"] == "30"
    assert moved[6]["spec"]["hard"] == {"requests.nvidia.com/gpu": "4"}
    found = entry(moved, "a100-80gb")
    assert found == {"name": GPU, "nominalQuota": "16", "borrowingLimit": "10", "lendingLimit": "3"}
    assert [without_gpus(m) for m in moved] == [without_gpus(m) for m in stored]
    assert with_quota(moved, {GPU: 20}, CASES["kueue-serving-jobs"].shares) == stored


@pytest.mark.requirement("kueue-1.4")
def test_a_flavour_new_to_the_queue_comes_with_the_approval_that_sets_it_only() -> None:
    stored = rendered("kueue-borrow-none")
    new = Share("a100-1g", MIG1, 7, 7)
    assert with_quota(stored, {}, [new]) == stored
    moved = with_quota(stored, {MIG1: 7}, [new], [MIG1])
    queue = kueue.queue_of(moved)
    assert queue is not None
    assert [g["coveredResources"] for g in queue["spec"]["resourceGroups"]] == [
        ["cpu", "memory", "pods"],
        [GPU],
        [MIG1],
    ]
    again = with_quota(moved, {GPU: 1}, [Share("b200", GPU, 1, 1)], [GPU])
    queue = kueue.queue_of(again)
    assert queue is not None
    assert [f["name"] for f in queue["spec"]["resourceGroups"][1]["flavors"]] == ["a100-80gb", "b200", "h100-80gb"]
    cpu = with_quota(again, {"cpu": 300}, [Share("epyc", "cpu", 44, 44)], ["cpu"])
    assert kueue_rules.check(cpu) == []
    assert entry(cpu, "epyc")["nominalQuota"] == "44"


@pytest.mark.requirement("kueue-3.1")
def test_a_flavour_with_a_topology_stays_as_the_cluster_can_still_take_it() -> None:
    declared = baseline()
    topology = next(m for m in declared if m["kind"] == "Topology")["metadata"]["name"]
    next(m for m in declared if m["metadata"]["name"] == "a100-80gb")["spec"]["topologyName"] = topology
    moved = kueue_baseline.kueue_manifests(
        [FlavourSpec("a100-80gb", {"other": "label"}, levels=("rack", "kubernetes.io/hostname"))],
        [], LABELS,
    )  # fmt: skip
    assert not any("topologyName" in m["spec"] for m in moved)
    kept = kueue_baseline.keep_what_is_fixed(moved, declared)
    flavour = next(m for m in kept if m["metadata"]["name"] == "a100-80gb")
    assert flavour["spec"] == next(m for m in declared if m["metadata"]["name"] == "a100-80gb")["spec"]
    topologies = [m["metadata"]["name"] for m in kept if m["kind"] == "Topology"]
    assert topologies == [topology, moved[0]["metadata"]["name"]]
    assert flavour["spec"]["topologyName"] == topology
    free = kueue_baseline.kueue_manifests([FlavourSpec("h100-80gb", {"other": "label"})], [], LABELS)
    assert kueue_baseline.keep_what_is_fixed(free, declared) == free


@pytest.mark.requirement("kueue-3.1")
def test_placement_and_taints_are_what_all_nodes_of_a_flavour_share() -> None:
    rack = {"topology.kubernetes.io/rack": "r1"}
    assert kueue_baseline.levels_of([rack, rack]) == ("topology.kubernetes.io/rack", "kubernetes.io/hostname")
    assert kueue_baseline.levels_of([rack, {}]) == ()
    assert kueue_baseline.levels_of([]) == ()
    taint, other = {"key": GPU, "effect": "NoSchedule"}, {"key": "spot", "value": "1", "effect": "NoSchedule"}
    assert kueue_baseline.shared_taints([[taint, other], [taint]]) == [taint]
    assert kueue_baseline.shared_taints([[taint], []]) == []


BAD: list[tuple[str, Any, str]] = [
    ("order", lambda q: q["spec"]["resourceGroups"][0]["flavors"][0]["resources"].reverse(), "in this order"),
    ("twice", lambda q: q["spec"]["resourceGroups"].append(q["spec"]["resourceGroups"][1]), "in one group"),
    ("negative", lambda q: entry([q], "a100-80gb").update(nominalQuota="-1"), "at least 0"),
    ("lend", lambda q: entry([q], "a100-80gb").update(lendingLimit="17"), "cannot lend"),
    ("cohort", lambda q: q["spec"].pop("cohortName"), "goes only with a cohort"),
    ("selector", lambda q: q["spec"].pop("namespaceSelector"), "no namespace may submit"),
    ("reclaim", lambda q: q["spec"].update(preemption={"borrowWithinCohort": {"policy": "LowerPriority"}}), "needs"),
    ("preference", lambda q: q["spec"]["flavorFungibility"].update(preference="BorrowingOverPreemption"), "TryNext"),
    ("weight", lambda q: q["spec"]["fairSharing"].update(weight="1e-10"), "above 1e-9"),
    ("many", lambda q: q["spec"]["resourceGroups"][1].update(
        flavors=[{"name": f"f{n}", "resources": [entry([q], "a100-80gb")]} for n in range(65)]), "1 to 64"),
    ("stop", lambda q: q["spec"].update(stopPolicy="Drain"), "stopPolicy"),
    ("version", lambda q: q.update(apiVersion="kueue.x-k8s.io/v1beta1"), "v1beta2"),
    ("check", lambda q: q["spec"].update(
        admissionChecksStrategy={"admissionChecks": [{"name": "x", "onFlavors": ["b200"]}]}), "b200"),
]  # fmt: skip


@pytest.mark.requirement("kueue-1.2")
@pytest.mark.parametrize(("name", "spoil", "said"), BAD, ids=[case[0] for case in BAD])
def test_what_kueue_would_refuse_is_said_before(name: str, spoil: Any, said: str) -> None:
    queue = copy.deepcopy(kueue.queue_of(rendered("kueue-borrow-none")))
    spoil(queue)
    problems = kueue_rules.check([queue])  # type: ignore[list-item]  # a manifest
    assert any(said in problem for problem in problems), problems


@pytest.mark.requirement("kueue-1.2")
@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("ResourceFlavor", {"nodeLabels": {str(n): "x" for n in range(9)}}, "at most 8"),
        ("ResourceFlavor", {"topologyName": "t"}, "at least one node label"),
        ("ResourceFlavor", {"tolerations": [{"operator": "Equal"}]}, "Exists"),
        ("ResourceFlavor", {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}, "no value"),
        ("ResourceFlavor", {"nodeTaints": [{"key": "a", "effect": "Never"}]}, "effect"),
        ("Cohort", {"resourceGroups": [{"coveredResources": ["a/b"], "flavors": [{"name": "f", "resources": [
            {"name": "a/b", "nominalQuota": "1", "borrowingLimit": "1"}]}]}]}, "a parent"),
        ("Cohort", {"parentName": "x"}, "its own parent"),
        ("LocalQueue", {}, "ClusterQueue"),
        ("Topology", {"levels": []}, "1 to 16"),
        ("Topology", {"levels": [{"nodeLabel": "kubernetes.io/hostname"}, {"nodeLabel": "r"}]}, "lowest"),
    ],
)  # fmt: skip
def test_and_of_the_other_kinds(kind: str, body: dict[str, Any], said: str) -> None:
    manifest = {"apiVersion": kueue.API, "kind": kind, "metadata": {"name": "x"}, "spec": body}
    problems = kueue_rules.check([manifest])
    assert any(said in problem for problem in problems), problems


def test_weights_are_canonical_quantities() -> None:
    assert [kueue.weight(Decimal(text)) for text in ("1.00", "1.5", "0", "0.25", "12.34")] == [
        "1", "1500m", "0", "250m", "12340m",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="negative"):
        kueue.weight(Decimal(-1))


# -- any set of holdings -----------------------------------------------------------------------------------------------

RESOURCES = {"a100-80gb": GPU, "h100-80gb": GPU, "a100-1g": MIG1, "a100-3g": MIG3, "epyc": "cpu"}


@st.composite
def share(draw: st.DrawFn, flavour: str) -> Share:
    guaranteed = draw(st.integers(0, 64))
    return Share(
        flavour,
        RESOURCES[flavour],
        guaranteed,
        guaranteed + draw(st.integers(0, 64)),
        draw(st.none() | st.integers(0, 64)),
        draw(st.integers(0, guaranteed)),
    )


held = st.sets(st.sampled_from(sorted(RESOURCES))).flatmap(lambda names: st.tuples(*(share(n) for n in sorted(names))))
modes = st.sampled_from(["jobs", "pods"])


@pytest.mark.requirement("kueue-1.2")
@given(st.lists(held, min_size=1, max_size=6), modes)
def test_any_holdings_give_objects_that_kueue_takes_and_sums_that_the_ledger_holds(
    workspaces: list[tuple[Share, ...]], mode: str
) -> None:
    nominal: dict[str, int] = {}
    promised: dict[str, int] = {}
    for shares in workspaces:
        manifests = workspace_manifests(queued("development", list(shares), mode=mode))
        assert kueue_rules.check(manifests) == []
        hard = manifests[2]["spec"]["hard"]
        most: dict[str, int] = {}
        for one in shares:
            found = entry(manifests, one.flavour)
            top = int(found["nominalQuota"]) + int(found["borrowingLimit"])
            assert int(found.get("lendingLimit", 0)) <= int(found["nominalQuota"])
            outside = one.serving if mode == "jobs" else 0
            # What Kueue may admit and what serves outside of it are the maximum together, never more.
            assert top + outside == one.maximum
            most[one.resource] = most.get(one.resource, 0) + top
            nominal[one.flavour] = nominal.get(one.flavour, 0) + int(found["nominalQuota"]) + outside
            promised[one.flavour] = promised.get(one.flavour, 0) + one.guaranteed
        assert all(int(hard[f"requests.{name}"]) >= units for name, units in most.items() if name != "cpu")
    assert nominal == promised


@pytest.mark.requirement("kueue-1.4")
@given(held, held, modes)
def test_moving_numbers_is_rendering_with_these_numbers(
    before: tuple[Share, ...], after: tuple[Share, ...], mode: str
) -> None:
    names = {one.flavour for one in before}
    fresh = {one.flavour: one for one in after if one.flavour in names}
    wanted = [fresh.get(one.flavour, one) for one in before]
    stored = workspace_manifests(queued("production", list(before), mode=mode))
    target = queued("production", wanted, mode=mode)
    moved = with_quota(stored, target.gpus, wanted)
    assert moved == workspace_manifests(target)
    assert with_quota(moved, target.gpus, wanted) == moved


def place(environment: str, **more: Any) -> Any:
    return Place(
        "atlas", "https://atlas.example.com", "", f"finance-{environment}", environment, GPU, 1, {}, [],
        queue="default", priorities=True, **more,
    )  # fmt: skip


@pytest.mark.requirement("kueue-2.3")
def test_ready_made_manifests_go_to_the_queue_with_a_fitting_priority() -> None:
    queue, klass = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
    job = ready_made(place("production"), "job")
    assert job["metadata"]["labels"] == {queue: "default", klass: "gpu-commons-batch"}
    assert job["spec"]["template"]["spec"]["priorityClassName"] == "gpu-commons-batch"
    service = ready_made(place("production"), "deployment")
    assert "labels" not in service["metadata"]  # outside of Kueue, on the serving share
    assert service["spec"]["template"]["spec"]["priorityClassName"] == "gpu-commons-production"
    queued = ready_made(place("production", queues_pods=True), "deployment")
    assert queued["spec"]["template"]["metadata"]["labels"][klass] == "gpu-commons-production"
    assert queued["spec"]["selector"]["matchLabels"] == {"app": "my-deployment"}
    for shape in ("job", "pod", "deployment"):
        assert place("development").priority(shape) == "gpu-commons-development"
        kubernetes_validate.validate(ready_made(place("development", queues_pods=True), shape), "1.37", strict=True)
