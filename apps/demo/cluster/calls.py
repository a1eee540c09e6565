"""What accompanies an operation on a stored kind: who calls and how, what is answered, and what both have in common."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

from apps.demo.cluster.auth import User
from apps.demo.cluster.errors import Obj, conflict
from apps.demo.cluster.store import Entry


@dataclass
class Call:
    """Circumstances of a write: who, under which manager name, and how strictly."""

    user: User
    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """Status code and encoded object."""

    code: int
    raw: bytes
    obj: Obj


def stamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated_suffix() -> str:
    """Five characters without vowels or look-alikes, as the name generator makes."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))


def disowned(old: Obj, sent: Obj) -> Obj:
    """The stored object with the managers a plain write sends in its place; `[{}]` clears them, none keeps them."""
    fields = sent.get("managedFields")
    if not fields:
        return old
    return {**old, "metadata": {**old["metadata"], "managedFields": [each for each in fields if each]}}


def spec_of(obj: Obj) -> Obj:
    """What a change of counts as a new generation."""
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def check_preconditions(entry: Entry, options: Obj) -> None:
    """Refuse a deletion of what is no longer what the caller meant. Raises 409."""
    wanted = options.get("preconditions") or {}
    meta = entry.obj["metadata"]
    for name, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(name) and wanted[name] != meta.get(name):
            why = f"Precondition failed: {label} in precondition: {wanted[name]}"
            why += f", {label} in object meta: {meta.get(name)}"
            raise conflict(entry.kind.plural, entry.kind.group, entry.name, why)
