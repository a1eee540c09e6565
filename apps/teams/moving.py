"""The parts of a change of a unit or team: what is possible, what hours before keep, and what is written."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Max, Q

from apps.accounts import merging
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Blocked, NotAllowed
from apps.teams import ending, ports
from apps.teams.models import (
    FormerPlace,
    GroupMapping,
    Membership,
    PlannedChange,
    RoleGrant,
    ServiceAccount,
    Team,
    Unit,
)

if TYPE_CHECKING:
    from apps.teams.changes import Wish


def lock_tree() -> None:
    """Lock all units in the order of their keys: two moves at once must not make a circle."""
    list(Unit.objects.select_for_update().order_by("pk").values_list("pk", flat=True))


def cleaned(subject: Team | Unit, wish: Wish) -> tuple[Wish, dict[str, str]]:
    """Return the wish without what is so already, and what is wrong with it, by field."""
    from apps.teams.changes import Wish

    errors: dict[str, str] = {}
    name = None if wish.name is None else " ".join(wish.name.split())
    centre = None if wish.cost_centre is None else wish.cost_centre.strip()
    if name is not None and not 0 < len(name) <= 200:
        errors["name"] = "Enter a name of at most 200 characters."
    if centre is not None and len(centre) > 50:
        errors["cost_centre"] = "Use at most 50 characters."
    if centre == "" and isinstance(subject, Team):
        errors["cost_centre"] = "Enter the cost centre that pays for what the team uses."
    above = subject.unit_id if isinstance(subject, Team) else subject.parent_id
    name = None if name == subject.name else name
    centre = None if centre == subject.cost_centre else centre
    unit_id = None if wish.unit_id == above else wish.unit_id
    to_top = wish.to_top and isinstance(subject, Unit) and above is not None and unit_id is None
    if not errors and name is None and centre is None and unit_id is None and not to_top and not wish.archive:
        errors[""] = "Nothing would change."
    return Wish(name, centre, unit_id, to_top, wish.archive), errors


def fields(subject: Team | Unit, wish: Wish) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields that change, as they read before and after."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    if wish.name is not None:
        before["name"], after["name"] = subject.name, wish.name
    if wish.cost_centre is not None:
        before["cost_centre"], after["cost_centre"] = subject.cost_centre, wish.cost_centre
    if wish.unit_id is not None or wish.to_top:
        above = subject.unit if isinstance(subject, Team) else subject.parent
        goal = Unit.objects.filter(pk=wish.unit_id or 0).first()
        before["unit"] = str(above.uid) if above is not None else ""
        after["unit"] = str(goal.uid) if goal is not None else ""
    if wish.archive:
        before["state"], after["state"] = "active", "archived"
    return before, after


def check_place(subject: Team | Unit, goal: Unit | None) -> None:
    """Raise Blocked where a unit would lie below itself."""
    if isinstance(subject, Unit) and goal is not None and subject.pk in goal.path:
        raise Blocked(f"{goal.name} lies below {subject.name}: a unit cannot be part of itself.")


def check_own_rights(subject: Team | Unit, goal: Unit | None, mover_id: int | None) -> None:
    """Raise NotAllowed where the move would put the subject under a unit role of whoever asks for it.

    Through a move, too, nobody raises their own rights: somebody else has to move it there.
    """
    if mover_id is None or goal is None:
        return
    now = set(subject.unit.path if isinstance(subject, Team) else subject.path)
    accounts = merging.accounts_of(mover_id)
    own = RoleGrant.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=clock.now()),
        user__in=accounts, unit__in=set(goal.path) - now, revoked_at__isnull=True,
    )  # fmt: skip
    if own.exists():
        raise NotAllowed(
            "You hold a role for the unit it would move to: nobody widens their own reach. Ask another platform admin.",
            rule="not_oneself",
        )


def objections(subject: Team | Unit) -> list[str]:
    """Return in sentences what has to be seen to before a team or unit can be archived."""
    found: list[str] = []
    if isinstance(subject, Unit):
        children = subject.children.filter(archived_at__isnull=True).count()
        teams = subject.teams.filter(archived_at__isnull=True).count()
        if children:
            found.append(f"{children} unit{'s' * (children != 1)} below: archive or move first.")
        if teams:
            found.append(f"{teams} team{'s' * (teams != 1)} in it: archive or move first.")
        coming = PlannedChange.objects.filter(new_unit=subject, status="planned").count()
        if coming:
            found.append(f"{coming} planned move{'s' * (coming != 1)} into it: cancel first.")
        where = Q(unit=subject)
    else:
        found += ports.objections_to_archiving(subject)
        programs = ServiceAccount.objects.filter(team=subject, ended_at__isnull=True).count()
        if programs:
            found.append(f"{programs} service account{'s' * (programs != 1)}: end first.")
        where = Q(team=subject)
    groups = GroupMapping.objects.in_force().filter(where).count()
    if groups:
        found.append(f"{groups} directory group{'s' * (groups != 1)} give roles here: end the mapping first.")
    return found


def remember(subject: Team | Unit, at: datetime) -> int:
    """Write down what hours before `at` carry of every team the change touches; returns how many teams."""
    teams = Team.objects.select_related("unit")
    if isinstance(subject, Team):
        teams = teams.filter(pk=subject.pk)
    else:
        teams = teams.filter(unit__path__contains=[subject.pk])
    rows = FormerPlace.objects.filter(team__in=teams.values("pk")).order_by()
    last: dict[int, datetime] = dict(rows.values_list("team_id").annotate(end=Max("valid__endswith")))
    places = [
        FormerPlace(
            team=team,
            valid=DateTimeTZRange(last.get(team.pk), at, "[)"),
            unit=team.unit,
            unit_path=list(team.unit.path),
            cost_centre=team.cost_centre or team.unit.cost_centre,
            team_name=team.name,
            unit_name=team.unit.name,
        )
        for team in teams.order_by("pk")
        # Two changes in the same instant leave nothing between them.
        if last.get(team.pk) is None or last[team.pk] < at
    ]
    return len(FormerPlace.objects.bulk_create(places))


def empty(subject: Team | Unit, actor: Actor, reason: str) -> None:
    """End every role and membership that counts for an archived team or unit, with those to come."""
    if isinstance(subject, Unit):
        grants = RoleGrant.objects.filter(unit=subject, revoked_at__isnull=True)
    else:
        grants = RoleGrant.objects.filter(team=subject, revoked_at__isnull=True)
        at = clock.now()
        members = Membership.objects.filter(Q(valid__contains=at) | Q(valid__startswith__gt=at), team=subject)
        for membership in members.select_for_update(of=("self",)).select_related("user", "team").order_by("pk"):
            ending.end_membership(membership, actor=actor, reason=reason)
    for given in grants.select_for_update(of=("self",)).order_by("pk"):
        ending.end_grant(given, actor=actor, reason=reason)


def write(subject: Team | Unit, wish: Wish, at: datetime) -> None:
    """Write the wish into a locked row; a unit takes everything below along."""
    if wish.name is not None:
        subject.name = wish.name
    if wish.cost_centre is not None:
        subject.cost_centre = wish.cost_centre
    if wish.archive:
        subject.archived_at = at
    written = ["name", "cost_centre", "archived_at"]
    if isinstance(subject, Team):
        if wish.unit_id is not None:
            subject.unit = Unit.objects.get(pk=wish.unit_id)
            written.append("unit")
    elif wish.unit_id is not None or wish.to_top:
        goal = Unit.objects.get(pk=wish.unit_id) if wish.unit_id is not None else None
        written += ["parent", "path"]
        _rehang(subject, goal)
    subject.bump(*written)


def _rehang(unit: Unit, goal: Unit | None) -> None:
    cut = len(unit.path) - 1
    way = [] if goal is None else list(goal.path)
    below = list(Unit.objects.filter(path__contains=[unit.pk]).exclude(pk=unit.pk))
    for one in below:
        one.path = [*way, *one.path[cut:]]
    Unit.objects.bulk_update(below, ["path"])
    unit.parent = goal
    unit.path = [*way, unit.pk]
