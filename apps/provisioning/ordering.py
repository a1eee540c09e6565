"""The order in which objects are applied: what others need comes first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from apps.clusters import kinds


class Key(NamedTuple):
    """What identifies an object on a cluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def key_of(manifest: Mapping[str, Any]) -> Key:
    """Return the key of an object."""
    meta = manifest.get("metadata") or {}
    return Key(str(manifest.get("kind", "")), str(meta.get("namespace") or ""), str(meta.get("name") or ""))


def in_order(manifests: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects with dependencies first; equal places by namespace and name, so that bytes are stable."""
    return [dict(m) for m in sorted(manifests, key=lambda m: (kinds.KINDS[str(m["kind"])].order, *key_of(m)[1:]))]


def removal_order(keys: Iterable[Key]) -> list[Key]:
    """Return keys in the order of removal: what depends on others goes first."""
    return sorted(keys, key=lambda key: (-kinds.KINDS[key.kind].order, key.namespace, key.name))
