"""Kueue's controllers around the engine: Workloads of Jobs and Pods, admission, eviction, status of the queues."""

from __future__ import annotations

import time

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.events import emit
from apps.demo.cluster.kinds import (
    ADMISSION_CHECK,
    CLUSTER_QUEUE,
    COHORT,
    JOB,
    LOCAL_QUEUE,
    NAMESPACE,
    POD,
    RESOURCE_FLAVOR,
    TOPOLOGY,
    WORKLOAD,
    Kind,
)
from apps.demo.cluster.kueue import status, visibility
from apps.demo.cluster.kueue.engine import Assignment, Item, Plan, make_plan
from apps.demo.cluster.kueue.model import Snapshot
from apps.demo.cluster.kueue.options import MANAGED_LABEL, QUEUE_LABEL, KueueOptions, Webhook
from apps.demo.cluster.kueue.preemption import SENTENCES, Target
from apps.demo.cluster.kueue.rules import has_condition
from apps.demo.cluster.kueue.units import (
    Unit,
    has_pods,
    is_over,
    new_workload,
    pod_template,
    quantity,
    requests,
    started,
    stopped,
    unsuitable,
)
from apps.demo.cluster.ownership import track_update
from apps.demo.cluster.schema import type_of
from apps.demo.cluster.store import Change, Entry

_RELEVANT = frozenset(
    {ADMISSION_CHECK, CLUSTER_QUEUE, COHORT, JOB, LOCAL_QUEUE, POD, RESOURCE_FLAVOR, TOPOLOGY, WORKLOAD}
)
_COMPONENT = "kueue-admission"


