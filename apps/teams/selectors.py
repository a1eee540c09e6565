"""What pages and API read about units, teams and roles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q

from apps.accounts.models import User
from apps.core import clock
from apps.teams.choices import PERMISSIONS, Role
from apps.teams.explaining import Explanation, Reason, explain
from apps.teams.models import Membership, RoleGrant, Team, Unit


@dataclass(slots=True)
class UnitNode:
    """A unit in the tree, with what lies directly in it. `depth` counts from the top of what the person sees."""

    unit: Unit
    depth: int
    teams: list[Team] = field(default_factory=list)


def unit_tree(user: Any) -> list[UnitNode]:
    """Return the units the person may see, as a flattened tree in order of names, with their teams (two queries)."""
    units = list(Unit.objects.visible_to(user).filter(archived_at__isnull=True).order_by("name", "pk"))
    known = {unit.pk for unit in units}
    below: dict[int | None, list[Unit]] = {}
    for unit in units:
        below.setdefault(unit.parent_id if unit.parent_id in known else None, []).append(unit)
    teams: dict[int, list[Team]] = {}
    for team in Team.objects.visible_to(user).filter(unit__in=known, archived_at__isnull=True).order_by("name", "pk"):
        teams.setdefault(team.unit_id, []).append(team)
    found: list[UnitNode] = []
    waiting = [(unit, 0) for unit in reversed(below.get(None, []))]
    while waiting:
        unit, depth = waiting.pop()
        found.append(UnitNode(unit, depth, teams.get(unit.pk, [])))
        waiting += [(child, depth + 1) for child in reversed(below.get(unit.pk, []))]
    return found


def teams_with_members(user: Any, unit: Unit) -> list[Team]:
    """Return the visible teams directly in `unit`, each with `member_count`."""
    current = Q(memberships__valid__contains=clock.now())
    teams = Team.objects.visible_to(user).filter(unit=unit, archived_at__isnull=True)
    return list(teams.annotate(member_count=Count("memberships", filter=current)).order_by("name", "pk"))


@dataclass(frozen=True, slots=True)
class TeamPerson:
    """A person of a team: as member since when, and with which roles there."""

    user: User
    since: Any
    roles: tuple[str, ...]
    is_member: bool


def people_of(team: Team) -> list[TeamPerson]:
    """Return the team's members and the holders of roles on it, by name (two queries)."""
    found: dict[int, tuple[User, Any, list[str], bool]] = {}
    memberships = Membership.objects.current().filter(team=team).select_related("user")
    for membership in memberships:
        found[membership.user_id] = (membership.user, membership.valid.lower, [], True)
    for given in RoleGrant.objects.in_force().filter(team=team).select_related("user"):
        entry = found.setdefault(given.user_id, (given.user, given.created_at, [], False))
        entry[2].append(Role(given.role).label)
    people = [TeamPerson(user, since, tuple(roles), member) for user, since, roles, member in found.values()]
    return sorted(people, key=lambda person: (person.user.display_name.lower(), person.user.pk))


def coming_to(team: Team) -> list[Membership]:
    """Return the memberships of a team that have not begun, the next one first."""
    found = Membership.objects.filter(team=team, valid__startswith__gt=clock.now()).select_related("user")
    return list(found.order_by("valid", "pk"))


def archived_in(user: Any, unit: Unit) -> list[Team | Unit]:
    """Return the visible archived teams and units directly in a unit, by name (two queries)."""
    teams = Team.objects.visible_to(user).filter(unit=unit, archived_at__isnull=False)
    units = Unit.objects.visible_to(user).filter(parent=unit, archived_at__isnull=False)
    return [*units.order_by("name", "pk"), *teams.order_by("name", "pk")]


def grants_of(user: User) -> list[RoleGrant]:
    """Return the roles in force of a person."""
    held = RoleGrant.objects.in_force().filter(user=user).select_related("unit", "team", "granted_by")
    return list(held.order_by("role", "pk"))


def grants_to_come(user: User) -> list[RoleGrant]:
    """Return the roles of a person that have not begun, the next one first."""
    found = RoleGrant.objects.filter(user=user, revoked_at__isnull=True, starts_at__gt=clock.now())
    return list(found.select_related("unit", "team").order_by("starts_at", "pk"))


def memberships_of(user: User) -> list[Membership]:
    """Return the present memberships of a person."""
    return list(Membership.objects.current().filter(user=user).select_related("team").order_by("team__name", "pk"))


def permissions_by_room() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return every permission as grouped choices, in words: `quotas.request.create` → "create request"."""
    rooms: dict[str, list[tuple[str, str]]] = {}
    for permission in sorted(frozenset().union(*PERMISSIONS.values())):
        room, noun, verb = permission.split(".")
        rooms.setdefault(room.capitalize(), []).append((permission, f"{verb} {noun}"))
    return sorted(rooms.items())


__all__ = [
    "Explanation",
    "Reason",
    "TeamPerson",
    "UnitNode",
    "archived_in",
    "coming_to",
    "explain",
    "grants_of",
    "grants_to_come",
    "memberships_of",
    "people_of",
    "permissions_by_room",
    "teams_with_members",
    "unit_tree",
]
