"""Units, teams, membership and roles: every change of who may do what. Nobody raises their own rights."""

from __future__ import annotations

import re
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Max, Q

from apps import audit
from apps.accounts.choices import UserKind
from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.teams import events
from apps.teams.choices import SCOPES, Role
from apps.teams.ending import end_grant, end_membership, member_changed, role_changed
from apps.teams.gates import checked_reason
from apps.teams.gates import not_oneself as _not_oneself
from apps.teams.gates import person as _person
from apps.teams.gates import require as _require
from apps.teams.models import Membership, RoleGrant, Team, Unit

_SLUG = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
#: Words that stand in addresses beside slugs.
_RESERVED = frozenset({"new", "overview", "all"})
TEAM_SLUG_MAX = 40
UNIT_SLUG_MAX = 63


@transaction.atomic
def create_unit(name: str, slug: str, parent_id: int | None = None, cost_centre: str = "", *, actor: Actor) -> Unit:
    """Make a business unit below `parent_id` (None: at the top). Raises NotAllowed, NotVisible, Invalid."""
    person = _person(actor)
    parent = None
    if parent_id is not None:
        parent = Unit.objects.select_for_update(no_key=True).filter(pk=parent_id, archived_at__isnull=True).first()
        if parent is None:
            raise NotVisible
    _require(person, actor, "teams.unit.manage", parent)
    name, cost_centre = _name(name), cost_centre.strip()
    errors = {**_name_errors(name), **_slug_errors(slug, UNIT_SLUG_MAX), **_cost_centre_errors(cost_centre)}
    if "slug" not in errors and Unit.objects.filter(slug=slug).exists():
        errors["slug"] = "Another unit has this short name already."
    if errors:
        raise Invalid(errors)
    unit = Unit(name=name, slug=slug, parent=parent, cost_centre=cost_centre)
    _insert(unit, "Another unit has this short name already.")
    unit.path = [*(parent.path if parent is not None else []), unit.pk]
    unit.save(update_fields=["path"])
    audit.record(
        events.UNIT_CREATED,
        events.UnitCreated(slug=slug, parent_uid=parent.uid if parent else None, cost_centre=cost_centre),
        actor=actor,
        subject_type="teams.unit",
        subject_uid=unit.uid,
    )
    return unit


@transaction.atomic
def create_team(
    name: str, slug: str, unit_id: int, cost_centre: str, *, actor: Actor, colour: int | None = None
) -> Team:
    """Make a team in a unit. Its slug becomes the first part of its namespaces and never changes.

    `colour` is the team's index into the fixed chart palette; by default the next one.
    Raises NotAllowed, NotVisible, Invalid.
    """
    person = _person(actor)
    unit = Unit.objects.select_for_update(no_key=True).filter(pk=unit_id, archived_at__isnull=True).first()
    if unit is None:
        raise NotVisible
    _require(person, actor, "teams.unit.manage", unit)
    name, cost_centre = _name(name), cost_centre.strip()
    errors = {**_name_errors(name), **_slug_errors(slug, TEAM_SLUG_MAX), **_cost_centre_errors(cost_centre)}
    if not cost_centre:
        errors["cost_centre"] = "Enter the cost centre that pays for what the team uses."
    if "slug" not in errors and Team.objects.filter(slug=slug).exists():
        errors["slug"] = "Another team has this short name already."
    if errors:
        raise Invalid(errors)
    if colour is None:
        last = Team.objects.aggregate(last=Max("colour"))["last"]
        colour = 0 if last is None else last + 1
    team = Team(name=name, slug=slug, unit=unit, cost_centre=cost_centre, colour=colour)
    _insert(team, "Another team has this short name already.")
    audit.record(
        events.TEAM_CREATED,
        events.TeamCreated(slug=slug, unit_uid=unit.uid, cost_centre=cost_centre),
        actor=actor,
        subject_type="teams.team",
        subject_uid=team.uid,
        team_uid=team.uid,
    )
    return team


