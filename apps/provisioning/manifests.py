"""Checking what a room wants declared, before a byte of it is stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.clusters import kinds
from apps.core.canonical import canonical_bytes, digest
from apps.provisioning.diff import SERVER_METADATA
from apps.provisioning.ordering import Key, in_order, key_of


@dataclass(frozen=True, slots=True)
class Rendered:
    """One object ready to be stored: its key, place, bytes and digest."""

    key: Key
    api_version: str
    ordinal: int
    body: bytes
    digest: str


class Unfit(ValueError):
    """An object that cannot be declared; the message names it and says why."""


def check(manifest: Mapping[str, Any]) -> Key:
    """Return the key of an object that may be declared. Raises Unfit."""
    key = key_of(manifest)
    try:
        kind = kinds.of(manifest)
        kinds.check_name(kind, key.name)
        kinds.check_namespace(kind, key.namespace)
    except ValueError as error:
        raise Unfit(f"{key}: {error}") from error
    if kind.kind not in kinds.DECLARABLE:
        raise Unfit(f"{key}: this kind is read, never declared")
    meta: Mapping[str, Any] = manifest["metadata"]
    if (meta.get("labels") or {}).get(kinds.MANAGED_LABEL) != "true":
        raise Unfit(f"{key}: lacks the label {kinds.MANAGED_LABEL}: {'true'!r}")
    if "status" in manifest or SERVER_METADATA & meta.keys():
        raise Unfit(f"{key}: carries fields that only the server writes")
    return key


def render(manifests: Iterable[Mapping[str, Any]]) -> list[Rendered]:
    """Return the objects in apply order with their RFC 8785 bytes. Raises Unfit, also for one object given twice."""
    checked = list(manifests)
    seen: set[Key] = set()
    for manifest in checked:
        key = check(manifest)
        if key in seen:
            raise Unfit(f"{key}: given twice")
        seen.add(key)
    rendered = []
    for ordinal, manifest in enumerate(in_order(checked)):
        try:
            body = canonical_bytes(manifest)
        except TypeError as error:
            raise Unfit(f"{key_of(manifest)}: {error}") from error
        rendered.append(Rendered(key_of(manifest), str(manifest["apiVersion"]), ordinal, body, digest(body)))
    return rendered


def joined(rendered: Iterable[Rendered]) -> bytes:
    """Return all objects as one RFC 8785 list: canonical parts joined by commas are canonical."""
    return b"[" + b",".join(one.body for one in rendered) + b"]"
