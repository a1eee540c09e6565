"""The one scope resolver: what a person may do where. Everything that filters or asks goes through here.

Two things narrow what the roles say: a token that carries some permissions only, and being the account of a program.

Cost: one query a request (grants and memberships), cached on the user object; one more where a page asks for units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import Q

from apps.accounts.choices import UserKind
from apps.core import clock, limits
from apps.core.permissions import Reach
from apps.teams.choices import PERMISSIONS, Role, roles_with
from apps.teams.service_rules import FOR_PEOPLE, counts

if TYPE_CHECKING:
    from apps.teams.models import Unit


@dataclass(frozen=True, slots=True)
class Scopes:
    """A person's roles by scope: of the installation, role → unit ids (with everything below), role → team ids."""

    user_id: int | None
    installation: frozenset[str] = frozenset()
    units: dict[str, frozenset[int]] = field(default_factory=dict)
    teams: dict[str, frozenset[int]] = field(default_factory=dict)
    #: The first moment at which one of the roles ends.
    until: datetime | None = None
    #: The permissions of the token that this request came with; None: nothing narrows the roles.
    only: frozenset[str] | None = None
    #: The account of a program: what takes a person's judgement is not for it, whatever its role says.
    service: bool = False
    #: What `_tree` read, so that a page asks for its units once.
    _units: dict[int, Unit] = field(default_factory=dict, compare=False, repr=False)
    #: (team, units) → whether the team lies below one of them: pages ask several permissions for one row.
    _known: dict[tuple[int, frozenset[int]], bool] = field(default_factory=dict, compare=False, repr=False)
    #: Permission → where it is held: the sidebar asks thirty, and the page some of them again. Never carried over to a
    #: copy, which may be under another limit.
    _reached: dict[str, tuple[bool, frozenset[int], frozenset[int]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def _tree(self) -> dict[int, Unit]:
        """Return every unit that any of the person's roles reaches, archived ones too: one query a request."""
        from apps.teams.models import Unit

        if not self._units:
            found = Unit.objects.order_by("pk")
            if not self.installation:
                found = found.filter(path__overlap=sorted(set().union(*self.units.values())))
            self._units.update((unit.pk, unit) for unit in found)
        return self._units

    def units_with(self, permission: str) -> list[Unit]:
        """Return the units at or below one in which the person holds `permission`, archived ones too."""
        everywhere, units, _ = self._reach(permission)
        if not everywhere and not units:
            return []
        return [unit for unit in self._tree().values() if everywhere or not units.isdisjoint(unit.path)]

    def _below(self, units: frozenset[int]) -> frozenset[int]:
        return frozenset(pk for pk, unit in self._tree().items() if not units.isdisjoint(unit.path))

    def _reach(self, permission: str) -> tuple[bool, frozenset[int], frozenset[int]]:
        known = self._reached.get(permission)
        if known is None:
            known = self._reached[permission] = self._find_reach(permission)
        return known

    def _find_reach(self, permission: str) -> tuple[bool, frozenset[int], frozenset[int]]:
        roles = roles_with(permission)
        if self.barred(permission):
            return False, frozenset(), frozenset()
        everywhere = bool(self.installation & roles)
        units = frozenset[int]().union(*(ids for role, ids in self.units.items() if role in roles))
        teams = frozenset[int]().union(*(ids for role, ids in self.teams.items() if role in roles))
        return everywhere, units, teams

    def barred(self, permission: str) -> bool:
        """Whether no role counts for `permission`: the token does not carry it, or a program may never have it."""
        return (self.only is not None and permission not in self.only) or (self.service and permission in FOR_PEOPLE)

    def anywhere(self, permission: str) -> bool:
        """Whether the person holds `permission` in any scope."""
        everywhere, units, teams = self._reach(permission)
        return everywhere or bool(units) or bool(teams)

    def everywhere(self, permission: str) -> bool:
        """Whether the person holds `permission` for the whole installation."""
        return self._reach(permission)[0]

    def team_filter(self, permission: str, *, field: str = "team") -> Q:
        """Return the condition "belongs to a team in which the person holds `permission`".

        `field` is the lookup path to the team (e.g. `"workspace__team"`); `""` where the row is the team itself.
        Subqueries on ids, never chained joins, so that no row appears twice or through a foreign grant.
        """
        from apps.teams.models import Team

        everywhere, units, teams = self._reach(permission)
        if everywhere:
            return Q()
        if not units and not teams:
            return Q(pk__in=[])
        allowed = Q(pk__in=teams)
        if units:
            allowed |= Q(unit__path__overlap=list(units))
        ids = Team.objects.filter(allowed).values("pk")
        return Q(**{f"{field}__in" if field else "pk__in": ids})

    def unit_filter(self, permission: str, *, field: str = "") -> Q:
        """Return the condition "is a unit at or below one in which the person holds `permission`"."""
        everywhere, units, _ = self._reach(permission)
        if everywhere:
            return Q()
        path = f"{field}__path__overlap" if field else "path__overlap"
        return Q(**{path: list(units)}) if units else Q(pk__in=[])

    def row_filter(self, permission: str, *, team: str, unit: str) -> Q:
        """Return the condition for rows that carry their own copies `team` (id) and `unit` (id) at that time.

        Facts, charges and statements are seen by the team and unit *on the row* (design §3), which need no live owner.
        """
        everywhere, units, teams = self._reach(permission)
        if everywhere:
            return Q()
        condition = Q(pk__in=[]) if not units and not teams else Q(**{f"{team}__in": sorted(teams)})
        if units:
            condition |= Q(**{f"{unit}__in": sorted(self._below(units))})
        return condition

    def reach_of_rows(self, permission: str) -> tuple[bool, list[int], list[int]]:
        """Return (everywhere, unit ids with all below, team ids): `row_filter` for statements written by hand."""
        everywhere, units, teams = self._reach(permission)
        return everywhere, sorted(self._below(units)) if units and not everywhere else [], sorted(teams)

    def holds(self, permission: str, obj: Any | None) -> bool:
        """Whether the person holds `permission` for `obj` (by its `scope_team_id` or `scope_unit_id`)."""
        from apps.teams.models import Team

        everywhere, units, teams = self._reach(permission)
        if everywhere:
            return True
        if obj is None:
            return bool(units) or bool(teams)
        team_id = getattr(obj, "scope_team_id", None)
        unit_id = getattr(obj, "scope_unit_id", None)
        if team_id is not None:
            if team_id in teams:
                return True
            if not units:
                return False
            key = (int(team_id), units)
            if key not in self._known:
                self._known[key] = Team.objects.filter(pk=team_id, unit__path__overlap=list(units)).exists()
            return self._known[key]
        if unit_id is not None:
            return bool(units) and unit_id in self._below(units)
        return False

    def roles(self) -> set[str]:
        """Every role the person holds anywhere."""
        return set(self.installation) | set(self.units) | set(self.teams)


NOBODY = Scopes(user_id=None)
#: How long one request may go on with the scopes it read; what expires before that is dead at once.
_FRESH = timedelta(seconds=2)


def of(user: Any) -> Scopes:
    """Return the person's scopes at this moment, cached on the user object for the request."""
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return NOBODY
    cached: tuple[Any, Scopes] | None = getattr(user, "_commons_scopes", None)
    at = clock.now()
    if (
        cached is not None
        and abs(at - cached[0]) < _FRESH
        and (cached[1].until is None or at < cached[1].until)
        and cached[1].only == limits.limit_of(user.pk)
    ):
        return cached[1]
    scopes = resolve(user.pk)
    user._commons_scopes = (at, scopes)
    return scopes


# What `RoleGrant.objects.in_force()` and `Membership.objects.current()` say, by hand: every request asks it, and the
# ORM takes ten times as long to write the statement as the database to answer it. A program does not outlive its team.
_HELD = """
SELECT g.role, g.unit_id, g.team_id, g.expires_at, u.kind
FROM teams_rolegrant g JOIN accounts_user u ON u.id = g.user_id LEFT JOIN teams_team t ON t.id = g.team_id
WHERE g.user_id = %(user)s AND u.is_active AND g.revoked_at IS NULL
  AND (g.expires_at IS NULL OR g.expires_at > %(at)s) AND (g.starts_at IS NULL OR g.starts_at <= %(at)s)
  AND (u.kind <> 'service' OR t.archived_at IS NULL)
UNION ALL
SELECT %(member)s, NULL, m.team_id, upper(m.valid), u.kind
FROM teams_membership m JOIN accounts_user u ON u.id = m.user_id
WHERE m.user_id = %(user)s AND m.valid @> %(at)s
"""


def resolve(user_id: int) -> Scopes:
    """Read a person's grants and memberships in force now (one query), under the limit of the request's token."""
    installation: set[str] = set()
    units: dict[str, set[int]] = {}
    teams: dict[str, set[int]] = {}
    ends: list[datetime] = []
    service = False
    with connection.cursor() as cursor:
        cursor.execute(_HELD, {"user": user_id, "member": str(Role.MEMBER), "at": clock.now()})
        held = cursor.fetchall()
    for role, unit_id, team_id, end, kind in held:
        if kind == UserKind.SERVICE:
            service = True
            if not counts(role, unit_id, team_id):
                continue
        if team_id is not None:
            teams.setdefault(role, set()).add(team_id)
        elif unit_id is not None:
            units.setdefault(role, set()).add(unit_id)
        else:
            installation.add(role)
        if end is not None:
            ends.append(end)
    return Scopes(
        user_id=user_id,
        installation=frozenset(installation),
        units={role: frozenset(ids) for role, ids in units.items()},
        teams={role: frozenset(ids) for role, ids in teams.items()},
        until=min(ends, default=None),
        only=limits.limit_of(user_id),
        service=service,
    )


def may(user: Any, permission: str, obj: Any | None) -> bool:
    """The resolver behind `core.permissions.may`."""
    return of(user).holds(permission, obj)


def reach(user: Any, permission: str) -> Reach:
    """The resolver behind `core.permissions.reach`."""
    from apps.teams.models import Team

    scopes = of(user)
    if scopes.everywhere(permission):
        return Reach(everywhere=True)
    if not scopes.anywhere(permission):
        return Reach(everywhere=False)
    found = Team.objects.filter(scopes.team_filter(permission, field="")).values_list("uid", flat=True)
    return Reach(everywhere=False, team_uids=frozenset(found))


def holders(permission: str, *, team_id: int | None = None, unit_id: int | None = None) -> list[int]:
    """Return the ids of active persons who hold `permission` for the team, the unit, or the installation.

    For a team: grants on the team, on any unit above it, and installation-wide ones. Accounts of programs are left
    out: nobody waits for them, and they read no mail.
    """
    from apps.teams.models import Membership, RoleGrant, Team, Unit

    roles = roles_with(permission)
    where = Q(unit__isnull=True, team__isnull=True)
    path: list[int] = []
    if team_id is not None:
        path = Team.objects.values_list("unit__path", flat=True).get(pk=team_id)
        where |= Q(team_id=team_id)
    elif unit_id is not None:
        path = Unit.objects.values_list("path", flat=True).get(pk=unit_id)
    if path:
        where |= Q(unit_id__in=path)
    grants = RoleGrant.objects.in_force().filter(where, role__in=roles, user__kind=UserKind.PERSON)
    ids = set(grants.values_list("user_id", flat=True))
    if team_id is not None and Role.MEMBER in roles:
        members_now = Membership.objects.current().filter(team_id=team_id)
        people = members_now.filter(user__is_active=True, user__kind=UserKind.PERSON)
        ids |= set(people.values_list("user_id", flat=True))
    return sorted(ids)


def holders_of_role(role: str, *, unit_id: int | None = None, team_id: int | None = None) -> list[int]:
    """Return the ids of active persons with `role` granted exactly there (both None: installation-wide)."""
    from apps.teams.models import RoleGrant

    where = Q(unit__isnull=True) if unit_id is None else Q(unit_id=unit_id)
    where &= Q(team__isnull=True) if team_id is None else Q(team_id=team_id)
    found = RoleGrant.objects.in_force().filter(where, role=role, user__kind=UserKind.PERSON)
    return sorted(set(found.values_list("user_id", flat=True)))


def members(team_id: int) -> set[int]:
    """Return the ids of a team's members and leads now: the beneficiaries of what the team receives."""
    from apps.teams.models import Membership, RoleGrant

    ids = set(Membership.objects.current().filter(team_id=team_id).values_list("user_id", flat=True))
    return ids | set(RoleGrant.objects.in_force().filter(team_id=team_id).values_list("user_id", flat=True))


__all__ = ["NOBODY", "PERMISSIONS", "Scopes", "holders", "holders_of_role", "may", "members", "of", "reach", "resolve"]