@transaction.atomic
def add_member(
    team_id: int, user_id: int, *, actor: Actor, since: datetime | None = None, until: datetime | None = None
) -> Membership:
    """Make a person a member of a team, from now on or between two moments to come.

    Raises NotAllowed (also for oneself), NotVisible, Invalid.
    """
    manager = _person(actor)
    team = _team(team_id)
    _require(manager, actor, "teams.member.manage", team)
    _not_oneself(actor, user_id, "Ask another lead or a platform admin to add you.")
    user = User.objects.filter(pk=user_id).first()
    at = clock.now()
    errors = _times_errors(at, since, until, names=("since", "until"))
    if user is None or not user.is_active or user.kind != UserKind.PERSON:
        errors["user"] = "Choose a person with an account in use."
    if errors or user is None:
        raise Invalid(errors)
    valid = DateTimeTZRange(since or at, until, "[)")
    there = Membership.objects.filter(team=team, user=user, valid__overlap=valid).order_by("valid").first()
    if there is not None and there.valid.lower is not None and there.valid.lower > at:
        raise Invalid({"user": f"{user.display_name} will be a member from {there.valid.lower:%Y-%m-%d %H:%M} UTC on."})
    if there is not None:
        raise Invalid({"user": f"{user.display_name} is a member of {team.name} already."})
    membership = Membership.objects.create(team=team, user=user, valid=valid)
    member_changed(events.MEMBER_ADDED, team, user, since or at, actor)
    return membership


@transaction.atomic
def remove_member(team_id: int, user_id: int, *, actor: Actor) -> Membership:
    """End a membership now; that it was stays on record. One that has not begun never will.

    Raises NotAllowed (also for oneself: leaving would lift the bar on deciding for the team), NotVisible, Conflict
    where the person is no member.
    """
    manager = _person(actor)
    team = _team(team_id)
    _require(manager, actor, "teams.member.manage", team)
    _not_oneself(actor, user_id, "Ask another lead or a platform admin to take you off the team.")
    at = clock.now()
    membership = (
        Membership.objects.filter(Q(valid__contains=at) | Q(valid__startswith__gt=at), team=team, user_id=user_id)
        .select_for_update(of=("self",), no_key=True).select_related("user", "team").order_by("valid").first()
    )  # fmt: skip
    if membership is None:
        raise Conflict("This person is no member of the team any more.", current={"status": "not a member"})
    return end_membership(membership, actor=actor)


@transaction.atomic
def grant_role(
    user_id: int,
    role: str,
    *,
    actor: Actor,
    unit_id: int | None = None,
    team_id: int | None = None,
    starts_at: datetime | None = None,
    expires_at: datetime | None = None,
    reason: str = "",
) -> RoleGrant:
    """Give a person a role for one team, for one unit and below, or (neither) for the installation.

    It counts from `starts_at` (None: now) until `expires_at` (None: until it is revoked).

    Raises NotAllowed where the actor lacks the permission, or gives it to themselves; NotVisible for a missing unit or
    team; Invalid for a role that does not exist in that scope, a time that is past, or one the person has already.
    """
    manager = _person(actor)
    team = _team(team_id) if team_id is not None else None
    unit = _unit(unit_id) if unit_id is not None else None
    _require(manager, actor, "teams.grant.manage", team or unit)
    _not_oneself(actor, user_id, "Nobody gives themselves a role: ask another platform admin.")
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    at = clock.now()
    errors = _times_errors(at, starts_at, expires_at, names=("starts_at", "expires_at"))
    if user is None or not user.is_active or user.kind != UserKind.PERSON:
        errors["user"] = "Choose a person with an account in use."
    errors |= _scope_errors(role, unit, team)
    reason = checked_reason(actor, reason, errors)
    if errors or user is None:
        raise Invalid(errors)
    same = RoleGrant.objects.filter(
        user=user, role=role, unit=unit, team=team, mapping__isnull=True, revoked_at__isnull=True
    )
    there = same.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=at)).first()
    if there is not None:
        begins = there.starts_at is not None and there.starts_at > at
        when = f" from {there.starts_at:%Y-%m-%d %H:%M} UTC on" if begins else " already"
        raise Invalid({"role": f"{user.display_name} has this role there{when}."})
    # One that has run out makes room for the new one.
    same.update(revoked_at=at)
    given = RoleGrant.objects.create(
        user=user,
        role=role,
        unit=unit,
        team=team,
        granted_by_id=actor.user_id,
        reason=reason,
        starts_at=starts_at,
        expires_at=expires_at,
    )
    role_changed(events.ROLE_GRANTED, given, user, actor, reason)
    return given


@transaction.atomic
def revoke_role(grant_id: int, *, actor: Actor, reason: str = "") -> RoleGrant:
    """Take a role away from now on. The last platform admin in force stays.

    Raises NotAllowed, NotVisible, Invalid without a reason, Conflict where it is revoked already, Blocked for the last
    platform admin.
    """
    manager = _person(actor)
    given = _grant(grant_id)
    _require(manager, actor, "teams.grant.manage", given.team or given.unit)
    reason = checked_reason(actor, reason)
    if given.revoked_at is not None:
        raise Conflict("This role is revoked already.", current={"status": "revoked"})
    return end_grant(given, actor=actor, reason=reason)


