"""Two accounts of one person: merging them, and which account stands for whom. Separation of duties asks here."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction

from apps import audit
from apps.accounts import actions, ports
from apps.accounts.choices import UserKind
from apps.accounts.merge_events import ACCOUNT_MERGED, Merged
from apps.accounts.models import ExternalIdentity, User
from apps.audit.choices import ProposalStatus
from apps.audit.keeping_models import RetentionProposal
from apps.core import outbox
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible


@transaction.atomic
def merge(user_id: int, into_id: int, reason: str, *, actor: Actor) -> User:
    """Merge an account into another of the same person, for good; returns the one that stays.

    Roles, memberships and identities that still count move; what either did keeps its author, and both count as one
    person from now on. Raises NotAllowed (also for one's own accounts), NotVisible, Invalid, Conflict, Blocked where an
    open decision has both on different sides.
    """
    actions.require_manager(actor)
    # In the order of their keys, so that two merges at once cannot wait for each other.
    found = {user.pk: user for user in User.objects.get_queryset().select_for_update().filter(
        pk__in=[user_id, into_id]).order_by("pk")}  # fmt: skip
    old, stays = found.get(user_id), found.get(into_id)
    if old is None:
        raise NotVisible
    if not actor.is_system and {old.pk, into_id} & (accounts_of(actor.user_id or 0) | {actor.on_behalf_of}):
        raise NotAllowed("Nobody merges their own accounts: ask another platform admin.", rule="not_oneself")
    errors: dict[str, str] = {}
    if stays is None or not stays.is_active or stays.kind != UserKind.PERSON:
        errors["into"] = "Choose a person's account in use."
    elif stays.pk == old.pk:
        errors["into"] = "Choose another account."
    if not reason.strip() or len(reason.strip()) > 500:
        errors["reason"] = "Say in at most 500 characters why, for the audit trail."
    if errors or stays is None:
        raise Invalid(errors)
    if old.merged_into_id is not None:
        raise Conflict("This account is merged already.", current={"status": "merged"})
    if old.kind != UserKind.PERSON or old.erased_at is not None:
        raise Conflict("Only the account of a person can be merged.")
    standing = ports.merge_objections(old.pk, stays.pk)
    if RetentionProposal.objects.filter(proposed_by=old.uid, status=ProposalStatus.OPEN).exists():
        # The audit room knows persons by uid alone: it could not tell that the second person is the first.
        standing.append("It proposed to purge audit data, which waits for a second person: have that decided first.")
    if standing:
        raise Blocked(" ".join(standing))
    roles, memberships = ports.move_rights(old.pk, stays.pk, actor=actor)
    there = stays.identities.values("provider_id")
    moved = ExternalIdentity.objects.filter(user=old).exclude(provider__in=there).update(user=stays)
    old.merged_into = stays
    old.save(update_fields=["merged_into"])
    if old.is_active:
        actions.switch_off(old, reason.strip(), actor=actor)
    for user in (old, stays):
        ports.groups_changed(user.pk, actor=actor)
    payload = Merged(old.uid, stays.uid, roles, memberships, moved)
    for uid in (stays.uid, old.uid):
        audit.record(
            ACCOUNT_MERGED, payload, actor=actor, subject_type="accounts.user", subject_uid=uid, reason=reason.strip()
        )
    outbox.publish(ACCOUNT_MERGED, payload, recipients=[stays.pk], subject_uid=stays.uid)
    return stays


def persons() -> dict[int, int]:
    """Return, for every account that was merged away, the one that stands for its person (one query)."""
    found = dict(User.objects.filter(merged_into__isnull=False).values_list("pk", "merged_into_id"))
    return {old: _last(old, found) for old in found}


def _last(user_id: int, merged: Mapping[int, int | None]) -> int:
    seen = {user_id}
    while (following := merged.get(user_id)) is not None and following not in seen:
        user_id = following
        seen.add(user_id)
    return user_id


def accounts_of(user_id: int) -> set[int]:
    """Return the accounts of the person behind an account: itself and those merged with it."""
    merged = persons()
    own = merged.get(user_id, user_id)
    return {user_id, own} | {old for old, into in merged.items() if into == own}


def same_person(first_id: int | None, second_id: int | None) -> bool:
    """Whether two accounts belong to one person."""
    return first_id is not None and second_id is not None and second_id in accounts_of(first_id)
