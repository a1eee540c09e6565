"""What differs between two versions: files, fields, lineage, classification. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One field or file that differs. `before` or `after` None: it is not there."""

    path: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        """Whether it was added, removed or changed."""
        if self.before is None:
            return ADDED
        return REMOVED if self.after is None else CHANGED


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Return nested plain data as path → text: {"explainer.image": …, "arguments[0]": …}."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, item in value.items():
            found.update(flat(item, f"{path}.{key}" if path else str(key)))
        return found
    if isinstance(value, list | tuple):
        found = {}
        for index, item in enumerate(value):
            found.update(flat(item, f"{path}[{index}]"))
        return found
    return {} if value in (None, "") else {path: str(value)}


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """Return what differs, by path."""
    paths = sorted(before.keys() | after.keys())
    return [
        Difference(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]


def fields_of(version: Any, sources: Iterable[Any]) -> dict[str, str]:
    """Return a version's own fields and its lineage as path → text."""
    found = flat(
        {
            "location": version.location,
            "revision": version.revision,
            "image": version.image,
            "runtime": version.runtime,
            "format": version.model_format,
            "arguments": list(version.arguments),
            "environment": version.environment,
            "explainer": version.explainer,
            "parameters": version.parameters,
        }
    )
    for source in sources:
        found[f"made from.{source.get_kind_display()}.{source.name}"] = (
            source.revision or source.digest or source.uri or "–"
        )
    return found


def files_of(files: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """Return (path, size, sha256) rows as path → text; the same text means the same bytes."""
    return {path: f"{sha256 or 'not hashed yet'} ({size:,} bytes)" for path, size, sha256 in files}
