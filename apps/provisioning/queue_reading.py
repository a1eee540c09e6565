"""What Kueue's Workloads, queues and cohorts say of themselves: pure reading of API objects (v1beta2), no network.

Wire facts: reference kubernetes.md C1. Conditions of a Workload: QuotaReserved, Admitted, Evicted, Finished.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from apps.clusters.quantities import parse

Object = Mapping[str, Any]
#: (namespace, name of a LocalQueue) → its ClusterQueue.
Queues = Mapping[tuple[str, str], str]
#: Kinds of which the observer keeps the status in short.
STATUS_KINDS = frozenset({"ClusterQueue", "LocalQueue", "Cohort"})
#: Who preempted whom, in a message of Kueue: other teams' ids and names.
_OTHER_SIDE = re.compile(r"\s*\(UID: [^)]*\)|[;,]?\s*preempt(?:or|ee) path: [^;]*")


@dataclass(frozen=True, slots=True)
class Pending:
    """A workload that waits in one of our queues. Positions count from 0; None: the cluster did not tell."""

    namespace: str
    name: str
    local_queue: str
    cluster_queue: str
    uid: str
    priority: int
    requests: dict[str, int]
    reason: str
    message: str
    queued_at: datetime
    position_cluster: int | None = None
    position_local: int | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Admitted:
    """A workload whose quota was reserved, and how long it waited for that."""

    namespace: str
    cluster_queue: str
    uid: str
    requests: dict[str, int]
    queued_at: datetime
    admitted_at: datetime


def _time(value: object) -> datetime | None:
    """Return an RFC 3339 time; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def conditions(obj: Object) -> dict[str, Mapping[str, Any]]:
    """Return an object's conditions by type."""
    return {str(one.get("type")): one for one in (obj.get("status") or {}).get("conditions") or []}


def _units(value: object) -> int:
    try:
        return int(parse(str(value)))
    except ValueError:
        return 0


def _of_container(container: Mapping[str, Any]) -> dict[str, int]:
    """Return the extended resources of a container: what it limits it requests, too, where nothing else is said."""
    resources = container.get("resources") or {}
    stated = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: _units(value) for name, value in stated.items() if "/" in name}


def requests_of(obj: Object) -> dict[str, int]:
    """Return resource → whole units over all pods of a Workload; extended resources (GPUs) only."""
    total: dict[str, int] = {}
    for pod_set in (obj.get("spec") or {}).get("podSets") or []:
        spec = (pod_set.get("template") or {}).get("spec") or {}
        pod: dict[str, int] = {}
        for container in spec.get("containers") or []:
            for name, units in _of_container(container).items():
                pod[name] = pod.get(name, 0) + units
        for container in spec.get("initContainers") or []:
            for name, units in _of_container(container).items():
                pod[name] = max(pod.get(name, 0), units)
        count = pod_set.get("count")
        for name, units in pod.items():
            total[name] = total.get(name, 0) + units * (count if isinstance(count, int) else 1)
    return {name: units for name, units in total.items() if units}


def _queued_since(obj: Object, found: Mapping[str, Mapping[str, Any]], admitted_at: datetime | None) -> datetime | None:
    """Return since when it waits, or waited until `admitted_at`: since it was made, or since it was put back.

    None where that cannot be told: Evicted is reset when a workload is admitted again, and only Requeued remembers.
    """
    made = _time((obj.get("metadata") or {}).get("creationTimestamp"))
    evicted = found.get("Evicted")
    if made is None or evicted is None:
        return made
    if admitted_at is None:
        back = _time(evicted.get("lastTransitionTime")) if evicted.get("status") == "True" else None
        return max(made, back) if back is not None else made
    again = found.get("Requeued", {})
    back = _time(again.get("lastTransitionTime")) if again.get("status") == "True" else None
    return back if back is not None and made <= back <= admitted_at else None


def read(obj: Object, queues: Queues) -> Pending | Admitted | None:
    """Return how a Workload stands in one of `queues`; None: it is finished, stopped, or in no queue of ours."""
    meta, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    namespace, name = str(meta.get("namespace", "")), str(meta.get("name", ""))
    local = str(spec.get("queueName") or "")
    queue = queues.get((namespace, local))
    found = conditions(obj)
    if queue is None or not name or found.get("Finished", {}).get("status") == "True":
        return None
    reserved = found.get("QuotaReserved", {})
    requests, uid = requests_of(obj), str(meta.get("uid", ""))
    if reserved.get("status") == "True":
        at = _time(reserved.get("lastTransitionTime"))
        since = _queued_since(obj, found, at)
        if at is None or since is None or at < since or not uid:
            return None
        return Admitted(namespace, queue, uid, requests, since, at)
    since = _queued_since(obj, found, None)
    if spec.get("active") is False or since is None:
        return None
    priority = spec.get("priority")
    return Pending(
        namespace=namespace,
        name=name,
        local_queue=local,
        cluster_queue=queue,
        uid=uid,
        priority=priority if isinstance(priority, int) else 0,
        requests=requests,
        reason=str(reserved.get("reason") or "PendingEvaluation"),
        message=str(reserved.get("message") or ""),
        queued_at=since,
    )


