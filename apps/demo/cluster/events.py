"""Events on objects, repeated ones counted as the real recorder does."""

from __future__ import annotations

import hashlib

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import Obj
from apps.demo.cluster.kinds import EVENT, NAMESPACE
from apps.demo.cluster.store import Entry


def emit(api: Api, about: Entry, kind: str, reason: str, message: str, component: str) -> None:
    """Record an event (`kind` is Normal or Warning) in the object's namespace; opens a transaction if none is open."""
    namespace = about.namespace or "default"
    uid = about.obj["metadata"].get("uid", "")
    digest = hashlib.sha256(f"{uid}/{kind}/{reason}/{message}/{component}".encode()).hexdigest()[:16]
    name = f"{about.name[:230]}.{digest}"
    with api.store.transaction():
        home = api.store.get(NAMESPACE, "", namespace)
        if home is None or home.obj["metadata"].get("deletionTimestamp"):
            return
        known = api.store.get(EVENT, namespace, name)
        if known is not None:
            obj = clone(known.obj)
            obj["count"] = int(obj.get("count", 1)) + 1
            obj["lastTimestamp"] = api.now()
            api.store.put(EVENT, obj)
            return
        body: Obj = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": about.kind.api_version,
                "kind": about.kind.kind,
                "name": about.name,
                "uid": uid,
                "resourceVersion": about.obj["metadata"].get("resourceVersion", ""),
            },
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": api.now(),
            "lastTimestamp": api.now(),
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
        }
        if about.namespace:
            body["involvedObject"]["namespace"] = about.namespace
        api.system_create(EVENT, body)
