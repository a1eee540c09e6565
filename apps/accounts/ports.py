"""What accounts needs from rooms above it and may not import: they register it when they load."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from apps.core.actor import Actor

if TYPE_CHECKING:
    from apps.accounts.models import User


class GroupsChanged(Protocol):
    """What the teams room registers: make the roles of a person follow the groups they are in now."""

    def __call__(self, user_id: int, *, actor: Actor) -> object: ...


class GroupsOfManyChanged(Protocol):
    """What the teams room registers: the same for many at once, in a few queries where nothing changes."""

    def __call__(self, user_ids: Collection[int], *, actor: Actor) -> object: ...


_groups_changed: GroupsChanged | None = None
_groups_of_many_changed: GroupsOfManyChanged | None = None


def register_groups_changed(handler: GroupsChanged, many: GroupsOfManyChanged) -> None:
    """Install who answers `groups_changed` and `groups_of_many_changed` (called by the teams room when it loads)."""
    global _groups_changed, _groups_of_many_changed
    _groups_changed, _groups_of_many_changed = handler, many


def groups_changed(user_id: int, *, actor: Actor) -> None:
    """Have the roles of a person follow their groups, in the caller's transaction.

    Call it wherever an `ExternalIdentity` or a `DirectoryMembership` of the person came, changed or went. Raises
    RuntimeError while nobody is registered: a sign-in without its roles would pass for one with none.
    """
    if _groups_changed is None:
        raise RuntimeError("nobody is registered who gives roles to groups")
    _groups_changed(user_id, actor=actor)


def groups_of_many_changed(user_ids: Collection[int], *, actor: Actor) -> None:
    """Have the roles of these people follow their groups, as `groups_changed`."""
    if _groups_of_many_changed is None:
        raise RuntimeError("nobody is registered who gives roles to groups")
    _groups_of_many_changed(user_ids, actor=actor)


class RightsMover(Protocol):
    """What the teams room registers: move roles and memberships of an account to another of the same person.

    Returns how many roles and how many memberships were moved.
    """

    def __call__(self, user_id: int, into_id: int, *, actor: Actor) -> tuple[int, int]: ...


class MergeObjection(Protocol):
    """What rooms register: why these two accounts cannot be merged now, in sentences."""

    def __call__(self, user_id: int, into_id: int) -> list[str]: ...


_move_rights: RightsMover | None = None
_merge_objections: dict[str, MergeObjection] = {}


def register_rights_mover(handler: RightsMover) -> None:
    """Install who answers `move_rights` (called by the teams room when it loads)."""
    global _move_rights
    _move_rights = handler


def register_merge_objection(name: str, objection: MergeObjection) -> None:
    """Have a room asked before two accounts are merged."""
    _merge_objections[name] = objection


def move_rights(user_id: int, into_id: int, *, actor: Actor) -> tuple[int, int]:
    """Move roles and memberships of an account to another of the same person, in the caller's transaction.

    Raises RuntimeError while nobody is registered: an account without its roles would pass for one with none.
    """
    if _move_rights is None:
        raise RuntimeError("nobody is registered who moves roles and memberships")
    return _move_rights(user_id, into_id, actor=actor)


def merge_objections(user_id: int, into_id: int) -> list[str]:
    """Return why these two accounts cannot be merged now, of all rooms."""
    return [text for name in sorted(_merge_objections) for text in _merge_objections[name](user_id, into_id)]


class ImpersonationBar(Protocol):
    """What the teams room registers: why nobody may see the portal as this person, "" where support may."""

    def __call__(self, person: User) -> str: ...


class RolesBeyondMembership(Protocol):
    """What the teams room registers: whether somebody holds, or will hold, any role beyond that of a member."""

    def __call__(self, user_id: int) -> bool: ...


_roles_beyond_membership: RolesBeyondMembership | None = None


def register_roles_beyond_membership(handler: RolesBeyondMembership) -> None:
    """Install who answers `roles_beyond_membership` (called by the teams room when it loads)."""
    global _roles_beyond_membership
    _roles_beyond_membership = handler


def roles_beyond_membership(user_id: int) -> bool:
    """Whether somebody holds, or will hold, any role beyond that of a member.

    Raises RuntimeError while nobody is registered: fail closed.
    """
    if _roles_beyond_membership is None:
        raise RuntimeError("nobody is registered who knows what roles people hold")
    return _roles_beyond_membership(user_id)


_impersonation_bar: ImpersonationBar | None = None
_permission_names: frozenset[str] = frozenset()


def register_impersonation_bar(handler: ImpersonationBar) -> None:
    """Install who answers `impersonation_bar` (called by the teams room when it loads)."""
    global _impersonation_bar
    _impersonation_bar = handler


def impersonation_bar(person: User) -> str:
    """Return why the roles of `person` keep support from seeing the portal as they do, "" where they do not.

    Raises RuntimeError while nobody is registered: fail closed.
    """
    if _impersonation_bar is None:
        raise RuntimeError("nobody is registered who knows whose account support may see")
    return _impersonation_bar(person)


def register_permissions(names: frozenset[str]) -> None:
    """Install the names of all permissions, which a token may be limited to (called by the teams room)."""
    global _permission_names
    _permission_names = names


def permission_names() -> frozenset[str]:
    """Return the names of all permissions. Raises RuntimeError while none are registered."""
    if not _permission_names:
        raise RuntimeError("no permissions are registered")
    return _permission_names


__all__ = [
    "GroupsChanged",
    "GroupsOfManyChanged",
    "ImpersonationBar",
    "MergeObjection",
    "RightsMover",
    "RolesBeyondMembership",
    "groups_changed",
    "groups_of_many_changed",
    "impersonation_bar",
    "merge_objections",
    "move_rights",
    "permission_names",
    "register_groups_changed",
    "register_impersonation_bar",
    "register_merge_objection",
    "register_permissions",
    "register_rights_mover",
    "register_roles_beyond_membership",
    "roles_beyond_membership",
]
