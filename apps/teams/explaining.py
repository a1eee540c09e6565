"""Why somebody may, or may not, do something somewhere: each role, membership and group, since when and until when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db.models import Q

from apps.accounts.choices import UserKind
from apps.accounts.models import User
from apps.core import clock
from apps.teams import scope
from apps.teams.choices import Role, roles_with
from apps.teams.models import Membership, RoleGrant, Team, Unit
from apps.teams.service_rules import FOR_PEOPLE

#: What ended longer ago explains nothing that anybody still remembers.
RECENT = timedelta(days=90)
#: So many near misses are named.
MISSES_MAX = 20


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a person holds a permission somewhere; with `but`: what would give it, and why it does not count there now.

    `source` says who, or which group of which directory, gave it.
    """

    text: str
    grant: RoleGrant | None = None
    since: datetime | None = None
    until: datetime | None = None
    source: str = ""
    but: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to "may this person do that there, and why?"."""

    permission: str
    allowed: bool
    reasons: tuple[Reason, ...]
    roles: tuple[str, ...]
    """The roles that hold the permission at all."""
    misses: tuple[Reason, ...] = ()
    """What would give it, but does not count: ended, not begun, somewhere else."""


def explain(user: User, permission: str, place: Team | Unit | None) -> Explanation:
    """Say whether and why `user` holds `permission` for a team, a unit, or (None) anywhere.

    The verdict is the resolver's own (`scope.resolve`); the reasons are the grants and memberships it stands on. Raises
    KeyError for an unknown permission.
    """
    roles = roles_with(permission)
    labels = tuple(Role(role).label for role in Role.values if role in roles)
    bar = ""
    if not user.is_active:
        bar = "the account is switched off: nothing it holds counts"
    elif user.kind == UserKind.SERVICE and permission in FOR_PEOPLE:
        bar = "it takes a person: a program's account never holds it"
    found = [*_grants(user, roles, place), *_memberships(user, roles, place)]
    reasons = tuple(one for one in found if not one.but and not bar)
    misses = [one if one.but else _barred(one, bar) for one in found if one.but or bar]
    if bar and not misses:
        misses = [Reason(f"{user.display_name}", but=bar)]
    # What the person may, not the token they happen to ask with.
    allowed = not bar and replace(scope.resolve(user.pk), only=None).holds(permission, place)
    return Explanation(permission, allowed, reasons, labels, tuple(misses[:MISSES_MAX]))


def _barred(reason: Reason, bar: str) -> Reason:
    return Reason(reason.text, reason.grant, reason.since, reason.until, reason.source, bar)


def _grants(user: User, roles: frozenset[str], place: Team | Unit | None) -> Iterator[Reason]:
    at = clock.now()
    recent = Q(revoked_at__isnull=True) | Q(revoked_at__gt=at - RECENT)
    held = RoleGrant.objects.filter(recent, user=user, role__in=roles)
    held = held.exclude(expires_at__lt=at - RECENT).order_by("role", "-created_at", "pk")
    for given in held.select_related("unit", "team", "granted_by", "mapping__provider"):
        since = given.starts_at or given.created_at
        but = ""
        if given.revoked_at is not None:
            but = f"revoked on {given.revoked_at:%Y-%m-%d %H:%M} UTC"
        elif given.expires_at is not None and given.expires_at <= at:
            but = f"it ended on {given.expires_at:%Y-%m-%d %H:%M} UTC"
        elif given.starts_at is not None and given.starts_at > at:
            but = f"it begins on {given.starts_at:%Y-%m-%d %H:%M} UTC"
        elif not _covers(given, place):
            but = "it does not reach there"
        yield Reason(_words(given), given, since, given.expires_at, _source(given), but)


def _memberships(user: User, roles: frozenset[str], place: Team | Unit | None) -> Iterator[Reason]:
    if Role.MEMBER not in roles:
        return
    at = clock.now()
    recent = Q(valid__endswith__isnull=True) | Q(valid__endswith__gte=at - RECENT)
    found = Membership.objects.filter(recent, user=user, valid__isempty=False)
    for one in found.select_related("team", "mapping__provider").order_by("team__name", "pk"):
        start, end = one.valid.lower, one.valid.upper
        but = ""
        if end is not None and end <= at:
            but = f"it ended on {end:%Y-%m-%d %H:%M} UTC"
        elif start is not None and start > at:
            but = f"it begins on {start:%Y-%m-%d %H:%M} UTC"
        elif place is not None and not (isinstance(place, Team) and one.team_id == place.pk):
            but = "it does not reach there"
        yield Reason(f"Member of the team {one.team.name}", None, start, end, _source(one), but)


def _covers(given: RoleGrant, place: Team | Unit | None) -> bool:
    if place is None or (given.team_id is None and given.unit_id is None):
        return True
    if given.team_id is not None:
        return isinstance(place, Team) and given.team_id == place.pk
    path: Sequence[int] = place.unit.path if isinstance(place, Team) else place.path
    return given.unit_id in path


def _words(given: RoleGrant) -> str:
    label = Role(given.role).label
    if given.team is not None:
        return f"{label} of the team {given.team.name}"
    if given.unit is not None:
        return f"{label} of {given.unit.name} and everything below"
    return f"{label} for the whole installation"


def _source(row: RoleGrant | Membership) -> str:
    if row.mapping is not None:
        return f"the group {row.mapping.group} of {row.mapping.provider.name}"
    if isinstance(row, RoleGrant) and row.granted_by is not None:
        return row.granted_by.display_name
    return ""


__all__ = ["Explanation", "Reason", "explain"]
