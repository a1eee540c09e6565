"""What changes of units, teams and people tell: the trail and those concerned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class Changed:
    """A unit or team was changed, moved or archived; `before` and `after` hold the changed fields as they read.

    A field is name, cost_centre, unit (a team's unit or a unit's parent, by uid; "" is the top) or state.
    """

    kind: str
    slug: str
    before: dict[str, str]
    after: dict[str, str]
    effective_at: datetime
    path: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A change was planned, or taken back, or was not possible when its time came (`problem` says why)."""

    kind: str
    slug: str
    change_uid: UUID
    effective_at: datetime
    after: dict[str, str]
    problem: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """A file was imported: how many rows made or changed what."""

    kind: str
    rows: int
    made: int
    digest: str


@dataclass(frozen=True, slots=True)
class RoleEnding:
    """A role ends in so many days."""

    role: str
    scope_name: str
    user_uid: UUID
    expires_at: datetime
    days: int
    path: str


def _subject(payload: Changed | Planned) -> str:
    return f"{payload.kind} {payload.slug}"


UNIT_CHANGED = declare(
    "teams.unit.changed", Changed, audience="owners of the unit",
    headline=lambda p: f"The {_subject(p)} was changed", path=lambda p: p.path,
)  # fmt: skip
TEAM_CHANGED = declare(
    "teams.team.changed", Changed, audience="leads and owners of the team",
    headline=lambda p: f"The {_subject(p)} was changed", path=lambda p: p.path,
)  # fmt: skip
CHANGE_PLANNED = declare(
    "teams.change.planned", Planned, audience="leads and owners",
    headline=lambda p: f"The {_subject(p)} will be changed on {p.effective_at}", path=lambda p: p.path,
)  # fmt: skip
CHANGE_CANCELLED = declare(
    "teams.change.cancelled", Planned, audience="leads and owners",
    headline=lambda p: f"The planned change of the {_subject(p)} was cancelled", path=lambda p: p.path,
)  # fmt: skip
CHANGE_REFUSED = declare(
    "teams.change.refused", Planned, audience="whoever planned it", mail=True,
    headline=lambda p: f"The planned change of the {_subject(p)} was not possible",
    body=lambda p: p.problem, path=lambda p: p.path,
)  # fmt: skip
IMPORTED = declare("teams.people.imported", Imported, audience="auditors")
ROLE_ENDING = declare(
    "teams.role.ending", RoleEnding, audience="the person and whoever gives roles", mail=True,
    headline=lambda p: (
        f"The role {p.role.replace('_', ' ')}, {p.scope_name}, ends in {p.days} day{'s' * (p.days != 1)}"
    ),
    body=lambda p: f"It counts until {p.expires_at}. A platform admin can extend it.", path=lambda p: p.path,
)  # fmt: skip
