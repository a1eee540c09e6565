"""The scheduler: binds pods to nodes, or says in the real scheduler's words why it cannot; preempts by priority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.events import emit
from apps.demo.cluster.kinds import NODE, POD
from apps.demo.cluster.meter import SOURCE
from apps.demo.cluster.quantity import parse
from apps.demo.cluster.store import Change, Entry
from apps.demo.cluster.usage import Amounts, is_terminal, pod_resources

UNRESOLVABLE = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


@dataclass
class NodeState:
    """A node and what is left on it."""

    name: str
    labels: Obj
    taints: list[Obj]
    unschedulable: bool
    allocatable: Amounts
    free: Amounts = field(default_factory=dict)
    pods: list[Entry] = field(default_factory=list)


def node_state(node: Obj) -> NodeState:
    """Read a Node object. A node that is not Ready takes nothing."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or [])
    taints = list(spec.get("taints") or [])
    if not ready:
        taints.append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
    amounts = {name: parse(amount) for name, amount in (status.get("allocatable") or {}).items()}
    labels = node["metadata"].get("labels") or {}
    name = node["metadata"]["name"]
    return NodeState(name, labels, taints, bool(spec.get("unschedulable")), amounts, dict(amounts))


def take(state: NodeState, pod: Obj) -> None:
    """Subtract a bound pod."""
    for name, amount in {**pod_resources(pod.get("spec") or {}, "requests"), "pods": Decimal(1)}.items():
        state.free[name] = state.free.get(name, Decimal(0)) - amount


def give_back(state: NodeState, pod: Obj) -> None:
    """Add what a pod holds."""
    for name, amount in {**pod_resources(pod.get("spec") or {}, "requests"), "pods": Decimal(1)}.items():
        state.free[name] = state.free.get(name, Decimal(0)) + amount


def victims(pod: Obj, state: NodeState) -> list[Entry]:
    """Pods of lower priority without which the pod fits the node, as few and as unimportant as possible.

    All of lower priority go in thought, then come back, the most important first, as long as the pod still fits.
    """
    rank = priority_of(pod)
    lower = [each for each in state.pods if priority_of(each.obj) < rank and not _stands_for_history(each.obj)]
    if not lower:
        return []
    room = replace(state, free=dict(state.free))
    for each in lower:
        give_back(room, each.obj)
    if obstacles(pod, room)[0]:
        return []
    chosen = []
    for each in sorted(lower, key=lambda entry: (-priority_of(entry.obj), entry.rv)):
        take(room, each.obj)
        if obstacles(pod, room)[0]:
            give_back(room, each.obj)
            chosen.append(each)
    return chosen


def priority_of(pod: Obj) -> int:
    """A pod's priority."""
    return int((pod.get("spec") or {}).get("priority", 0))


def _stands_for_history(pod: Obj) -> bool:
    return SOURCE in (pod["metadata"].get("annotations") or {})


def tolerates(tolerations: Iterable[Obj], taint: Obj) -> bool:
    """Whether any toleration covers a taint."""
    for each in tolerations:
        if each.get("effect") and each["effect"] != taint.get("effect"):
            continue
        if each.get("operator") == "Exists":
            if not each.get("key") or each["key"] == taint.get("key"):
                return True
        elif each.get("key") == taint.get("key") and each.get("value", "") == taint.get("value", ""):
            return True
    return False


def _affine(spec: Obj, state: NodeState) -> bool:
    if any(state.labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    node_affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(
        all(matches_term(each, state.labels) for each in term.get("matchExpressions") or [])
        and all(matches_term(each, {"metadata.name": state.name}) for each in term.get("matchFields") or [])
        for term in required.get("nodeSelectorTerms") or []
        if term.get("matchExpressions") or term.get("matchFields")
    )


def matches_term(each: Obj, labels: Obj) -> bool:
    """One requirement of a node selector term."""
    key, operator, values = each.get("key"), each.get("operator"), each.get("values") or []
    value: Any = labels.get(str(key))
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if not (value and str(value).isdigit() and values and str(values[0]).isdigit()):
        return False
    return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])