class KueueController:
    """Control-loop part. One round looks at everything; rounds are spaced so that they take a tenth of the time."""

    def __init__(self, api: Api, options: KueueOptions | None = None) -> None:
        self._api = api
        self._store = api.store
        self.options = options or KueueOptions()
        self.webhook = Webhook(api.store, self.options)
        self._dirty = True
        self._not_before = 0.0
        self._born: dict[str, int] = {}

    def observe(self, change: Change) -> None:
        """Note that something moved that admission depends on."""
        kind, obj = change.entry.kind, change.entry.obj
        if kind is WORKLOAD:
            if change.type == "DELETED":
                self._born.pop(obj["metadata"]["uid"], None)
            else:
                self._born.setdefault(obj["metadata"]["uid"], change.rv)
        if kind is POD and MANAGED_LABEL not in (obj["metadata"].get("labels") or {}):
            return
        if kind in _RELEVANT or kind is NAMESPACE:
            self._dirty = True

    def work(self) -> float:
        """One round where something moved."""
        if not self._dirty:
            return float("inf")
        wait = self._not_before - time.monotonic()
        if wait > 0:
            return wait
        self._dirty = False
        begin = time.monotonic()
        self._round()
        self._not_before = time.monotonic() + min(2.0, max(0.01, 10 * (time.monotonic() - begin)))
        return float("inf")

    def pending(self, namespace: str, name: str, query: dict[str, str]) -> Obj:
        """Pending workloads of a queue, in order. Raises 400 and 404."""
        return visibility.pending(self._store, self._units(), namespace, name, query)

    # ---- one round

    def _round(self) -> None:
        for owner in self._owners():
            self._adopt(owner)
        snapshot = Snapshot.read(self._store)
        units = self._units()
        now = self._api.now()
        for unit in units:
            self._follow(unit, snapshot, now)
        plan = self._admit(units, snapshot, now)
        for unit in units:
            self._run(unit, snapshot)
            self._save(unit)
        status.write(self._store, snapshot, units, plan, now)

    def _owners(self) -> list[Entry]:
        jobs = [each for each in self._store.entries(JOB) if QUEUE_LABEL in (each.obj["metadata"].get("labels") or {})]
        pods = [
            each
            for each in (self._store.entries(POD) if self.options.pods else [])
            if MANAGED_LABEL in (each.obj["metadata"].get("labels") or {})
        ]
        spaces: dict[str, bool] = {}
        out = []
        for each in [*jobs, *pods]:
            if each.namespace not in spaces:
                spaces[each.namespace] = self.webhook.manages(each.namespace)
            if spaces[each.namespace] and not each.obj["metadata"].get("deletionTimestamp"):
                out.append(each)
        return out

    def _adopt(self, owner: Entry) -> None:
        """Every managed Job or Pod has its Workload; that of one which waits follows what its owner says."""
        body = new_workload(self._store, owner)
        name = body["metadata"]["name"]
        known = self._store.get(WORKLOAD, owner.namespace, name)
        if known is None:
            if not is_over(owner):
                with self._store.transaction():
                    if self._store.get(owner.kind, owner.namespace, owner.name) is not None:
                        self._api.system_create(WORKLOAD, body)
            return
        spec = known.obj["spec"]
        template, count = pod_template(owner)
        waiting = not has_condition(known.obj, "QuotaReserved")
        changed = spec.get("queueName") != body["spec"]["queueName"]
        if owner.kind is JOB:
            changed = changed or spec["podSets"][0].get("count") != count or spec["podSets"][0]["template"] != template
        if waiting and changed:
            fresh = clone(known.obj)
            fresh["spec"] |= {"podSets": body["spec"]["podSets"], "queueName": body["spec"]["queueName"]}
            self._put(known, fresh)

    def _units(self) -> list[Unit]:
        queues = {(each.namespace, each.name): each for each in self._store.entries(LOCAL_QUEUE)}
        out = []
        for entry in self._store.entries(WORKLOAD):
            spec = entry.obj.get("spec") or {}
            local = queues.get((entry.namespace, spec.get("queueName", "")))
            queue = ((local.obj.get("spec") or {}).get("clusterQueue", "")) if local else ""
            admission = (entry.obj.get("status") or {}).get("admission") or {}
            self._born.setdefault(entry.obj["metadata"]["uid"], entry.rv)
            obj = clone(entry.obj)
            obj.setdefault("spec", {}).setdefault("podSets", [])
            out.append(Unit(entry, obj, self._owner(entry), admission.get("clusterQueue") or queue))
        out.sort(key=lambda unit: (unit.obj["metadata"]["creationTimestamp"], self._born[unit.uid]))
        return out

    def _owner(self, entry: Entry) -> Entry | None:
        for reference in entry.obj["metadata"].get("ownerReferences") or []:
            kind: Kind | None = {"Job": JOB, "Pod": POD}.get(reference.get("kind", ""))
            if kind is not None:
                found = self._store.get(kind, entry.namespace, reference.get("name", ""))
                if found is not None and found.obj["metadata"]["uid"] == reference.get("uid"):
                    return found
        return None

    def _follow(self, unit: Unit, snapshot: Snapshot, now: str) -> None:
        """Finished, deactivated, drained, or evicted and gone: what a Workload must show before admission."""
        owned = bool(unit.obj["metadata"].get("ownerReferences"))
        if owned and unit.owner is None:
            with self._store.transaction():
                current = self._store.get(WORKLOAD, unit.entry.namespace, unit.entry.name)
                if current is not None and current.obj["metadata"]["uid"] == unit.uid:
                    self._store.delete(current)
            unit.obj["metadata"]["deletionTimestamp"] = now
            return
        if unit.true("Finished"):
            return
        over = is_over(unit.owner) if unit.owner is not None else ""
        if over:
            text = "Job finished successfully" if over == "Succeeded" else "Job failed"
            unit.set("Finished", True, over, text, now)
            return
        if unit.true("Evicted"):
            if unit.live and not has_pods(unit.owner):
                reason, text = _condition(unit.obj, "Evicted")
                unit.set("QuotaReserved", False, "PendingEvaluation", text, now)
                if any(each["type"] == "Admitted" for each in _conditions(unit.obj)):
                    unit.set("Admitted", False, "NoReservation", "The workload has no reservation", now)
                unit.set("Requeued", reason != "Deactivated", reason, text, now)
                unit.obj["status"].pop("admission", None)
                unit.obj["status"].pop("admissionChecks", None)
            return
        if unit.live:
            why = snapshot.drained(unit)
            if unit.obj["spec"].get("active") is False:
                why = ("Deactivated", "The workload is deactivated")
            if why:
                self._evict(unit, why[0], why[1], now)

    def _evict(self, unit: Unit, reason: str, message: str, now: str) -> None:
        unit.set("Evicted", True, reason, message, now)
        unit.events.append(("Normal", f"EvictedDueTo{reason}", message))

    def _admit(self, units: list[Unit], snapshot: Snapshot, now: str) -> Plan:
        waiting: list[Unit] = []
        running: list[Item] = []
        by_uid = {unit.uid: unit for unit in units}
        flavors = {name: entry.obj for name, entry in snapshot.flavors.items()}
        reserved = sorted(
            (unit for unit in units if _counts(unit) and unit.live),
            key=lambda unit: (_since(unit.obj, "QuotaReserved"), unit.entry.rv),
        )
        for age, unit in enumerate(reserved):
            priority = int(unit.obj["spec"].get("priority", 0))
            item = Item(unit.uid, unit.queue, (), priority, units.index(unit), unit.usage, age, unit.true("Evicted"))
            running.append(item)
        for unit in units:
            if not _counts(unit) or unit.live:
                continue
            why = ("", "") if unit.obj["spec"].get("active", True) else ("Suspended", "The workload is deactivated")
            why = why if why[0] else snapshot.obstacle(unit)
            if why[0]:
                self._wait(unit, *why, now)
            else:
                waiting.append(unit)
        pending = []
        for unit in waiting:
            covered = snapshot.covers(unit.queue)
            asked = sorted(requests(unit.obj, self._store).items())
            wanted = tuple((k, v) for k, v in asked if v and (k != "pods" or k in covered))
            blocked = tuple(unsuitable(unit.obj, flavors, placed=snapshot.places(unit.queue)))
            priority = int(unit.obj["spec"].get("priority", 0))
            sticky = _condition(unit.obj, "QuotaReserved")[0] == "WaitingForPreemptedWorkloads"
            age = units.index(unit)
            pending.append(Item(unit.uid, unit.queue, wanted, priority, age, blocked=blocked, sticky=sticky))
        plan = make_plan(snapshot.tree(), snapshot.queues(), pending, running)
        for preemptor, target in plan.preempt:
            self._preempt(by_uid[preemptor.uid], by_uid[target.uid], target, snapshot, now)
        for item, found in plan.admit:
            self._reserve(by_uid[item.uid], found, snapshot, now)
        for uid, (reason, message) in plan.waiting.items():
            self._wait(by_uid[uid], reason, message, now)
        return plan

    def _wait(self, unit: Unit, reason: str, message: str, now: str) -> None:
        if unit.set("QuotaReserved", False, reason, message[:32768], now):
            unit.events.append(("Normal" if reason != "Misconfigured" else "Warning", "Pending", message))

    def _preempt(self, preemptor: Unit, victim: Unit, target: Target, snapshot: Snapshot, now: str) -> None:
        job = preemptor.obj["metadata"].get("labels", {}).get("kueue.x-k8s.io/job-uid", "UNKNOWN")
        paths = f"preemptor path: {snapshot.path(preemptor.queue)}; preemptee path: {snapshot.path(victim.queue)}"
        message = (
            f"Preempted to accommodate a workload (UID: {preemptor.uid}, JobUID: {job}) due to "
            f"{SENTENCES[target.reason]}; {paths}"
        )
        victim.set("Preempted", True, target.reason, message, now)
        self._evict(victim, "Preempted", message, now)

    def _reserve(self, unit: Unit, found: Assignment, snapshot: Snapshot, now: str) -> None:
        """Write the admission; without admission checks it is admitted at once."""
        count = sum(int(each.get("count", 1)) for each in unit.obj["spec"]["podSets"])
        names = [each.get("name", "main") for each in unit.obj["spec"]["podSets"]] or ["main"]
        usage = {resource: quantity(resource, amount) for (_, resource), amount in sorted(found.usage.items())}
        assignments = [{"name": names[0], "flavors": found.flavors, "resourceUsage": usage, "count": count}]
        unit.obj["status"]["admission"] = {"clusterQueue": unit.queue, "podSetAssignments": assignments}
        unit.set("QuotaReserved", True, "QuotaReserved", f"Quota reserved in ClusterQueue {unit.queue}", now)
        unit.events.append(("Normal", "QuotaReserved", f"Quota reserved in ClusterQueue {unit.queue}"))
        for kind in ("Evicted", "Preempted"):
            if unit.true(kind):
                unit.set(kind, False, "QuotaReserved", f"Previously: {_condition(unit.obj, kind)[1]}", now)
        checks = snapshot.checks(unit.queue, set(found.flavors.values()))
        if checks:
            state = {"state": "Pending", "message": "", "lastTransitionTime": now}
            unit.obj["status"]["admissionChecks"] = [{"name": name, **state} for name in checks]

    def _run(self, unit: Unit, snapshot: Snapshot) -> None:
        """Admit what holds quota and has passed its checks; make Jobs and Pods follow."""
        if not _counts(unit):
            return
        now = self._api.now()
        checks = (unit.obj.get("status") or {}).get("admissionChecks") or []
        evicted = unit.true("Evicted")
        passed = all(each.get("state") == "Ready" for each in checks)
        if passed and unit.live and not evicted and not unit.true("Admitted"):
            unit.set("Admitted", True, "Admitted", "The workload is admitted", now)
            unit.events.append(("Normal", "Admitted", f"Admitted by ClusterQueue {unit.queue}"))
        if unit.owner is None:
            return
        if unit.true("Admitted") and unit.live and not evicted:
            used = {flavor for flavor, _ in unit.usage}
            body = started(unit.owner, [each.obj for name, each in snapshot.flavors.items() if name in used])
            if body is not None and self._put(unit.owner, body) and unit.owner.kind is JOB:
                text = f"Admitted by clusterQueue {unit.queue}"
                emit(self._api, unit.owner, "Normal", "Started", text, "batch/job-kueue-controller")
        elif unit.owner.kind is POD:
            if evicted and unit.live and not unit.owner.obj["metadata"].get("deletionTimestamp"):
                with self._store.transaction():
                    self._api.end_pod(unit.owner)
        else:
            body = stopped(unit.owner, unit.obj)
            if body is not None and self._put(unit.owner, body):
                text = _condition(unit.obj, "Evicted")[1] if evicted else "Kueue managed child job suspended"
                emit(self._api, unit.owner, "Normal", "Stopped", text, "batch/job-kueue-controller")

    # ---- writing

    def _save(self, unit: Unit) -> None:
        if unit.obj["metadata"].get("deletionTimestamp"):
            return
        if (unit.obj.get("status") or {}) != (unit.entry.obj.get("status") or {}):
            with self._store.transaction():
                current = self._store.get(WORKLOAD, unit.entry.namespace, unit.entry.name)
                if current is None or current.obj["metadata"]["uid"] != unit.uid:
                    return
                # Only the status is ours: somebody may have set `spec.active` meanwhile.
                self._store.put(WORKLOAD, {**current.obj, "status": unit.obj.get("status") or {}})
        for kind, reason, message in unit.events:
            emit(self._api, unit.entry, kind, reason, message, _COMPONENT)

    def _put(self, entry: Entry, obj: Obj) -> bool:
        """Store a changed object as the manager `kueue`, unless it moved meanwhile."""
        with self._store.transaction():
            if self._store.get(entry.kind, entry.namespace, entry.name) is not entry:
                self._dirty = True
                return False
            managers = track_update(
                entry.obj,
                obj,
                type_of(entry.kind),
                manager="kueue",
                api_version=entry.kind.api_version,
                subresource="",
                now=self._api.now(),
            )
            obj["metadata"]["managedFields"] = [each.wire() for each in managers]
            if entry.kind.counts_generation:
                obj["metadata"]["generation"] = int(obj["metadata"].get("generation", 1)) + 1
            self._store.put(entry.kind, obj)
            return True


def _conditions(obj: Obj) -> list[Obj]:
    return (obj.get("status") or {}).get("conditions") or []


def _condition(obj: Obj, kind: str) -> tuple[str, str]:
    found: Obj = next((each for each in _conditions(obj) if each["type"] == kind), {})
    return str(found.get("reason", "")), str(found.get("message", ""))


def _since(obj: Obj, kind: str) -> str:
    return next((str(each["lastTransitionTime"]) for each in _conditions(obj) if each["type"] == kind), "")


def _counts(unit: Unit) -> bool:
    return not unit.true("Finished") and not unit.obj["metadata"].get("deletionTimestamp")
