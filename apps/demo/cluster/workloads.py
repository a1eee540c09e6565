"""Jobs and Deployments make pods. Deployments do so directly: there are no ReplicaSets here."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import datetime

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.calls import generated_suffix
from apps.demo.cluster.defaults import template_hash
from apps.demo.cluster.errors import ApiError, Obj
from apps.demo.cluster.events import emit
from apps.demo.cluster.kinds import DEPLOYMENT, JOB, LIMIT_RANGE, POD, QUOTA, Kind
from apps.demo.cluster.quantity import parse
from apps.demo.cluster.store import Change, Entry
from apps.demo.cluster.usage import is_terminal

_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 30.0
Key = tuple[Kind, str, str]


@dataclass
class _Retry:
    """Refused pod creations of one owner: when to try again."""

    at: float
    delay: float


class Workloads:
    """Control-loop part for Jobs and Deployments."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._store = api.store
        self._dirty: set[Key] = set()
        self._retries: dict[Key, _Retry] = {}

    def observe(self, change: Change) -> None:
        """An owner, one of its pods, or the quota that refused it."""
        entry = change.entry
        if entry.kind in (JOB, DEPLOYMENT):
            self._dirty.add((entry.kind, entry.namespace, entry.name))
        elif entry.kind is POD:
            for owner in entry.obj["metadata"].get("ownerReferences") or []:
                kind = {"Job": JOB, "Deployment": DEPLOYMENT}.get(owner.get("kind", ""))
                if kind is not None:
                    self._dirty.add((kind, entry.namespace, owner.get("name", "")))
        elif entry.kind in (QUOTA, LIMIT_RANGE) and _has_more_room(change):
            for key, retry in self._retries.items():
                if key[1] == entry.namespace:
                    retry.at = 0.0

    def work(self) -> float:
        """Bring every touched owner to its wanted state; refused ones again after a back-off."""
        now = time.monotonic()
        self._dirty |= {key for key, retry in self._retries.items() if retry.at <= now}
        while self._dirty:
            key = self._dirty.pop()
            with self._store.transaction():
                entry = self._store.get(*key)
                if entry is None or entry.obj["metadata"].get("deletionTimestamp"):
                    self._retries.pop(key, None)
                elif key[0] is JOB:
                    self._job(entry)
                else:
                    self._deployment(entry)
        return min((retry.at - time.monotonic() for retry in self._retries.values()), default=float("inf"))

    # ---- pods

    def _owned(self, owner: Entry) -> list[Entry]:
        uid = owner.obj["metadata"]["uid"]
        return [
            entry
            for entry in self._store.entries(POD, owner.namespace)
            if any(each.get("uid") == uid for each in entry.obj["metadata"].get("ownerReferences") or [])
        ]

    def _spawn(self, owner: Entry, template: Obj, prefix: str, extra: Obj) -> str:
        """Create one pod. Returns why not, empty on success."""
        key = (owner.kind, owner.namespace, owner.name)
        retry = self._retries.get(key)
        if retry is not None and retry.at > time.monotonic():
            return "waiting"
        meta = clone(template.get("metadata") or {})
        meta["labels"] = {**(meta.get("labels") or {}), **extra}
        meta["name"] = f"{prefix}-{generated_suffix()}"
        meta["namespace"] = owner.namespace
        meta["ownerReferences"] = [
            {
                "apiVersion": owner.kind.api_version,
                "kind": owner.kind.kind,
                "name": owner.name,
                "uid": owner.obj["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        component = "job-controller" if owner.kind is JOB else "deployment-controller"
        account = "kube-system:job-controller" if owner.kind is JOB else "kube-system:replicaset-controller"
        try:
            pod = self._api.system_create(POD, {"metadata": meta, "spec": clone(template.get("spec") or {})}, account)
        except ApiError as error:
            delay = min(retry.delay * 2, _LONGEST_BACKOFF) if retry else _FIRST_BACKOFF
            self._retries[key] = _Retry(time.monotonic() + delay, delay)
            emit(self._api, owner, "Warning", "FailedCreate", f"Error creating: {error.message}", component)
            return error.message
        self._retries.pop(key, None)
        emit(self._api, owner, "Normal", "SuccessfulCreate", f"Created pod: {pod.name}", component)
        return ""

    # ---- jobs

    def _job(self, entry: Entry) -> None:
        job = clone(entry.obj)
        spec, status = job["spec"], job.setdefault("status", {})
        if any(each["type"] in ("Complete", "Failed") for each in status.get("conditions") or []):
            self._expire(entry)
            return
        pods = self._owned(entry)
        phases = [(each.obj.get("status") or {}).get("phase") for each in pods]
        succeeded, failed = phases.count("Succeeded"), phases.count("Failed")
        active = [
            each for each in pods if not is_terminal(each.obj) and not each.obj["metadata"].get("deletionTimestamp")
        ]
        wanted = spec.get("completions") or spec["parallelism"]
        ended = ""
        if failed > spec["backoffLimit"]:
            ended = "Failed"
        elif succeeded >= wanted:
            ended = "Complete"
        limit = 0 if ended or spec.get("suspend") else min(spec["parallelism"], wanted - succeeded)
        for extra in active[limit:]:
            self._store.delete(extra)
        active = active[:limit]
        if spec.get("suspend"):
            status.pop("startTime", None)
        if limit and not status.get("startTime"):
            status["startTime"] = self._api.now()
        while len(active) < limit and not self._spawn(entry, spec["template"], entry.name, {}):
            active = [each for each in self._owned(entry) if not is_terminal(each.obj)]
        status |= {
            "active": len(active),
            "ready": sum(1 for each in active if (each.obj.get("status") or {}).get("phase") == "Running"),
            "succeeded": succeeded,
            "failed": failed,
            "terminating": 0,
        }
        self._job_conditions(status, ended, bool(spec.get("suspend")))
        self._save(entry, job)

    def _job_conditions(self, status: Obj, ended: str, suspended: bool) -> None:
        now = self._api.now()
        conditions = [each for each in status.get("conditions") or [] if each["type"] != "Suspended"]
        old = next((each for each in status.get("conditions") or [] if each["type"] == "Suspended"), None)
        if suspended:
            conditions.append(
                old
                if old and old["status"] == "True"
                else {"type": "Suspended", "status": "True", "reason": "JobSuspended", "lastTransitionTime": now}
            )
        if ended:
            reason = {"Failed": "BackoffLimitExceeded", "Complete": "CompletionsReached"}[ended]
            conditions.append({"type": ended, "status": "True", "reason": reason, "lastTransitionTime": now})
            if ended == "Complete":
                status["completionTime"] = now
        if conditions:
            status["conditions"] = conditions
        else:
            status.pop("conditions", None)

    def _expire(self, entry: Entry) -> None:
        """Delete a finished job after `ttlSecondsAfterFinished`."""
        ttl = entry.obj["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return
        key = (JOB, entry.namespace, entry.name)
        ended = entry.obj["status"]["conditions"][-1]["lastTransitionTime"]
        left = ttl - (self._api.clock() - datetime.fromisoformat(ended)).total_seconds()
        if left <= 0:
            self._retries.pop(key, None)
            self._store.delete(entry)
        else:
            self._retries[key] = _Retry(time.monotonic() + left, _FIRST_BACKOFF)

    # ---- deployments

    def _deployment(self, entry: Entry) -> None:
        obj = clone(entry.obj)
        spec, status = obj["spec"], obj.setdefault("status", {})
        digest = template_hash(spec["template"])
        pods = [each for each in self._owned(entry) if _counts(each)]
        current = [each for each in pods if _hash(each) == digest]
        stale = [each for each in pods if _hash(each) != digest]
        wanted = spec["replicas"]
        surge = 0 if spec["strategy"]["type"] == "Recreate" else _share(spec, wanted)
        room = wanted + (surge if stale else 0) - len(pods)
        if spec["strategy"]["type"] == "Recreate" and stale:
            room = 0
        why = ""
        for _ in range(min(room, wanted - len(current))):
            why = self._spawn(entry, spec["template"], f"{entry.name}-{digest}", {"pod-template-hash": digest})
            if why:
                break
        ready = sum(1 for each in current if _ready(each))
        # An old pod goes for every new one that is ready, so that the wanted number stays up where quota allows it.
        spare = stale if spec["strategy"]["type"] == "Recreate" else stale[: max(0, len(stale) - (wanted - ready))]
        extra = sorted(current, key=_ready)[: max(0, len(current) - wanted)]
        for each in [*spare, *extra]:
            self._store.delete(each)
        self._deployment_status(entry, obj, status, wanted, digest, why)
        self._save(entry, obj)

    def _deployment_status(self, entry: Entry, obj: Obj, status: Obj, wanted: int, digest: str, why: str) -> None:
        pods = [each for each in self._owned(entry) if not is_terminal(each.obj)]
        ready = sum(1 for each in pods if _ready(each))
        failure = next((c for c in status.get("conditions") or [] if c["type"] == "ReplicaFailure"), None)
        status.clear()
        status["observedGeneration"] = obj["metadata"].get("generation", 1)
        counts = {
            "replicas": len(pods),
            "updatedReplicas": sum(1 for each in pods if _hash(each) == digest),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
        }
        status |= {name: count for name, count in counts.items() if count}
        good = ready >= wanted
        rows = [
            ("Available", good, "MinimumReplicasAvailable" if good else "MinimumReplicasUnavailable", ""),
            ("Progressing", True, "NewReplicaSetAvailable" if good else "ReplicaSetUpdated", ""),
        ]
        if why and why != "waiting":
            rows.append(("ReplicaFailure", True, "FailedCreate", why))
        elif why and failure:
            rows.append(("ReplicaFailure", True, "FailedCreate", failure.get("message", "")))
        old = {each["type"]: each for each in (entry.obj.get("status") or {}).get("conditions") or []}
        status["conditions"] = []
        for kind, truth, reason, message in rows:
            known = old.get(kind)
            text = "True" if truth else "False"
            same = known is not None and known["status"] == text and known.get("message", "") == message
            now = known["lastTransitionTime"] if known is not None and same else self._api.now()
            condition = {"type": kind, "status": text, "reason": reason, "message": message}
            status["conditions"].append(condition | {"lastTransitionTime": now, "lastUpdateTime": now})

    def _save(self, entry: Entry, obj: Obj) -> None:
        if obj != entry.obj and self._store.get(entry.kind, entry.namespace, entry.name) is entry:
            self._store.put(entry.kind, obj)


def _has_more_room(change: Change) -> bool:
    """A changed specification, or a use that went down: what was refused may fit now."""
    if change.previous is None or change.previous.obj.get("spec") != change.entry.obj.get("spec"):
        return True
    before = (change.previous.obj.get("status") or {}).get("used") or {}
    after = (change.entry.obj.get("status") or {}).get("used") or {}
    return any(parse(after.get(key, "0")) < parse(amount) for key, amount in before.items())


def _hash(entry: Entry) -> str:
    return str((entry.obj["metadata"].get("labels") or {}).get("pod-template-hash", ""))


def _counts(entry: Entry) -> bool:
    return not is_terminal(entry.obj) and not entry.obj["metadata"].get("deletionTimestamp")


def _ready(entry: Entry) -> bool:
    """Running, and (where a model is loaded first) done with that."""
    status = entry.obj.get("status") or {}
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
    return status.get("phase") == "Running" and conditions.get("Ready", "True") == "True"


def _share(spec: Obj, wanted: int) -> int:
    """`maxSurge` in pods; percentages round up."""
    value = (spec["strategy"].get("rollingUpdate") or {}).get("maxSurge", "25%")
    if isinstance(value, str):
        return math.ceil(wanted * int(value.rstrip("%") or 0) / 100)
    return int(value)
