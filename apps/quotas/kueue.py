"""A workspace's queue as Kueue sees it: a pure renderer of `kueue.x-k8s.io/v1beta2` (facts: docs/kueue.md).

Guaranteed is nominalQuota, borrow is borrowingLimit, lend is lendingLimit. What the webhooks would refuse is checked by
`kueue_rules`. `resourceGroups` is one atomic list for server-side apply: it is always sent whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from apps.core.copies import copied

Manifest = dict[str, Any]

API = "kueue.x-k8s.io/v1beta2"
#: The flavour that stands for "any node": cores, memory and pods that go with a workspace's GPUs.
ANY_NODE = "gpu-commons-any-node"
LOCAL_QUEUE = "default"
#: How far Kueue is used for the workspace; read back when only numbers move.
MODE_LABEL = "gpu-commons/kueue"
JOBS, PODS = "jobs", "pods"
#: What each rung at the end of quota does to the queue (choices.Rung).
STOP_POLICIES: Mapping[str, str] = {
    "none": "None",
    "stopped_admitting": "Hold",
    "drained": "HoldAndDrain",
    "archived": "HoldAndDrain",
}
#: In order: every flavour of a group must list all of its resources in the same order.
_NODE_RESOURCES = ("cpu", "memory", "pods")


@dataclass(frozen=True, slots=True)
class Share:
    """What a workspace holds of one flavour, in units. `lend` None: all that is idle; `maximum` is with borrowing."""

    flavour: str
    resource: str
    guaranteed: int = 0
    maximum: int = 0
    lend: int | None = None
    serving: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.guaranteed <= self.maximum:
            raise ValueError(f"{self.flavour}: the maximum must hold what is guaranteed")
        if not 0 <= self.serving <= self.guaranteed:
            raise ValueError(f"{self.flavour}: serving is a part of what is guaranteed")
        if self.lend is not None and self.lend < 0:
            raise ValueError(f"{self.flavour}: a negative number cannot be lent")


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """What a workspace's ClusterQueue depends on besides its shares. `unit`: slug of the unit whose cohort it joins."""

    unit: str
    mode: str
    fair_weight: Decimal = Decimal(1)
    rung: str = "none"
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def cohort_name(unit_slug: str) -> str:
    """Return the name of a business unit's cohort."""
    return f"unit-{unit_slug}"


def weight(value: Decimal) -> str:
    """Return a fair-sharing weight as a canonical quantity: whole, or in thousandths. Raises ValueError below 0."""
    if value < 0:
        raise ValueError("a weight must not be negative")
    milli = int(value * 1000)
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def numbers(share: Share, mode: str) -> Manifest:
    """Return the quota of one resource in one flavour.

    Serving is no jobs' business. Where pods of services are outside of Kueue it leaves the nominal quota, or jobs
    would be admitted on GPUs that services use; where they queue, too, it stays and is never lent.
    """
    outside = share.serving if mode == JOBS else 0
    nominal = share.guaranteed - outside
    lendable = nominal - (share.serving - outside)
    found = {
        "name": share.resource,
        "nominalQuota": str(nominal),
        "borrowingLimit": str(share.maximum - share.guaranteed),
    }
    lent = lendable if share.lend is None else min(share.lend, lendable)
    if lent < nominal:
        found["lendingLimit"] = str(lent)
    return found


def production_units(shares: Iterable[Share], mode: str) -> dict[str, int]:
    """Return resource → units that production priority may take: never borrowed ones, and of jobs' share none."""
    found: dict[str, int] = {}
    for share in shares:
        if "/" in share.resource:
            units = share.serving if mode == JOBS else share.guaranteed
            found[share.resource] = found.get(share.resource, 0) + units
    return found


def _flavour(share: Share, mode: str) -> Manifest:
    return {"name": share.flavour, "resources": [numbers(share, mode)]}


def _any_node(cpu: str, memory: str, pods: str, shares: Sequence[Share], mode: str) -> Manifest:
    """The group of cores, memory and pods: any node first, then the CPU classes.

    A class holds cores of its own; memory and pods are those of the workspace, which its ResourceQuota counts over all.
    """

    def flavour(name: str, amounts: Sequence[Manifest]) -> Manifest:
        return {"name": name, "resources": list(amounts)}

    def fixed(name: str, amount: str) -> Manifest:
        return {"name": name, "nominalQuota": amount, "borrowingLimit": "0", "lendingLimit": "0"}

    rest = [fixed("memory", memory), fixed("pods", pods)]
    flavours = [flavour(ANY_NODE, [fixed("cpu", cpu), *rest])]
    for share in sorted(shares, key=lambda one: one.flavour):
        flavours.append(flavour(share.flavour, [numbers(share, mode), *copied(rest)]))
    return {"coveredResources": list(_NODE_RESOURCES), "flavors": flavours}


def resource_groups(spec: QueueSpec, held: Sequence[Share], *, cpu: str, memory: str, pods: str) -> list[Manifest]:
    """Return all groups: one of cores, memory and pods, and one for each resource of GPUs."""
    classes = [share for share in held if share.resource == "cpu"]
    groups = [_any_node(cpu, memory, pods, classes, spec.mode)]
    by_resource: dict[str, list[Share]] = {}
    for share in held:
        if share.resource != "cpu":
            by_resource.setdefault(share.resource, []).append(share)
    for resource, shares in sorted(by_resource.items()):
        flavours = [_flavour(share, spec.mode) for share in sorted(shares, key=lambda one: one.flavour)]
        groups.append({"coveredResources": [resource], "flavors": flavours})
    return groups


