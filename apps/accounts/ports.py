"""What accounts needs from rooms above it and may not import: they register it when they load."""

from __future__ import annotations

from typing import Protocol

from apps.core.actor import Actor


class GroupsChanged(Protocol):
    """What the teams room registers: make the roles of a person follow the groups they are in now."""

    def __call__(self, user_id: int, *, actor: Actor) -> object: ...


_groups_changed: GroupsChanged | None = None


def register_groups_changed(handler: GroupsChanged) -> None:
    """Install who answers `groups_changed` (called by the teams room when it loads)."""
    global _groups_changed
    _groups_changed = handler


def groups_changed(user_id: int, *, actor: Actor) -> None:
    """Have the roles of a person follow their groups, in the caller's transaction.

    Call it wherever an `ExternalIdentity` or a `DirectoryMembership` of the person came, changed or went. Raises
    RuntimeError while nobody is registered: a sign-in without its roles would pass for one with none.
    """
    if _groups_changed is None:
        raise RuntimeError("nobody is registered who gives roles to groups")
    _groups_changed(user_id, actor=actor)


__all__ = ["GroupsChanged", "groups_changed", "register_groups_changed"]
