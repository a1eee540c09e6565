"""Switching accounts off and on as a directory says, and not believing it blindly.

An account is off when no directory that keeps it says it is active. Only what a directory switched off does it switch
on again: an account that an administrator switched off stays off. The last platform admin is never switched off, and a
directory that switches off more than half of its people within a day is held back until a person agrees.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q

from apps import audit
from apps.accounts import ports, scim_events
from apps.accounts.actions import switch_off, switch_on
from apps.accounts.models import ExternalIdentity, IdentityProvider, User
from apps.accounts.scim_errors import ScimError
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.permissions import holders_of, may

#: Those switched off are counted over so long, and never held back below so many.
WINDOW = timedelta(days=1)
AT_LEAST = 3
#: After somebody let the many through, nothing is held back for so long.
LIFTED = timedelta(days=1)
#: Whoever holds this for the whole installation is a platform admin: without one nobody could give a role again.
ADMINISTERS = "teams.grant.manage"
_ONE_AT_A_TIME = 0x636F6D6D6F6E7331


class LastAdmin(ScimError):
    """The directory would switch off the last platform admin (403)."""

    def __init__(self, user: User) -> None:
        super().__init__(403, "This is the last platform admin. Give the role to somebody else first.")
        self.user = user


def follow_directory(
    identity: ExternalIdentity, active: bool, *, provider: IdentityProvider, actor: Actor, new: bool = False
) -> bool:
    """Carry out what the directory says of an account, and save it; False where that is held back.

    `new`: the account was made so just now. Raises LastAdmin.
    """
    at = clock.now()
    if active == identity.active and not new and (active or identity.inactive_since is not None):
        return identity.held_at is None
    user = User.objects.select_for_update(no_key=True).get(pk=identity.user_id)
    identity.user = user
    if active:
        _on(identity, user, actor)
        return True
    held = False
    if user.is_active and not _others_keep(identity):
        _check_last_admin(user)
        held = not new and _too_many(provider, at, actor)
    identity.active, identity.inactive_since, identity.held_at = False, at, at if held else None
    identity.save(update_fields=["active", "inactive_since", "held_at", "updated_at"])
    if held:
        return False
    if user.is_active and not _others_keep(identity):
        # One moment for account and identity: by it we know again that it was the directory.
        switch_off(user, f"Switched off by the directory of {provider.name}.", actor=actor, at=at)
        return True
    if new:
        user.deactivated_at = at
        user.save(update_fields=["deactivated_at"])
    ports.groups_changed(user.pk, actor=actor)
    return True


@transaction.atomic
def release_held(provider_id: int, *, actor: Actor, reason: str) -> IdentityProvider:
    """Let through what was held back: those accounts are switched off, and for a day nothing is held back again.

    The actor's own account and the last platform admin's stay in use and held. Raises NotAllowed, NotVisible, Conflict
    where nothing is held back, Invalid without a reason.
    """
    provider, held = _held(provider_id, actor, reason)
    at = clock.now()
    off = kept = 0
    for identity in held:
        user = User.objects.select_for_update(no_key=True).get(pk=identity.user_id)
        if user.pk == actor.user_id or _is_last_admin(user):
            kept += 1
            continue
        identity.held_at = None
        identity.inactive_since = at
        identity.save(update_fields=["held_at", "inactive_since", "updated_at"])
        if user.is_active and not _others_keep(identity):
            switch_off(user, reason, actor=actor, at=at)
            off += 1
    provider.held_since = provider.held_since if kept else None
    provider.hold_lifted_until = at + LIFTED
    provider.bump("held_since", "hold_lifted_until")
    payload = scim_events.HoldEnded(provider_uid=provider.uid, switched_off=off, kept=kept)
    _about(scim_events.HOLD_RELEASED, payload, provider, actor, reason)
    return provider


@transaction.atomic
def dismiss_held(provider_id: int, *, actor: Actor, reason: str) -> IdentityProvider:
    """Keep the accounts that were to be switched off: the directory reads them as active again.

    Raises NotAllowed, NotVisible, Conflict where nothing is held back, Invalid without a reason.
    """
    provider, held = _held(provider_id, actor, reason)
    for identity in held:
        identity.active, identity.inactive_since, identity.held_at = True, None, None
        identity.attributes = {**identity.attributes, "active": True}
        identity.version += 1
        identity.save()
    provider.held_since = None
    provider.bump("held_since")
    payload = scim_events.HoldEnded(provider_uid=provider.uid, switched_off=0, kept=len(held))
    _about(scim_events.HOLD_DISMISSED, payload, provider, actor, reason)
    ports.groups_of_many_changed([one.user_id for one in held], actor=actor)
    return provider


@transaction.atomic
def tell_of_last_admin(provider: IdentityProvider, user: User, *, actor: Actor) -> None:
    """Write down and tell that a directory tried to switch off the last platform admin: once a day, not every try."""
    payload = scim_events.LastAdminRefused(provider_uid=provider.uid, provider=provider.name, user_uid=user.uid)
    event = scim_events.LAST_ADMIN_REFUSED
    audit.record(event, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid)
    since = clock.now() - WINDOW
    if not OutboxMessage.objects.filter(event=event.name, subject_uid=user.uid, created_at__gt=since).exists():
        outbox.publish(event, payload, recipients=holders_of(ADMINISTERS), subject_uid=user.uid)


def counted(provider: IdentityProvider, at: datetime) -> tuple[int, int]:
    """Return how many people the directory switched off within the window, and how many it kept at its beginning."""
    lately = Q(inactive_since__gt=at - WINDOW)
    rows = ExternalIdentity.objects.filter(provider=provider)
    return rows.filter(lately).count(), rows.filter(lately | Q(provisioned=True, active=True)).count()


# -- the parts


def _on(identity: ExternalIdentity, user: User, actor: Actor) -> None:
    """The directory says active: switch on again what a directory switched off, and nothing else."""
    moments = ExternalIdentity.objects.filter(user=user, inactive_since__isnull=False)
    by_directory = user.deactivated_at is not None and moments.filter(inactive_since=user.deactivated_at).exists()
    identity.active, identity.inactive_since, identity.held_at = True, None, None
    identity.save(update_fields=["active", "inactive_since", "held_at", "updated_at"])
    # An account that was merged into another stays off, whatever its directory says: the person has the other one.
    if not user.is_active and by_directory and user.merged_into_id is None:
        switch_on(user, "Switched on by its directory.", actor=actor)
    else:
        ports.groups_changed(user.pk, actor=actor)


def _others_keep(identity: ExternalIdentity) -> bool:
    """Whether another directory says that the person is active."""
    others = ExternalIdentity.objects.filter(
        user_id=identity.user_id, provisioned=True, active=True, provider__archived_at__isnull=True
    )
    return others.exclude(pk=identity.pk).exists()


def _is_last_admin(user: User) -> bool:
    # Two directories must not each take the other's last one.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ONE_AT_A_TIME])
    return set(holders_of(ADMINISTERS)) == {user.pk}


def _check_last_admin(user: User) -> None:
    if _is_last_admin(user):
        raise LastAdmin(user)


def _too_many(provider: IdentityProvider, at: datetime, actor: Actor) -> bool:
    """Whether this one more is too many; the first time it is, people are told."""
    if provider.held_since is not None:
        return True
    if provider.hold_lifted_until is not None and at < provider.hold_lifted_until:
        return False
    off, people = counted(provider, at)
    off += 1  # this one
    if off < AT_LEAST or off * 2 <= people:
        return False
    provider.held_since = at
    provider.bump("held_since")
    payload = scim_events.HeldBack(provider_uid=provider.uid, provider=provider.name, off=off, people=people)
    _about(scim_events.HELD_BACK, payload, provider, actor)
    outbox.publish(
        scim_events.HELD_BACK, payload, recipients=holders_of("accounts.provider.manage"), subject_uid=provider.uid
    )
    return True


def _held(provider_id: int, actor: Actor, reason: str) -> tuple[IdentityProvider, list[ExternalIdentity]]:
    person = User.objects.filter(pk=actor.user_id or 0).first()
    provider = IdentityProvider.objects.select_for_update(no_key=True).filter(pk=provider_id).first()
    if provider is None:
        raise NotVisible
    if not actor.is_system and not may(person, "accounts.provider.manage", provider):
        raise NotAllowed(rule="accounts.provider.manage")
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    if provider.held_since is None:
        raise Conflict("Nothing is held back any more.", current={"status": "not held back"})
    held = ExternalIdentity.objects.filter(provider=provider, held_at__isnull=False)
    # By person, as whoever follows groups locks them.
    return provider, list(held.select_for_update(no_key=True).order_by("user_id", "pk"))


def _about(event: Any, payload: Any, provider: IdentityProvider, actor: Actor, reason: str = "") -> None:
    audit.record(
        event, payload, actor=actor, subject_type="accounts.provider", subject_uid=provider.uid, reason=reason
    )  # fmt: skip


__all__ = [
    "LastAdmin",
    "counted",
    "dismiss_held",
    "follow_directory",
    "release_held",
    "tell_of_last_admin",
]