def order_by_age(waiting: Iterable[Pending]) -> list[Pending]:
    """Place workloads by priority, then by age: what Kueue does where nobody is asked and nothing is evicted."""
    by_queue: dict[str, list[Pending]] = {}
    for one in waiting:
        by_queue.setdefault(one.cluster_queue, []).append(one)
    return [
        placed
        for queue in by_queue.values()
        for placed in _number(sorted(queue, key=lambda one: (-one.priority, one.queued_at, one.place)))
    ]


def order_as_told(waiting: Sequence[Pending], positions: Mapping[tuple[str, str], int]) -> list[Pending]:
    """Place the workloads of one queue as the visibility API told; what it did not name has no place."""
    told = sorted((one for one in waiting if one.place in positions), key=lambda one: positions[one.place])
    numbered = [
        replace(one, position_cluster=positions[one.place], position_local=place) for one, place in _local_places(told)
    ]
    return numbered + [one for one in waiting if one.place not in positions]


def _number(ordered: Sequence[Pending]) -> list[Pending]:
    return [
        replace(one, position_cluster=index, position_local=place)
        for index, (one, place) in enumerate(_local_places(ordered))
    ]


def _local_places(ordered: Sequence[Pending]) -> list[tuple[Pending, int]]:
    """Number by local queue ourselves: before 0.19.2 Kueue counted queues of the same name in other namespaces in."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for one in ordered:
        key = (one.namespace, one.local_queue)
        found.append((one, seen.get(key, 0)))
        seen[key] = seen.get(key, 0) + 1
    return found


def positions_in(summary: Object) -> dict[tuple[str, str], int]:
    """Return (namespace, name) → position from a page of `…/pendingworkloads` (PendingWorkloadsSummary)."""
    found: dict[tuple[str, str], int] = {}
    for item in summary.get("items") or []:
        meta, position = item.get("metadata") or {}, item.get("positionInClusterQueue")
        if isinstance(position, int) and position >= 0:
            found[str(meta.get("namespace", "")), str(meta.get("name", ""))] = position
    return found


def compact_status(obj: Object) -> dict[str, Any]:
    """Return what pages need of a queue's or cohort's status: active and why not, counts, and use per flavour.

    `flavours`: flavour → resource → {reserved, used, borrowed} as the quantities read (borrowed: ClusterQueues only).
    """
    status = obj.get("status") or {}
    active = conditions(obj).get("Active", {})
    flavours: dict[str, dict[str, dict[str, str]]] = {}
    for key, name in (("flavorsReservation", "reserved"), ("flavorsUsage", "used")):
        for flavour in status.get(key) or []:
            for resource in flavour.get("resources") or []:
                cell = flavours.setdefault(str(flavour.get("name", "")), {}).setdefault(str(resource.get("name")), {})
                cell[name] = str(resource.get("total", "0"))
                if name == "reserved" and "borrowed" in resource:
                    cell["borrowed"] = str(resource["borrowed"])
    found: dict[str, Any] = {
        "pending": int(status.get("pendingWorkloads") or 0),
        "reserving": int(status.get("reservingWorkloads") or 0),
        "admitted": int(status.get("admittedWorkloads") or 0),
        "flavours": flavours,
    }
    if active:
        found["active"] = active.get("status") == "True"
        found["reason"] = str(active.get("reason") or "")
        found["message"] = str(active.get("message") or "")[:500]
    share = (status.get("fairSharing") or {}).get("weightedShare")
    if isinstance(share, int):
        found["weighted_share"] = share
    return found


def without_others(message: str) -> str:
    """Return Kueue's words on a preemption without the other side: its id, and the queues' paths with teams' names.

    Wire format: "Preempted to accommodate a workload (UID: …, JobUID: …) due to …; preemptor path: …; preemptee
    path: …" (Kueue 0.19, pkg/scheduler/preemption).
    """
    return _OTHER_SIDE.sub("", message)


__all__ = [
    "STATUS_KINDS",
    "Admitted",
    "Pending",
    "compact_status",
    "conditions",
    "order_as_told",
    "order_by_age",
    "positions_in",
    "read",
    "requests_of",
    "without_others",
]
