"""Roles follow groups: reads what groups somebody is in, and gives and takes what the mappings say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Q

from apps import audit
from apps.accounts.choices import UserKind
from apps.accounts.merging import persons
from apps.accounts.models import DirectoryMembership, ExternalIdentity, User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import NotVisible
from apps.core.events import EventType
from apps.core.models import OutboxMessage
from apps.core.permissions import holders_of
from apps.teams import events, mapping_events
from apps.teams.choices import Role
from apps.teams.mapping import Difference, Groups, Held, Rule, Wanted, difference, released
from apps.teams.models import GroupMapping, Membership, RoleGrant

#: How often people are told again of the same held back change.
ALARM_AGAIN = timedelta(days=1)
_MICRO = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Changes:
    """What `sync_groups` did. `kept` names the grants that should have gone but are the last platform admin's."""

    given: tuple[Wanted, ...] = ()
    taken: tuple[Wanted, ...] = ()
    kept: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.given or self.taken)


@dataclass(frozen=True, slots=True)
class Standing:
    """What somebody holds: in force (by hand and by groups), and taken away by hand although a group gives it."""

    held: tuple[Held, ...] = ()
    withheld: frozenset[Wanted] = frozenset()


@transaction.atomic
def sync_groups(user_id: int, *, actor: Actor) -> Changes:
    """Make a person's roles follow the groups they are in now; doing it twice changes nothing.

    Asks no permission: what is given is decided by the mappings and the directory, never by who calls. Raises
    NotVisible for a person that does not exist.
    """
    user = User.objects.select_for_update(no_key=True).filter(pk=user_id).first()
    if user is None:
        raise NotVisible
    rules = rules_in_force()
    groups = groups_of([user.pk]).get(user.pk, {})
    standing = standing_of([user.pk]).get(user.pk, Standing())
    release(user, released(standing.withheld, groups, rules))
    return _carry_out(user, what_changes(user, groups, rules, standing), actor)


@transaction.atomic
def sync_many(user_ids: Collection[int] | None = None, *, actor: Actor) -> int:
    """Make the roles of these people (None: of everybody) follow their groups; returns how many people it changed.

    Reads everything in a few queries; only people for whom something has to change are looked at one by one.
    """
    ids = sorted(user_ids) if user_ids is not None else None
    moved = 0
    for user_id in due(ids):
        moved += bool(sync_groups(user_id, actor=actor))
    return moved


def due(user_ids: Sequence[int] | None = None, *, rules: Collection[Rule] | None = None) -> list[int]:
    """Return the ids of the people whose roles do not follow their groups as things stand, in order."""
    rules = rules_in_force() if rules is None else rules
    groups, standings = groups_of(user_ids), standing_of(user_ids)
    users = User.objects.filter(pk__in=groups.keys() | standings.keys())
    found = []
    for user in users.only("pk", "is_active", "kind", "merged_into_id").order_by("pk"):
        mine, standing = groups.get(user.pk, {}), standings.get(user.pk, Standing())
        if what_changes(user, mine, rules, standing) or released(standing.withheld, mine, rules):
            found.append(user.pk)
    return found


def what_changes(user: User, groups: Groups, rules: Collection[Rule], standing: Standing) -> Difference:
    """Return what a person would be given and lose. Accounts that are off gain nothing; programs take part in none."""
    gives = user.is_active and user.kind == UserKind.PERSON and user.merged_into_id is None
    return difference(
        groups, rules, standing.held, user_id=user.pk, withheld=standing.withheld, gives=gives
    )  # fmt: skip


def rules_in_force() -> list[Rule]:
    """Return the mappings that count now: not ended, of no archived provider, team or unit."""
    found = GroupMapping.objects.in_force().filter(
        Q(team__isnull=True) | Q(team__archived_at__isnull=True),
        Q(unit__isnull=True) | Q(unit__archived_at__isnull=True),
    )
    return as_rules(found.order_by("pk"))


def as_rules(mappings: Iterable[GroupMapping]) -> list[Rule]:
    """Return mappings as the engine reads them, with every account of the person who made each."""
    rows = list(mappings)
    merged = persons() if any(row.made_by_id is not None for row in rows) else {}
    accounts: dict[int, set[int]] = {}
    for one, stays in merged.items():
        accounts.setdefault(stays, {stays}).add(one)
    return [
        Rule(
            mapping_id=row.pk,
            provider_id=row.provider_id,
            group=row.group,
            role=row.role,
            unit_id=row.unit_id,
            team_id=row.team_id,
            makers=_accounts(row.made_by_id, merged, accounts),
        )
        for row in rows
    ]


def _accounts(maker_id: int | None, merged: Mapping[int, int], accounts: Mapping[int, set[int]]) -> frozenset[int]:
    if maker_id is None:
        return frozenset()
    return frozenset(accounts.get(merged.get(maker_id, maker_id), {maker_id}))


