"""What mappings of groups to roles tell. Names of groups are the directory's words: kept in erasable notes."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class MappingChanged:
    """A mapping was made or ended. `scope` is "installation", "unit:slug" or "team:slug"; `people` gained or lost."""

    provider_uid: UUID
    role: str
    scope: str
    people: int
    group: str = private(default="")


@dataclass(frozen=True, slots=True)
class RoleRestored:
    """A role that somebody had taken away by hand is left to the person's group again."""

    mapping_uid: UUID
    user_uid: UUID
    role: str
    scope: str


@dataclass(frozen=True, slots=True)
class LastAdminKept:
    """A group would have taken the last platform admin's role away: it was kept, and people are told."""

    user_uid: UUID
    mapping_uid: UUID | None


MAPPING_CREATED = declare("teams.mapping.created", MappingChanged, audience="auditors")
MAPPING_ENDED = declare("teams.mapping.ended", MappingChanged, audience="auditors")
ROLE_RESTORED = declare("teams.mapping.restored", RoleRestored, audience="auditors")
LAST_ADMIN_KEPT = declare(
    "teams.mapping.last_admin_kept",
    LastAdminKept,
    audience="platform admins",
    mail=True,
    headline=lambda p: "The directory would have taken away the last platform admin",
    body=lambda p: "The role was kept. Give it to somebody else, then the directory's change is carried out.",
    path=lambda p: "/roles/",
)
