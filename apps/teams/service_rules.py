"""What accounts of programs may have: pure tables, imported by the scope resolver."""

from __future__ import annotations

from apps.teams.choices import PERMISSIONS, Role

#: What takes a person's judgement or speaks for people. A program never holds it, whatever role its account has.
FOR_PEOPLE: frozenset[str] = frozenset(
    {
        "accounts.user.impersonate",
        "approvals.emergency.request",
        "approvals.request.decide",
        "approvals.review.close",
        "approvals.standard.restore",
        "catalogue.exception.decide",
        "catalogue.exception.propose",
        "costs.statement.dispute",
        "insights.finding.decide",
        "provisioning.drift.decide",
        "teams.grant.manage",
        "teams.member.manage",
        "teams.review.answer",
        "teams.service.manage",
    }
)
#: Roles that an account of a team, and one of the platform, may have: never one that decides.
TEAM_ROLES: tuple[str, ...] = (Role.MEMBER, Role.TEAM_LEAD)
PLATFORM_ROLES: tuple[str, ...] = (Role.AUDITOR,)
#: A rotated token may stay in use beside the new one for at most so many days.
OVERLAP_MAX_DAYS = 14
KEY_MAX_DAYS = 365
KEYS_PER_ACCOUNT = 10


def roles_for(team: object | None) -> tuple[str, ...]:
    """Return the roles that an account of this team (None: of the platform) may have."""
    return TEAM_ROLES if team is not None else PLATFORM_ROLES


def counts(role: str, unit_id: int | None, team_id: int | None) -> bool:
    """Whether a role counts for a program at all, wherever it came from: units give programs nothing."""
    return unit_id is None and role in (TEAM_ROLES if team_id is not None else PLATFORM_ROLES)


def permissions_of(role: str) -> frozenset[str]:
    """Return what a program with `role` may do at most."""
    return PERMISSIONS.get(role, frozenset()) - FOR_PEOPLE


__all__ = [
    "FOR_PEOPLE",
    "KEYS_PER_ACCOUNT",
    "KEY_MAX_DAYS",
    "OVERLAP_MAX_DAYS",
    "PLATFORM_ROLES",
    "TEAM_ROLES",
    "counts",
    "permissions_of",
    "roles_for",
]
