"""Status of ClusterQueues and LocalQueues: use by flavour, counts, and whether they admit."""

from __future__ import annotations

from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kueue.engine import Plan
from apps.demo.cluster.kueue.model import Snapshot, limits_of
from apps.demo.cluster.kueue.options import FINALIZER
from apps.demo.cluster.kueue.quota import Key
from apps.demo.cluster.kueue.units import Unit, put_condition, quantity
from apps.demo.cluster.store import Entry, Store


def write(store: Store, snapshot: Snapshot, units: list[Unit], plan: Plan, now: str) -> None:
    """Bring the status of every queue up to date; add and lift the finalizer of ClusterQueues."""
    by_queue: dict[str, list[Unit]] = {}
    by_local: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        if unit.true("Finished") or unit.obj["metadata"].get("deletionTimestamp"):
            continue
        by_queue.setdefault(unit.queue, []).append(unit)
        by_local.setdefault((unit.entry.namespace, unit.obj["spec"].get("queueName", "")), []).append(unit)
    for name, entry in snapshot.cluster_queues.items():
        members = by_queue.get(name, [])
        obj = clone(entry.obj)
        obj["status"] = _status(entry, members, snapshot.active(name), now, borrowed=True)
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if obj["metadata"].get("deletionTimestamp"):
            if not any(unit.live for unit in members) and FINALIZER in finalizers:
                finalizers.remove(FINALIZER)
        elif FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        _put(store, entry, obj)
    for key, entry in snapshot.local_queues.items():
        obj = clone(entry.obj)
        queue = snapshot.cluster_queues.get(str((entry.obj.get("spec") or {}).get("clusterQueue", "")))
        members = by_local.get(key, [])
        obj["status"] = _status(entry, members, snapshot.local_active(entry), now, borrowed=False, like=queue)
        _put(store, entry, obj)


def _put(store: Store, entry: Entry, obj: Obj) -> None:
    if obj == entry.obj:
        return
    with store.transaction():
        if store.get(entry.kind, entry.namespace, entry.name) is not entry:
            return  # it moved; the change brings the next round
        stored = store.put(entry.kind, obj)
        if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
            store.delete(stored)


def _status(
    entry: Entry,
    members: list[Unit],
    active: tuple[bool, str, str],
    now: str,
    *,
    borrowed: bool,
    like: Entry | None = None,
) -> Obj:
    limits = limits_of((like or entry).obj) if borrowed or like is not None else {}
    pooled = bool(((like or entry).obj.get("spec") or {}).get("cohortName"))
    reserved: dict[Key, int] = dict.fromkeys(limits, 0)
    used: dict[Key, int] = dict.fromkeys(limits, 0)
    for unit in members:
        if not unit.live:
            continue
        admitted = unit.true("Admitted")
        for key, amount in unit.usage.items():
            if key in reserved:
                reserved[key] += amount
                used[key] += amount if admitted else 0

    def rows(amounts: dict[Key, int]) -> list[Obj]:
        out: dict[str, list[Obj]] = {}
        for (flavor, resource), amount in amounts.items():
            row = {"name": resource, "total": quantity(resource, amount)}
            if borrowed:
                over = max(0, amount - limits[(flavor, resource)].nominal) if pooled else 0
                row["borrowed"] = quantity(resource, over)
            out.setdefault(flavor, []).append(row)
        return [{"name": flavor, "resources": resources} for flavor, resources in out.items()]

    conditions = clone((entry.obj.get("status") or {}).get("conditions") or [])
    put_condition(conditions, "Active", *active, now, int(entry.obj["metadata"].get("generation", 1)))
    live = [unit for unit in members if unit.live]
    return {
        "conditions": conditions,
        "flavorsReservation": rows(reserved),
        "flavorsUsage": rows(used),
        "pendingWorkloads": sum(1 for unit in members if not unit.live and unit.obj["spec"].get("active", True)),
        "reservingWorkloads": len(live),
        "admittedWorkloads": sum(1 for unit in live if unit.true("Admitted")),
    }
