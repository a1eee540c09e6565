"""What the nodes do: start bound pods, finish those that run for a set time, end those that are deleted."""

from __future__ import annotations

from datetime import datetime, timedelta

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.events import emit
from apps.demo.cluster.faults import Faults
from apps.demo.cluster.kinds import NODE, POD
from apps.demo.cluster.seeds import SIMULATED
from apps.demo.cluster.serving import loading
from apps.demo.cluster.store import Change, Entry
from apps.demo.cluster.usage import is_terminal

RUN_SECONDS = f"{SIMULATED}/run-seconds"
EXIT_CODE = f"{SIMULATED}/exit-code"
DEFAULT_JOB_SECONDS = 60.0
"""How long a pod of a Job runs where its annotation does not say."""


class Kubelet:
    """Control-loop part for every node at once."""

    def __init__(
        self, api: Api, start_seconds: float = 0.2, stop_seconds: float = 0.5, faults: Faults | None = None
    ) -> None:
        self._faults = faults or Faults()
        self._api = api
        self._store = api.store
        self._start = timedelta(seconds=start_seconds)
        self._stop = timedelta(seconds=stop_seconds)
        self._bound: dict[tuple[str, str, str], datetime] = {}

    def observe(self, change: Change) -> None:
        """Keep a list of pods that have a node and are not over."""
        entry = change.entry
        if entry.kind is not POD:
            return
        key = (entry.namespace, entry.name, entry.obj["metadata"].get("uid", ""))
        over = change.type == "DELETED" or is_terminal(entry.obj)
        if over and not (change.type != "DELETED" and entry.obj["metadata"].get("deletionTimestamp")):
            self._bound.pop(key, None)
        elif (entry.obj.get("spec") or {}).get("nodeName"):
            self._bound.setdefault(key, self._api.clock())

    def work(self) -> float:
        """Move every pod that is due."""
        now = self._api.clock()
        due = float("inf")
        for (namespace, name, uid), seen in list(self._bound.items()):
            entry = self._store.get(POD, namespace, name)
            if entry is None or entry.obj["metadata"].get("uid") != uid:
                self._bound.pop((namespace, name, uid), None)
                continue
            at = self._next(entry.obj, seen)
            if at is None:
                continue
            if at <= now:
                with self._store.transaction():
                    current = self._store.get(POD, namespace, name)
                    if current is not None and current.rv == entry.rv:
                        self._step(current)
            else:
                due = min(due, (at - now).total_seconds())
        return min(due, 1.0) if self._bound else float("inf")

    def _next(self, pod: Obj, seen: datetime) -> datetime | None:
        """When something happens to the pod next; None: nothing by itself."""
        meta, status = pod["metadata"], pod.get("status") or {}
        if meta.get("deletionTimestamp"):
            return datetime.fromisoformat(meta["deletionTimestamp"]) + self._stop
        if status.get("phase") == "Pending":
            return seen + self._start
        if status.get("phase") == "Running" and loading.serves(pod) and not loading.is_ready(pod):
            return loading.due(pod)
        seconds = run_seconds(pod)
        if status.get("phase") == "Running" and seconds is not None:
            return datetime.fromisoformat(status["startTime"]) + timedelta(seconds=seconds)
        return None

    def _step(self, entry: Entry) -> None:
        pod = clone(entry.obj)
        if pod["metadata"].get("deletionTimestamp"):
            if not pod["metadata"].get("finalizers"):
                self._store.delete(entry)
            return
        node = self._store.get(NODE, "", pod["spec"]["nodeName"])
        if pod["status"].get("phase") == "Pending":
            if node is None:
                return
            started(pod, self._api.now(), node.obj)
            if loading.serves(pod):
                loading.begin(pod)
            self._store.put(POD, pod)
            emit(self._api, entry, "Normal", "Started", "Started the pod (simulated: nothing runs)", "kubelet")
            return
        if loading.serves(pod) and run_seconds(pod) is None:
            loading.end(pod, self._faults, self._api.now())
            failure = loading.failure_of(pod)
            if failure:
                emit(self._api, entry, "Warning", "BackOff", f"Loading failed: {failure} (simulated)", "kubelet")
        else:
            finished(pod, self._api.now())
        self._store.put(POD, pod)


def run_seconds(pod: Obj) -> float | None:
    """Seconds the pod runs; None: for ever. The annotation wins, else only pods that do not restart ever end."""
    text = (pod["metadata"].get("annotations") or {}).get(RUN_SECONDS, "")
    restart = (pod.get("spec") or {}).get("restartPolicy", "Always")
    if restart == "Always":
        return None
    try:
        seconds = float(text) if text else DEFAULT_JOB_SECONDS
    except ValueError:
        seconds = DEFAULT_JOB_SECONDS
    deadline = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    return min(seconds, float(deadline)) if deadline else seconds


def started(pod: Obj, now: str, node: Obj) -> None:
    """Turn a bound pod into a running one, in place."""
    status = pod["status"]
    address = next((a["address"] for a in node["status"].get("addresses") or [] if a["type"] == "InternalIP"), "")
    status |= {"phase": "Running", "startTime": now, "hostIP": address, "hostIPs": [{"ip": address}]}
    status["conditions"] = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    status["containerStatuses"] = [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
            "lastState": {},
        }
        for container in pod["spec"].get("containers") or []
    ]


def finished(pod: Obj, now: str) -> None:
    """Turn a running pod into a succeeded or (by annotation) failed one, in place."""
    code = (pod["metadata"].get("annotations") or {}).get(EXIT_CODE, "0")
    number = int(code) if code.isdigit() else 1
    deadline = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    wanted = (pod["metadata"].get("annotations") or {}).get(RUN_SECONDS, "")
    cut = deadline is not None and wanted.replace(".", "", 1).isdigit() and float(wanted) > float(deadline)
    status = pod["status"]
    status["phase"] = "Failed" if number or cut else "Succeeded"
    if cut:
        status |= {
            "reason": "DeadlineExceeded",
            "message": "Pod was active on the node longer than the specified deadline",
        }
    reason = "Completed" if status["phase"] == "Succeeded" else "Error"
    for each in status.get("containerStatuses") or []:
        each["ready"], each["started"] = False, False
        each["state"] = {
            "terminated": {
                "exitCode": number,
                "reason": reason,
                "startedAt": status.get("startTime"),
                "finishedAt": now,
            }
        }
    for condition in status.get("conditions") or []:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition |= {"status": "False", "reason": "PodCompleted", "lastTransitionTime": now}
