"""JSON merge patch (RFC 7386), JSON patch (RFC 6902) and the useful part of the strategic merge patch."""

from __future__ import annotations

from typing import Any

from apps.demo.cluster.apply import clone
from apps.demo.cluster.errors import ApiError, Obj, bad_request
from apps.demo.cluster.fields import ANY, Type
from apps.demo.cluster.ownership import item_key


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merge_patch(out.get(name), value)
    return out


def strategic_patch(target: Any, patch: Any, kind: Type) -> Any:
    """Merge patch that unites list maps and sets by key and knows `$patch: delete|replace` and `$deleteFrom…`.

    `$setElementOrder` and `$retainKeys` are accepted and ignored: order is cosmetic for the kinds served here.
    """
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            out[field] = [each for each in out.get(field, []) if each not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            out.pop(name, None)
        else:
            member = kind.child(name) or ANY
            if member.shape == "list" and member.relation in ("listmap", "set") and isinstance(value, list):
                out[name] = _strategic_list(out.get(name) or [], value, member)
            else:
                out[name] = strategic_patch(out.get(name), value, member)
    return out


def _strategic_list(target: list[Any], patch: list[Any], kind: Type) -> list[Any]:
    if kind.relation == "set":
        return [*target, *(each for each in patch if each not in target)]
    item = kind.item or ANY
    if any(isinstance(each, dict) and each.get("$patch") == "replace" for each in patch):
        return [each for each in patch if "$patch" not in each]
    wanted = {item_key(each, kind.keys): each for each in patch}
    out = []
    for each in target:
        mine = wanted.pop(item_key(each, kind.keys), None)
        if mine is None:
            out.append(each)
        elif mine.get("$patch") != "delete":
            out.append(strategic_patch(each, mine, item))
    return [*out, *(each for each in wanted.values() if each.get("$patch") != "delete")]


def json_patch(target: Obj, operations: Any) -> Obj:
    """RFC 6902. Raises 400 for a malformed patch, 422 where it does not fit the object."""
    if not isinstance(operations, list):
        raise bad_request("the body of a JSON patch must be a list of operations")
    root: Any = {"": clone(target)}
    for operation in operations:
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise bad_request("each JSON patch operation needs op and path")
        _operate(root, operation)
    result = root[""]
    if not isinstance(result, dict):
        raise bad_request("a JSON patch may not replace the object by something else")
    return result


def _operate(root: Any, operation: Obj) -> None:
    kind, path = operation["op"], _pointer(operation["path"])
    if kind in ("add", "replace", "test") and "value" not in operation:
        raise bad_request(f"JSON patch operation {kind} needs a value")
    value = clone(operation.get("value"))
    if kind == "add":
        _put(root, path, value, insert=True)
    elif kind == "replace":
        _get(root, path)
        _put(root, path, value, insert=False)
    elif kind == "remove":
        _drop(root, path)
    elif kind == "test":
        if _get(root, path) != value:
            raise _misfit(f"testing value {operation['path']} failed")
    elif kind in ("move", "copy"):
        source = _pointer(operation.get("from", ""))
        value = clone(_get(root, source))
        if kind == "move":
            _drop(root, source)
        _put(root, path, value, insert=True)
    else:
        raise bad_request(f"unknown JSON patch operation {kind!r}")


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise bad_request(f"{text!r} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")]


def _misfit(why: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def _index(node: list[Any], part: str, *, end: bool) -> int:
    if part == "-" and end:
        return len(node)
    if not part.isdigit() or int(part) >= len(node) + (1 if end else 0):
        raise _misfit(f"no list item {part}")
    return int(part)


def _get(node: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(node, list):
            node = node[_index(node, part, end=False)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            raise _misfit(f"missing path {'/'.join(path)}")
    return node


def _put(root: Any, path: list[str], value: Any, *, insert: bool) -> None:
    node = _get(root, path[:-1])
    if isinstance(node, list):
        index = _index(node, path[-1], end=insert)
        if insert:
            node.insert(index, value)
        else:
            node[index] = value
    elif isinstance(node, dict):
        node[path[-1]] = value
    else:
        raise _misfit(f"{'/'.join(path)} is no container")


def _drop(root: Any, path: list[str]) -> None:
    node = _get(root, path[:-1])
    _get(root, path)
    if isinstance(node, list):
        del node[int(path[-1])]
    else:
        del node[path[-1]]
