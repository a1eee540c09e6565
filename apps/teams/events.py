"""What the teams room tells: audit events and messages to the person concerned. Ids are opaque."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class UnitCreated:
    """A business unit was made."""

    slug: str
    parent_uid: UUID | None
    cost_centre: str


@dataclass(frozen=True, slots=True)
class TeamCreated:
    """A team was made."""

    slug: str
    unit_uid: UUID
    cost_centre: str


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A person joined or left a team."""

    team: str
    team_uid: UUID
    user_uid: UUID
    at: datetime
    mapping_uid: UUID | None = None


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """A role was given to, or taken from, a person. `scope` is "installation", "unit:slug" or "team:slug"."""

    role: str
    scope: str
    scope_name: str
    user_uid: UUID
    expires_at: datetime | None = None
    mapping_uid: UUID | None = None


UNIT_CREATED = declare("teams.unit.created", UnitCreated, audience="auditors")
TEAM_CREATED = declare("teams.team.created", TeamCreated, audience="auditors")
MEMBER_ADDED = declare(
    "teams.member.added",
    MemberChanged,
    audience="the person",
    headline=lambda p: f"You are a member of {p.team} now",
    body=lambda p: "You see the team's workspaces, quota and cost, and can use what it holds.",
)
MEMBER_REMOVED = declare(
    "teams.member.removed",
    MemberChanged,
    audience="the person",
    headline=lambda p: f"You are no longer a member of {p.team}",
)
ROLE_GRANTED = declare(
    "teams.role.granted",
    RoleChanged,
    audience="the person",
    headline=lambda p: f"You have a new role: {p.role.replace('_', ' ')}, {p.scope_name}",
)
ROLE_REVOKED = declare(
    "teams.role.revoked",
    RoleChanged,
    audience="the person",
    headline=lambda p: f"You no longer have the role {p.role.replace('_', ' ')}, {p.scope_name}",
)
ROLE_EXTENDED = declare(
    "teams.role.extended",
    RoleChanged,
    audience="the person",
    headline=lambda p: f"Your role {p.role.replace('_', ' ')}, {p.scope_name}, ends at another time",
    body=lambda p: f"It counts until {p.expires_at}." if p.expires_at else "It counts until somebody revokes it.",
)
