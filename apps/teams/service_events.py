"""What is told about accounts of programs: opaque ids in the hashed bytes, names in erasable notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class ServiceAccountChanged:
    """An account of a program was made, got another role, or ended. `team_uid` None: the platform keeps it."""

    user_uid: UUID
    team_uid: UUID | None
    role: str
    tokens_revoked: int = 0
    name: str = private(default="")


@dataclass(frozen=True, slots=True)
class ServiceTokenChanged:
    """A token of such an account was made, rotated (`replaces_uid` ends at `old_ends_at`), or revoked."""

    account_uid: UUID
    token_uid: UUID
    read_only: bool
    expires_at: datetime
    limited: bool
    permissions: list[str] = field(default_factory=list)
    replaces_uid: UUID | None = None
    old_ends_at: datetime | None = None
    name: str = private(default="")
    account_name: str = private(default="")
    path: str = ""


ACCOUNT_MADE = declare("teams.service.created", ServiceAccountChanged, audience="who keeps it")
ROLE_CHANGED = declare("teams.service.role_changed", ServiceAccountChanged, audience="who keeps it")
ACCOUNT_ENDED = declare("teams.service.ended", ServiceAccountChanged, audience="who keeps it")
TOKEN_MADE = declare("teams.service.token_created", ServiceTokenChanged, audience="auditors")
TOKEN_ROTATED = declare("teams.service.token_rotated", ServiceTokenChanged, audience="auditors")
TOKEN_REVOKED = declare("teams.service.token_revoked", ServiceTokenChanged, audience="auditors")
TOKEN_ENDS_SOON = declare(
    "teams.service.token_ends_soon",
    ServiceTokenChanged,
    audience="who keeps it",
    mail=True,
    headline=lambda p: f"The token “{p.name}” of {p.account_name} ends soon",
    body=lambda p: (
        f"It ends at {str(p.expires_at)[:16].replace('T', ' ')} UTC. Rotate it: the old one can stay in use beside the"
        " new one for some days."
    ),
    path=lambda p: p.path,
)