def groups_of(user_ids: Sequence[int] | None = None) -> dict[int, dict[int, frozenset[str] | None]]:
    """Return person → provider → names of the groups they are in (None: unknown), of these persons or of everybody.

    Groups of the last sign-in count together with those that the directory provisions, each of the latter by its name
    and by the directory's own id (some providers write ids into their tokens). An identity that the directory switched
    off is in no group, unless switching it off is held back.
    """
    identities = ExternalIdentity.objects.filter(provider__archived_at__isnull=True)
    memberships = DirectoryMembership.objects.filter(identity__provider__archived_at__isnull=True)
    if user_ids is not None:
        identities = identities.filter(user_id__in=user_ids)
        memberships = memberships.filter(identity__user_id__in=user_ids)
    provisioned: dict[int, set[str]] = {}
    for identity_id, name, external_id in memberships.values_list("identity_id", "group__name", "group__external_id"):
        provisioned.setdefault(identity_id, set()).update(one for one in (name, external_id) if one)
    found: dict[int, dict[int, frozenset[str] | None]] = {}
    for row in identities.only("user_id", "provider_id", "token_groups", "provisioned", "active", "held_at"):
        names: frozenset[str] | None = None
        if row.provisioned and not row.active and row.held_at is None:
            names = frozenset()
        elif row.provisioned or row.token_groups is not None:
            names = frozenset(row.token_groups or ()) | frozenset(provisioned.get(row.pk, ()))
        found.setdefault(row.user_id, {})[row.provider_id] = names
    return found


def standing_of(user_ids: Sequence[int] | None = None) -> dict[int, Standing]:
    """Return person → what they hold and what was taken by hand, of these persons or of everybody."""
    at = clock.now()
    grants = RoleGrant.objects.order_by("pk").filter(Q(mapping__isnull=False))
    memberships = Membership.objects.order_by("pk").filter(Q(valid__contains=at) | Q(mapping__isnull=False))
    if user_ids is not None:
        grants, memberships = grants.filter(user_id__in=user_ids), memberships.filter(user_id__in=user_ids)
    held: dict[int, list[Held]] = {}
    withheld: dict[int, set[Wanted]] = {}
    for grant in grants.filter(Q(revoked_at__isnull=True) | Q(ended_by_group=False)):
        one = Held(grant.pk, grant.role, grant.unit_id, grant.team_id, grant.mapping_id)
        if grant.revoked_at is None:
            held.setdefault(grant.user_id, []).append(one)
        elif one.key is not None:
            withheld.setdefault(grant.user_id, set()).add(one.key)
    for row in memberships:
        one = Held(row.pk, Role.MEMBER, None, row.team_id, row.mapping_id)
        if row.valid.isempty:
            continue  # one to come that never began
        lower, upper = row.valid.lower, row.valid.upper
        if (lower is None or lower <= at) and (upper is None or upper > at):
            held.setdefault(row.user_id, []).append(one)
        elif one.key is not None and not row.ended_by_group and upper is not None and upper <= at:
            withheld.setdefault(row.user_id, set()).add(one.key)
    return {
        pk: Standing(tuple(held.get(pk, ())), frozenset(withheld.get(pk, ())))
        for pk in held.keys() | withheld.keys()
    }  # fmt: skip


def _carry_out(user: User, change: Difference, actor: Actor) -> Changes:
    mappings = {
        row.pk: row
        for row in GroupMapping.objects.select_related("team", "unit").filter(
            pk__in={one.mapping_id for one in change.give} | {one.mapping_id or 0 for one in change.take}
        )
    }
    kept = _last_admin(user, change.take)
    taken: list[Wanted] = []
    at = clock.now()
    for one in change.take:
        mapping, key = mappings[one.mapping_id or 0], one.key
        if one.row_id in kept and one.role == Role.PLATFORM_ADMIN:
            _alarm(user, mapping, actor)
        elif key is not None:
            _take(user, one, mapping, at, actor)
            taken.append(key)
    for wanted in change.give:
        _give(user, wanted, mappings[wanted.mapping_id], at, actor)
    return Changes(change.give, tuple(taken), tuple(sorted(kept)))


def _give(user: User, wanted: Wanted, mapping: GroupMapping, at: datetime, actor: Actor) -> None:
    if wanted.role == Role.MEMBER and wanted.team_id is not None:
        rows = Membership.objects.filter(user=user, team_id=wanted.team_id)
        later = rows.filter(valid__startswith__gt=at).order_by("valid").first()
        # Somebody has been given a membership that begins later: this one ends there, the two may not overlap.
        until = later.valid.lower if later is not None else None
        # A membership that ended at this very moment was given one microsecond, so that it is on record.
        before = rows.filter(valid__endswith__gt=at, valid__startswith__lte=at).order_by("-valid").first()
        since = max(at, before.valid.upper) if before is not None and before.valid.upper is not None else at
        Membership.objects.create(
            user=user,
            team_id=wanted.team_id,
            valid=DateTimeTZRange(since, until, "[)"),
            mapping=mapping,
            ended_by_group=until is not None,
        )
        _member_changed(events.MEMBER_ADDED, user, mapping, at, actor)
        return
    given = RoleGrant.objects.create(
        user=user, role=wanted.role, unit_id=wanted.unit_id, team_id=wanted.team_id, mapping=mapping,
        reason="Given by a group of the directory.",
    )  # fmt: skip
    _role_changed(events.ROLE_GRANTED, given, user, mapping, actor)


