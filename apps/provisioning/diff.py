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
    return list(_walk((), strip(before) if before else _MISSING, strip(after) if after else _MISSING, _WHOLE))


def declared_changes(
    declared: Mapping[str, Any], live: Mapping[str, Any], settled: Mapping[str, Any] | None = None
) -> list[Change]:
    """Return where the declared fields live differently: `before` is declared, `after` is live.

    Fields that are not declared do not count: others may hold them. A list without merge keys belongs to its owner
    whole, but the server fills in defaults inside it; `settled`, the object as the server answered when exactly these
    fields were applied, tells such defaults from what somebody added. Without it additions inside items pass.
    """
    if settled is None and _plainly_there(strip(declared), live):
        return []
    aim = _Aim(declared_only=True, settled=strip(settled) if settled else _MISSING)
    return list(_walk((), strip(declared), strip(live), aim))


def _plainly_there(declared: Any, live: Any) -> bool:
    """Whether what is declared lives letter by letter, the usual case; where not, the walk tells what that means."""
    if type(declared) is not type(live):
        return False
    if type(declared) is dict:
        return all(
            key in live
            and _plainly_there(value, live[key])
            and (not key.lower().endswith("selector") or _plainly_there(live[key], value))
            for key, value in declared.items()
        )
    if type(declared) is list:
        return len(declared) == len(live) and all(map(_plainly_there, declared, live))
    return bool(declared == live)


def alike(path: Sequence[str], before: Any, after: Any) -> bool:
    """Whether two values of the field at `path` (map keys from the top) mean the same, everything in them counted."""
    aim = _WHOLE
    for depth, key in enumerate(path):
        aim = aim.below(key, tuple(path[:depth]))
    return not any(_walk(tuple(path), before, after, aim))


def live_digest(declared: Mapping[str, Any], live: Mapping[str, Any], settled: Mapping[str, Any] | None = None) -> str:
    """Return a digest over the declared fields as they live: equal as long as none of them changes in meaning."""
    # Where they mean the same the declared spelling stands in, so that "1Gi" and "1024Mi" give one digest.
    found = [change.plain() for change in declared_changes(declared, live, settled)]
    text = json.dumps([strip(declared), found], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a walk looks for: declared fields only, or all; inside quantities; what had settled at this place."""

    declared_only: bool = False
    quantity: bool = False
    settled: Any = _MISSING

    def below(self, key: str, path: Path) -> _Aim:
        """The aim one map key further down."""
        quantity = self.quantity or (key in _QUANTITY_KEYS and path[:1] != ("metadata",))
        settled = self.settled.get(key, _MISSING) if isinstance(self.settled, Mapping) else _MISSING
        # A selector is whole (an atomic map): one more label in it selects something else.
        return _Aim(self.declared_only and not key.lower().endswith("selector"), quantity, settled)


_WHOLE = _Aim()


def _walk(path: Path, before: Any, after: Any, aim: _Aim) -> Iterator[Change]:
    if _is_list(before) and _is_list(after):
        yield from _walk_lists(path, before, after, aim)
    elif _absent(before) and (aim.declared_only or _absent(after)):
        return
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _walk_maps(path, before, after, aim)
    elif isinstance(before, Mapping) and before and _absent(after):
        yield from _walk_maps(path, before, {}, aim)
    elif isinstance(after, Mapping) and after and _absent(before):
        yield from _walk_maps(path, {}, after, aim)
    elif not _equal(before, after, aim.quantity):
        yield from _leaf(path, before, after)


def _walk_maps(path: Path, before: Mapping[str, Any], after: Mapping[str, Any], aim: _Aim) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys(), key=str):
        if aim.declared_only and key not in before:
            continue
        yield from _walk(
            (*path, str(key)), before.get(key, _MISSING), after.get(key, _MISSING), aim.below(str(key), path)
        )


def _walk_lists(path: Path, before: Sequence[Any], after: Sequence[Any], aim: _Aim) -> Iterator[Change]:
    is_map = bool(path) and path[-1] in _MAP_LISTS and _named(before) and _named(after)
    if aim.declared_only and not is_map and _is_list(aim.settled):
        # What the server made of exactly this list when it was applied: every difference from it is somebody's doing.
        yield from _walk_lists(path, aim.settled, after, _Aim(quantity=aim.quantity))
        return
    if (_named(before) or not before) and (_named(after) or not after):
        yield from _walk_named(path, before, after, aim, is_map=is_map)
        return
    for index in range(max(len(before), len(after))):
        old = before[index] if index < len(before) else _MISSING
        new = after[index] if index < len(after) else _MISSING
        if old is _MISSING or new is _MISSING:  # one item more or less is a difference, declared or not
            yield from _leaf((*path, index), old, new)
        else:
            yield from _walk((*path, index), old, new, aim)


def _walk_named(
    path: Path, before: Sequence[Any], after: Sequence[Any], aim: _Aim, *, is_map: bool
) -> Iterator[Change]:
    old, new = {item["name"]: item for item in before}, {item["name"]: item for item in after}
    for name in [*old, *(name for name in new if name not in old)]:
        place = (*path, f"name={name}")
        if name not in old or name not in new:
            if not (aim.declared_only and is_map and name not in old):
                yield from _leaf(place, old.get(name, _MISSING), new.get(name, _MISSING))
            continue
        yield from _walk(place, old[name], new[name], aim)
    if not is_map and old.keys() == new.keys() and list(old) != list(new):
        yield from _leaf(path, list(old), list(new))


def _leaf(path: Path, before: Any, after: Any) -> Iterator[Change]:
    yield Change(path, None if before is _MISSING else before, None if after is _MISSING else after)


def _absent(value: Any) -> bool:
    # An API server drops an empty list where the schema says omitempty, and it means the same there. An empty map is
    # kept and means something: `namespaceSelector: {}` is every namespace, its absence none.
    return value is _MISSING or value is None or (_is_list(value) and not value)


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
