"""What ran when, and on what: the generated past and the live pods, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.history import Rules, Run
from apps.demo.cluster.kinds import NODE, POD
from apps.demo.cluster.quantity import parse
from apps.demo.cluster.seeds import SIMULATED
from apps.demo.cluster.store import Change, Entry, Store
from apps.demo.cluster.usage import is_terminal, pod_resources

UTILISATION = f"{SIMULATED}/utilisation"
SOURCE = f"{SIMULATED}/source"
DEFAULT_UTILISATION = 0.75
"""GPU use of a live pod whose annotation does not say."""

_TABLES = """
CREATE TABLE IF NOT EXISTS live_pods (uid TEXT PRIMARY KEY, body TEXT NOT NULL, start_us INTEGER NOT NULL,
  end_us INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS live_pods_time ON live_pods (start_us);
CREATE TABLE IF NOT EXISTS live_nodes (name TEXT, start_us INTEGER, end_us INTEGER, gpus INTEGER NOT NULL,
  cpu REAL NOT NULL, memory_gib REAL NOT NULL, PRIMARY KEY (name, start_us)) WITHOUT ROWID;
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NodeSpan:
    """A node with constant capacity for some time; `end` None: still there."""

    name: str
    start: datetime
    end: datetime | None
    gpus: int
    cpu: float
    memory_gib: float


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(value: int) -> datetime:
    """The moment of `to_us`."""
    return _EPOCH + timedelta(microseconds=value)


class Meter:
    """Reads usage and capacity; as a control-loop part it also records live pods and nodes."""

    def __init__(self, store: Store, rules: Rules, clock: Callable[[], datetime]) -> None:
        self._store = store
        self.rules = rules
        self.clock = clock
        self._todo: list[Change] = []
        self._checked = False
        store.define(_TABLES)

    def seed_nodes(self) -> None:
        """The nodes of the history file have been there since `historyStart`. Inside a transaction."""
        for node in self.rules.nodes:
            self._open_node(node.name, to_us(self.rules.start), (node.gpus, float(node.cpu), float(node.memory_gib)))

    # ---- reading

    def runs(self, start: datetime, end: datetime) -> list[Run]:
        """Pods that ran in `[start, end)`, cut at now; nothing before `historyStart`."""
        end = min(end, self.clock())
        if end <= start:
            return []
        return [*self.rules.runs(start, end), *self._live(start, end)]

    def _live(self, start: datetime, end: datetime) -> list[Run]:
        rows = self._store.query(
            "SELECT body, start_us, end_us FROM live_pods WHERE start_us < ? AND (end_us IS NULL OR end_us > ?) "
            "ORDER BY start_us, uid",
            (to_us(end), to_us(start)),
        )
        out = []
        for body, begin, stop in rows:
            fields = json.loads(body)
            fields["labels"] = tuple(tuple(pair) for pair in fields["labels"])
            out.append(Run(**fields, start=from_us(begin), end=None if stop is None else from_us(stop)))
        return out

    def nodes(self, start: datetime, end: datetime) -> list[NodeSpan]:
        """Node capacity in `[start, end)`, cut to it and at now."""
        end = min(end, self.clock())
        rows = self._store.query(
            "SELECT name, start_us, end_us, gpus, cpu, memory_gib FROM live_nodes "
            "WHERE start_us < ? AND (end_us IS NULL OR end_us > ?) ORDER BY name, start_us",
            (to_us(end), to_us(start)),
        )
        spans = [NodeSpan(n, from_us(b), None if e is None else from_us(e), g, c, m) for n, b, e, g, c, m in rows]
        return [replace(span, start=max(span.start, start), end=min(span.end or end, end)) for span in spans]

    # ---- recording

    def observe(self, change: Change) -> None:
        """Note pods and nodes."""
        if change.entry.kind in (POD, NODE):
            self._todo.append(change)

    def work(self) -> float:
        """Write down what began and what ended."""
        if not self._todo and self._checked:
            return float("inf")
        now = to_us(self.clock())
        with self._store.transaction():
            if not self._checked:
                self._close_orphans(now)
            for change in self._todo:
                if change.entry.kind is NODE:
                    self._node(change, now)
                else:
                    self._pod(change, now)
            # A metering write moves no object; the change counter stays as it is.
            self._todo.clear()
            self._checked = True
        return float("inf")

    def _pod(self, change: Change, now: int) -> None:
        pod = change.entry.obj
        meta = pod["metadata"]
        if not (pod.get("spec") or {}).get("nodeName") or SOURCE in (meta.get("annotations") or {}):
            return
        if change.type == "DELETED" or is_terminal(pod):
            self._store.sql("UPDATE live_pods SET end_us = ? WHERE uid = ? AND end_us IS NULL", (now, meta["uid"]))
            return
        body = json.dumps(_describe(change.entry, self.rules.gpu.resource))
        self._store.sql("INSERT OR IGNORE INTO live_pods VALUES (?, ?, ?, NULL)", (meta["uid"], body, now))

    def _close_orphans(self, now: int) -> None:
        """Pods that went while nobody looked (the process was killed) end now."""
        alive = {entry.obj["metadata"]["uid"] for entry in self._store.entries(POD) if not is_terminal(entry.obj)}
        for (uid,) in self._store.query("SELECT uid FROM live_pods WHERE end_us IS NULL"):
            if uid not in alive:
                self._store.sql("UPDATE live_pods SET end_us = ? WHERE uid = ?", (now, uid))

    def _node(self, change: Change, now: int) -> None:
        name = change.entry.name
        size = None if change.type == "DELETED" else _size(change.entry.obj, self.rules.gpu.resource)
        rows = self._store.query(
            "SELECT start_us, gpus, cpu, memory_gib FROM live_nodes WHERE name = ? AND end_us IS NULL", (name,)
        )
        if rows and size == rows[0][1:]:
            return
        if rows:
            self._store.sql("UPDATE live_nodes SET end_us = ? WHERE name = ? AND end_us IS NULL", (now, name))
        if size is not None:
            self._open_node(name, now, size)

    def _open_node(self, name: str, start: int, size: tuple[int, float, float]) -> None:
        self._store.sql("INSERT OR REPLACE INTO live_nodes VALUES (?, ?, NULL, ?, ?, ?)", (name, start, *size))


def _size(node: Obj, resource: str) -> tuple[int, float, float]:
    capacity = (node.get("status") or {}).get("capacity") or {}
    gpus = int(parse(capacity.get(resource, "0")))
    return gpus, float(parse(capacity.get("cpu", "0"))), float(parse(capacity.get("memory", "0"))) / 2**30


def _describe(entry: Entry, resource: str) -> Obj:
    pod = entry.obj
    meta, spec = pod["metadata"], pod["spec"]
    requests = pod_resources(spec, "requests")
    owner: Obj = next(iter(meta.get("ownerReferences") or []), {})
    annotations = meta.get("annotations") or {}
    try:
        utilisation = min(1.0, max(0.0, float(annotations.get(UTILISATION, DEFAULT_UTILISATION))))
    except ValueError:
        utilisation = DEFAULT_UTILISATION
    return {
        "namespace": entry.namespace,
        "pod": entry.name,
        "node": spec["nodeName"],
        "container": (spec.get("containers") or [{}])[0].get("name", ""),
        "controller": owner.get("name", ""),
        "controller_kind": str(owner.get("kind", "")).lower(),
        "labels": sorted((meta.get("labels") or {}).items()),
        "gpus": int(requests.get(resource, 0)),
        "cpu": float(requests.get("cpu", 0)),
        "memory_gib": float(requests.get("memory", 0)) / 2**30,
        "utilisation": utilisation,
    }
