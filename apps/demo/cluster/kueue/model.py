"""What one round reads: queues, cohorts, flavours and checks, and what follows from them for a workload."""

from __future__ import annotations

from dataclasses import dataclass, field

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import (
    ADMISSION_CHECK,
    CLUSTER_QUEUE,
    COHORT,
    LOCAL_QUEUE,
    NAMESPACE,
    RESOURCE_FLAVOR,
    TOPOLOGY,
)
from apps.demo.cluster.kueue.engine import Group, Queue
from apps.demo.cluster.kueue.preemption import Policy
from apps.demo.cluster.kueue.quota import Key, Limits, Tree
from apps.demo.cluster.kueue.rules import has_condition
from apps.demo.cluster.kueue.units import Unit, thousandths
from apps.demo.cluster.selectors import selector_matches
from apps.demo.cluster.store import Entry, Store


@dataclass
class Snapshot:
    """Everything admission depends on besides the workloads."""

    cluster_queues: dict[str, Entry]
    cohorts: dict[str, Entry]
    flavors: dict[str, Entry]
    local_queues: dict[tuple[str, str], Entry]
    namespaces: dict[str, Obj]
    checks_known: dict[str, bool]
    topologies: set[str]
    _active: dict[str, tuple[bool, str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store) -> Snapshot:
        """Take references to what is stored."""
        with store.lock:
            return cls(
                {each.name: each for each in store.entries(CLUSTER_QUEUE)},
                {each.name: each for each in store.entries(COHORT)},
                {each.name: each for each in store.entries(RESOURCE_FLAVOR)},
                {(each.namespace, each.name): each for each in store.entries(LOCAL_QUEUE)},
                {each.name: each.obj["metadata"].get("labels") or {} for each in store.entries(NAMESPACE)},
                {each.name: has_condition(each.obj, "Active") for each in store.entries(ADMISSION_CHECK)},
                {each.name for each in store.entries(TOPOLOGY)},
            )

    def tree(self) -> Tree:
        """The quota tree, nothing in use."""
        queues = {
            name: (str(_spec(entry).get("cohortName", "")), limits_of(entry.obj))
            for name, entry in self.cluster_queues.items()
        }
        cohorts = {
            name: (str(_spec(entry).get("parentName", "")), limits_of(entry.obj))
            for name, entry in self.cohorts.items()
        }
        return Tree.build(queues, cohorts)

    def queues(self) -> dict[str, Queue]:
        """Queues as the engine sees them."""
        out = {}
        for name, entry in self.cluster_queues.items():
            spec = _spec(entry)
            preemption, fungibility = spec.get("preemption") or {}, spec.get("flavorFungibility") or {}
            borrowing = preemption.get("borrowWithinCohort") or {}
            groups = tuple(
                Group(tuple(group["coveredResources"]), tuple(each["name"] for each in group["flavors"]))
                for group in spec.get("resourceGroups") or []
            )
            out[name] = Queue(
                name,
                groups,
                Policy(
                    preemption.get("withinClusterQueue", "Never"),
                    preemption.get("reclaimWithinCohort", "Never"),
                    borrowing.get("policy", "Never") != "Never",
                    borrowing.get("maxPriorityThreshold"),
                ),
                spec.get("queueingStrategy") == "StrictFIFO",
                self.active(name)[0],
                fungibility.get("whenCanBorrow", "MayStopSearch") == "MayStopSearch",
                fungibility.get("whenCanPreempt", "TryNextFlavor") == "MayStopSearch",
            )
        return out

    def covers(self, queue: str) -> set[str]:
        """Resources that a ClusterQueue covers."""
        entry = self.cluster_queues.get(queue)
        groups = (_spec(entry).get("resourceGroups") or []) if entry else []
        return {name for group in groups for name in group["coveredResources"]}

    def path(self, queue: str) -> str:
        """`/company/unit/queue`."""
        entry = self.cluster_queues.get(queue)
        names = [queue]
        parent = str(_spec(entry).get("cohortName", "")) if entry else ""
        while parent and parent not in names:
            names.append(parent)
            above = self.cohorts.get(parent)
            parent = str(_spec(above).get("parentName", "")) if above else ""
        return "/" + "/".join(reversed(names))

    def active(self, queue: str) -> tuple[bool, str, str]:
        """Condition Active of a ClusterQueue: (truth, reason, message)."""
        if queue not in self._active:
            self._active[queue] = self._judge(self.cluster_queues[queue])
        return self._active[queue]

    def _judge(self, entry: Entry) -> tuple[bool, str, str]:
        spec = _spec(entry)
        if entry.obj["metadata"].get("deletionTimestamp"):
            return False, "Terminating", "Can't admit new workloads; clusterQueue is terminating"
        found: list[tuple[str, str]] = []
        if spec.get("stopPolicy", "None") != "None":
            found.append(("Stopped", "is stopped"))
        used = [each["name"] for group in spec.get("resourceGroups") or [] for each in group["flavors"]]
        missing = [name for name in used if name not in self.flavors]
        if missing:
            text = f"references missing ResourceFlavor(s): {','.join(missing)}"
            found.append(("FlavorNotFound", text))
        checks = self._strategy(entry)
        unknown = [name for name in checks if name not in self.checks_known]
        if unknown:
            text = f"references missing AdmissionCheck(s): {','.join(unknown)}"
            found.append(("AdmissionCheckNotFound", text))
        inactive = [name for name in checks if self.checks_known.get(name) is False]
        if inactive:
            text = f"references inactive AdmissionCheck(s): {','.join(inactive)}"
            found.append(("AdmissionCheckInactive", text))
        for name in used:
            topology = _spec(self.flavors[name]).get("topologyName") if name in self.flavors else None
            if topology and topology not in self.topologies:
                found.append(("TopologyNotFound", f'there is no Topology "{topology}" for TAS flavor "{name}"'))
        if found:
            text = ", ".join(text for _, text in found)
            return False, found[0][0], f"Can't admit new workloads: {text}."
        return True, "Ready", "Can admit new workloads"

    def _strategy(self, entry: Entry) -> list[str]:
        rows = (_spec(entry).get("admissionChecksStrategy") or {}).get("admissionChecks") or []
        return [str(each["name"]) for each in rows]

    def checks(self, queue: str, flavors: set[str]) -> list[str]:
        """Admission checks of a workload that got these flavours."""
        rows = (_spec(self.cluster_queues[queue]).get("admissionChecksStrategy") or {}).get("admissionChecks") or []
        return [str(each["name"]) for each in rows if not each.get("onFlavors") or flavors & set(each["onFlavors"])]

    def places(self, queue: str) -> bool:
        """Whether every flavour of a queue has a topology, so that all of its workloads are placed by one."""
        named = {flavor for flavor, _ in limits_of(self.cluster_queues[queue].obj)}
        return bool(named) and all(
            name in self.flavors and _spec(self.flavors[name]).get("topologyName") for name in named
        )

    def local_active(self, entry: Entry) -> tuple[bool, str, str]:
        """Condition Active of a LocalQueue."""
        spec = _spec(entry)
        if spec.get("stopPolicy", "None") != "None":
            return False, "Stopped", "LocalQueue is stopped"
        queue = str(spec.get("clusterQueue", ""))
        refused = "Can't submit new workloads to clusterQueue"
        if queue not in self.cluster_queues:
            return False, "ClusterQueueDoesNotExist", refused
        if not self.active(queue)[0]:
            return False, "ClusterQueueIsInactive", refused
        return True, "Ready", "Can submit new workloads to localQueue"

    def drained(self, unit: Unit) -> tuple[str, str] | None:
        """Why an admitted workload is to be evicted: its queue drains."""
        local = self.local_queues.get((unit.entry.namespace, unit.obj["spec"].get("queueName", "")))
        queue = self.cluster_queues.get(unit.queue)
        if local is not None and _spec(local).get("stopPolicy") == "HoldAndDrain":
            return "LocalQueueStopped", "The LocalQueue is stopped"
        if queue is not None and _spec(queue).get("stopPolicy") == "HoldAndDrain":
            return "ClusterQueueStopped", "The ClusterQueue is stopped"
        return None

    def obstacle(self, unit: Unit) -> tuple[str, str]:
        """Why a workload is not even considered: (reason, message), empty where it is."""
        name = str(unit.obj["spec"].get("queueName", ""))
        local = self.local_queues.get((unit.entry.namespace, name))
        if local is None:
            return "Misconfigured", f"LocalQueue {name} doesn't exist"
        if _spec(local).get("stopPolicy", "None") != "None":
            return "Suspended", f"LocalQueue {name} is stopped"
        queue = self.cluster_queues.get(unit.queue)
        if queue is None:
            return "Misconfigured", f"ClusterQueue {unit.queue} doesn't exist"
        if _spec(queue).get("stopPolicy", "None") != "None":
            return "Suspended", f"ClusterQueue {unit.queue} is stopped"
        if not self.active(unit.queue)[0]:
            return "Suspended", f"ClusterQueue {unit.queue} is inactive"
        selector = _spec(queue).get("namespaceSelector")
        labels = self.namespaces.get(unit.entry.namespace, {})
        if selector is None or not selector_matches(selector, labels):
            return "Misconfigured", "workload namespace doesn't match ClusterQueue selector"
        return "", ""


def _spec(entry: Entry) -> Obj:
    return entry.obj.get("spec") or {}


def limits_of(obj: Obj) -> dict[Key, Limits]:
    """Quotas of a ClusterQueue or Cohort, in thousandths."""
    out: dict[Key, Limits] = {}
    for group in (obj.get("spec") or {}).get("resourceGroups") or []:
        for flavor in group["flavors"]:
            for each in flavor["resources"]:
                borrowing, lending = each.get("borrowingLimit"), each.get("lendingLimit")
                out[(flavor["name"], each["name"])] = Limits(
                    thousandths(each["nominalQuota"]),
                    None if borrowing is None else thousandths(borrowing),
                    None if lending is None else thousandths(lending),
                )
    return out
