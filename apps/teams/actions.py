"""Units, teams, membership and roles: every change of who may do what. Nobody raises their own rights."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Max

from apps import audit
from apps.accounts.models import User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.permissions import may
from apps.teams import events, scope
from apps.teams.choices import SCOPES, Role
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
def add_member(team_id: int, user_id: int, *, actor: Actor) -> Membership:
    """Make a person a member of a team from now on. Raises NotAllowed (also for oneself), NotVisible, Invalid."""
    manager = _person(actor)
    team = _team(team_id)
    _require(manager, actor, "teams.member.manage", team)
    _not_oneself(actor, user_id, "Ask another lead or a platform admin to add you.")
    user = User.objects.filter(pk=user_id).first()
    if user is None or not user.is_active:
        raise Invalid({"user": "Choose a person with an account in use."})
    if Membership.objects.current().filter(team=team, user=user).exists():
        raise Invalid({"user": f"{user.display_name} is a member of {team.name} already."})
    at = clock.now()
    membership = Membership.objects.create(team=team, user=user, valid=DateTimeTZRange(at, None, "[)"))
    _member_changed(events.MEMBER_ADDED, team, user, at, actor)
    return membership


@transaction.atomic
def remove_member(team_id: int, user_id: int, *, actor: Actor) -> Membership:
    """End a membership now; that it was stays on record.

    Raises NotAllowed (also for oneself: leaving would lift the bar on deciding for the team), NotVisible, Conflict
    where the person is no member.
    """
    manager = _person(actor)
    team = _team(team_id)
    _require(manager, actor, "teams.member.manage", team)
    _not_oneself(actor, user_id, "Ask another lead or a platform admin to take you off the team.")
    membership = (
        Membership.objects.current().select_for_update(of=("self",), no_key=True)
        .filter(team=team, user_id=user_id).select_related("user").first()
    )  # fmt: skip
    if membership is None:
        raise Conflict("This person is no member of the team any more.", current={"status": "not a member"})
    at = clock.now()
    since = membership.valid.lower
    # An empty range would forget when the membership was.
    until = max(at, since + timedelta(microseconds=1)) if since is not None else at
    membership.valid = DateTimeTZRange(since, until, "[)")
    membership.save(update_fields=["valid"])
    _member_changed(events.MEMBER_REMOVED, team, membership.user, at, actor)
    return membership


@transaction.atomic
def grant_role(
    user_id: int,
    role: str,
    *,
    actor: Actor,
    unit_id: int | None = None,
    team_id: int | None = None,
    expires_at: datetime | None = None,
    reason: str = "",
) -> RoleGrant:
    """Give a person a role for one team, for one unit and below, or (neither) for the installation.

    Raises NotAllowed where the actor lacks the permission, or gives it to themselves; NotVisible for a missing unit or
    team; Invalid for a role that does not exist in that scope, a time that is past, or one the person has already.
    """
    manager = _person(actor)
    team = _team(team_id) if team_id is not None else None
    unit = _unit(unit_id) if unit_id is not None else None
    _require(manager, actor, "teams.grant.manage", team or unit)
    _not_oneself(actor, user_id, "Nobody gives themselves a role: ask another platform admin.")
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    errors: dict[str, str] = {}
    if user is None or not user.is_active:
        errors["user"] = "Choose a person with an account in use."
    errors |= _scope_errors(role, unit, team)
    at = clock.now()
    if expires_at is not None and expires_at <= at:
        errors["expires_at"] = "Choose a time in the future, or leave it empty."
    if not actor.is_system and not reason.strip():
        errors["reason"] = "Say why, for the audit trail."
    if len(reason) > 500:
        errors["reason"] = "Use at most 500 characters."
    if errors or user is None:
        raise Invalid(errors)
    same = RoleGrant.objects.filter(user=user, role=role, unit=unit, team=team, revoked_at__isnull=True)
    if same.filter(pk__in=RoleGrant.objects.in_force().filter(user=user)).exists():
        raise Invalid({"role": f"{user.display_name} has this role there already."})
    # One that has run out makes room for the new one.
    same.update(revoked_at=at)
    given = RoleGrant.objects.create(
        user=user,
        role=role,
        unit=unit,
        team=team,
        granted_by_id=actor.user_id,
        reason=reason.strip(),
        expires_at=expires_at,
    )
    _role_changed(events.ROLE_GRANTED, given, user, actor, reason.strip())
    return given


@transaction.atomic
def revoke_role(grant_id: int, *, actor: Actor, reason: str = "") -> RoleGrant:
    """Take a role away from now on. The last platform admin in force stays.

    Raises NotAllowed, NotVisible, Invalid without a reason, Conflict where it is revoked already.
    """
    manager = _person(actor)
    given = RoleGrant.objects.select_for_update(of=("self",), no_key=True).filter(pk=grant_id).first()
    if given is None:
        raise NotVisible
    _require(manager, actor, "teams.grant.manage", given.team or given.unit)
    if not actor.is_system and not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    if given.revoked_at is not None:
        raise Conflict("This role is revoked already.", current={"status": "revoked"})
    if given.role == Role.PLATFORM_ADMIN:
        # Locked, so that two admins cannot take the last two grants at the same moment.
        admins = RoleGrant.objects.in_force().filter(role=Role.PLATFORM_ADMIN)
        others = list(admins.select_for_update(of=("self",), no_key=True).order_by("pk").values_list("user_id", "pk"))
        if not any(pk != given.pk for _, pk in others):
            raise Conflict("This is the last platform admin. Give the role to somebody else first.")
    given.revoked_at = clock.now()
    given.save(update_fields=["revoked_at"])
    _role_changed(events.ROLE_REVOKED, given, given.user, actor, reason.strip())
    return given


# -- the parts


def _person(actor: Actor) -> User | None:
    if actor.is_system:
        return None
    person = User.objects.filter(pk=actor.user_id or 0).first()
    if person is None:
        raise NotAllowed
    return person


def _require(person: User | None, actor: Actor, permission: str, obj: Any) -> None:
    """Raise NotAllowed unless the actor holds the permission there; without an object, for the whole installation."""
    if actor.is_system:
        return
    allowed = scope.of(person).everywhere(permission) if obj is None else may(person, permission, obj)
    if not allowed:
        raise NotAllowed(rule=permission)


def _not_oneself(actor: Actor, user_id: int, message: str) -> None:
    if not actor.is_system and user_id in (actor.user_id, actor.on_behalf_of):
        raise NotAllowed(message, rule="not_oneself")


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


def _member_changed(event: Any, team: Team, user: User, at: datetime, actor: Actor) -> None:
    payload = events.MemberChanged(team=team.name, team_uid=team.uid, user_uid=user.uid, at=at)
    audit.record(
        event, payload, actor=actor, subject_type="teams.team", subject_uid=team.uid, team_uid=team.uid
    )  # fmt: skip
    outbox.publish(event, payload, recipients=[user.pk], subject_uid=team.uid)


def _role_changed(event: Any, given: RoleGrant, user: User, actor: Actor, reason: str) -> None:
    where, name, team_uid = _where(given)
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


def _where(given: RoleGrant) -> tuple[str, str, uuid.UUID | None]:
    if given.team is not None:
        return f"team:{given.team.slug}", given.team.name, given.team.uid
    if given.unit is not None:
        return f"unit:{given.unit.slug}", f"{given.unit.name} and below", None
    return "installation", "whole installation", None