@transaction.atomic
def extend_role(grant_id: int, *, actor: Actor, expires_at: datetime | None, reason: str = "") -> RoleGrant:
    """Let a role in force end at another time (None: when it is revoked): the old one ends, a new one takes its place.

    Raises NotAllowed (also for one's own role), NotVisible, Invalid, Conflict where it has ended or a group gave it.
    """
    manager = _person(actor)
    given = _grant(grant_id)
    _require(manager, actor, "teams.grant.manage", given.team or given.unit)
    _not_oneself(actor, given.user_id, "Nobody extends their own role: ask another platform admin.")
    at, errors = clock.now(), dict[str, str]()
    if given.mapping_id is not None:
        raise Conflict("A directory group gives this role: it lasts as long as the person is in the group.")
    if given.revoked_at is not None or (given.expires_at is not None and given.expires_at <= at):
        raise Conflict("This role has ended: give it anew.", current={"status": "ended"})
    if not given.user.is_active:
        raise Conflict("The account is switched off.", current={"status": "deactivated"})
    if expires_at == given.expires_at:
        errors["expires_at"] = "This is when it ends already."
    else:
        errors |= _times_errors(at, None, expires_at, names=("starts_at", "expires_at"))
    reason = checked_reason(actor, reason, errors)
    if errors:
        raise Invalid(errors)
    given.revoked_at = at
    given.save(update_fields=["revoked_at"])
    follows = RoleGrant.objects.create(
        user=given.user,
        role=given.role,
        unit=given.unit,
        team=given.team,
        granted_by_id=actor.user_id,
        reason=reason,
        starts_at=given.starts_at if given.starts_at is not None and given.starts_at > at else None,
        expires_at=expires_at,
    )
    role_changed(events.ROLE_EXTENDED, follows, given.user, actor, reason)
    return follows


# -- the parts


def _team(team_id: int) -> Team:
    team = Team.objects.select_for_update(no_key=True).filter(pk=team_id, archived_at__isnull=True).first()
    if team is None:
        raise NotVisible
    return team


def _unit(unit_id: int) -> Unit:
    unit = Unit.objects.filter(pk=unit_id, archived_at__isnull=True).first()
    if unit is None:
        raise NotVisible
    return unit


def _insert(row: Unit | Team, message: str) -> None:
    """Insert a row with a slug; two at the same moment are told apart by the unique constraint."""
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        raise Invalid({"slug": message}) from error


def _name(name: str) -> str:
    return " ".join(name.split())


def _name_errors(name: str) -> dict[str, str]:
    if not name:
        return {"name": "Enter a name."}
    return {"name": "Use at most 200 characters."} if len(name) > 200 else {}


def _cost_centre_errors(cost_centre: str) -> dict[str, str]:
    return {"cost_centre": "Use at most 50 characters."} if len(cost_centre) > 50 else {}


def _slug_errors(slug: str, longest: int) -> dict[str, str]:
    if not _SLUG.fullmatch(slug):
        return {"slug": "Use small letters, digits and dashes; begin with a letter, do not end with a dash."}
    if len(slug) > longest:
        return {"slug": f"Use at most {longest} characters."}
    return {"slug": "This word has another meaning in addresses. Choose another one."} if slug in _RESERVED else {}


def _scope_errors(role: str, unit: Unit | None, team: Team | None) -> dict[str, str]:
    if role not in Role.values:
        return {"role": "Choose a role."}
    if role == Role.MEMBER:
        return {"role": "People become members on the team's page."}
    if unit is not None and team is not None:
        return {"scope": "Choose a team or a unit, not both."}
    where = "team" if team is not None else "unit" if unit is not None else "installation"
    if where not in SCOPES[role]:
        places = {"team": "one team", "unit": "one unit and below", "installation": "the whole installation"}
        allowed = " or ".join(places[one] for one in SCOPES[role])
        return {"scope": f"The role {Role(role).label} is given for {allowed}."}
    return {}


def _grant(grant_id: int) -> RoleGrant:
    given = RoleGrant.objects.select_for_update(of=("self",), no_key=True).filter(pk=grant_id).first()
    if given is None:
        raise NotVisible
    return given


def _times_errors(
    at: datetime, start: datetime | None, end: datetime | None, *, names: tuple[str, str]
) -> dict[str, str]:
    """Return what is wrong with a span to come, by the names of its two fields."""
    if start is not None and start < at:
        return {names[0]: "Choose a time in the future, or leave it empty: from now on."}
    if end is not None and end <= at:
        return {names[1]: "Choose a time in the future, or leave it empty."}
    if start is not None and end is not None and end <= start:
        return {names[1]: "Choose an end after the beginning."}
    return {}
