"""Making and ending mappings of groups to roles, and leaving to a group again what was taken away by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction

from apps import audit
from apps.accounts.models import IdentityProvider, User
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible
from apps.teams import group_roles, mapping_events, scope
from apps.teams.choices import SCOPES, Role
from apps.teams.models import GroupMapping, Membership, RoleGrant, Team, Unit

MANAGE = "teams.mapping.manage"
_PLACES = {"team": "one team", "unit": "one unit and below", "installation": "the whole installation"}


@dataclass(frozen=True, slots=True)
class Draft:
    """A mapping that does not exist yet."""

    provider_id: int
    group: str
    role: str
    unit_id: int | None = None
    team_id: int | None = None


@transaction.atomic
def create_mapping(draft: Draft, *, actor: Actor, reason: str) -> GroupMapping:
    """Give a role to a group of a provider from now on; everybody in the group gets it in the same transaction.

    It gives nothing to whoever makes it: nobody raises their own rights. Raises NotAllowed, NotVisible for a missing
    provider, unit or team, Invalid for a role that does not exist there, or for a mapping that exists already.
    """
    _require(actor)
    mapping = checked(draft)
    errors: dict[str, str] = {}
    if not reason.strip():
        errors["reason"] = "Say why, for the audit trail."
    elif len(reason) > 500:
        errors["reason"] = "Use at most 500 characters."
    if errors:
        raise Invalid(errors)
    mapping.made_by_id, mapping.reason = actor.user_id, reason.strip()
    try:
        with transaction.atomic():
            mapping.save(force_insert=True)
    except IntegrityError as error:
        raise Invalid({"group": "This group has this role there already."}) from error
    moved = group_roles.sync_many(actor=actor)
    _record(mapping_events.MAPPING_CREATED, mapping, moved, actor, reason.strip())
    return mapping


@transaction.atomic
def end_mapping(mapping_id: int, *, actor: Actor, reason: str, expected_version: int | None = None) -> GroupMapping:
    """Take a role from a group: everybody who holds it by this mapping loses it now.

    Raises NotAllowed, NotVisible, Invalid without a reason, Conflict where it has ended or moved on, Blocked where
    nobody else would administer the portal.
    """
    _require(actor)
    found = GroupMapping.objects.select_for_update(of=("self",), no_key=True)
    mapping = found.select_related("provider", "unit", "team").filter(pk=mapping_id).first()
    if mapping is None:
        raise NotVisible
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    if mapping.ended_at is not None:
        raise Conflict("This mapping has ended already.", current={"status": "ended"})
    if expected_version is not None and expected_version != mapping.version:
        raise Conflict("This mapping has changed since you read it.", current={"version": mapping.version})
    holders = _holders(mapping)
    if mapping.role == Role.PLATFORM_ADMIN and _nobody_else(mapping):
        raise Blocked("Without this group nobody would be platform admin. Give the role to somebody by hand first.")
    mapping.ended_at = clock.now()
    mapping.bump("ended_at")
    group_roles.sync_many(holders, actor=actor)
    _record(mapping_events.MAPPING_ENDED, mapping, len(holders), actor, reason.strip())
    return mapping


@transaction.atomic
def restore_role(mapping_id: int, user_id: int, *, actor: Actor, reason: str) -> GroupMapping:
    """Leave a role that was taken away by hand to the person's group again.

    Raises NotAllowed (also for oneself), NotVisible, Invalid without a reason, Conflict where nothing was taken.
    """
    _require(actor)
    mapping = GroupMapping.objects.select_related("provider", "unit", "team").filter(pk=mapping_id).first()
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if mapping is None or user is None:
        raise NotVisible
    if user_id in (actor.user_id, actor.on_behalf_of):
        raise NotAllowed("Nobody gives themselves a role: ask another platform admin.", rule="not_oneself")
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    standing = group_roles.standing_of([user.pk]).get(user.pk, group_roles.Standing())
    mine = [one for one in standing.withheld if one.mapping_id == mapping.pk]
    if mapping.ended_at is not None or not mine:
        raise Conflict("Nothing of this group is kept from the person.", current={"status": "nothing withheld"})
    group_roles.release(user, mine)
    payload = mapping_events.RoleRestored(
        mapping_uid=mapping.uid, user_uid=user.uid, role=mapping.role, scope=group_roles.place_of(mapping)[0]
    )
    audit.record(
        mapping_events.ROLE_RESTORED, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid,
        reason=reason.strip(),
    )  # fmt: skip
    group_roles.sync_groups(user.pk, actor=actor)
    return mapping


def checked(draft: Draft) -> GroupMapping:
    """Return the mapping that a draft would be, unsaved. Raises NotVisible, Invalid."""
    provider = IdentityProvider.objects.filter(pk=draft.provider_id, archived_at__isnull=True).first()
    unit = team = None
    if draft.unit_id is not None:
        unit = Unit.objects.filter(pk=draft.unit_id, archived_at__isnull=True).first()
    if draft.team_id is not None:
        team = Team.objects.filter(pk=draft.team_id, archived_at__isnull=True).first()
    if provider is None or (draft.unit_id and unit is None) or (draft.team_id and team is None):
        raise NotVisible
    errors: dict[str, str] = {}
    group = draft.group.strip()
    if not group:
        errors["group"] = "Name the group, exactly as the provider writes it."
    elif len(group) > 255:
        errors["group"] = "Use at most 255 characters."
    elif "\x00" in group:
        errors["group"] = "Leave the NUL character out."
    if draft.role not in Role.values:
        errors["role"] = "Choose a role."
    else:
        where = "team" if team is not None else "unit" if unit is not None else "installation"
        if unit is not None and team is not None:
            errors["scope"] = "Choose a team or a unit, not both."
        elif where not in SCOPES[draft.role]:
            allowed = " or ".join(_PLACES[one] for one in SCOPES[draft.role])
            errors["scope"] = f"The role {Role(draft.role).label} is given for {allowed}."
    if errors:
        raise Invalid(errors)
    same = GroupMapping.objects.filter(
        provider=provider, group=group, role=draft.role, unit=unit, team=team, ended_at__isnull=True
    )
    if same.exists():
        raise Invalid({"group": "This group has this role there already."})
    return GroupMapping(provider=provider, group=group, role=draft.role, unit=unit, team=team)


# -- the parts


def _require(actor: Actor) -> None:
    if actor.is_system:
        return
    person = User.objects.filter(pk=actor.user_id or 0).first()
    if person is None or not scope.of(person).everywhere(MANAGE):
        raise NotAllowed(rule=MANAGE)


def _holders(mapping: GroupMapping) -> set[int]:
    grants = RoleGrant.objects.filter(mapping=mapping, revoked_at__isnull=True)
    memberships = Membership.objects.current().filter(mapping=mapping)
    return {*grants.values_list("user_id", flat=True), *memberships.values_list("user_id", flat=True)}


def _nobody_else(mapping: GroupMapping) -> bool:
    admins = RoleGrant.objects.in_force().filter(role=Role.PLATFORM_ADMIN)
    found = admins.select_for_update(of=("self",), no_key=True).order_by("pk").values_list("mapping_id", flat=True)
    return set(found) == {mapping.pk}


def _record(event: Any, mapping: GroupMapping, people: int, actor: Actor, reason: str) -> None:
    payload = mapping_events.MappingChanged(
        provider_uid=mapping.provider.uid,
        role=mapping.role,
        scope=group_roles.place_of(mapping)[0],
        people=people,
        group=mapping.group,
    )
    audit.record(
        event, payload, actor=actor, subject_type="teams.mapping", subject_uid=mapping.uid, reason=reason,
        team_uid=mapping.team.uid if mapping.team is not None else None,
    )  # fmt: skip


__all__ = ["Draft", "checked", "create_mapping", "end_mapping", "restore_role"]
