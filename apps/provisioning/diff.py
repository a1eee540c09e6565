"""The difference between two objects in meaning, not in spelling. Pure.

Quantities compare as numbers where the schema has quantities, lists by `name` where every item has one, and what the
server adds on its own account is no difference. Paths are written like `spec.hard["requests.nvidia.com/gpu"]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from apps.clusters.quantities import same

#: What the server writes; never declared, never compared.
SERVER_METADATA = frozenset(
    {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink", "deletionTimestamp",
     "deletionGracePeriodSeconds"}
)  # fmt: skip
#: Below a key of these names the schemas of the kinds we apply hold quantities.
_QUANTITY_KEYS = frozenset(
    {"hard", "used", "requests", "limits", "default", "defaultRequest", "max", "min", "capacity", "allocatable",
     "nominalQuota", "borrowingLimit", "lendingLimit", "sizeLimit", "storage", "divisor"}
)  # fmt: skip
#: Lists that are maps by `name`: order means nothing, and others may add items of their own. Any other list is whole:
#: one more subject of a RoleBinding, or another order of Kueue flavours, is a difference.
_MAP_LISTS = frozenset(
    {"containers", "initContainers", "ephemeralContainers", "env", "ports", "volumes", "imagePullSecrets",
     "admissionChecks"}
)  # fmt: skip
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Path = tuple[str | int, ...]
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `before` and `after` are None where the field is absent (a JSON null counts as absent)."""

    path: Path
    before: Any
    after: Any

    @property
    def text_path(self) -> str:
        """The path as people read it."""
        return render_path(self.path)

    def plain(self) -> dict[str, Any]:
        """The change as stored with a plan."""
        return {"path": self.text_path, "before": show(self.before), "after": show(self.after)}


def render_path(path: Path) -> str:
    """Return a path as text: `spec.hard["requests.nvidia.com/gpu"]`, `spec.limits[0].type`, `env[name=A].value`."""
    text = ""
    for part in path:
        if isinstance(part, int) or part.startswith("name="):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


def show(value: Any) -> str | None:
    """Return a value as text for people; None for an absent one."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def strip(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without status and the server's own metadata."""
    kept = {key: value for key, value in obj.items() if key != "status"}
    if isinstance(kept.get("metadata"), Mapping):
        kept["metadata"] = {key: value for key, value in kept["metadata"].items() if key not in SERVER_METADATA}
    return kept


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Change]:
    """Return every difference between two objects (None: there is none), leaf by leaf, in path order."""
    return list(_walk((), strip(before) if before else _MISSING, strip(after) if after else _MISSING, False, False))


def declared_changes(declared: Mapping[str, Any], live: Mapping[str, Any]) -> list[Change]:
    """Return where the declared fields live differently: `before` is declared, `after` is live.

    Fields that are not declared do not count: others may hold them.
    """
    return list(_walk((), strip(declared), strip(live), False, True))


def live_digest(declared: Mapping[str, Any], live: Mapping[str, Any]) -> str:
    """Return a digest over the declared fields as they live: equal as long as none of them changes in meaning."""
    # Where they mean the same the declared spelling stands in, so that "1Gi" and "1024Mi" give one digest.
    found = [change.plain() for change in declared_changes(declared, live)]
    text = json.dumps([strip(declared), found], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


def _walk(path: Path, before: Any, after: Any, quantity: bool, declared_only: bool) -> Iterator[Change]:
    if _absent(before) and (declared_only or _absent(after)):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _walk_maps(path, before, after, quantity, declared_only)
    elif isinstance(before, Mapping) and _absent(after):
        yield from _walk_maps(path, before, {}, quantity, declared_only) if before else _leaf(path, before, after)
    elif isinstance(after, Mapping) and _absent(before):
        yield from _walk_maps(path, {}, after, quantity, declared_only) if after else _leaf(path, before, after)
    elif _is_list(before) and _is_list(after):
        yield from _walk_lists(path, before, after, quantity, declared_only)
    elif not _equal(before, after, quantity):
        yield from _leaf(path, before, after)


def _walk_maps(
    path: Path, before: Mapping[str, Any], after: Mapping[str, Any], quantity: bool, declared_only: bool
) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys(), key=str):
        if declared_only and key not in before:
            continue
        inside = quantity or (key in _QUANTITY_KEYS and path[:1] != ("metadata",))
        yield from _walk((*path, str(key)), before.get(key, _MISSING), after.get(key, _MISSING), inside, declared_only)


def _walk_lists(
    path: Path, before: Sequence[Any], after: Sequence[Any], quantity: bool, declared_only: bool
) -> Iterator[Change]:
    if _named(before) and _named(after):
        old, new = {item["name"]: item for item in before}, {item["name"]: item for item in after}
        is_map = bool(path) and path[-1] in _MAP_LISTS
        for name in [*old, *(name for name in new if name not in old)]:
            if declared_only and name not in old:
                if not is_map:
                    yield from _leaf((*path, f"name={name}"), _MISSING, new[name])
                continue
            yield from _walk(
                (*path, f"name={name}"), old.get(name, _MISSING), new.get(name, _MISSING), quantity, declared_only
            )
        if not is_map and old.keys() == new.keys() and list(old) != list(new):
            yield from _leaf(path, list(old), list(new))
        return
    # A list without names is atomic for its owner, yet defaults may be filled into its items: compare place by place.
    for index in range(max(len(before), len(after))):
        old_item = before[index] if index < len(before) else _MISSING
        new_item = after[index] if index < len(after) else _MISSING
        if _absent(old_item) and not _absent(new_item):  # one more item is a difference, declared or not
            yield from _leaf((*path, index), old_item, new_item)
        else:
            yield from _walk((*path, index), old_item, new_item, quantity, declared_only)


def _leaf(path: Path, before: Any, after: Any) -> Iterator[Change]:
    yield Change(path, None if before is _MISSING else before, None if after is _MISSING else after)


def _absent(value: Any) -> bool:
    return value is _MISSING or value is None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _named(items: Sequence[Any]) -> bool:
    names = [item.get("name") for item in items if isinstance(item, Mapping)]
    return (
        bool(items)
        and len(names) == len(items)
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
    )


def _equal(before: Any, after: Any, quantity: bool) -> bool:
    if _absent(before) and _absent(after):
        return True
    if quantity and same(before, after):
        return True
    # bool is an int in Python, not in JSON
    return (type(before) is type(after) and bool(before == after)) or (
        isinstance(before, int | float)
        and isinstance(after, int | float)
        and not isinstance(before, bool)
        and not isinstance(after, bool)
        and before == after
    )
