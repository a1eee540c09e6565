"""What the rooms below ask about roles: whose account support may see the portal as, who holds more than a member."""

from __future__ import annotations

from django.db.models import Q

from apps.accounts.models import User
from apps.core import clock
from apps.teams.choices import Role
from apps.teams.models import RoleGrant

#: Roles of people whom support helps; whoever holds another one, or any for the installation, is left alone.
HELPED = (Role.MEMBER, Role.TEAM_LEAD, Role.UNIT_OWNER)


def roles_beyond_membership(user_id: int) -> bool:
    """Whether somebody holds, or will hold, any role beyond that of a member (one query)."""
    held = RoleGrant.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=clock.now()), user_id=user_id, revoked_at__isnull=True
    )
    return held.exclude(role=Role.MEMBER).exists()


def impersonation_bar(person: User) -> str:
    """Return why nobody may see the portal as this person, "" where support may (one query).

    Roles that begin later count already: who is about to audit is no less of an auditor.
    """
    if person.is_superuser:
        return "This person may start break-glass: nobody sees the portal as they do."
    held = RoleGrant.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=clock.now()), user=person, revoked_at__isnull=True
    )
    other = held.exclude(role__in=HELPED) | held.filter(unit__isnull=True, team__isnull=True)
    grant = other.order_by("pk").first()
    if grant is None:
        return ""
    return (
        f"This person is {Role(grant.role).label.lower()}: support sees the portal as members, leads and owners only."
    )
