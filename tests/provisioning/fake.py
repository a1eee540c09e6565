"""A cluster in a dictionary: server-side apply at leaf granularity, with scripted failures before and after effect."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from apps.clusters.clients.kubernetes import Answer
from apps.clusters.errors import ClusterError, ConflictError, NotFound, StaleRead
from apps.provisioning.ordering import Key, key_of

Path = tuple[str, ...]
OURS = "gpu-commons"


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf of an object; lists count as leaves."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from leaves(below, (*path, key))
    else:
        yield path, value


def _set(obj: dict[str, Any], path: Path, value: Any) -> None:
    for part in path[:-1]:
        obj = obj.setdefault(part, {})
    obj[path[-1]] = copy.deepcopy(value)


def _drop(obj: dict[str, Any], path: Path) -> None:
    for part in path[:-1]:
        obj = obj.get(part, {})
    obj.pop(path[-1], None)


class FakeClient:
    """`failures` is consumed call by call: None lets a call through, ("before" | "after", error) fails it there."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.owners: dict[Key, dict[Path, str]] = {}
        self.failures: list[tuple[str, ClusterError] | None] = []
        self.writes: list[tuple[str, Key]] = []
        self._versions = itertools.count(1)

    def _fails(self) -> tuple[str, ClusterError] | None:
        return self.failures.pop(0) if self.failures else None

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        """Return one object with its managed fields."""
        if (fault := self._fails()) is not None:
            raise fault[1]
        return self._get(Key(kind, namespace, name))

    def _get(self, key: Key) -> dict[str, Any]:
        if key not in self.objects:
            raise NotFound(f"{key} not found", status=404)
        obj = copy.deepcopy(self.objects[key])
        tries: dict[str, dict[str, Any]] = {}
        for path, manager in self.owners[key].items():
            trie = tries.setdefault(manager, {})
            for part in path:
                trie = trie.setdefault(f"f:{part}", {})
        obj["metadata"]["managedFields"] = [
            {"manager": manager, "operation": "Apply" if manager == OURS else "Update", "fieldsV1": trie,
             "time": "2026-11-20T08:00:00Z"}
            for manager, trie in tries.items()
        ]  # fmt: skip
        return obj

    def apply(
        self, manifest: Mapping[str, Any] | bytes, *, dry_run: bool = False, force: bool = False, target: Any = None
    ) -> Answer:
        """Merge leaf by leaf; what we held and no longer send is dropped; another's differing leaf conflicts."""
        fault = self._fails()
        if fault is not None and fault[0] == "before":
            raise fault[1]
        parsed = json.loads(manifest) if isinstance(manifest, bytes) else copy.deepcopy(dict(manifest))
        key = key_of(parsed)
        if key.namespace and Key("Namespace", "", key.namespace) not in self.objects:
            raise NotFound(f"namespace {key.namespace} not found", status=404)
        version = parsed["metadata"].pop("resourceVersion", None)
        if version is not None and version != self.objects.get(key, {}).get("metadata", {}).get("resourceVersion"):
            raise StaleRead("the object has been modified")
        obj = copy.deepcopy(self.objects.get(key, {"metadata": {"uid": f"u{next(self._versions)}"}}))
        owners = dict(self.owners.get(key, {}))
        sent = {path: value for path, value in leaves(parsed) if path not in _IDENTITY}
        live = dict(leaves(obj))
        conflicts = [
            {"manager": owners[path], "field": "." + ".".join(path), "message": "conflict"}
            for path, value in sent.items()
            if path in owners and owners[path] != OURS and path in live and live[path] != value
        ]
        if conflicts and not force:
            raise ConflictError("conflict", causes=conflicts)
        for path in [p for p, manager in owners.items() if manager == OURS and p not in sent]:
            _drop(obj, path)
            del owners[path]
        for path, value in sent.items():
            _set(obj, path, value)
            if owners.get(path, OURS) == OURS or live.get(path) != value:
                owners[path] = OURS
        for path in _IDENTITY:
            if (value := dict(leaves(parsed)).get(path)) is not None:
                _set(obj, path, value)
        created = key not in self.objects
        if not dry_run:
            if created or self.objects[key] != obj:
                self.writes.append(("apply", key))
                obj["metadata"]["resourceVersion"] = str(next(self._versions))
            self.objects[key], self.owners[key] = obj, owners
        if fault is not None:
            raise fault[1]
        return Answer(copy.deepcopy(obj), 201 if created else 200)

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Answer:
        """Delete one object."""
        fault = self._fails()
        if fault is not None and fault[0] == "before":
            raise fault[1]
        key = Key(kind, namespace, name)
        if self.objects.pop(key, None) is None:
            raise NotFound(f"{key} not found", status=404)
        self.owners.pop(key, None)
        self.writes.append(("delete", key))
        if fault is not None:
            raise fault[1]
        return Answer({}, 200)

    def edit(self, key: Key, path: Path, value: Any, manager: str = "kubectl-edit") -> None:
        """Change a field behind the portal's back."""
        _set(self.objects[key], path, value)
        self.objects[key]["metadata"]["resourceVersion"] = str(next(self._versions))
        self.owners[key][path] = manager


_IDENTITY = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
