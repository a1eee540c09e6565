"""Who holds a field, and since when: reading `metadata.managedFields`. Pure.

Format: `fieldsV1` is a trie of `f:<key>`, `k:<json of the list item's keys>`, `v:<json value>`, `i:<index>` and `.`
(structured-merge-diff). Times have whole seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apps.clusters.kinds import FIELD_MANAGER
from apps.provisioning.diff import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """A manager of a field: `operation` is Apply or Update, `at` when it last changed what it holds."""

    manager: str
    operation: str
    at: datetime | None


def owners_of(obj: Mapping[str, Any], path: Path, *, exact: bool = False) -> list[Owner]:
    """Return who holds the field at `path` or, where nobody does (and not `exact`), the nearest above; newest first."""
    entries: Sequence[Any] = (obj.get("metadata") or {}).get("managedFields") or []
    for depth in range(len(path), len(path) - 1 if exact else 0, -1):
        found = [
            Owner(str(entry.get("manager", "")), str(entry.get("operation", "")), _time(entry.get("time")))
            for entry in entries
            if isinstance(entry, Mapping)
            and not entry.get("subresource")
            and _holds(entry.get("fieldsV1"), path[:depth])
        ]
        if found:
            return sorted(found, key=lambda owner: owner.at or datetime.min.replace(tzinfo=UTC), reverse=True)
    return []


def foreign_owner(obj: Mapping[str, Any], path: Path, *, exact: bool = False) -> Owner | None:
    """Return the latest manager of a field other than the portal, None where nobody else holds it."""
    return next((owner for owner in owners_of(obj, path, exact=exact) if owner.manager != FIELD_MANAGER), None)


def held_beyond(live: Mapping[str, Any], declared: Mapping[str, Any]) -> bool:
    """Whether the portal holds a field that `declared` no longer has: only a new apply gives it up."""
    entries: Sequence[Any] = (live.get("metadata") or {}).get("managedFields") or []
    return any(_beyond(entry.get("fieldsV1"), declared) for entry in entries if _is_ours(entry))


def holds_anything(live: Mapping[str, Any]) -> bool:
    """Whether the portal has ever applied this object (and holds a field of it still)."""
    return any(_is_ours(entry) for entry in (live.get("metadata") or {}).get("managedFields") or [])


def _is_ours(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"


def _beyond(trie: Any, declared: Any) -> bool:
    if not isinstance(trie, Mapping):
        return False
    for key, below in trie.items():
        kind, _, name = key.partition(":")
        if kind == "f":
            if not isinstance(declared, Mapping) or name not in declared:
                return True
            if below and _beyond(below, declared[name]):
                return True
        elif kind == "k":
            item = _item(declared, name)
            if item is None or _beyond({k: v for k, v in below.items() if k != "."}, item):
                return True
        elif kind == "v" and (not isinstance(declared, list) or json.loads(name) not in declared):
            return True
    return False


def _item(declared: Any, keys: str) -> Any:
    """Return the item of a declared list whose fields have the key values of the trie's `k:` entry."""
    wanted = json.loads(keys)
    for item in declared if isinstance(declared, list) else []:
        # A key that the item leaves out has its default there (a port's protocol), so only what is stated must agree.
        if isinstance(item, Mapping) and all(item.get(key, value) == value for key, value in wanted.items()):
            return item
    return None


def _holds(trie: Any, path: Path) -> bool:
    if not path:
        return True
    if not isinstance(trie, Mapping):
        return False
    part, rest = path[0], path[1:]
    if isinstance(part, str) and part.startswith("name="):
        for key, below in trie.items():
            if key.startswith("k:") and _names(key, part[5:]):
                return _holds(below, rest)
        return False
    below = trie.get(f"f:{part}") if isinstance(part, str) else trie.get(f"i:{part}")
    # An empty trie below a held field: the field is atomic, or its value whole.
    return below is not None and (not below or _holds(below, rest))


def _names(key: str, name: str) -> bool:
    try:
        parsed = json.loads(key[2:])
    except ValueError:
        return False
    return isinstance(parsed, Mapping) and parsed.get("name") == name


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC) if text else None
    except ValueError:
        return None
