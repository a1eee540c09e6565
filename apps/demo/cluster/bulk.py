"""Thousands of namespaces with a quota each, made in one go: for benches, and for seeing the portal at scale."""

from __future__ import annotations

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import NAMESPACE, QUOTA, SERVICE_ACCOUNT, Kind
from apps.demo.cluster.seeds import SIMULATED
from apps.demo.cluster.store import new_uid

LABEL = f"{SIMULATED}/bulk"
_BATCH = 500


def seed(api: Api, count: int, *, prefix: str = "bulk", labels: Obj | None = None, gpus: int = 4) -> int:
    """Make `count` namespaces `<prefix>-00000` …, each with a ResourceQuota and its service account.

    What exists is left alone. Parts that all have in common are shared, so that ten thousand take little memory.
    Returns how many were made.
    """
    marks = {LABEL: "true", **(labels or {})}
    patterns: dict[Kind, Obj] = {}
    made = 0
    for first in range(0, count, _BATCH):
        with api.store.transaction():
            for number in range(first, min(count, first + _BATCH)):
                name = f"{prefix}-{number:05d}"
                if api.store.get(NAMESPACE, "", name) is None:
                    _one(api, name, marks, gpus, patterns)
                    made += 1
    return made


def _one(api: Api, name: str, marks: Obj, gpus: int, patterns: dict[Kind, Obj]) -> None:
    hard = {"pods": "50", "requests.nvidia.com/gpu": str(gpus)}
    bodies: list[tuple[Kind, str, str, Obj]] = [
        (NAMESPACE, "", name, {}),
        (SERVICE_ACCOUNT, name, "default", {}),
        (QUOTA, name, "gpu-quota", {"spec": {"hard": hard}}),
    ]
    for kind, namespace, own, rest in bodies:
        if kind not in patterns:  # the first goes the whole way; the others are its likes
            meta: Obj = {"name": own, "labels": marks}
            if namespace:
                meta["namespace"] = namespace
            entry = api.system_create(kind, {"metadata": meta, **rest})
            pattern = clone(entry.obj)
            if kind is QUOTA:
                pattern["status"] = {"hard": hard, "used": dict.fromkeys(hard, "0")}
                api.store.put(kind, pattern)
            patterns[kind] = pattern
            continue
        meta = {**patterns[kind]["metadata"], "name": own, "uid": new_uid()}
        if namespace:
            meta["namespace"] = namespace
        else:
            meta["labels"] = {**meta["labels"], "kubernetes.io/metadata.name": own}
        api.store.put(kind, {**patterns[kind], "metadata": meta})
