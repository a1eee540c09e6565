"""InferenceServices and ScaledObjects: stored, with the least status by which they look alive. Nothing is deployed."""

from __future__ import annotations

import json

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import CONFIG_MAP, INFERENCE_SERVICE, NAMESPACE, SCALED_OBJECT, Kind
from apps.demo.cluster.store import Change, Entry

_STOP = "serving.kserve.io/stop"
_MODE = "serving.kserve.io/deploymentMode"
_PAUSED = ("autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas")


def objects() -> list[tuple[Kind, Obj]]:
    """What an installation brings: its namespace and configuration (Standard mode, no Gateway API)."""
    data = {
        "deploy": json.dumps({"defaultDeploymentMode": "Standard"}),
        "ingress": json.dumps({"enableGatewayApi": False, "ingressDomain": "example.com"}),
    }
    meta = {"name": "inferenceservice-config", "namespace": "kserve"}
    return [(NAMESPACE, {"metadata": {"name": "kserve"}}), (CONFIG_MAP, {"metadata": meta, "data": data})]


class Stub:
    """Control-loop part that writes status."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._dirty: set[tuple[Kind, str, str]] = set()

    def observe(self, change: Change) -> None:
        """Note new and changed objects."""
        entry = change.entry
        if entry.kind in (INFERENCE_SERVICE, SCALED_OBJECT) and change.type != "DELETED":
            self._dirty.add((entry.kind, entry.namespace, entry.name))

    def work(self) -> float:
        """Write the status of what moved."""
        while self._dirty:
            key = self._dirty.pop()
            with self._api.store.transaction():
                entry = self._api.store.get(*key)
                if entry is not None:
                    self._refresh(entry)
        return float("inf")

    def _refresh(self, entry: Entry) -> None:
        obj = clone(entry.obj)
        notes = entry.obj["metadata"].get("annotations") or {}
        if entry.kind is INFERENCE_SERVICE:
            stopped = notes.get(_STOP) == "true"
            host = f"http://{entry.name}.{entry.namespace}.example.com"
            truths: tuple[tuple[str, bool], ...] = (("Ready", not stopped), ("Stopped", stopped))
            obj["status"] = {
                "deploymentMode": notes.get(_MODE, "Standard"),
                "url": host,
                "address": {"url": host},
                "conditions": [self._condition(entry, kind, truth) for kind, truth in truths],
            }
        else:
            paused = any(name in notes for name in _PAUSED)
            truths = (("Ready", True), ("Active", not paused), ("Paused", paused), ("Fallback", False))
            obj["status"] = {
                "hpaName": f"keda-hpa-{entry.name}",
                "conditions": [self._condition(entry, kind, truth) for kind, truth in truths],
            }
        if obj != entry.obj:
            self._api.store.put(entry.kind, obj)

    def _condition(self, entry: Entry, kind: str, truth: bool) -> Obj:
        known = (entry.obj.get("status") or {}).get("conditions") or []
        text = "True" if truth else "False"
        old: Obj = next((each for each in known if each["type"] == kind and each["status"] == text), {})
        when = old.get("lastTransitionTime") or self._api.now()
        return {"type": kind, "status": text, "reason": "Simulated", "lastTransitionTime": when}
