"""Server-side printing: `Accept: application/json;as=Table`, with kubectl's usual columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import (
    CLUSTER_QUEUE,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    JOB,
    LIMIT_RANGE,
    LOCAL_QUEUE,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    POD,
    PRIORITY_CLASS,
    QUOTA,
    ROLE_BINDING,
    WORKLOAD,
    WORKLOAD_PRIORITY,
    Kind,
)
from apps.demo.cluster.store import Entry

Cells = Callable[[Obj, datetime], list[Any]]


def age(text: str | None, now: datetime) -> str:
    """`5d3h`-style duration since a time stamp, as kubectl words it."""
    if not text:
        return "<unknown>"
    seconds = int((now - datetime.fromisoformat(text).astimezone(UTC)).total_seconds())
    return duration(max(0, seconds))


def duration(seconds: int) -> str:
    """apimachinery's `HumanDuration`: two units at most, fewer as it grows."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"


def _created(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _pod(obj: Obj, now: datetime) -> list[Any]:
    status, spec = obj.get("status") or {}, obj.get("spec") or {}
    containers = status.get("containerStatuses") or []
    ready = sum(1 for each in containers if each.get("ready"))
    phase = status.get("reason") or status.get("phase", "Unknown")
    for each in containers:
        state = each.get("state") or {}
        for name in ("waiting", "terminated"):
            phase = (state.get(name) or {}).get("reason") or phase
    if obj["metadata"].get("deletionTimestamp"):
        phase = "Terminating"
    restarts = sum(int(each.get("restartCount", 0)) for each in containers)
    total = len(spec.get("containers") or [])
    ip, node = status.get("podIP") or "<none>", spec.get("nodeName") or "<none>"
    return [f"{ready}/{total}", phase, str(restarts), _created(obj, now), ip, node, "<none>", "<none>"]


def _quota(obj: Obj, now: datetime) -> list[Any]:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    request = [f"{key}: {used.get(key, '0')}/{hard[key]}" for key in sorted(hard) if not key.startswith("limits")]
    limit = [f"{key}: {used.get(key, '0')}/{hard[key]}" for key in sorted(hard) if key.startswith("limits")]
    return [", ".join(request), ", ".join(limit), _created(obj, now)]


def _namespace(obj: Obj, now: datetime) -> list[Any]:
    return [(obj.get("status") or {}).get("phase", ""), _created(obj, now)]


def _node(obj: Obj, now: datetime) -> list[Any]:
    status = obj.get("status") or {}
    ready: Obj = next((each for each in status.get("conditions") or [] if each.get("type") == "Ready"), {})
    text = "Ready" if ready.get("status") == "True" else "NotReady"
    if (obj.get("spec") or {}).get("unschedulable"):
        text += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = [key[len(prefix) :] for key in obj["metadata"].get("labels") or {} if key.startswith(prefix)]
    info = status.get("nodeInfo") or {}
    address = next((a["address"] for a in status.get("addresses") or [] if a["type"] == "InternalIP"), "<none>")
    return [
        text,
        ",".join(sorted(roles)) or "<none>",
        _created(obj, now),
        info.get("kubeletVersion", ""),
        address,
        info.get("osImage", ""),
        info.get("containerRuntimeVersion", ""),
    ]


def _job(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    state = next((each["type"] for each in status.get("conditions") or [] if each.get("status") == "True"), "Running")
    started, ended = status.get("startTime"), status.get("completionTime")
    took = ""
    if started:
        until = datetime.fromisoformat(ended).astimezone(UTC) if ended else now
        took = age(started, until)
    return [state, f"{status.get('succeeded', 0)}/{spec.get('completions', 1)}", took, _created(obj, now)]


def _deployment(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    return [f"{ready}/{wanted}", updated, available, _created(obj, now)]


def _event(obj: Obj, now: datetime) -> list[Any]:
    about = obj.get("involvedObject") or {}
    seen = age(obj.get("lastTimestamp") or obj["metadata"].get("creationTimestamp"), now)
    target = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    return [seen, obj.get("type", ""), obj.get("reason", ""), target, obj.get("message", "")]


def _role_binding(obj: Obj, now: datetime) -> list[Any]:
    role = obj.get("roleRef") or {}
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or []:
        by_kind.setdefault(subject.get("kind", ""), []).append(subject.get("name", ""))
    people = [", ".join(by_kind[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [f"{role.get('kind')}/{role.get('name')}", _created(obj, now), *people]


def _policy(obj: Obj, now: datetime) -> list[Any]:
    labels = ((obj.get("spec") or {}).get("podSelector") or {}).get("matchLabels") or {}
    return [",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>", _created(obj, now)]


def _priority(obj: Obj, now: datetime) -> list[Any]:
    return [obj.get("value", 0), bool(obj.get("globalDefault")), _created(obj, now), obj.get("preemptionPolicy", "")]


def _stamped(obj: Obj, now: datetime) -> list[Any]:
    stamp: str = obj["metadata"].get("creationTimestamp", "")
    return [stamp]


def _aged(obj: Obj, now: datetime) -> list[Any]:
    return [_created(obj, now)]


def _path(obj: Obj, *names: str) -> Any:
    value: Any = obj
    for name in names:
        value = (value or {}).get(name)
    return value


def _cluster_queue(obj: Obj, now: datetime) -> list[Any]:
    counts = [_path(obj, "status", name) or 0 for name in ("pendingWorkloads", "admittedWorkloads")]
    strategy = _path(obj, "spec", "queueingStrategy")
    return [_path(obj, "spec", "cohortName") or "", counts[0], strategy, counts[1]]


def _local_queue(obj: Obj, now: datetime) -> list[Any]:
    counts = [_path(obj, "status", name) or 0 for name in ("pendingWorkloads", "admittedWorkloads")]
    return [_path(obj, "spec", "clusterQueue") or "", *counts]


def _workload(obj: Obj, now: datetime) -> list[Any]:
    conditions = {each["type"]: each["status"] for each in _path(obj, "status", "conditions") or []}
    place = _path(obj, "status", "admission", "clusterQueue") or ""
    truths = [conditions.get("Admitted", ""), conditions.get("Finished", "")]
    return [_path(obj, "spec", "queueName") or "", place, *truths, _created(obj, now)]


def _data(obj: Obj, now: datetime) -> list[Any]:
    return [len(obj.get("data") or {}), _created(obj, now)]


def _bound_role(obj: Obj, now: datetime) -> list[Any]:
    return [f"{_path(obj, 'roleRef', 'kind')}/{_path(obj, 'roleRef', 'name')}", _created(obj, now)]


# Column titles; those after "|" are shown by `-o wide` only.
_COLUMNS: dict[Kind, tuple[str, Cells]] = {
    POD: ("Ready,Status,Restarts,Age|IP,Node,Nominated Node,Readiness Gates", _pod),
    QUOTA: ("Request,Limit,Age", _quota),
    NAMESPACE: ("Status,Age", _namespace),
    NODE: ("Status,Roles,Age,Version|Internal-IP,OS-Image,Container-Runtime", _node),
    JOB: ("Status,Completions,Duration,Age", _job),
    DEPLOYMENT: ("Ready,Up-to-date,Available,Age", _deployment),
    EVENT: ("Last Seen,Type,Reason,Object,Message", _event),
    ROLE_BINDING: ("Role,Age|Users,Groups,ServiceAccounts", _role_binding),
    NETWORK_POLICY: ("Pod-Selector,Age", _policy),
    PRIORITY_CLASS: ("Value,Global-Default,Age,PreemptionPolicy", _priority),
    CLUSTER_ROLE: ("Created At", _stamped),
    LIMIT_RANGE: ("Created At", _stamped),
    CLUSTER_QUEUE: ("Cohort,Pending Workloads|Strategy,Admitted Workloads", _cluster_queue),
    LOCAL_QUEUE: ("ClusterQueue,Pending Workloads,Admitted Workloads", _local_queue),
    WORKLOAD: ("Queue,Reserved in,Admitted,Finished,Age", _workload),
    WORKLOAD_PRIORITY: ("Value", lambda obj, now: [obj.get("value", 0)]),
    CONFIG_MAP: ("Data,Age", _data),
    CLUSTER_ROLE_BINDING: ("Role,Age", _bound_role),
}


def _columns(kind: Kind) -> tuple[str, Cells]:
    return _COLUMNS.get(kind, ("Age", _aged))


def columns(kind: Kind) -> list[Obj]:
    """Column definitions of a kind; events print no name, as kubectl's do not."""
    normal, _, wide = _columns(kind)[0].partition("|")
    out = [] if kind is EVENT else [_column("Name", 0, "name")]
    out += [_column(name, 0) for name in normal.split(",")]
    return out + [_column(name, 1) for name in wide.split(",") if name]


def _column(name: str, priority: int, form: str = "") -> Obj:
    return {"name": name, "type": "string", "format": form, "description": name, "priority": priority}


def partial(entry: Entry) -> Obj:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": entry.obj["metadata"]}


def row(entry: Entry, now: datetime, include: str) -> Obj:
    """One table row; `include` is the request's `includeObject` (None, Metadata, Object)."""
    cells = _columns(entry.kind)[1](entry.obj, now)
    named = cells if entry.kind is EVENT else [entry.name, *cells]
    out: Obj = {"cells": named}
    if include == "Object":
        out["object"] = entry.obj
    elif include != "None":
        out["object"] = partial(entry)
    return out


def table(kind: Kind, entries: list[Entry], now: datetime, include: str, meta: Obj, *, head: bool = True) -> Obj:
    """A `Table` of entries; watch events repeat no column definitions after the first (`head`)."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns(kind) if head else None,
        "rows": [row(entry, now, include) for entry in entries],
    }
