"""What platform admins do with identity providers. A client secret goes in and never comes out again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from apps import audit
from apps.accounts import openid_events, openid_metadata, openid_sessions, ports
from apps.accounts.models import ExternalIdentity, IdentityProvider, User
from apps.accounts.openid_events import ProviderChanged
from apps.core import clock, crypto, outbox, outgoing
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import INSTALLATION, holders_of, may

VIEW, MANAGE = "accounts.provider.view", "accounts.provider.manage"
EDITABLE = (
    "name", "issuer", "client_id", "extra_scopes", "groups_claim", "mail_domains", "just_in_time", "links_by_mail",
    "second_factor_there",
)  # fmt: skip
#: What the test of a provider says something about: changed, it has to be tested anew.
_TESTED = frozenset({"issuer", "client_id", "client_secret", "extra_scopes", "groups_claim"})
_SCOPE = re.compile(r"^[\x21\x23-\x5b\x5d-\x7e]{1,60}$")
_DOMAIN = re.compile(r"^(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$")
_MOST_SCOPES, _MOST_DOMAINS = 20, 100


@transaction.atomic
def create_provider(
    name: str, issuer: str, client_id: str, client_secret: str, *, actor: Actor, slug: str = "", **further: Any
) -> IdentityProvider:
    """Connect a provider; it stays off until it was tested and enabled. `further`: the rest of `EDITABLE`.

    Raises NotAllowed, Invalid.
    """
    _require(actor)
    values = _checked({"name": name, "issuer": issuer, "client_id": client_id, **further}, None)
    slug = slug.strip().lower() or slugify(values["name"])[:40].strip("-")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) or len(slug) > 40:
        raise Invalid({"slug": "Use small letters, digits and single hyphens, at most 40 characters."})
    if IdentityProvider.objects.filter(slug=slug).exists():
        raise Invalid({"slug": "Another provider has this short name in its addresses."})
    try:
        with transaction.atomic():
            provider = IdentityProvider.objects.create(slug=slug, client_secret=_secret(client_secret), **values)
    except IntegrityError as error:
        raise Invalid({"issuer": _CONNECTED}) from error
    _tell(openid_events.PROVIDER_CREATED, provider, actor)
    return provider


@transaction.atomic
def edit_provider(
    provider_id: int, *, actor: Actor, expected_version: int | None = None, client_secret: str = "", **changes: Any
) -> IdentityProvider:
    """Change a provider (`EDITABLE`); an empty `client_secret` leaves the stored one as it is.

    Another issuer is taken only while nobody is connected through the old one (the accounts would be anybody's whom
    the new one calls by the same subject), and switches the provider off. Raises NotVisible, NotAllowed, Conflict,
    Invalid.
    """
    provider = _locked(provider_id, actor, expected_version)
    if unknown := sorted(set(changes) - set(EDITABLE)):
        raise Invalid({unknown[0]: "This cannot be changed."})
    values = _checked({**{name: getattr(provider, name) for name in EDITABLE}, **changes}, provider)
    names = sorted(name for name, value in values.items() if getattr(provider, name) != value)
    if client_secret.strip():
        values["client_secret"] = _secret(client_secret)
        names.append("client_secret")
    if not names:
        return provider
    ended = 0
    if "issuer" in names:
        if ExternalIdentity.objects.filter(provider=provider).exists():
            raise Invalid(
                {"issuer": "People are connected through this issuer. Connect the other one as a new provider."}
            )
        _leaves_a_way_in(provider)
        ended = openid_sessions.end_all(provider)
        values["enabled"] = False
    if set(names) & _TESTED:
        values |= {"checked_at": None, "check_error": ""}
    for name, value in values.items():
        setattr(provider, name, value)
    try:
        with transaction.atomic():
            provider.bump(*values)
    except IntegrityError as error:
        raise Invalid({"issuer": _CONNECTED}) from error
    transaction.on_commit(lambda: openid_metadata.forget(provider))
    _tell(openid_events.PROVIDER_EDITED, provider, actor, changed=sorted(names), ended=ended)
    return provider


@transaction.atomic
def enable_provider(provider_id: int, *, actor: Actor, expected_version: int | None = None) -> IdentityProvider:
    """Open a provider for sign-in. Raises NotVisible, NotAllowed, Conflict where its test has not passed."""
    provider = _locked(provider_id, actor, expected_version)
    if provider.enabled:
        raise Conflict("This provider is open for sign-in already.", current={"enabled": True})
    if provider.checked_at is None or provider.check_error:
        raise Conflict("Test it first: only a provider whose test passed can be enabled.", current={"tested": False})
    provider.enabled = True
    provider.bump("enabled")
    _tell(openid_events.PROVIDER_ENABLED, provider, actor)
    return provider


@transaction.atomic
def disable_provider(provider_id: int, *, actor: Actor, expected_version: int | None = None) -> IdentityProvider:
    """Close a provider: nobody signs in there, and what it opened ends. Raises NotVisible, NotAllowed, Conflict."""
    provider = _locked(provider_id, actor, expected_version)
    if not provider.enabled:
        raise Conflict("This provider is switched off already.", current={"enabled": False})
    _leaves_a_way_in(provider)
    provider.enabled = False
    provider.bump("enabled")
    _tell(openid_events.PROVIDER_DISABLED, provider, actor, ended=openid_sessions.end_all(provider))
    return provider


@transaction.atomic
def archive_provider(provider_id: int, *, actor: Actor, expected_version: int | None = None) -> IdentityProvider:
    """Put a provider away for good: it closes, its secret is deleted, roles that its groups gave end with the mappings.

    Accounts stay; who signed in there needs another way in. Raises NotVisible, NotAllowed, Conflict.
    """
    provider = _locked(provider_id, actor, expected_version)
    _leaves_a_way_in(provider)
    provider.archived_at = clock.now()
    provider.enabled = False
    provider.client_secret = b""
    provider.bump("archived_at", "enabled", "client_secret")
    _tell(openid_events.PROVIDER_ARCHIVED, provider, actor, ended=openid_sessions.end_all(provider))
    return provider


@transaction.atomic
def disconnect(identity_id: int, reason: str, *, actor: Actor) -> User:
    """Cut the connection of a person with a provider: they sign in there no more, and roles its groups gave end.

    An account that the directory keeps stays its own, and waits for a first sign-in again. Raises NotVisible,
    NotAllowed, Invalid without a reason, Conflict where nobody signed in by it yet.
    """
    _require(actor)
    found = ExternalIdentity.objects.select_for_update(no_key=True, of=("self",)).select_related("provider", "user")
    identity = found.filter(pk=identity_id).first()
    if identity is None:
        raise NotVisible
    if not reason.strip():
        raise Invalid({"reason": "Say why, for the audit trail."})
    if not identity.subject:
        raise Conflict("Nobody has signed in by this connection yet.", current={"connected": False})
    user, provider = identity.user, identity.provider
    ended = openid_sessions.end_all(provider, user)
    if identity.provisioned:
        identity.subject, identity.token_groups = "", None
        identity.save(update_fields=["subject", "token_groups", "updated_at"])
    else:
        identity.delete()
    audit.record(
        openid_events.IDENTITY_UNLINKED,
        openid_events.IdentityUnlinked(provider.uid, ended),
        actor=actor,
        subject_type="accounts.user",
        subject_uid=user.uid,
        reason=reason.strip(),
    )
    ports.groups_changed(user.pk, actor=actor)
    return user


def require_manager(actor: Actor) -> User:
    """Return the person behind `actor`. Raises NotAllowed where they do not keep identity providers."""
    return _require(actor)


_MALFORMED = "Use at most 1000 characters, without line breaks."
_CONNECTED = "This issuer is connected already, maybe archived."


def _require(actor: Actor) -> User:
    found = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id is not None else None
    if found is None or not may(found, MANAGE, INSTALLATION):
        raise NotAllowed("Identity providers are kept by platform admins.", rule=MANAGE)
    return found


def _locked(provider_id: int, actor: Actor, expected_version: int | None) -> IdentityProvider:
    if not IdentityProvider.objects.visible_to(_require(actor)).filter(pk=provider_id).exists():
        raise NotVisible
    provider = IdentityProvider.objects.locked(provider_id, expected_version=expected_version)
    if provider.archived_at is not None:
        raise Conflict("This provider is archived.", current={"status": "archived"})
    return provider


def _leaves_a_way_in(provider: IdentityProvider) -> None:
    """Raise Blocked where without this provider nobody could sign in any more, not even to undo it."""
    passwords = settings.COMMONS_LOCAL_SIGN_IN in ("all", "admins")
    if provider.enabled and not passwords and not IdentityProvider.objects.offered().exclude(pk=provider.pk).exists():
        raise Blocked(
            "It is the only way in: this installation takes no passwords (COMMONS_LOCAL_SIGN_IN). Enable another"
            " provider first."
        )


def _secret(text: str) -> bytes:
    text = text.strip()
    if len(text) > 1000 or not text.isprintable():
        raise Invalid({"client_secret": _MALFORMED})
    return crypto.encrypt(text)


def _checked(values: Mapping[str, Any], provider: IdentityProvider | None) -> dict[str, Any]:
    found = dict(values)
    errors: dict[str, str] = {}
    if unknown := sorted(set(found) - set(EDITABLE)):
        raise Invalid({unknown[0]: "There is no such setting."})
    found["name"] = " ".join(str(found["name"]).split())
    others = IdentityProvider.objects.filter(archived_at__isnull=True).exclude(pk=provider.pk if provider else 0)
    if not 1 <= len(found["name"]) <= 100:
        errors["name"] = "Give it a name of at most 100 characters: people read it on the sign-in page."
    elif others.filter(name__iexact=found["name"]).exists():
        errors["name"] = "Another provider has this name: people could not tell the two apart."
    found["issuer"] = str(found["issuer"]).strip()
    if fault := _issuer_fault(found["issuer"]):
        errors["issuer"] = fault
    found["client_id"] = str(found["client_id"]).strip()
    if not 1 <= len(found["client_id"]) <= 300 or not found["client_id"].isprintable():
        errors["client_id"] = "Enter the id that the provider gave this portal."
    if "extra_scopes" in found:
        found["extra_scopes"] = scopes = _once(found["extra_scopes"])
        if len(scopes) > _MOST_SCOPES or any(not _SCOPE.match(scope) for scope in scopes):
            errors["extra_scopes"] = f"Enter scopes such as “groups”, at most {_MOST_SCOPES}."
    if "groups_claim" in found:
        found["groups_claim"] = claim = str(found["groups_claim"]).strip()
        if len(claim) > 60 or not claim.isprintable():
            errors["groups_claim"] = "Use at most 60 characters."
    if "mail_domains" in found:
        found["mail_domains"] = domains = _once(str(domain).lower() for domain in found["mail_domains"])
        wrong = [domain for domain in domains if not _DOMAIN.match(domain)]
        if wrong or len(domains) > _MOST_DOMAINS:
            errors["mail_domains"] = f"Enter domains such as example.com, at most {_MOST_DOMAINS}."
    if found.get("links_by_mail") and not found.get("mail_domains"):
        errors.setdefault(
            "mail_domains", "Name the domains in which an address may connect an existing account: never just any."
        )
    if errors:
        raise Invalid(errors)
    return found


def _issuer_fault(issuer: str) -> str:
    if not issuer or len(issuer) > 300:
        return "Enter the issuer, such as https://id.example.com/realms/staff."
    if fault := openid_metadata.address_fault(issuer):
        return f"This cannot be an issuer: {fault}."
    if urlsplit(issuer).query or issuer.endswith(openid_metadata.WELL_KNOWN):
        return "Enter the issuer alone, without a query and without /.well-known/…"
    try:
        outgoing.check_address(issuer)
    except outgoing.CallRefused as error:
        return f"The portal does not call it: {error}."
    return ""


def _once(texts: Any) -> list[str]:
    return list(dict.fromkeys(text for item in texts if (text := str(item).strip())))


def _tell(
    event: EventType, provider: IdentityProvider, actor: Actor, *, changed: Sequence[str] = (), ended: int = 0
) -> None:
    payload = ProviderChanged(provider.name, provider.issuer, provider.enabled, list(changed), ended)
    audit.record(event, payload, actor=actor, subject_type="accounts.provider", subject_uid=provider.uid)
    outbox.publish(event, payload, recipients=holders_of(VIEW), subject_uid=provider.uid)
