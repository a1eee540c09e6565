"""Server-side apply: merge a configuration into the live object with per-manager field ownership.

Follows structured-merge-diff's `Updater.Apply`: merge, prune what the applier let go and nobody else owns, refuse to
change what another manager owns unless forced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from apps.demo.cluster.errors import ApiError, Obj
from apps.demo.cluster.fields import ANY, Type
from apps.demo.cluster.ownership import Fields, Manager, Path, dotted, item_key, leaves, managers_of


def clone(value: Any) -> Any:
    """A private copy of decoded JSON (stored objects are frozen; `copy.deepcopy` is ten times slower)."""
    if isinstance(value, dict):
        return {name: clone(each) for name, each in value.items()}
    if isinstance(value, list):
        return [clone(each) for each in value]
    return value


def merge(live: Any, config: Any, kind: Type) -> Any:
    """Lay `config` over `live`; atomic parts are replaced whole, list maps and sets are united by key."""
    if kind.shape == "scalar" or kind.relation == "atomic" or live is None:
        return config
    item = kind.item or ANY
    if kind.shape == "list":
        if kind.relation == "set":
            return [*live, *(each for each in config if each not in live)]
        wanted = {item_key(each, kind.keys): each for each in config}
        out = []
        for each in live:
            mine = wanted.pop(item_key(each, kind.keys), None)
            out.append(each if mine is None else merge(each, mine, item))
        return [*out, *wanted.values()]
    out_map = dict(live)
    for name, value in config.items():
        member = kind.child(name)
        if member is not None:
            out_map[name] = merge(live.get(name), value, member)
    return out_map


def server_side_apply(
    live: Obj | None,
    config: Obj,
    kind: Type,
    *,
    manager: str,
    api_version: str,
    subresource: str,
    force: bool,
    now: str,
    finish: Callable[[Obj], Obj],
) -> tuple[Obj, list[Manager]]:
    """Return the merged object (defaulted by `finish`) and the managers after the apply.

    `config` is already checked against `kind`. Raises the 409 that lists every conflicting field.
    """
    status = subresource == "status"
    applied = frozenset(leaves(config, kind, status=status))
    entries = managers_of(live)
    mine = Manager(manager, "Apply", api_version, subresource, now, applied)
    others = [entry for entry in entries if entry.identity != mine.identity]
    previous = next((entry for entry in entries if entry.identity == mine.identity), None)

    base = clone(live) if live is not None else {}
    wanted = {name: value for name, value in config.items() if (name == "status") is status or name == "metadata"}
    if status:
        wanted.pop("metadata", None)
    merged = merge(base, wanted, kind)
    merged["apiVersion"], merged["kind"] = config["apiVersion"], config["kind"]
    if previous is not None:
        kept = frozenset().union(*(entry.fields for entry in others)) if others else frozenset()
        prune(merged, kind, (previous.fields - applied) - kept, keep=kept | applied)
    finished = finish(merged)

    before = leaves(live, kind, status=status) if live is not None else {}
    after = leaves(finished, kind, status=status)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    removed = frozenset(path for path in before if path not in after)
    clashes = [(entry, entry.fields & changed & applied) for entry in others if entry.subresource == subresource]
    clashes = [(entry, fields) for entry, fields in clashes if fields]
    if clashes and not force:
        raise _conflict(clashes)
    taken: Fields = frozenset().union(*(fields for _, fields in clashes)) if clashes else frozenset()
    result = []
    for entry in others:
        left = entry.fields - taken - removed if entry.subresource == subresource else entry.fields
        if left:
            result.append(entry.owning(left))
    if previous is not None and previous.fields == applied and previous.api_version == api_version and not changed:
        mine = previous
    if applied:
        result.insert(0, mine)
    return finished, result


def prune(obj: Obj, kind: Type, paths: Iterable[Path], *, keep: Fields) -> None:
    """Remove the given fields from `obj` in place; items with members that somebody keeps stay.

    Containers that become empty go, too: the real types serialise with `omitempty`.
    """
    held = {path[:depth] for path in keep for depth in range(1, len(path) + 1)}
    # Items before their members: without its key field an item would not be found any more.
    for path in sorted(paths, key=len):
        if path not in held:
            _remove(obj, kind, path, held, ())


def _remove(node: Any, kind: Type, rest: Path, held: set[Path], walked: Path) -> None:
    element, tail = rest[0], rest[1:]
    walked = (*walked, element)
    tag, _, text = element.partition(":")
    if tag == "f":
        if not isinstance(node, dict) or text not in node:
            return
        member = kind.child(text)
        if tail and member is not None:
            _remove(node[text], member, tail, held, walked)
            if node[text] in ({}, []) and walked not in held:
                del node[text]
        elif not tail:
            del node[text]
        return
    if not isinstance(node, list):
        return
    for index, item in enumerate(node):
        if (json.dumps(item) == text) if tag == "v" else (item_key(item, kind.keys) == element):
            if tail and kind.item is not None:
                _remove(item, kind.item, tail, held, walked)
            elif not tail:
                del node[index]
            return


def _conflict(clashes: list[tuple[Manager, Fields]]) -> ApiError:
    causes = []
    blocks = []
    for entry, fields in clashes:
        who = f'"{entry.name}"'
        if entry.subresource:
            who += f' with subresource "{entry.subresource}"'
        if entry.operation == "Update":
            who += f" using {entry.api_version}"
        names = [dotted(path) for path in sorted(fields)]
        causes += [
            {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": name} for name in names
        ]
        if len(names) == 1:
            blocks.append(f"conflict with {who}: {names[0]}")
        else:
            blocks.append(f"conflicts with {who}:\n" + "\n".join(f"- {name}" for name in names))
    count = len(causes)
    noun = "conflict" if count == 1 else "conflicts"
    message = f"Apply failed with {count} {noun}: " + "\n".join(blocks)
    return ApiError(409, "Conflict", message, {"causes": causes})
