"""What a registry changed since it was read last. Pure: known rows and a reading in, matches and changes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.catalogue.choices import RegistryFindingKind as Kind
from apps.catalogue.registry_clients import SeenModel, SeenVersion

ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A row of a registered model. `prints`: (number, born, run, source) of its versions."""

    pk: int
    foreign_id: str
    name: str
    born: str
    gone: bool
    prints: frozenset[tuple[str, str, str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Matched:
    """Which row each seen model is. `rows`: key → row; `new`: keys without a row; `missing`: rows not seen."""

    rows: Mapping[str, int] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Something a registry did after it was read: becomes a finding."""

    kind: str
    key: str
    before: str
    after: str


def match(
    known: Iterable[KnownModel],
    seen: Mapping[str, SeenModel],
    versions: Mapping[tuple[str, str], SeenVersion],
) -> Matched:
    """Tell which seen model is which row.

    By the registry's own id where it has one; else by name and time of creation together; what is left by time of
    creation and the versions it holds: that is a change of name. A name that was deleted and made anew has another
    time of creation and is another model.
    """
    rows = list(known)
    by_id = {row.foreign_id: row for row in rows}
    by_name: dict[tuple[str, str], KnownModel] = {}
    for row in sorted(rows, key=lambda row: (not row.gone, row.pk)):
        by_name[row.name, row.born] = row
    taken: dict[str, int] = {}
    for key, model in seen.items():
        found_row = by_id.get(model.stable_id) if model.stable_id else by_name.get((model.name, model.born))
        if found_row is not None:
            taken[key] = found_row.pk
    used = set(taken.values())
    prints: dict[str, set[tuple[str, str, str, str]]] = {}
    for (key, _), version in versions.items():
        prints.setdefault(key, set()).add(print_of(version))
    for key, model in seen.items():
        if key in taken or model.stable_id or not model.born:
            continue
        found = [
            row for row in rows
            if row.pk not in used and not row.gone and row.born == model.born and _same(row.prints, prints.get(key))
        ]  # fmt: skip
        if len(found) == 1:
            taken[key] = found[0].pk
            used.add(found[0].pk)
    new = tuple(sorted(key for key in seen if key not in taken))
    missing = tuple(sorted(row.pk for row in rows if row.pk not in used and not row.gone))
    return Matched(taken, new, missing)


def print_of(version: SeenVersion) -> tuple[str, str, str, str]:
    """Return what tells a version from others wherever its model's name goes."""
    return version.number, version.born, version.run_id, version.source


def _same(before: frozenset[Any], after: set[Any] | None) -> bool:
    """Versions may have come and gone with the new name; one in common, or none on both sides, is enough."""
    return bool(before & (after or set())) or (not before and not after)


def seen_of_model(model: SeenModel) -> dict[str, Any]:
    """Return what is kept of a model as seen."""
    return {
        "key": model.key, "born": model.born, "description": model.description, "state": model.state,
        "author": model.author, "tags": dict(model.tags), "aliases": dict(model.aliases),
    }  # fmt: skip


def seen_of_version(version: SeenVersion) -> dict[str, Any]:
    """Return what is kept of a version as seen."""
    return {
        "born": version.born, "description": version.description, "state": version.state, "author": version.author,
        "format": version.model_format, "tags": dict(version.tags),
    }  # fmt: skip


def model_changes(name: str, before: Mapping[str, Any], model: SeenModel) -> list[Change]:
    """Return what changed of a model: name, tags, aliases, state. What is new is no change of what was there."""
    found: list[Change] = []
    if name != model.name:
        found.append(Change(Kind.RENAMED, "", name, model.name))
    found += _tags(before, model.tags)
    aliases = before.get("aliases", {})
    for alias in sorted(aliases):
        if (now := model.aliases.get(alias, "")) != aliases[alias]:
            found.append(Change(Kind.MOVED_ALIAS, alias, str(aliases[alias]), now))
    return found + _archived(before, model.state)


def version_changes(before: Mapping[str, Any], source: str, run_id: str, version: SeenVersion) -> list[Change]:
    """Return what changed of a version: tags, source, run, state; another time of creation is another version."""
    found = _tags(before, version.tags)
    for key, was, now in (
        ("source", source, version.source), ("run", run_id, version.run_id),
        ("created", str(before.get("born", "")), version.born),
    ):  # fmt: skip
        if was != now:
            found.append(Change(Kind.CHANGED_SOURCE, key, was, now))
    return found + _archived(before, version.state)


def _tags(before: Mapping[str, Any], now: Mapping[str, str]) -> list[Change]:
    tags: Mapping[str, str] = before.get("tags", {})
    moved = [key for key in sorted(tags) if now.get(key) != tags[key]]
    return [Change(Kind.REWRITTEN_TAG, key, tags[key], now.get(key, "")) for key in moved]


def _archived(before: Mapping[str, Any], state: str) -> list[Change]:
    was = str(before.get("state", ""))
    return [Change(Kind.ARCHIVED, "state", was, state)] if state == ARCHIVED != was else []
