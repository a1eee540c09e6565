"""PATCH of SCIM resources (RFC 7644 §3.5.2) with what the large directories send besides. Pure: values in, values out.

Dialects taken: operations in any case; truth values as texts ("False"); `remove` of members named in `value`; no path,
with dotted, filtered or schema-qualified keys in the value; a filter that meets no element yet makes that element; a
single value wrapped as `[{"value": …}]`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.accounts.scim_errors import ScimError, invalid_path, invalid_value
from apps.accounts.scim_filter import ENTERPRISE, Path, equalities, matches, parse_path

MAX_OPERATIONS = 2000

_MULTI = frozenset(
    {"emails", "phoneNumbers", "ims", "photos", "addresses", "entitlements", "roles", "x509Certificates"}
)  # fmt: skip
_COMPLEX = frozenset({"name", "manager"})
_NAMES = {
    name.lower(): name
    for name in (
        *_MULTI, *_COMPLEX, "userName", "externalId", "displayName", "active", "nickName", "profileUrl", "title",
        "userType", "preferredLanguage", "locale", "timezone", "password", "formatted", "familyName", "givenName",
        "middleName", "honorificPrefix", "honorificSuffix", "value", "type", "primary", "display", "employeeNumber",
        "costCenter", "organization", "division", "department", "streetAddress", "locality", "region", "postalCode",
        "country", "members", "groups", "id", "meta", "schemas",
    )
}  # fmt: skip
_READ_ONLY = frozenset({"id", "meta", "groups", "schemas"})
_TRUTH = frozenset({"active", "primary"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: add, replace or remove; where (None: the resource itself), and what."""

    op: str
    path: str | None
    value: Any


@dataclass(slots=True)
class GroupDocument:
    """What a directory says of a group: `members` are ids of users."""

    display_name: str
    external_id: str = ""
    members: set[str] = field(default_factory=set)


def operations(body: Any) -> list[Operation]:
    """Return the operations of a PATCH body. Raises ScimError (invalidSyntax, invalidValue)."""
    raw = next((v for k, v in body.items() if k.lower() == "operations"), None) if isinstance(body, Mapping) else None
    if not isinstance(raw, list) or not raw:
        raise ScimError(400, "Send a list of Operations.", "invalidSyntax")
    if len(raw) > MAX_OPERATIONS:
        raise ScimError(413, f"Send at most {MAX_OPERATIONS} operations at once.", "tooMany")
    found = []
    for one in raw:
        if not isinstance(one, Mapping):
            raise ScimError(400, "An operation is an object with op, path and value.", "invalidSyntax")
        op = str(one.get("op", "")).lower()
        if op not in ("add", "replace", "remove"):
            raise ScimError(400, "op is one of add, replace and remove.", "invalidSyntax")
        path = one.get("path")
        if path is not None and not isinstance(path, str):
            raise invalid_path("path is a text.")
        if op != "remove" and "value" not in one:
            raise invalid_value(f"{op} needs a value.")
        found.append(Operation(op, path or None, one.get("value")))
    return found


def patch_user(document: Mapping[str, Any], steps: Iterable[Operation]) -> dict[str, Any]:
    """Return the user's attributes after these operations; the document given stays as it was. Raises ScimError."""
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for step in steps:
        if step.path is not None:
            _apply(result, step.op, parse_path(step.path), step.value, strict=True)
        elif step.op == "remove":
            raise ScimError(400, "remove needs a path.", "noTarget")
        elif not isinstance(step.value, Mapping):
            raise invalid_value("Without a path, value is an object.")
        else:
            for key, value in step.value.items():
                for path, part in _spread(str(key), value):
                    _apply(result, step.op, path, part, strict=False)
    return result


def patch_group(document: GroupDocument, steps: Iterable[Operation]) -> GroupDocument:
    """Return the group after these operations; the document given stays as it was. Raises ScimError."""
    result = GroupDocument(document.display_name, document.external_id, set(document.members))
    for step in steps:
        if step.path is not None:
            _apply_to_group(result, step.op, parse_path(step.path), step.value)
        elif step.op == "remove":
            raise ScimError(400, "remove needs a path.", "noTarget")
        elif not isinstance(step.value, Mapping):
            raise invalid_value("Without a path, value is an object.")
        else:
            for key, value in step.value.items():
                if str(key).lower() not in ("id", "schemas", "meta"):
                    _apply_to_group(result, step.op, parse_path(str(key)), value)
    return result


