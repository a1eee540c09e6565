"""Front matter of untrusted cards: plain values only, limited in depth, without aliases. Pure."""

from __future__ import annotations

from typing import Any

import yaml

_DEPTH = 20


class BadYaml(ValueError):
    """Text that cannot be taken as front matter; the message says why."""


class _Loader(yaml.SafeLoader):
    """Plain values only; no aliases (a few lines would unfold to gigabytes), no deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (&, *) are not taken")
        self.depth += 1
        if self.depth > _DEPTH:
            raise yaml.YAMLError(f"it is nested more than {_DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def load_mapping(text: str) -> dict[str, Any]:
    """Return the mapping that the text holds. Raises BadYaml."""
    try:
        # A subclass of SafeLoader: constructs plain values only.
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 (it is a safe loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        line = " ".join(str(error).split())[:200]
        raise BadYaml(f"The front matter is not YAML that can be taken: {line}.") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadYaml("The front matter is not a mapping of names to values.")
    return {str(key): value for key, value in found.items()}


def dump(value: Any, *, sort_keys: bool = False) -> str:
    """Return the value as block YAML, one way for each value."""
    return str(yaml.safe_dump(value, sort_keys=sort_keys, allow_unicode=True, width=1000, default_flow_style=False))
