"""Objects in memory with a SQLite write-ahead journal behind them.

Every acknowledged write is in the operating system's hands before the answer goes out, so `kill -9` of the process
loses nothing. There is no fsync per write (`synchronous=OFF`): a power cut may lose the last moments, which a demo can
live with. Stored objects are never changed in place, so readers need the lock only to take references.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.demo.cluster import crds
from apps.demo.cluster.errors import Obj, expired
from apps.demo.cluster.kinds import BY_KEY, CRD, KINDS, NAMESPACED, Kind


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored object: decoded, encoded, and its version. Treat `obj` as frozen."""

    kind: Kind
    namespace: str
    name: str
    obj: Obj
    raw: bytes
    rv: int


@dataclass(frozen=True, slots=True)
class Change:
    """One step of history, for watches. `entry` carries the last state for a deletion."""

    rv: int
    type: str
    entry: Entry
    previous: Entry | None


class DryRun(Exception):
    """Raised inside a transaction to leave it without a trace."""


_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (kind TEXT, namespace TEXT, name TEXT, body BLOB NOT NULL,
  PRIMARY KEY (kind, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def encode(obj: Obj) -> bytes:
    """Compact JSON with apiVersion and kind first, which `Kind.raw_prefix` relies on."""
    ordered = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **obj}
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()


class Store:
    """All objects, their history window and the journal. One writer at a time, any number of readers."""

    def __init__(self, path: Path, *, history: int = 10_000) -> None:
        """Open or create the state file. `history` is how many changes a watch can look back."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)
        self._data: dict[str, dict[str, dict[str, Entry]]] = {kind.key: {} for kind in KINDS}
        self._custom: tuple[tuple[int, ...], tuple[Kind, ...]] = ((), ())
        self._depth = 0
        self._undo: list[tuple[Kind, str, str, Entry | None]] = []
        self._pending: list[Change] = []
        self._sql: list[tuple[str, tuple[Any, ...]]] = []
        self._load()
        self.oldest = self.rv
        """Watches can resume from this resourceVersion on; earlier history is gone (410)."""
        self._history: deque[Change] = deque()
        self._limit = history

    def _load(self) -> None:
        row = self._db.execute("SELECT value FROM meta WHERE key = 'rv'").fetchone()
        self.rv = int(row[0]) if row else 0
        # Definitions first: the kinds of other rows may be theirs.
        query = "SELECT kind, namespace, name, body FROM objects ORDER BY kind <> ?"
        known = dict(BY_KEY)
        for key, namespace, name, body in self._db.execute(query, (CRD.key,)):
            obj = json.loads(body)
            if key not in known:
                known |= {kind.key: kind for kind in self.custom_kinds()}
            if key in known:  # else its definition went and took it along, but the process ended before
                rv = int(obj["metadata"]["resourceVersion"])
                self._set(Entry(known[key], namespace, name, obj, bytes(body), rv))

    def close(self) -> None:
        """Close the journal; later writes fail."""
        with self.lock:
            self._db.close()
            self.changed.notify_all()

    # ---- kinds

    def custom_kinds(self) -> tuple[Kind, ...]:
        """The kinds that stored CustomResourceDefinitions bring, as they are defined now."""
        with self.lock:
            entries = self.entries(CRD)
            versions = tuple(entry.rv for entry in entries)
            if versions != self._custom[0]:
                self._custom = (versions, tuple(kind for entry in entries for kind in crds.kinds_of(entry.obj)))
            return self._custom[1]

    def namespaced_kinds(self) -> tuple[Kind, ...]:
        """Every kind whose objects live in namespaces."""
        return (*NAMESPACED, *(kind for kind in self.custom_kinds() if kind.namespaced))

    def kind_named(self, api_version: str, kind: str) -> Kind | None:
        """The kind of objects that call themselves so."""
        return next(
            (each for each in (*KINDS, *self.custom_kinds()) if (each.api_version, each.kind) == (api_version, kind)),
            None,
        )

    # ---- reading

    def get(self, kind: Kind, namespace: str, name: str) -> Entry | None:
        """The current entry, or None."""
        with self.lock:
            return self._data.get(kind.key, {}).get(namespace, {}).get(name)

    def entries(self, kind: Kind, namespace: str | None = None) -> list[Entry]:
        """Entries in key order, of one namespace or (None) of all."""
        with self.lock:
            spaces = self._data.get(kind.key, {})
            if namespace is not None:
                rows = spaces.get(namespace, {})
                return [rows[name] for name in sorted(rows)]
            return [spaces[space][name] for space in sorted(spaces) for name in sorted(spaces[space])]

    def since(self, rv: int) -> list[Change]:
        """Changes after `rv`. Raises 410 Expired where they are no longer all held."""
        with self.lock:
            if rv < self.oldest:
                raise expired(f"too old resource version: {rv} ({self.oldest})")
            out: list[Change] = []
            for change in reversed(self._history):
                if change.rv <= rv:
                    break
                out.append(change)
            out.reverse()
            return out

    def forget_history(self) -> None:
        """Drop the watch window, as etcd compaction does: every older resourceVersion gets 410."""
        with self.lock:
            self._history.clear()
            self.oldest = self.rv

    # ---- writing

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become durable and visible together, or (exception) not at all. Nests."""
        with self.lock:
            outer = self._depth == 0
            mark = (len(self._undo), len(self._pending), len(self._sql), self.rv)
            self._depth += 1
            try:
                yield
                if outer:
                    self._commit()
            except BaseException:
                self._rollback(*mark)
                raise
            finally:
                self._depth -= 1

    def _commit(self) -> None:
        if self._sql:
            self._db.execute("BEGIN")
            try:
                for statement, values in self._sql:
                    self._db.execute(statement, values)
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('rv', ?)", (str(self.rv),))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        self._history.extend(self._pending)
        while len(self._history) > self._limit:
            self.oldest = self._history.popleft().rv
        moved = bool(self._pending)
        self._undo.clear()
        self._pending.clear()
        self._sql.clear()
        if moved:
            self.changed.notify_all()

    def _rollback(self, undo: int, pending: int, sql: int, rv: int) -> None:
        while len(self._undo) > undo:
            kind, namespace, name, entry = self._undo.pop()
            if entry is None:
                self._unset(kind, namespace, name)
            else:
                self._set(entry)
        del self._pending[pending:]
        del self._sql[sql:]
        self.rv = rv

    def put(self, kind: Kind, obj: Obj) -> Entry:
        """Create or replace; gives the object a new resourceVersion. Only inside a transaction."""
        meta = obj["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        previous = self.get(kind, namespace, name)
        self.rv += 1
        obj = {**obj, "metadata": {**meta, "resourceVersion": str(self.rv)}}
        entry = Entry(kind, namespace, name, obj, encode(obj), self.rv)
        self._undo.append((kind, namespace, name, previous))
        self._set(entry)
        self._pending.append(Change(self.rv, "MODIFIED" if previous else "ADDED", entry, previous))
        self.sql("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (kind.key, namespace, name, entry.raw))
        return entry

    def delete(self, entry: Entry) -> Entry:
        """Remove; the returned entry has the deletion's resourceVersion. Only inside a transaction."""
        self.rv += 1
        obj = {**entry.obj, "metadata": {**entry.obj["metadata"], "resourceVersion": str(self.rv)}}
        gone = Entry(entry.kind, entry.namespace, entry.name, obj, encode(obj), self.rv)
        self._undo.append((entry.kind, entry.namespace, entry.name, entry))
        self._unset(entry.kind, entry.namespace, entry.name)
        self._pending.append(Change(self.rv, "DELETED", gone, entry))
        self.sql(
            "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
            (entry.kind.key, entry.namespace, entry.name),
        )
        return gone

    def sql(self, statement: str, values: tuple[Any, ...]) -> None:
        """Add a statement of another module's table to the running transaction."""
        if self._depth == 0:
            raise RuntimeError("writes need a transaction")
        self._sql.append((statement, values))

    def define(self, script: str) -> None:
        """Create another module's tables."""
        with self.lock:
            self._db.executescript(script)

    def query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Read another module's table."""
        with self.lock:
            return self._db.execute(statement, values).fetchall()

    def remember(self, key: str, make: Callable[[], str]) -> str:
        """A durable setting, made once."""
        with self.lock:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return str(row[0])
            value = make()
            self._db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
            return value

    def noted(self, key: str) -> str:
        """A durable note, empty where there is none."""
        rows = self.query("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else ""

    def note(self, key: str, value: str) -> None:
        """Write a durable note. Only inside a transaction."""
        self.sql("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _set(self, entry: Entry) -> None:
        self._data.setdefault(entry.kind.key, {}).setdefault(entry.namespace, {})[entry.name] = entry

    def _unset(self, kind: Kind, namespace: str, name: str) -> None:
        rows = self._data.get(kind.key, {}).get(namespace, {})
        rows.pop(name, None)
        if not rows:
            self._data.get(kind.key, {}).pop(namespace, None)


class Transaction:
    """A transaction that a dry run leaves without a trace. The written entry is handed out through `entry`."""

    entry: Entry

    def __init__(self, store: Store, dry_run: bool) -> None:
        self._inner = store.transaction()
        self._dry = dry_run

    def __enter__(self) -> Transaction:
        self._inner.__enter__()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None and self._dry:
            stop = DryRun()
            self._inner.__exit__(DryRun, stop, None)
            return
        self._inner.__exit__(kind, error, trace)


def new_uid() -> str:
    """A fresh object uid."""
    return str(uuid.uuid4())