def member_ids(value: Any) -> list[str]:
    """Return the ids that a `members` value names: objects with `value`, or plain ids. Raises ScimError."""
    if value is None:
        return []
    found = []
    for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        named = one.get("value") if isinstance(one, Mapping) else one
        if isinstance(one, Mapping) and str(one.get("type", "User")).lower() == "group":
            raise invalid_value("Groups within groups are not taken: let the directory send their people.")
        if not isinstance(named, str) or not named:
            raise invalid_value('A member is an object such as {"value": "<id of a user>"}.')
        found.append(named.lower())
    return found


def truth(value: Any) -> bool:
    """Return a truth value, also from "True" and "False". Raises ScimError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise invalid_value("Send true or false.")


def normalised(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user as a whole (POST, PUT), as a PATCH of nothing would have made it. Raises ScimError."""
    return patch_user({}, [Operation("replace", None, document)])


# -- the parts


def _spread(key: str, value: Any) -> list[tuple[Path, Any]]:
    """Return the paths behind a key of a value without path: an extension's object sets its attributes one by one."""
    path = parse_path(key)
    if not path.attribute.name and path.attribute.urn == ENTERPRISE and isinstance(value, Mapping):
        return [(parse_path(f"{ENTERPRISE}:{inner}"), part) for inner, part in value.items()]
    return [(path, value)]


def _apply(document: dict[str, Any], op: str, path: Path, value: Any, *, strict: bool) -> None:
    name = _canonical(path.attribute.name)
    if not path.attribute.urn and name in _READ_ONLY:
        if strict and name != "schemas":
            raise ScimError(400, f"{name} is kept by the portal.", "mutability")
        return
    if name == "password":
        return  # people sign in at their provider; no password is taken over
    place = document
    if path.attribute.urn:
        if not name:
            if op == "remove":
                document.pop(path.attribute.urn, None)
                return
            raise invalid_path("Name an attribute of the extension.")
        place = document.setdefault(path.attribute.urn, {})
    key = next((one for one in place if one.lower() == name.lower()), name)
    if op == "remove" or value is None:
        _remove(place, key, path, value)
    elif path.where is not None:
        _set_within(place, key, path, value)
    elif key in _MULTI or isinstance(place.get(key), list):
        if path.sub:
            raise invalid_path(f"Say which of {key}: {key}[type eq …].{path.sub}")
        _set_list(place, key, op, value)
    elif path.sub:
        _set_part(place, key, path.sub, value)
    elif key in _COMPLEX or isinstance(value, Mapping):
        _set_complex(place, key, op, value)
    else:
        place[key] = _single(key, value)
    if path.attribute.urn and not place:
        document.pop(path.attribute.urn, None)


def _set_list(place: dict[str, Any], key: str, op: str, value: Any) -> None:
    given = [_element(one) for one in (value if isinstance(value, list) else [value])]
    present: list[Any] = [] if op == "replace" else list(place.get(key, []))
    added = [one for one in given if one not in present]
    place[key] = _one_primary(present + added, added)
    if not place[key]:
        del place[key]


def _set_complex(place: dict[str, Any], key: str, op: str, value: Any) -> None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, Mapping):
        # A manager is often sent as nothing but an id.
        value = {"value": _single("value", value)} if key == "manager" else None
        if value is None:
            raise invalid_value(f"{key} is an object.")
    present = place.get(key)
    merged = dict(present) if op == "add" and isinstance(present, Mapping) else {}
    merged |= {_canonical(str(inner)): part for inner, part in value.items() if part is not None}
    if merged:
        place[key] = merged
    else:
        place.pop(key, None)


def _set_part(place: dict[str, Any], key: str, sub: str, value: Any) -> None:
    present = place.get(key, {})
    if not isinstance(present, Mapping):
        raise invalid_path(f"{key} has no parts.")
    part = _canonical(sub)
    place[key] = {**present, part: _single(part, value)}


