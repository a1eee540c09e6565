"""What a directory may do to its groups; the roles of the people concerned follow in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q

from apps import audit
from apps.accounts import ports, scim_events
from apps.accounts.models import DirectoryGroup, DirectoryMembership, ExternalIdentity, IdentityProvider, User
from apps.accounts.scim_errors import ScimError, invalid_value, not_found, not_unique
from apps.accounts.scim_patch import GroupDocument, Operation, member_ids, patch_group
from apps.accounts.scim_users import locked_provider
from apps.core.actor import Actor

#: So many people are named in one event; of more, the first ones.
NAMED = 200


@transaction.atomic
def create_group(provider_id: int, body: Mapping[str, Any], *, actor: Actor) -> DirectoryGroup:
    """Make a group with its members. Raises ScimError."""
    provider = locked_provider(provider_id)
    document = read_group(body)
    _check(provider, document, None)
    group = DirectoryGroup(provider=provider, name=document.display_name, external_id=document.external_id)
    _save(group, lambda: group.save(force_insert=True))
    added = _identities(provider, document.members)
    DirectoryMembership.objects.bulk_create([DirectoryMembership(group=group, identity=one) for one in added])
    _about(scim_events.GROUP_CREATED, group, added=added, actor=actor)
    _follow(added, actor)
    return group


@transaction.atomic
def replace_group(
    provider_id: int, uid: UUID, body: Mapping[str, Any], *, actor: Actor, expected_version: int | None = None
) -> DirectoryGroup:
    """Replace a group as a whole, members included. Raises ScimError."""
    provider = locked_provider(provider_id)
    group = _group(provider, uid, expected_version)
    return _write(group, read_group(body), provider, actor)


@transaction.atomic
def change_group(
    provider_id: int, uid: UUID, steps: Sequence[Operation], *, actor: Actor, expected_version: int | None = None
) -> DirectoryGroup:
    """Change parts of a group. Raises ScimError."""
    provider = locked_provider(provider_id)
    group = _group(provider, uid, expected_version)
    members = group.memberships.values_list("identity__uid", flat=True)
    document = GroupDocument(group.name, group.external_id, {str(one) for one in members})
    return _write(group, patch_group(document, steps), provider, actor)


@transaction.atomic
def remove_group(provider_id: int, uid: UUID, *, actor: Actor, expected_version: int | None = None) -> None:
    """Remove a group: nobody is in it any more, and what it gave is taken away. Raises ScimError."""
    provider = locked_provider(provider_id)
    group = _group(provider, uid, expected_version)
    removed = list(ExternalIdentity.objects.filter(directory_memberships__group=group).order_by("pk"))
    _about(scim_events.GROUP_REMOVED, group, removed=removed, actor=actor)
    group.delete()
    _forget(removed, {group.name, group.external_id})
    _follow(removed, actor)


def read_group(body: Mapping[str, Any]) -> GroupDocument:
    """Return what a directory says of a group as a whole. Raises ScimError."""
    given = {str(key).lower(): value for key, value in body.items()}
    name, external_id = given.get("displayname"), given.get("externalid")
    if not isinstance(name, str):
        raise invalid_value("displayName is required.")
    if external_id is not None and not isinstance(external_id, str):
        raise invalid_value("externalId is a text.")
    return GroupDocument(name, external_id or "", set(member_ids(given.get("members"))))


# -- the parts


def _write(group: DirectoryGroup, document: GroupDocument, provider: IdentityProvider, actor: Actor) -> DirectoryGroup:
    _check(provider, document, group)
    present = {
        str(one.uid): one for one in ExternalIdentity.objects.filter(directory_memberships__group=group).order_by("pk")
    }
    added = _identities(provider, document.members - present.keys())
    removed = [one for uid, one in present.items() if uid not in document.members]
    old = {group.name, group.external_id}
    new = {document.display_name, document.external_id}
    if not added and not removed and old == new:
        return group
    group.name, group.external_id = document.display_name, document.external_id
    _save(group, lambda: group.bump("name", "external_id"))
    DirectoryMembership.objects.filter(group=group, identity__in=removed).delete()
    DirectoryMembership.objects.bulk_create([DirectoryMembership(group=group, identity=one) for one in added])
    _about(scim_events.GROUP_CHANGED, group, added=added, removed=removed, renamed=old != new, actor=actor)
    _forget(removed, old | new)
    if old != new:
        _forget(present.values(), old - new)
        _follow([*present.values(), *added], actor)
    else:
        _follow([*added, *removed], actor)
    return group


def _group(provider: IdentityProvider, uid: UUID, expected_version: int | None) -> DirectoryGroup:
    found = DirectoryGroup.objects.filter(provider=provider, uid=uid)
    group = found.select_for_update(of=("self",), no_key=True).select_related("provider").first()
    if group is None:
        raise not_found("group")
    if expected_version is not None and expected_version != group.version:
        raise ScimError(412, "This group has changed since you read it. Read it again.")
    return group


def _check(provider: IdentityProvider, document: GroupDocument, own: DirectoryGroup | None) -> None:
    document.display_name = document.display_name.strip()
    if not document.display_name:
        raise invalid_value("A group needs a displayName.")
    if len(document.display_name) > 255 or len(document.external_id) > 255:
        raise invalid_value("displayName and externalId have at most 255 characters.")
    others = DirectoryGroup.objects.filter(provider=provider).exclude(pk=own.pk if own is not None else 0)
    if others.filter(name__iexact=document.display_name).exists():
        raise not_unique("Another group of this provider has this displayName.")
    if document.external_id and others.filter(external_id=document.external_id).exists():
        raise not_unique("Another group of this provider has this externalId.")
    # Mappings name groups by either: a group called like another one's id would be taken for that one.
    alike = Q(external_id=document.display_name)
    if document.external_id:
        alike |= Q(name=document.external_id)
    if others.filter(alike).exists():
        raise not_unique("The name or id of this group is the id or name of another one.")


def _identities(provider: IdentityProvider, uids: Iterable[str]) -> list[ExternalIdentity]:
    wanted = set(uids)
    known: set[UUID] = set()
    for one in wanted:
        try:
            known.add(UUID(one))
        except ValueError as error:
            raise invalid_value(f"There is no user {one[:50]}.") from error
    found = list(ExternalIdentity.objects.filter(provider=provider, provisioned=True, uid__in=known).order_by("pk"))
    missing = known - {one.uid for one in found}
    if missing:
        raise invalid_value(f"There is no user {min(str(one) for one in missing)}. Provision the person first.")
    return found


def _save(group: DirectoryGroup, save: Callable[[], None]) -> None:
    try:
        with transaction.atomic():
            save()
    except IntegrityError as error:
        raise not_unique("Another group of this provider has this displayName.") from error


def _forget(identities: Iterable[ExternalIdentity], names: set[str]) -> None:
    """What the last ID token said of a group is older than what the directory says now."""
    changed = []
    for one in identities:
        if one.token_groups is not None and not names.isdisjoint(one.token_groups):
            one.token_groups = [name for name in one.token_groups if name not in names]
            changed.append(one)
    ExternalIdentity.objects.bulk_update(changed, ["token_groups"])


def _follow(identities: Iterable[ExternalIdentity], actor: Actor) -> None:
    ports.groups_of_many_changed({one.user_id for one in identities}, actor=actor)


def _about(
    event: Any,
    group: DirectoryGroup,
    *,
    actor: Actor,
    added: Sequence[ExternalIdentity] = (),
    removed: Sequence[ExternalIdentity] = (),
    renamed: bool = False,
) -> None:
    people = dict(User.objects.filter(pk__in={one.user_id for one in (*added, *removed)}).values_list("pk", "uid"))
    payload = scim_events.GroupChanged(
        provider_uid=group.provider.uid,
        renamed=renamed,
        added=[people[one.user_id] for one in added[:NAMED]],
        removed=[people[one.user_id] for one in removed[:NAMED]],
        group=group.name,
    )
    audit.record(event, payload, actor=actor, subject_type="accounts.group", subject_uid=group.uid)


__all__ = ["change_group", "create_group", "read_group", "remove_group", "replace_group"]
