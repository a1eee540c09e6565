"""What pages and API say of mappings: who would gain or lose what, and whom a group gives its role now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.db.models import Count, F, Q

from apps.accounts.models import DirectoryGroup, User
from apps.core import clock
from apps.teams import group_roles
from apps.teams.choices import Role
from apps.teams.mapping import Held, Wanted
from apps.teams.models import GroupMapping, Membership, RoleGrant
from apps.teams.querysets import GroupMappingQuerySet

#: Stands for the mapping that does not exist yet; larger than any key, so that present ones come first.
_DRAFT = 2**62


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom a mapping concerns, and what there is to say beside the name."""

    user: User
    note: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What making a mapping would do now. `digest` names exactly this outcome."""

    gains: tuple[Person, ...]
    others: tuple[Person, ...]
    alike: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What ending a mapping would do now: who loses the role, and who keeps it by another way."""

    loses: tuple[Person, ...]
    keeps: tuple[Person, ...]


def preview(mapping: GroupMapping, *, maker_id: int | None) -> Preview:
    """Return what the unsaved `mapping` would give to whom, made by the person `maker_id`."""
    rules = group_roles.rules_in_force()
    mapping.made_by_id = maker_id
    draft = replace(group_roles.as_rules([mapping])[0], mapping_id=_DRAFT)
    groups = {
        user_id: mine for user_id, mine in group_roles.groups_of().items()
        if draft.group in (mine.get(draft.provider_id) or ())
    }  # fmt: skip
    standings = group_roles.standing_of(sorted(groups))
    by_hand = _by_hand(mapping, groups)
    gains, others = [], []
    for user in User.objects.filter(pk__in=groups).order_by("display_name", "pk"):
        standing = standings.get(user.pk, group_roles.Standing())
        change = group_roles.what_changes(user, groups[user.pk], [*rules, draft], standing)
        if any(one.mapping_id == _DRAFT for one in change.give):
            gains.append(Person(user, "holds it already by another way" if user.pk in by_hand else ""))
        else:
            others.append(Person(user, _why_not(user, draft.makers)))
    text = "|".join([mapping.group, mapping.role, str(mapping.unit_id), str(mapping.team_id), str(mapping.provider_id)])
    text += "|" + ",".join(str(one.user.pk) for one in gains)
    return Preview(tuple(gains), tuple(others), _alike(mapping), hashlib.sha256(text.encode()).hexdigest())


def ending(mapping: GroupMapping) -> Ending:
    """Return who would lose what if the mapping ended now."""
    ids = holders(mapping)
    standings = group_roles.standing_of(ids)
    by_hand = _by_hand(mapping, ids)
    loses, keeps = [], []
    for user in User.objects.filter(pk__in=ids).order_by("display_name", "pk"):
        held = standings.get(user.pk, group_roles.Standing()).held
        if user.pk in by_hand:
            keeps.append(Person(user, "given by hand, too"))
        elif any(_same(one, mapping) and one.mapping_id != mapping.pk for one in held):
            keeps.append(Person(user, "another group gives it, too"))
        else:
            loses.append(Person(user))
    return Ending(tuple(loses), tuple(keeps))


def holders(mapping: GroupMapping) -> list[int]:
    """Return the ids of the people who hold the mapping's role by it."""
    grants = RoleGrant.objects.filter(mapping=mapping, revoked_at__isnull=True).values_list("user_id", flat=True)
    members = Membership.objects.current().filter(mapping=mapping).values_list("user_id", flat=True)
    return sorted({*grants, *members})


def withheld(mapping: GroupMapping) -> list[Person]:
    """Return those from whom somebody took the role by hand although the group gives it."""
    found = {
        user_id for user_id, standing in group_roles.standing_of().items()
        if any(one.mapping_id == mapping.pk for one in standing.withheld)
    }  # fmt: skip
    groups = group_roles.groups_of(sorted(found))
    still = [pk for pk in found if mapping.group in (groups.get(pk, {}).get(mapping.provider_id) or ())]
    return [Person(user) for user in User.objects.filter(pk__in=still).order_by("display_name", "pk")]


def mappings() -> GroupMappingQuerySet:
    """Return the mappings in force with what a row shows."""
    counted = GroupMapping.objects.in_force().annotate(
        grants=Count("role_grants", filter=Q(role_grants__revoked_at__isnull=True), distinct=True),
        members=Count("memberships", filter=Q(memberships__valid__contains=clock.now()), distinct=True),
    )
    return counted.annotate(people=F("grants") + F("members")).select_related("provider", "unit", "team", "made_by")


def _by_hand(mapping: GroupMapping, user_ids: Iterable[int]) -> set[int]:
    if mapping.role == Role.MEMBER:
        rows = Membership.objects.current().filter(team=mapping.team, mapping__isnull=True, user_id__in=user_ids)
        return set(rows.values_list("user_id", flat=True))
    grants = RoleGrant.objects.in_force().filter(
        role=mapping.role, unit=mapping.unit, team=mapping.team, mapping__isnull=True, user_id__in=user_ids
    )
    return set(grants.values_list("user_id", flat=True))


def _same(one: Held | Wanted, mapping: GroupMapping) -> bool:
    return (one.role, one.unit_id, one.team_id) == (mapping.role, mapping.unit_id, mapping.team_id)


def _why_not(user: User, makers: frozenset[int]) -> str:
    if user.pk in makers:
        return "nobody gives themselves a role: have another admin make this"
    if not user.is_active:
        return "the account is switched off"
    return "a member already"


def _alike(mapping: GroupMapping) -> tuple[str, ...]:
    """Return groups written almost like this one: names are compared exactly."""
    rows = DirectoryGroup.objects.filter(provider_id=mapping.provider_id, name__iexact=mapping.group.strip())
    return tuple(rows.exclude(name=mapping.group).values_list("name", flat=True))


__all__ = ["Ending", "Person", "Preview", "ending", "holders", "mappings", "preview", "withheld"]
