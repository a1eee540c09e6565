"""`visibility.kueue.x-k8s.io/v1beta2`: who waits before whom."""

from __future__ import annotations

from apps.demo.cluster.errors import Obj, bad_request, not_found
from apps.demo.cluster.kinds import CLUSTER_QUEUE, LOCAL_QUEUE
from apps.demo.cluster.kueue.units import Unit
from apps.demo.cluster.store import Store

_LIMIT = 1000


def pending(store: Store, units: list[Unit], namespace: str, name: str, query: dict[str, str]) -> Obj:
    """Summary of a ClusterQueue (no namespace) or LocalQueue. `units` come oldest first. Raises 400 and 404."""
    kind = LOCAL_QUEUE if namespace else CLUSTER_QUEUE
    found = store.get(kind, namespace, name)
    if found is None:
        raise not_found(kind.plural, "visibility.kueue.x-k8s.io", name)
    queue = str((found.obj.get("spec") or {}).get("clusterQueue", "")) if namespace else name
    limit, offset = _number(query, "limit", _LIMIT), _number(query, "offset", 0)
    waiting = [
        unit
        for unit in units
        if unit.queue == queue and not unit.live and not unit.true("Finished") and unit.obj["spec"].get("active", True)
    ]
    waiting.sort(key=lambda unit: -int(unit.obj["spec"].get("priority", 0)))  # stable: the older first
    seen: dict[tuple[str, str], int] = {}
    items = []
    for position, unit in enumerate(waiting):
        local = (unit.entry.namespace, str(unit.obj["spec"].get("queueName", "")))
        place = seen.get(local, 0)
        seen[local] = place + 1
        if namespace and local != (namespace, name):
            continue
        kept = ("name", "namespace", "ownerReferences", "creationTimestamp")
        items.append(
            {
                "metadata": {each: unit.obj["metadata"][each] for each in kept if each in unit.obj["metadata"]},
                "priority": int(unit.obj["spec"].get("priority", 0)),
                "localQueueName": local[1],
                "positionInClusterQueue": position,
                "positionInLocalQueue": place,
            }
        )
    return {
        "kind": "PendingWorkloadsSummary",
        "apiVersion": "visibility.kueue.x-k8s.io/v1beta2",
        "metadata": {},
        "items": items[offset : offset + limit],
    }


def _number(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if text and not text.isdigit():
        raise bad_request(f'invalid {name} "{text}"')
    return int(text) if text else default