def _take(user: User, one: Held, mapping: GroupMapping, at: datetime, actor: Actor) -> None:
    if one.role == Role.MEMBER:
        row = Membership.objects.get(pk=one.row_id)
        since = row.valid.lower
        # An empty range would forget when the membership was.
        until = max(at, since + _MICRO) if since is not None else at
        row.valid, row.ended_by_group = DateTimeTZRange(since, until, "[)"), True
        row.save(update_fields=["valid", "ended_by_group"])
        _member_changed(events.MEMBER_REMOVED, user, mapping, at, actor)
        return
    given = RoleGrant.objects.get(pk=one.row_id)
    given.revoked_at, given.ended_by_group = at, True
    given.save(update_fields=["revoked_at", "ended_by_group"])
    _role_changed(events.ROLE_REVOKED, given, user, mapping, actor)


def _last_admin(user: User, take: Collection[Held]) -> set[int]:
    """Return the grants of `take` without which nobody in force would administer the portal."""
    going = {one.row_id for one in take if one.role == Role.PLATFORM_ADMIN}
    if not going or not user.is_active:
        return set()
    # Locked in one order, so that two changes cannot each leave the other's as the last.
    admins = RoleGrant.objects.in_force().filter(role=Role.PLATFORM_ADMIN, user__kind=UserKind.PERSON)
    present = list(admins.select_for_update(of=("self",), no_key=True).order_by("pk").values_list("pk", flat=True))
    return going & set(present) if not set(present) - going else set()


def release(user: User, keys: Collection[Wanted]) -> None:
    """Settle what was taken by hand: the group gives it no longer, or somebody leaves it to the group again."""
    for role, _, _, mapping_id in keys:
        if role == Role.MEMBER:
            Membership.objects.filter(
                user=user, mapping_id=mapping_id, valid__endswith__lte=clock.now()
            ).update(ended_by_group=True)  # fmt: skip
        else:
            # A mapping gives one role in one place: its key says both.
            RoleGrant.objects.filter(user=user, mapping_id=mapping_id, role=role, revoked_at__isnull=False).update(
                ended_by_group=True
            )


def _alarm(user: User, mapping: GroupMapping, actor: Actor) -> None:
    payload = mapping_events.LastAdminKept(user_uid=user.uid, mapping_uid=mapping.uid)
    if told_lately(mapping_events.LAST_ADMIN_KEPT, user):
        return
    audit.record(
        mapping_events.LAST_ADMIN_KEPT, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid
    )
    recipients = holders_of("teams.mapping.manage")
    outbox.publish(mapping_events.LAST_ADMIN_KEPT, payload, recipients=recipients, subject_uid=user.uid)


def told_lately(event: EventType, user: User) -> bool:
    """Whether people have been told of this about the person within a day: a sweep would tell it every time."""
    since = clock.now() - ALARM_AGAIN
    return OutboxMessage.objects.filter(event=event.name, subject_uid=user.uid, created_at__gt=since).exists()


def place_of(row: GroupMapping | RoleGrant) -> tuple[str, str]:
    """Return where a mapping or a grant counts, as a code ("team:finance") and in words."""
    if row.team is not None:
        return f"team:{row.team.slug}", row.team.name
    if row.unit is not None:
        return f"unit:{row.unit.slug}", f"{row.unit.name} and below"
    return "installation", "whole installation"


def _member_changed(event: EventType, user: User, mapping: GroupMapping, at: datetime, actor: Actor) -> None:
    team = mapping.team
    if team is None:
        raise ValueError("a mapping to members without a team")
    payload = events.MemberChanged(
        team=team.name, team_uid=team.uid, user_uid=user.uid, at=at, mapping_uid=mapping.uid
    )  # fmt: skip
    audit.record(
        event, payload, actor=actor, subject_type="teams.team", subject_uid=team.uid, team_uid=team.uid
    )  # fmt: skip
    outbox.publish(event, payload, recipients=[user.pk], subject_uid=team.uid)


def _role_changed(event: EventType, given: RoleGrant, user: User, mapping: GroupMapping, actor: Actor) -> None:
    where, name = place_of(given)
    payload = events.RoleChanged(
        role=given.role, scope=where, scope_name=name, user_uid=user.uid, expires_at=given.expires_at,
        mapping_uid=mapping.uid,
    )  # fmt: skip
    team_uid = given.team.uid if given.team is not None else None
    audit.record(
        event, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid, team_uid=team_uid
    )  # fmt: skip
    outbox.publish(event, payload, recipients=[user.pk], subject_uid=user.uid)


__all__ = [
    "Changes",
    "Standing",
    "as_rules",
    "due",
    "groups_of",
    "place_of",
    "release",
    "rules_in_force",
    "standing_of",
    "sync_groups",
    "sync_many",
    "what_changes",
]