def obstacles(pod: Obj, state: NodeState) -> tuple[list[str], bool]:
    """Why a pod does not fit a node (nothing: it does), and whether evicting others could help."""
    spec = pod.get("spec") or {}
    tolerations = spec.get("tolerations") or []
    if state.unschedulable and not tolerates(
        tolerations, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"], False
    for taint in state.taints:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value', '')}}}"], False
    if not _affine(spec, state):
        return ["node(s) didn't match Pod's node affinity/selector"], False
    reasons, evictable = [], True
    if state.free.get("pods", Decimal(0)) < 1:
        reasons.append("Too many pods")
    for name, amount in sorted(pod_resources(spec, "requests").items()):
        if amount > 0 and amount > state.free.get(name, Decimal(0)):
            reasons.append(f"Insufficient {name}")
            evictable = evictable and amount <= state.allocatable.get(name, Decimal(0))
    return reasons, evictable


def choose(pod: Obj, states: list[NodeState]) -> tuple[NodeState | None, str]:
    """The fitting node with the least room left for the pod's scarcest resource, or the reason there is none."""
    fitting: list[NodeState] = []
    reasons: Counter[str] = Counter()
    hopeless = 0
    for state in states:
        found, evictable = obstacles(pod, state)
        if not found:
            fitting.append(state)
            continue
        reasons.update(found)
        hopeless += not evictable
    if fitting:
        extended = [name for name in pod_resources(pod.get("spec") or {}, "requests") if "/" in name]
        measure = extended[0] if extended else "cpu"
        return min(fitting, key=lambda state: (state.free.get(measure, Decimal(0)), state.name)), ""
    total = len(states)
    if not total:
        return None, "no nodes available to schedule pods"
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    parts = [(hopeless, UNRESOLVABLE), (total - hopeless, NO_VICTIMS)]
    after = ", ".join(f"{count} {text}" for count, text in parts if count)
    head = f"0/{total} nodes are available: "
    return None, f"{head}{listed}. preemption: {head}{after}."


class Scheduler:
    """Control-loop part: looks at pending pods whenever pods or nodes change."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._store = api.store
        self._dirty = True

    def observe(self, change: Change) -> None:
        """Pods and nodes matter."""
        if change.entry.kind in (POD, NODE):
            self._dirty = True

    def work(self) -> float:
        """Place what can be placed, by priority, then age."""
        if not self._dirty:
            return float("inf")
        self._dirty = False
        with self._store.transaction():
            pods = self._store.entries(POD)
            pending = [entry for entry in pods if waits(entry.obj)]
            if not pending:
                return float("inf")
            states = {entry.name: node_state(entry.obj) for entry in self._store.entries(NODE)}
            for entry in pods:
                state = states.get((entry.obj.get("spec") or {}).get("nodeName", ""))
                if state is not None and not is_terminal(entry.obj):
                    take(state, entry.obj)
                    state.pods.append(entry)
            pending.sort(key=lambda entry: (-priority_of(entry.obj), entry.rv))
            for entry in pending:
                self._place(entry, list(states.values()))
        return float("inf")

    def _place(self, entry: Entry, states: list[NodeState]) -> None:
        state, why = choose(entry.obj, states)
        obj = clone(entry.obj)
        if state is None:
            nominated = self._preempt(entry, states)
            if nominated is not None:
                take(nominated, obj)  # nobody of lower priority may take what was cleared
                why = why.partition(" preemption:")[0]
                obj["status"]["nominatedNodeName"] = nominated.name
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": why,
                "lastProbeTime": None,
                "lastTransitionTime": self._api.now(),
            }
            known: Obj = next(
                (each for each in obj["status"].get("conditions") or [] if each["type"] == "PodScheduled"), {}
            )
            if known.get("message") == why and obj == entry.obj:
                return
            obj["status"]["conditions"] = [condition]
            self._store.put(POD, obj)
            emit(self._api, entry, "Warning", "FailedScheduling", why, "default-scheduler")
            return
        take(state, obj)
        state.pods.append(entry)
        obj["spec"]["nodeName"] = state.name
        obj["status"].pop("nominatedNodeName", None)
        obj["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": self._api.now()}
        ]
        self._store.put(POD, obj)
        text = f"Successfully assigned {entry.namespace}/{entry.name} to {state.name}"
        emit(self._api, entry, "Normal", "Scheduled", text, "default-scheduler")

    def _preempt(self, entry: Entry, states: list[NodeState]) -> NodeState | None:
        """Evict pods of lower priority where that makes room. Returns the node that was, or is being, cleared."""
        spec = entry.obj["spec"]
        if spec.get("preemptionPolicy") == "Never" or priority_of(entry.obj) <= 0:
            return None
        chosen = (entry.obj.get("status") or {}).get("nominatedNodeName")
        for state in states:
            leaving = [each for each in state.pods if each.obj["metadata"].get("deletionTimestamp")]
            if state.name == chosen and any(priority_of(each.obj) < priority_of(entry.obj) for each in leaving):
                return state
        options = []
        for state in states:
            found, evictable = obstacles(entry.obj, state)
            going = victims(entry.obj, state) if found and evictable else []
            if going:
                ranks = [priority_of(each.obj) for each in going]
                options.append((max(ranks), sum(ranks), len(going), state.name, state, going))
        if not options:
            return None
        *_, state, going = min(options, key=lambda option: option[:4])
        for each in going:
            text = f"Preempted by pod {entry.obj['metadata']['uid']} on node {state.name}"
            emit(self._api, each, "Normal", "Preempted", text, "default-scheduler")
            self._evict(each)
        return state

    def _evict(self, entry: Entry) -> None:
        current = self._store.get(POD, entry.namespace, entry.name)
        if current is None or current.obj["metadata"].get("uid") != entry.obj["metadata"].get("uid"):
            return
        obj = clone(current.obj)
        conditions = [each for each in obj["status"].get("conditions") or [] if each["type"] != "DisruptionTarget"]
        conditions.append(
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": "default-scheduler: preempting to accommodate a higher priority pod",
                "lastProbeTime": None,
                "lastTransitionTime": self._api.now(),
            }
        )
        obj["status"]["conditions"] = conditions
        self._api.end_pod(self._store.put(POD, obj))


def waits(pod: Obj) -> bool:
    """Whether a pod is for the scheduler to place."""
    spec = pod.get("spec") or {}
    return (
        not spec.get("nodeName")
        and not spec.get("schedulingGates")
        and not is_terminal(pod)
        and not pod["metadata"].get("deletionTimestamp")
        and spec.get("schedulerName", "default-scheduler") == "default-scheduler"
    )
