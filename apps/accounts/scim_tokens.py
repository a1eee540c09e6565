"""Tokens of directories: hashed, expiring, for one provider's provisioning and nothing else; rotated with overlap."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from apps import audit
from apps.accounts import scim_events
from apps.accounts.actions import TOKEN_MAX_DAYS, token_digest
from apps.accounts.models import IdentityProvider, ScimToken, User
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.core.permissions import holders_of, may

PREFIX = "gpus_"
MANAGE = "accounts.provider.manage"
#: A rotated token stays valid for so long, so that the directory can be given the new one.
OVERLAP = timedelta(days=7)
PER_PROVIDER = 5
#: People are told so long before a token expires.
NOTICE = timedelta(days=14)


@transaction.atomic
def create_token(provider_id: int, name: str, expires_at: datetime, *, actor: Actor) -> tuple[ScimToken, str]:
    """Make a token for a provider's directory; returned with its secret, which is stored nowhere.

    Raises NotAllowed, NotVisible, Invalid for a missing name, a time not within the next 365 days, or when five are in
    force.
    """
    provider = _provider(provider_id, actor)
    at = clock.now()
    errors: dict[str, str] = {}
    if not name.strip():
        errors["name"] = "Name the directory that will use the token."
    elif len(name) > 100:
        errors["name"] = "Use at most 100 characters."
    if not at < expires_at <= at + timedelta(days=TOKEN_MAX_DAYS, minutes=1):
        errors["expires_at"] = f"Choose a time within the next {TOKEN_MAX_DAYS} days."
    if errors:
        raise Invalid(errors)
    if usable().filter(provider=provider).count() >= PER_PROVIDER:
        raise Invalid({"": f"This provider has {PER_PROVIDER} tokens in force. Revoke one that is no longer used."})
    return _make(provider, name.strip(), expires_at, None, actor)


@transaction.atomic
def rotate_token(token_id: int, expires_at: datetime, *, actor: Actor) -> tuple[ScimToken, str]:
    """Make a successor of a token in force; the old one stays valid for seven days at most.

    Raises NotAllowed, NotVisible, Invalid, Conflict where the token is not in force any more.
    """
    token = _token(token_id, actor)
    at = clock.now()
    if token.revoked_at is not None or token.expires_at <= at:
        raise Conflict("This token is not in force any more. Make a new one.", current={"status": "not in force"})
    if not at < expires_at <= at + timedelta(days=TOKEN_MAX_DAYS, minutes=1):
        raise Invalid({"expires_at": f"Choose a time within the next {TOKEN_MAX_DAYS} days."})
    token.expires_at = min(token.expires_at, at + OVERLAP)
    token.save(update_fields=["expires_at"])
    return _make(token.provider, token.name, expires_at, token, actor)


@transaction.atomic
def revoke_token(token_id: int, *, actor: Actor) -> ScimToken:
    """Revoke a token at once. Raises NotAllowed, NotVisible, Conflict where it is revoked already."""
    token = _token(token_id, actor)
    if token.revoked_at is not None:
        raise Conflict("This token is revoked already.", current={"status": "revoked"})
    token.revoked_at = clock.now()
    token.save(update_fields=["revoked_at"])
    _record(scim_events.TOKEN_REVOKED, token, actor)
    return token


def usable() -> Any:
    """Return the tokens that open provisioning now: neither revoked nor expired, of providers that are not archived."""
    return ScimToken.objects.filter(
        revoked_at__isnull=True, expires_at__gt=clock.now(), provider__archived_at__isnull=True
    )


def find(secret: str) -> ScimToken | None:
    """Return the token in force with this secret, with its provider."""
    if not secret.startswith(PREFIX) or not secret.isascii():
        return None
    found: ScimToken | None = usable().filter(digest=token_digest(secret)).select_related("provider").first()
    return found


@transaction.atomic
def tell_of_expiry() -> int:
    """Tell once of every token that expires within two weeks and was not rotated; returns of how many."""
    at = clock.now()
    told = 0
    soon = usable().filter(expires_at__lte=at + NOTICE, replaced_by__isnull=True).select_related("provider")
    for token in soon.order_by("pk"):
        event = scim_events.TOKEN_EXPIRES
        if OutboxMessage.objects.filter(event=event.name, subject_uid=token.uid).exists():
            continue
        payload = scim_events.ScimTokenExpires(
            provider_uid=token.provider.uid, provider=token.provider.name, expires_at=token.expires_at
        )
        outbox.publish(event, payload, recipients=holders_of(MANAGE), subject_uid=token.uid)
        told += 1
    return told


# -- the parts


def _make(
    provider: IdentityProvider, name: str, expires_at: datetime, replaces: ScimToken | None, actor: Actor
) -> tuple[ScimToken, str]:
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ScimToken.objects.create(
        provider=provider,
        name=name,
        digest=token_digest(secret),
        prefix=secret[:12],
        expires_at=expires_at,
        replaces=replaces,
        made_by_id=actor.user_id,
    )
    _record(scim_events.TOKEN_CREATED, token, actor)
    return token, secret


def _provider(provider_id: int, actor: Actor) -> IdentityProvider:
    provider = IdentityProvider.objects.select_for_update(no_key=True).filter(pk=provider_id).first()
    if provider is None:
        raise NotVisible
    person = User.objects.filter(pk=actor.user_id or 0).first()
    if not actor.is_system and not may(person, MANAGE, provider):
        raise NotAllowed(rule=MANAGE)
    if provider.archived_at is not None:
        raise Conflict("This provider is archived.", current={"status": "archived"})
    return provider


def _token(token_id: int, actor: Actor) -> ScimToken:
    token = ScimToken.objects.select_for_update(of=("self",), no_key=True).filter(pk=token_id).first()
    if token is None:
        raise NotVisible
    _provider(token.provider_id, actor)
    return token


def _record(event: Any, token: ScimToken, actor: Actor) -> None:
    payload = scim_events.ScimTokenChanged(
        provider_uid=token.provider.uid,
        expires_at=token.expires_at,
        replaces=token.replaces.uid if token.replaces is not None else None,
        name=token.name,
    )
    audit.record(event, payload, actor=actor, subject_type="accounts.scim_token", subject_uid=token.uid)


__all__ = ["PREFIX", "create_token", "find", "revoke_token", "rotate_token", "tell_of_expiry", "usable"]
