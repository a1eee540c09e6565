"""Ending roles and memberships: one way for revoking by hand, reviews, archiving and merging; and telling of it."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.accounts.choices import UserKind
from apps.accounts.models import User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Blocked
from apps.teams import events
from apps.teams.choices import Role
from apps.teams.models import Membership, RoleGrant, Team

LAST_ADMIN = "This is the last platform admin. Give the role to somebody else first."


def is_last_admin(given: RoleGrant) -> bool:
    """Whether without this role nobody could administer the installation.

    Locks the admins' roles in the order of their keys, so that two cannot take the last two at the same moment.
    """
    if given.role != Role.PLATFORM_ADMIN:
        return False
    admins = RoleGrant.objects.in_force().filter(role=Role.PLATFORM_ADMIN, unit__isnull=True, team__isnull=True)
    admins = admins.filter(user__kind=UserKind.PERSON)
    found = list(admins.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))
    return given.pk in found and len(found) == 1


def end_grant(given: RoleGrant, *, actor: Actor, reason: str) -> RoleGrant:
    """Revoke a locked role from now on, record it and tell the person. Raises Blocked for the last platform admin."""
    if is_last_admin(given):
        raise Blocked(LAST_ADMIN)
    given.revoked_at = clock.now()
    given.save(update_fields=["revoked_at"])
    role_changed(events.ROLE_REVOKED, given, given.user, actor, reason)
    return given


def end_membership(membership: Membership, *, actor: Actor, reason: str = "") -> Membership:
    """End a locked membership now, record it and tell the person; that it was stays on record, one to come
    never begins."""
    at = clock.now()
    since = membership.valid.lower
    if since is not None and since > at:
        membership.valid = DateTimeTZRange(empty=True)
    else:
        # An empty range would forget when the membership was.
        until = max(at, since + timedelta(microseconds=1)) if since is not None else at
        membership.valid = DateTimeTZRange(since, until, "[)")
    membership.save(update_fields=["valid"])
    member_changed(events.MEMBER_REMOVED, membership.team, membership.user, at, actor, reason=reason)
    return membership


def member_changed(event: Any, team: Team, user: User, at: datetime, actor: Actor, *, reason: str = "") -> None:
    """Record that a membership changed, and tell the person."""
    payload = events.MemberChanged(team=team.name, team_uid=team.uid, user_uid=user.uid, at=at)
    audit.record(
        event, payload, actor=actor, subject_type="teams.team", subject_uid=team.uid, team_uid=team.uid, reason=reason
    )
    outbox.publish(event, payload, recipients=[user.pk], subject_uid=team.uid)


def role_changed(event: Any, given: RoleGrant, user: User, actor: Actor, reason: str) -> None:
    """Record that a role changed, and tell the person."""
    where, name, team_uid = where_of(given)
    payload = events.RoleChanged(
        role=given.role, scope=where, scope_name=name, user_uid=user.uid, expires_at=given.expires_at
    )
    audit.record(
        event,
        payload,
        actor=actor,
        subject_type="accounts.user",
        subject_uid=user.uid,
        team_uid=team_uid,
        reason=reason,
    )
    outbox.publish(event, payload, recipients=[user.pk], subject_uid=user.uid)


def where_of(given: RoleGrant) -> tuple[str, str, uuid.UUID | None]:
    """Return where a role counts: for programs, in words, and the team's uid where it is one."""
    if given.team is not None:
        return f"team:{given.team.slug}", given.team.name, given.team.uid
    if given.unit is not None:
        return f"unit:{given.unit.slug}", f"{given.unit.name} and below", None
    return "installation", "whole installation", None
