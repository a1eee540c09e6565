"""Request bodies of stored kinds: identity and types, in the words of the two decoders of a real server."""

from __future__ import annotations

from typing import Any

from apps.demo.cluster.errors import UNCHECKED, ApiError, Obj, bad_request, invalid
from apps.demo.cluster.fields import Type, WrongQuantity, WrongType, check
from apps.demo.cluster.kinds import Kind
from apps.demo.cluster.schema import type_of


def decode(kind: Kind, namespace: str, name: str, body: Any, strictness: str, warnings: list[str]) -> Obj:
    """Check types and identity; unknown fields are an error, a warning or nothing, as the caller asked."""
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized (must be of type Object)")
    body = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
    _identity(kind, namespace, name, body)
    unknown: list[str] = []
    try:
        obj: Obj = check(body, type_of(kind), "", unknown, custom=kind.custom)
    except WrongQuantity as error:
        text = str(error).partition(": ")[2]
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {text}'
        ) from error
    except WrongType as error:
        if kind.custom:
            # Types of custom resources are checked with their schema, after decoding.
            raise wrong_type(kind, (body.get("metadata") or {}).get("name", name), error) from error
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: json: cannot unmarshal '
            f"{_json_name(error.value)} into Go struct field {kind.kind}.{error.path} of type {error.expected}"
        ) from error
    if unknown and strictness == "Strict":
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"strict decoding error: {listed}"
        )
    if strictness == "Warn":
        warnings += [f'unknown field "{path}"' for path in unknown]
    obj.setdefault("metadata", {})
    if kind.namespaced:
        obj["metadata"]["namespace"] = namespace
    else:
        obj["metadata"].pop("namespace", None)
    return obj


def wrong_type(kind: Kind, name: str, error: WrongType) -> ApiError:
    """422 for a value of another JSON type than the schema of a custom resource wants."""
    wanted = {"list": "array", "map": "object", "int": "integer", "bool": "boolean"}.get(error.expected, error.expected)
    found = {"bool": "boolean", "number": "integer"}.get(_json_name(error.value), _json_name(error.value))
    text = f'Invalid value: "{found}": {error.path} in body must be of type {wanted}: "{found}"'
    return invalid(kind.kind, kind.group, name, [("FieldValueTypeInvalid", error.path, text), UNCHECKED])


def decode_apply(kind: Kind, namespace: str, name: str, body: Any, *, keep_status: bool) -> Obj:
    """Check the body of an apply patch. Problems answer 500 without a reason, as observed on a real server."""
    if not isinstance(body, dict):
        raise bad_request("error decoding YAML: an apply configuration must be an object")
    for wanted in ("apiVersion", "kind"):
        if not body.get(wanted):
            raise bad_request(f"invalid object type: Object '{wanted.title()}' is missing")
    _identity(kind, namespace, name, body)
    if (body.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    unknown: list[str] = []
    title = f"{namespace}/{name}" if kind.namespaced else f"/{name}"
    head = f"failed to create typed patch object ({title}; {kind.api_version}, Kind={kind.kind})"
    kind_type: Type = type_of(kind)
    try:
        config: Obj = check(body, kind_type, "", unknown, custom=kind.custom)
    except WrongQuantity as error:
        text = str(error).partition(": ")[2]
        raise ApiError(500, "", text) from error
    except WrongType as error:
        raise ApiError(
            500, "", f"{head}: .{error.path}: expected {error.expected}, got {_json_name(error.value)}"
        ) from error
    if unknown:
        listed = "\n".join(f".{path}: field not declared in schema" for path in unknown)
        text = listed if len(unknown) == 1 else f"errors:\n{listed}"
        raise ApiError(500, "", f"{head}: {text}")
    if not keep_status:
        config.pop("status", None)
    meta = config.setdefault("metadata", {})
    meta["name"] = name
    if kind.namespaced:
        meta["namespace"] = namespace
    for unset in ("creationTimestamp", "generation", "selfLink", "deletionTimestamp"):
        meta.pop(unset, None)
    return config


def _identity(kind: Kind, namespace: str, name: str, body: Obj) -> None:
    if body.get("apiVersion") != kind.api_version or body.get("kind") != kind.kind:
        raise bad_request(
            f"{body.get('kind')} in version {body.get('apiVersion')!r} cannot be handled as a {kind.kind}: the API "
            f"version or kind in the data does not match the expected {kind.api_version}, {kind.kind}"
        )
    meta = body.get("metadata") or {}
    if not isinstance(meta, dict):
        raise bad_request("metadata must be an object")
    if kind.namespaced and meta.get("namespace") and meta["namespace"] != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if name and meta.get("name") and meta["name"] != name:
        raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")


def _json_name(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
