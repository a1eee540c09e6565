"""Shows the generated workloads that run right now as pods, so that live use and metered use tell one story.

Only in namespaces that exist. These pods pass no quota admission (they stand for what was there before), count in
`status.used`, and are metered from the rules, never twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from apps.demo.cluster.api import Api
from apps.demo.cluster.defaults import apply_defaults, qos_class
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.history import Rules, Run
from apps.demo.cluster.kinds import NAMESPACE, NODE, POD
from apps.demo.cluster.kubelet import started
from apps.demo.cluster.meter import SOURCE
from apps.demo.cluster.store import Change, new_uid

_EVERY = timedelta(seconds=30)


class Replay:
    """Control-loop part that keeps the pods of the rules in step with the clock."""

    def __init__(self, api: Api, rules: Rules) -> None:
        self._api = api
        self._store = api.store
        self._rules = rules
        self._next: datetime | None = None

    def observe(self, change: Change) -> None:
        """Look at once when a namespace comes or one of our pods goes."""
        if change.entry.kind is NAMESPACE or (
            change.entry.kind is POD and change.type == "DELETED" and _ours(change.entry.obj)
        ):
            self._next = None

    def work(self) -> float:
        """Add pods that should run, remove those whose time is over."""
        now = self._api.clock()
        if self._next is not None and now < self._next:
            return (self._next - now).total_seconds()
        wanted: dict[tuple[str, str], Run] = {}
        for run in self._rules.runs(now, now + timedelta(seconds=1)):
            space = self._store.get(NAMESPACE, "", run.namespace)
            if run.start <= now and space is not None and not space.obj["metadata"].get("deletionTimestamp"):
                wanted[(run.namespace, run.pod)] = run
        with self._store.transaction():
            for entry in self._store.entries(POD):
                if _ours(entry.obj) and wanted.pop((entry.namespace, entry.name), None) is None:
                    self._store.delete(entry)
            for run in wanted.values():
                self._add(run)
        self._next = now + _EVERY
        return _EVERY.total_seconds()

    def _add(self, run: Run) -> None:
        node = self._store.get(NODE, "", run.node)
        if node is None or self._store.get(POD, run.namespace, run.pod) is not None:
            return
        resource = self._rules.gpu.resource
        amounts = {"cpu": f"{run.cpu:g}", "memory": f"{run.memory_gib:g}Gi", resource: str(run.gpus)}
        pod: Obj = {
            "apiVersion": POD.api_version,
            "kind": POD.kind,
            "metadata": {
                "name": run.pod,
                "namespace": run.namespace,
                "uid": new_uid(),
                "creationTimestamp": run.start.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "labels": dict(run.labels),
                "annotations": {SOURCE: "history"},
            },
            "spec": {
                "nodeName": run.node,
                "containers": [
                    {
                        "name": run.container,
                        "image": f"registry.example.com/{run.controller}:simulated",
                        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
                    }
                ],
                "tolerations": [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}],
            },
        }
        apply_defaults(POD, pod)
        pod["status"]["qosClass"] = qos_class(pod["spec"])
        started(pod, pod["metadata"]["creationTimestamp"], node.obj)
        self._store.put(POD, pod)


def _ours(pod: Obj) -> bool:
    return SOURCE in (pod["metadata"].get("annotations") or {})
