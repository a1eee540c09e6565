"""Field ownership: sets of field paths, their wire form (`fieldsV1`) and `metadata.managedFields`.

A path is a tuple of wire elements: `f:name` a member, `k:{…}` an item of a list map, `v:…` an item of a set.
Format: structured-merge-diff, `fieldpath` serialisation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.fields import ANY, Type

Path = tuple[str, ...]
Fields = frozenset[Path]

CONTAINER = object()
"""Value that `leaves` gives to a path that stands for an item or an empty container, not for a scalar."""

_UNOWNED_META = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    }
)


def item_key(item: Any, keys: tuple[str, ...]) -> str:
    """The `k:` element of a list-map item; key fields a server would default are filled in."""
    known = {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}
    return "k:" + json.dumps({k: v for k, v in sorted(known.items()) if v is not None}, separators=(",", ":"))


def leaves(obj: Obj, kind: Type, *, status: bool) -> dict[Path, Any]:
    """Flatten an object to path → value, as `ToFieldSet` does, without the metadata no manager ever owns.

    With `status` only `status` is walked (writers of the status subresource), without it everything else.
    """
    out: dict[Path, Any] = {}
    for name, value in obj.items():
        if name in ("apiVersion", "kind") or (name == "status") is not status:
            continue
        member = kind.fields.get(name)
        if member is None or value is None:
            continue
        if name == "metadata":
            value = {key: each for key, each in value.items() if key not in _UNOWNED_META}
            if not value:
                continue
        _walk(value, member, (f"f:{name}",), out)
    return out


def _walk(value: Any, kind: Type, path: Path, out: dict[Path, Any]) -> None:
    if kind.shape == "scalar" or kind.relation == "atomic":
        out[path] = value
    elif kind.shape == "list":
        item = kind.item or ANY
        for each in value:
            if kind.relation == "set":
                out[(*path, "v:" + json.dumps(each))] = each
                continue
            where = (*path, item_key(each, kind.keys))
            out[where] = CONTAINER
            _walk(each, item, where, out)
    else:
        if not value:
            out[path] = CONTAINER
        for name, each in value.items():
            member = kind.child(name)
            if member is not None and each is not None:
                _walk(each, member, (*path, f"f:{name}"), out)


def encode(fields: Fields) -> Obj:
    """Path set → `fieldsV1`."""
    root: Obj = {}
    parents = {path[:depth] for path in fields for depth in range(1, len(path))}
    for path in sorted(fields):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        if path in parents:
            node["."] = {}
    return root


def decode(fields: Obj) -> Fields:
    """`fieldsV1` → path set."""
    out: set[Path] = set()

    def visit(node: Obj, path: Path) -> None:
        if path and (not node or "." in node):
            out.add(path)
        for element, child in node.items():
            if element != ".":
                visit(child, (*path, element))

    visit(fields, ())
    return frozenset(out)


def dotted(path: Path) -> str:
    """A path as the server prints it: `.spec.hard.pods`, `.spec.containers[name="x"].image`."""
    text = ""
    for element in path:
        tag, _, rest = element.partition(":")
        if tag == "f":
            text += "." + rest
        elif tag == "k":
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items()) + "]"
        else:
            text += f"[={rest}]"
    return text


@dataclass(frozen=True)
class Manager:
    """One entry of `managedFields`."""

    name: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: Fields

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two entries the same manager; appliers are one manager whatever version they applied in."""
        version = "" if self.operation == "Apply" else self.api_version
        return (self.name, self.operation, version, self.subresource)

    def wire(self) -> Obj:
        """The `managedFields` entry."""
        entry: Obj = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encode(self.fields),
        }
        if self.subresource:
            entry["subresource"] = self.subresource
        return entry

    def owning(self, fields: Fields) -> Manager:
        """The same manager with another set."""
        return replace(self, fields=fields)


def managers_of(obj: Obj | None) -> list[Manager]:
    """Read `metadata.managedFields`."""
    entries = (obj or {}).get("metadata", {}).get("managedFields") or []
    return [
        Manager(
            name=entry.get("manager", ""),
            operation=entry.get("operation", "Update"),
            api_version=entry.get("apiVersion", ""),
            subresource=entry.get("subresource", ""),
            time=entry.get("time", ""),
            fields=decode(entry.get("fieldsV1", {})),
        )
        for entry in entries
    ]


def track_update(
    old: Obj | None, new: Obj, kind: Type, *, manager: str, api_version: str, subresource: str, now: str
) -> list[Manager]:
    """Managers after a plain write: what it changed is its own now, and nobody else's.

    Both objects are as stored (defaulted). Removed fields leave every set.
    """
    status = subresource == "status"
    before = leaves(old, kind, status=status) if old else {}
    after = leaves(new, kind, status=status)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    removed = frozenset(path for path in before if path not in after)
    mine = Manager(manager, "Update", api_version, subresource, now, frozenset())
    out: list[Manager] = []
    found = False
    for entry in managers_of(old):
        if entry.identity == mine.identity:
            found = True
            fields = (entry.fields - removed) | changed
            entry = replace(entry, fields=fields, time=now if fields != entry.fields or changed else entry.time)
        else:
            entry = entry.owning(entry.fields - removed - changed)
        if entry.fields:
            out.append(entry)
    if not found and changed:
        out.append(mine.owning(changed))
    return out