def _set_within(place: dict[str, Any], key: str, path: Path, value: Any) -> None:
    elements: Any = place.get(key, [])
    if not isinstance(elements, list) or path.where is None:
        raise invalid_path(f"{key} has no elements.")
    found = [one for one in elements if matches(path.where, one)]
    if not found:
        described = equalities(path.where)
        if described is None:
            raise ScimError(400, f"No element of {key} meets the filter.", "noTarget")
        made = {_canonical(name): _single(_canonical(name), part) for name, part in described.items()}
        elements = [*elements, made]
        found = [made]
    changed: list[Any] = []
    for position, one in enumerate(elements):
        if not any(one is other for other in found):
            continue
        if path.sub:
            part = _canonical(path.sub)
            elements[position] = {**_element(one), part: _single(part, value)}
        elif isinstance(value, Mapping):
            elements[position] = {**_element(one), **_element(value)}
        else:
            elements[position] = {**_element(one), "value": _single("value", value)}
        changed.append(elements[position])
    place[key] = _one_primary(elements, changed)


def _remove(place: dict[str, Any], key: str, path: Path, value: Any) -> None:
    present = place.get(key)
    if present is None:
        return
    if path.where is not None and isinstance(present, list):
        if path.sub:
            part = _canonical(path.sub)
            kept = [
                {name: inner for name, inner in one.items() if name != part}
                if isinstance(one, Mapping) and matches(path.where, one) else one
                for one in present
            ]  # fmt: skip
        else:
            kept = [one for one in present if not matches(path.where, one)]
    elif path.sub and isinstance(present, Mapping):
        kept_parts = {name: part for name, part in present.items() if name.lower() != path.sub.lower()}
        if kept_parts:
            place[key] = kept_parts
        else:
            del place[key]
        return
    elif isinstance(present, list) and value not in (None, [], ""):
        gone = [_element(one).get("value") for one in (value if isinstance(value, list) else [value])]
        kept = [one for one in present if _element(one).get("value") not in gone]
    else:
        kept = []
    kept = [one for one in kept if one != {}]
    if kept:
        place[key] = kept
    else:
        del place[key]


def _element(one: Any) -> dict[str, Any]:
    if not isinstance(one, Mapping):
        return {"value": _single("value", one)}
    return {_canonical(str(k)): _single(_canonical(str(k)), v) for k, v in one.items() if v is not None}


def _one_primary(elements: list[Any], changed: Sequence[Any]) -> list[Any]:
    """Whoever was made primary last is the only one (RFC 7644 §3.5.2)."""
    chosen = [one for one in changed if isinstance(one, Mapping) and one.get("primary") is True]
    if not chosen:
        return elements
    return [
        {**one, "primary": False} if isinstance(one, Mapping) and one.get("primary") and one is not chosen[-1] else one
        for one in elements
    ]


def _single(key: str, value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]["value"] if isinstance(value[0], Mapping) and "value" in value[0] else value[0]
    if key in _TRUTH:
        return truth(value)
    return value


def _canonical(name: str) -> str:
    return _NAMES.get(name.lower(), name)


def _apply_to_group(group: GroupDocument, op: str, path: Path, value: Any) -> None:
    name = path.attribute.name.lower()
    if name == "members":
        _apply_to_members(group, op, path, value)
        return
    if path.where is not None or path.sub:
        raise invalid_path(f"{path.attribute.name} has no parts.")
    if name == "displayname":
        text = _single("displayName", value)
        if op == "remove" or not isinstance(text, str) or not text.strip():
            raise invalid_value("A group needs a displayName.")
        group.display_name = text
    elif name == "externalid":
        text = "" if op == "remove" or value is None else _single("externalId", value)
        if not isinstance(text, str):
            raise invalid_value("externalId is a text.")
        group.external_id = text
    elif name in ("id", "meta"):
        raise ScimError(400, f"{path.attribute.name} is kept by the portal.", "mutability")
    # Other attributes of a group mean nothing here.


def _apply_to_members(group: GroupDocument, op: str, path: Path, value: Any) -> None:
    if path.where is None:
        if path.sub:
            raise invalid_path('Say which member: members[value eq "<id>"]')
        if op == "add":
            group.members |= set(member_ids(value))
        elif op == "replace":
            group.members = set(member_ids(value))
        elif value in (None, [], ""):
            group.members = set()
        else:
            group.members -= set(member_ids(value))
        return
    if op != "remove":
        raise invalid_path("Members are added and removed, not changed.")
    named = equalities(path.where)
    if named is not None and [one.lower() for one in named] == ["value"]:
        group.members.discard(str(next(iter(named.values()))).lower())
    else:
        group.members = {one for one in group.members if not matches(path.where, {"value": one})}


__all__ = [
    "GroupDocument",
    "Operation",
    "member_ids",
    "normalised",
    "operations",
    "patch_group",
    "patch_user",
    "truth",
]
