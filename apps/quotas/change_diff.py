"""What a change request changes: declared objects before and after, field by field, with one digest leaf each. Pure.

A list is one value, as server-side apply sees the lists of our objects. Numbers of GPU quota are the business of quota
requests, each approved with a leaf of its own: inside an object or list that is new as a whole they do not count, so
that a quota landing in between voids nothing.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apps.clusters import kinds
from apps.core.canonical import digest_of
from apps.provisioning import diff
from apps.quotas.change import object_path
from apps.quotas.manifests import Manifest

#: Stands for a number that quota requests set.
_BY_QUOTA = "as the quotas say"
_ABSENT: Any = object()
#: As many namespaces are named where many workspaces have the same change.
EXAMPLES = 5
_MAX_TEXT = 2000


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One change: `pointer` "" is the object itself; `before`/`after` None where there is none."""

    path: str
    pointer: str
    operation: str  # create, remove, retain, add, drop, set
    before: Any
    after: Any
    digest: str

    @property
    def leaf_path(self) -> str:
        """Return the path under which the approval keeps the digest."""
        return f"{self.path}#{self.pointer}" if self.pointer else self.path


@dataclass(frozen=True, slots=True)
class Side:
    """The objects of one declaration before and after."""

    kind: str
    owner: uuid.UUID
    namespace: str
    before: Sequence[Manifest]
    after: Sequence[Manifest]


def escaped(part: str) -> str:
    """Return a key as a part of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")


def by_quota(value: Any) -> Any:
    """Return a value with the numbers that quota requests set taken out: GPU limits and GPU flavours' quotas.

    What it returns shares nothing that can change with the value.
    """
    if isinstance(value, list):
        return [by_quota(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "nominalQuota" in value and "/" in str(value.get("name", "")):
        return {"name": value["name"], "nominalQuota": _BY_QUOTA}
    return {
        key: _BY_QUOTA if key.startswith("requests.") and "/" in key else by_quota(item) for key, item in value.items()
    }


def changes_of(side: Side) -> list[FieldChange]:
    """Return what changes in one declaration, in order of path."""
    before = {object_path(item): item for item in side.before}
    after = {object_path(item): item for item in side.after}
    found: list[FieldChange] = []
    for path in sorted(before.keys() | after.keys()):
        if path not in before:
            found.append(FieldChange(path, "", "create", None, after[path], digest_of(by_quota(after[path]))))
        elif path not in after:
            word = "retain" if before[path]["kind"] in kinds.NEVER_PRUNED else "remove"
            found.append(FieldChange(path, "", word, before[path], None, digest_of({"removed": word})))
        else:
            found += [_field(path, *change) for change in _walk("", before[path], after[path])]
    return found


def _walk(pointer: str, before: Any, after: Any) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict) and before and after:
        for key in sorted(before.keys() | after.keys()):
            yield from _walk(f"{pointer}/{escaped(key)}", before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif before is _ABSENT or after is _ABSENT or before != after:
        yield pointer, before, after


def _field(path: str, pointer: str, before: Any, after: Any) -> FieldChange:
    if after is _ABSENT:
        return FieldChange(path, pointer, "drop", before, None, digest_of({"absent": True}))
    counted = after
    if isinstance(after, list | dict) and (before is _ABSENT or by_quota(before) != by_quota(after)):
        counted = by_quota(after)
    word = "add" if before is _ABSENT else "set"
    return FieldChange(path, pointer, word, None if before is _ABSENT else before, after, digest_of({"value": counted}))


def leaves(cluster: str, changes: Iterable[FieldChange]) -> list[dict[str, str]]:
    """Return one digest leaf per changed field or object."""
    return [{"cluster": cluster, "path": change.leaf_path, "digest": change.digest} for change in changes]


def text(value: Any) -> str:
    """Return a value as people read it in one cell."""
    if value is None:
        return ""
    shown = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return shown if len(shown) <= _MAX_TEXT else f"{shown[:_MAX_TEXT]} …"


def _object_words(path: str, namespace: str) -> str:
    """Return `Kind name`, the workspace's own name left out so that equal changes of many workspaces look equal."""
    *_, kind, _space, name = path.split("/")
    return kind if namespace and name == namespace else f"{kind} {name}"


def readable(change: FieldChange) -> Iterable[FieldChange]:
    """Return a change of a list as changes inside it, for people. What is approved, and its digest, is the list whole.

    Items are told apart by name where they have one, else by their place.
    """
    if isinstance(change.before, list) and isinstance(change.after, list):
        inside = diff.changes({"list": change.before}, {"list": change.after})
        if inside and all(len(one.path) > 1 for one in inside):
            for one in inside:
                word = "add" if one.before is None else "drop" if one.after is None else "set"
                place = f"{change.pointer}{diff.render_path(one.path[1:])}"
                yield replace(change, pointer=place, operation=word, before=one.before, after=one.after)
            return
    yield change


def grouped(sides: Sequence[Side], changes: Mapping[uuid.UUID, Sequence[FieldChange]]) -> list[dict[str, Any]]:
    """Return lines for people: the same change in many workspaces is one line with their number and a few names.

    Each: {object, path, operation, before, after, count, names}; `count` 0 where it is no workspace's.
    """
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for side in sides:
        for change in itertools.chain.from_iterable(map(readable, changes[side.owner])):
            whole = change.operation in ("create", "remove", "retain")
            before = "" if whole else text(_neutral(change.before, side.namespace))
            after = "" if whole else text(_neutral(change.after, side.namespace))
            place = _object_words(change.path, side.namespace)
            key = (side.kind, place, change.pointer, change.operation, before, after)
            line = lines.setdefault(
                key,
                {
                    "object": place,
                    "path": change.pointer,
                    "operation": change.operation,
                    "before": before,
                    "after": after,
                    "count": 0,
                    "names": [],
                },
            )
            if side.namespace:
                line["count"] += 1
                if len(line["names"]) < EXAMPLES:
                    line["names"].append(side.namespace)
    return list(lines.values())


def _neutral(value: Any, namespace: str) -> Any:
    return text(value).replace(namespace, "<namespace>") if namespace and isinstance(value, list | dict) else value
