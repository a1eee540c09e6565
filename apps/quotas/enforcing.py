"""What a cluster does in a workspace about models that nobody approved: decided above this room, declared by it.

The deployments room registers who knows. A workspace's namespace carries the mode as a label, and where it is "deny"
the team's roles lack every right to create pods or workloads; both come with the cluster's next approved baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from apps.quotas.models import Workspace

#: Workspaces by primary key → mode ("", "audit", "deny"); what is not named is "".
Reader: TypeAlias = Callable[[Sequence[int]], Mapping[int, str]]
_readers: dict[str, Reader] = {}


def register_enforcement(name: str, reader: Reader) -> None:
    """Register who knows what is decided; registering the name again replaces it."""
    _readers[name] = reader


def forget_enforcement(name: str) -> None:
    """Forget a reader (tests register their own)."""
    _readers.pop(name, None)


def modes(workspaces: Sequence[Workspace]) -> dict[int, str]:
    """Return what is decided for each workspace, by its primary key."""
    found = {workspace.pk: "" for workspace in workspaces}
    for reader in _readers.values():
        found |= reader(list(found))
    return found