def queue_manifests(
    spec: QueueSpec,
    shares: Sequence[Share],
    *,
    namespace: str,
    labels: Mapping[str, str],
    cpu: str,
    memory: str,
    pods: str,
) -> list[Manifest]:
    """Return the ClusterQueue and the LocalQueue of a workspace."""
    if spec.mode not in (JOBS, PODS):
        raise ValueError(f"unknown mode of Kueue: {spec.mode!r}")
    return [
        {
            "apiVersion": API,
            "kind": "ClusterQueue",
            "metadata": {"name": namespace, "labels": {**labels, MODE_LABEL: spec.mode}},
            "spec": {
                "cohortName": cohort_name(spec.unit),
                # Nothing but this namespace may queue here; without a selector none could.
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "queueingStrategy": "BestEffortFIFO",
                "stopPolicy": STOP_POLICIES[spec.rung],
                "flavorFungibility": {"whenCanBorrow": "MayStopSearch", "whenCanPreempt": "TryNextFlavor"},
                # Any: an owner gets its own back whatever priority the borrower has. Never: who would borrow evicts
                # nobody who is within what is guaranteed (Monday, 3 a.m.).
                "preemption": {
                    "reclaimWithinCohort": "Any",
                    "borrowWithinCohort": {"policy": "Never"},
                    "withinClusterQueue": "LowerPriority",
                },
                "fairSharing": {"weight": weight(spec.fair_weight)},
                "resourceGroups": resource_groups(spec, shares, cpu=cpu, memory=memory, pods=pods),
            },
        },
        {
            "apiVersion": API,
            "kind": "LocalQueue",
            "metadata": {"name": LOCAL_QUEUE, "namespace": namespace, "labels": dict(labels)},
            "spec": {"clusterQueue": namespace},
        },
    ]


def queue_of(manifests: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the ClusterQueue among stored objects; None: the workspace is not in Kueue."""
    return next((manifest for manifest in manifests if manifest["kind"] == "ClusterQueue"), None)


def mode_of(queue: Mapping[str, Any]) -> str:
    """Return how far Kueue is used, as it was approved with the queue."""
    return str(queue["metadata"]["labels"].get(MODE_LABEL, JOBS))


def with_shares(queue: Manifest, shares: Iterable[Share], added: Iterable[str] = ()) -> None:
    """Move the numbers of flavours that stand in a ClusterQueue, and add those whose resource an approval sets.

    `added`: resources of which flavours that do not stand there yet are taken in. Everything else stays as approved.
    """
    mode = mode_of(queue)
    groups: list[Manifest] = queue["spec"]["resourceGroups"]
    taken = set(added)
    for share in shares:
        place = _place(groups, share.flavour)
        if place is not None:
            place["resources"] = [
                numbers(share, mode) if entry["name"] == share.resource else entry for entry in place["resources"]
            ]
        elif share.resource in taken and share.maximum:
            _take_in(groups, share, mode)


def _place(groups: Sequence[Manifest], flavour: str) -> Manifest | None:
    return next((one for group in groups for one in group["flavors"] if one["name"] == flavour), None)


def _take_in(groups: list[Manifest], share: Share, mode: str) -> None:
    group = next((one for one in groups if share.resource in one["coveredResources"]), None)
    if group is None:
        group = {"coveredResources": [share.resource], "flavors": []}
        groups.append(group)
        groups[1:] = sorted(groups[1:], key=lambda one: str(one["coveredResources"][0]))
    entry = _flavour(share, mode)
    if len(group["coveredResources"]) > 1:  # a CPU class: memory and pods as the first flavour has them
        entry["resources"] += copied(group["flavors"][0]["resources"][1:])
    first, rest = (group["flavors"][:1], group["flavors"][1:]) if share.resource == "cpu" else ([], group["flavors"])
    group["flavors"] = [*first, *sorted([*rest, entry], key=lambda one: str(one["name"]))]


def with_stop_policy(manifests: Sequence[Manifest], rung: str) -> list[Manifest]:
    """Return stored objects with the queue held, drained or open as the rung says, and nothing else changed.

    Objects without a queue come back as they are. Raises KeyError for an unknown rung.
    """
    policy = STOP_POLICIES[str(rung)]
    result = copied(list(manifests))
    for manifest in result:
        if manifest["kind"] == "ClusterQueue":
            manifest["spec"]["stopPolicy"] = policy
    return result


def without_gpu_groups(queue: Manifest) -> Manifest:
    """Return a ClusterQueue without its groups of GPUs, whose numbers have approvals of their own."""
    result = copied(queue)
    groups = result["spec"]["resourceGroups"]
    result["spec"]["resourceGroups"] = [
        group for group in groups if not any("/" in str(name) for name in group["coveredResources"])
    ]
    return result


def with_node_limits(manifests: Sequence[Manifest], *, cpu: str, memory: str, pods: str) -> list[Manifest]:
    """Return stored objects with other cores, memory and pods in the queue, and nothing else changed.

    `cpu` are the cores that go with the workspace's GPUs, those of CPU classes left out. Objects without a queue come
    back as they are.
    """
    result = copied(list(manifests))
    for manifest in result:
        if manifest["kind"] != "ClusterQueue":
            continue
        for group in manifest["spec"]["resourceGroups"]:
            if list(group["coveredResources"]) == list(_NODE_RESOURCES):
                _set_node_limits(group, {"cpu": cpu, "memory": memory, "pods": pods})
    return result


def _set_node_limits(group: Manifest, amounts: Mapping[str, str]) -> None:
    for flavour in group["flavors"]:
        for entry in flavour["resources"]:
            # A CPU class's own cores are its quota; memory and pods are the workspace's in every flavour.
            if entry["name"] != "cpu" or flavour["name"] == ANY_NODE:
                entry["nominalQuota"] = amounts[entry["name"]]
