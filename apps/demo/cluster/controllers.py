"""The controller thread: quota status, namespace termination, garbage collection; calls workloads and scheduler."""

from __future__ import annotations

import threading
import time
import traceback
from typing import Protocol

from apps.demo.cluster import crds
from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.auth import User
from apps.demo.cluster.errors import ApiError, Obj
from apps.demo.cluster.kinds import (
    CRD,
    DEPLOYMENT,
    EVENT,
    NAMESPACE,
    POD,
    QUOTA,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from apps.demo.cluster.policies import Asked
from apps.demo.cluster.store import Change, Entry, Store
from apps.demo.cluster.usage import shown, tracked, used_in

_NAMESPACE_CONTROLLER = User(
    "system:serviceaccount:kube-system:namespace-controller",
    ("system:serviceaccounts", "system:serviceaccounts:kube-system"),
)
_OWNED = (POD, DEPLOYMENT, SERVICE)
"""Kinds that controllers here make for an owner."""
_KEPT_EVENTS = 100
"""Events a namespace keeps; the real server drops them after an hour."""


class Controller(Protocol):
    """A part of the control loop."""

    def observe(self, change: Change) -> None:
        """Take note of a change; quick, no writes."""

    def work(self) -> float:
        """Do what is due. Returns seconds until something is due again (infinity: only after a change)."""


class Loop:
    """One thread that feeds changes to the controllers and lets them work."""

    def __init__(self, store: Store, controllers: list[Controller]) -> None:
        self._store = store
        self._controllers = controllers
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin with everything that is stored as if it had just appeared."""
        with self._store.lock:
            position = self._store.rv
            for kind in (NAMESPACE, QUOTA, *self._store.namespaced_kinds()):
                for entry in self._store.entries(kind):
                    self._note(Change(entry.rv, "ADDED", entry, None))
        self._thread = threading.Thread(target=self._run, args=(position,), name="controllers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the current round and end."""
        self._stop.set()
        with self._store.changed:
            self._store.changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _note(self, change: Change) -> None:
        for controller in self._controllers:
            controller.observe(change)

    def _run(self, position: int) -> None:
        while not self._stop.is_set():
            due = 5.0
            for controller in self._controllers:
                try:
                    due = min(due, controller.work())
                except Exception:  # noqa: BLE001  (last resort of a thread)
                    # One controller's mistake must not stop the others; it is printed and tried again.
                    traceback.print_exc()
                    due = min(due, 1.0)
            with self._store.changed:
                if self._store.rv == position and not self._stop.is_set():
                    self._store.changed.wait(max(0.005, due))
                try:
                    changes = self._store.since(position)
                except ApiError:
                    # The history window moved past us: look at everything anew.
                    changes = [
                        Change(entry.rv, "ADDED", entry, None)
                        for kind in (NAMESPACE, *self._store.namespaced_kinds())
                        for entry in self._store.entries(kind)
                    ]
                position = self._store.rv
            for change in changes:
                self._note(change)


class QuotaController:
    """Keeps `status.hard` and `status.used` of every ResourceQuota true."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: set[str] = set()

    def observe(self, change: Change) -> None:
        """Any change in a namespace may move its quotas; events never do."""
        if change.entry.namespace and change.entry.kind is not EVENT:
            self._dirty.add(change.entry.namespace)

    def work(self) -> float:
        """Recalculate namespaces with changes."""
        while self._dirty:
            namespace = self._dirty.pop()
            with self._store.transaction():
                for entry in self._store.entries(QUOTA, namespace):
                    self._refresh(entry)
        return float("inf")

    def _refresh(self, entry: Entry) -> None:
        hard = (entry.obj.get("spec") or {}).get("hard") or {}
        keys = tracked(entry.obj)
        status: Obj = {
            "hard": dict(sorted(hard.items())),
            "used": shown(hard, used_in(self._store, entry.namespace, entry.obj)) if keys else {},
        }
        if status != (entry.obj.get("status") or {}):
            fresh = clone(entry.obj)
            fresh["status"] = status
            self._store.put(QUOTA, fresh)


class NamespaceController:
    """Default service account in, contents and namespace out after deletion; trims events."""

    def __init__(self, api: Api, linger: float = 0.3) -> None:
        self._api = api
        self._store = api.store
        self._linger = linger
        self._fresh: set[str] = set()
        self._ending: dict[str, float] = {}
        self._eventful: set[str] = set()

    def observe(self, change: Change) -> None:
        """New namespaces, namespaces marked for deletion, namespaces with events."""
        entry = change.entry
        if entry.kind is EVENT and change.type == "ADDED":
            self._eventful.add(entry.namespace)
        if entry.kind is not NAMESPACE or change.type == "DELETED":
            return
        if entry.obj["metadata"].get("deletionTimestamp"):
            self._ending.setdefault(entry.name, time.monotonic() + self._linger)
        elif change.type == "ADDED":
            self._fresh.add(entry.name)

    def work(self) -> float:
        """Create default service accounts, finish deletions that are due."""
        while self._fresh:
            self._service_account(self._fresh.pop())
        while self._eventful:
            self._trim(self._eventful.pop())
        now = time.monotonic()
        for name, due in list(self._ending.items()):
            if due <= now and self._empty(name):
                del self._ending[name]
        return min((due - now for due in self._ending.values()), default=float("inf"))

    def _service_account(self, namespace: str) -> None:
        if self._store.get(SERVICE_ACCOUNT, namespace, "default") is not None:
            return
        with self._store.transaction():
            found = self._store.get(NAMESPACE, "", namespace)
            if found is None or found.obj["metadata"].get("deletionTimestamp"):
                return
            if self._store.get(SERVICE_ACCOUNT, namespace, "default") is None:
                self._api.system_create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": namespace}})

    def _empty(self, name: str) -> bool:
        """Delete a namespace's contents, then itself. False while finalizers hold something back."""
        with self._store.transaction():
            found = self._store.get(NAMESPACE, "", name)
            if found is None:
                return True
            for kind in self._store.namespaced_kinds():
                for entry in self._store.entries(kind, name):
                    if entry.obj["metadata"].get("finalizers"):
                        if not entry.obj["metadata"].get("deletionTimestamp"):
                            self._mark(entry)
                    elif self._may_delete(entry):
                        self._store.delete(entry)
            if any(self._store.entries(kind, name) for kind in self._store.namespaced_kinds()):
                self._ending[name] = time.monotonic() + 1.0
                return False
            if found.obj["metadata"].get("finalizers"):
                self._ending[name] = time.monotonic() + 1.0
                return False
            self._store.delete(found)
            return True

    def _may_delete(self, entry: Entry) -> bool:
        """Admission policies judge the namespace controller, too: one without an exemption keeps namespaces alive."""
        meta = entry.obj["metadata"]
        asked = Asked(entry.kind, "DELETE", entry.namespace, meta["name"], _NAMESPACE_CONTROLLER, None, entry.obj)
        try:
            self._api.policies.admit(asked, [])
        except ApiError:
            return False
        return True

    def _mark(self, entry: Entry) -> None:
        obj = clone(entry.obj)
        obj["metadata"]["deletionTimestamp"] = self._api.now()
        self._store.put(entry.kind, obj)

    def _trim(self, namespace: str) -> None:
        rows = self._store.entries(EVENT, namespace)
        if len(rows) > _KEPT_EVENTS * 2:
            with self._store.transaction():
                for entry in sorted(rows, key=lambda each: each.rv)[:-_KEPT_EVENTS]:
                    self._store.delete(entry)


class GarbageCollector:
    """Deletes what only deleted owners owned, and the objects of definitions that went."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gone: list[tuple[Kind, str, str]] = []
        self._undefined: list[Kind] = []

    def observe(self, change: Change) -> None:
        """Remember deleted owners."""
        if change.type == "DELETED" and change.entry.kind is CRD:
            self._undefined += crds.kinds_of(change.entry.obj)
        if change.type == "DELETED" and change.entry.kind not in (POD, EVENT):
            self._gone.append((change.entry.kind, change.entry.namespace, change.entry.obj["metadata"].get("uid", "")))

    def work(self) -> float:
        """Delete their dependents."""
        while self._undefined:
            kind = self._undefined.pop()
            if not any(kind.key == each.key for each in self._store.custom_kinds()):
                with self._store.transaction():
                    for entry in self._store.entries(kind):
                        self._store.delete(entry)
        while self._gone:
            _, namespace, uid = self._gone.pop()
            with self._store.transaction():
                for kind in _OWNED:
                    for entry in self._store.entries(kind, namespace):
                        owners = entry.obj["metadata"].get("ownerReferences") or []
                        if owners and all(owner.get("uid") == uid for owner in owners):
                            self._store.delete(entry)
        return float("inf")
