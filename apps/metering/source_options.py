"""The options of polled sources: which each kind has, what they may be, and how they are stored. Pure.

Stored as adapters read them: `cluster_filter`, `gpu_resources` (Prometheus); `clusters`, `resolution_seconds` and, of
OpenCost, `parameters` (allocation APIs); `timeout_seconds`. What else is stored (`windows` and `team_map` of imports,
further `parameters`) is nobody's to set here, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from apps.core.errors import Invalid
from apps.metering.choices import SourceKind

_RESOURCE = re.compile(r"[a-z0-9][a-z0-9./_-]{1,119}")
#: (least, most) seconds.
RESOLUTION: Final = (10, 3600)
TIMEOUT: Final = (5, 600)
LONGEST_FILTER: Final = 200
LONGEST_NAME: Final = 120
MOST_NAMES: Final = 50

_ALLOCATION = ("clusters", "resolution_seconds", "timeout_seconds")
#: Options by kind, as people and programs name them.
OF_KIND: Final[dict[str, tuple[str, ...]]] = {
    SourceKind.PROMETHEUS: ("cluster_filter", "gpu_resources", "timeout_seconds"),
    SourceKind.ALLOCATION: _ALLOCATION,
    SourceKind.KUBECOST: _ALLOCATION,
}


def matcher(text: str) -> str:
    """Return one or more label matchers, stripped. Raises ValueError for what could leave the braces."""
    found = text.strip()
    if "{" in found or "}" in found or (found and "=" not in found) or len(found) > LONGEST_FILTER:
        raise ValueError('Write label matchers without braces, such as cluster="dc1".')
    return found


def resources(names: Iterable[str]) -> list[str]:
    """Return resource names as kube-state-metrics spells them, from its spelling or Kubernetes'. Raises ValueError."""
    found = [name.strip().lower() for name in names if name.strip()]
    if wrong := [name for name in found if not _RESOURCE.fullmatch(name)]:
        raise ValueError(f"“{wrong[0]}” is no name of a resource, such as nvidia.com/gpu.")
    return [re.sub(r"[^a-z0-9]", "_", name) for name in found]


def stored(kind: str, given: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> dict[str, object]:
    """Return options as they are stored, from those given; None (or empty) takes one away.

    `parameters`: those stored of OpenCost, of which only the resolution follows the option. Raises Invalid (option →
    message) for an option that the kind does not have and for a value that cannot be.
    """
    errors: dict[str, str] = {}
    found: dict[str, object] = {}
    for name, value in given.items():
        if name not in OF_KIND.get(kind, ()):
            errors[name] = f"A source of this kind has no such option: {', '.join(OF_KIND.get(kind, ())) or 'none'}."
            continue
        try:
            found[name] = _checked(name, value)
        except ValueError as error:
            errors[name] = str(error)
    if errors:
        raise Invalid(errors)
    if kind == SourceKind.ALLOCATION and "resolution_seconds" in found:
        seconds = found["resolution_seconds"]
        others = {name: value for name, value in (parameters or {}).items() if name != "resolution"}
        found["parameters"] = {**others, **({"resolution": f"{seconds}s"} if seconds else {})}
    return found


def shown(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a source as people and programs set them; None: not set."""
    return {name: options.get(name) or None for name in OF_KIND.get(kind, ())}


def _checked(name: str, value: Any) -> object:
    if value in (None, "", []):
        return None
    if name == "cluster_filter":
        return matcher(str(value))
    if name == "gpu_resources":
        return resources(value)
    if name == "clusters":
        names = [one.strip() for one in value if one.strip()]
        if any(len(one) > LONGEST_NAME for one in names) or len(names) > MOST_NAMES:
            raise ValueError(f"At most {MOST_NAMES} names of at most {LONGEST_NAME} characters.")
        return names
    least, most = RESOLUTION if name == "resolution_seconds" else TIMEOUT
    if not least <= int(value) <= most:
        raise ValueError(f"Whole seconds from {least} to {most}.")
    return int(value)
