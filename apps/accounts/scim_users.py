"""What a directory may do to accounts: make, change, switch off and on again, hand back. Each call is one transaction.

The directory acts as `scim.<slug of the provider>`; it reaches accounts that it keeps, and no others. Every call locks
its provider first, so that uniqueness and the count of those switched off hold under any interleaving.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from apps import audit
from apps.accounts import openid_events, ports, scim_events
from apps.accounts.choices import UserKind
from apps.accounts.models import DirectoryMembership, ExternalIdentity, IdentityProvider, SecondFactor, User
from apps.accounts.scim_activity import follow_directory
from apps.accounts.scim_errors import ScimError, invalid_value, not_found, not_unique
from apps.accounts.scim_patch import Operation, normalised, patch_user, truth
from apps.core import outbox
from apps.core.actor import Actor

#: What is kept of one person's attributes, at most.
MAX_BYTES = 16 * 1024
#: Under this key stands by what names a directory knew an account that it has handed back.
FORMER = "former"


@dataclass(frozen=True, slots=True)
class Person:
    """What the portal reads out of a user's attributes."""

    user_name: str
    external_id: str
    email: str
    display_name: str
    active: bool


@transaction.atomic
def create_user(provider_id: int, body: Mapping[str, Any], *, actor: Actor) -> ExternalIdentity:
    """Make an account, or take over one that is the same person's by rule. Raises ScimError.

    Taken over is an account that signed in at this provider with the id that the directory names, one that the same
    directory handed back under that id, and, where the provider links by address, one with the same address.
    """
    provider = locked_provider(provider_id)
    document = normalised(body)
    person = read_person(document, provider)
    _check_unique(provider, person)
    user, linked = _account(provider, person)
    connected = linked and not ExternalIdentity.objects.filter(provider=provider, user=user).exists()
    identity = ExternalIdentity.objects.filter(provider=provider, user=user).first() or ExternalIdentity(
        provider=provider, user=user, token_groups=None, active=person.active
    )
    identity.provisioned = True
    identity.user_name, identity.external_id = person.user_name, person.external_id
    identity.attributes = document
    if identity.pk is not None:
        identity.version += 1
    _save(identity)
    payload = scim_events.AccountProvisioned(
        provider_uid=provider.uid, linked=linked, active=person.active, email=person.email, user_name=person.user_name
    )
    _about(scim_events.ACCOUNT_PROVISIONED, payload, user, actor)
    if linked:
        _take_over(identity, user, person)
    if connected:
        _connected(provider, user, actor)
    follow_directory(identity, person.active, provider=provider, actor=actor, new=not linked)
    ports.groups_changed(user.pk, actor=actor)
    return identity


@transaction.atomic
def replace_user(
    provider_id: int, uid: UUID, body: Mapping[str, Any], *, actor: Actor, expected_version: int | None = None
) -> ExternalIdentity:
    """Replace all attributes of an account that the directory keeps. Raises ScimError."""
    provider = locked_provider(provider_id)
    identity = _identity(provider, uid, expected_version)
    document = normalised(body)
    if not any(key.lower() == "active" for key in document):
        document["active"] = identity.active
    return _write(identity, document, provider, actor)


@transaction.atomic
def change_user(
    provider_id: int, uid: UUID, steps: Sequence[Operation], *, actor: Actor, expected_version: int | None = None
) -> ExternalIdentity:
    """Change some attributes of an account that the directory keeps. Raises ScimError."""
    provider = locked_provider(provider_id)
    identity = _identity(provider, uid, expected_version)
    document = {**identity.attributes, "active": identity.active}
    return _write(identity, patch_user(document, steps), provider, actor)


@transaction.atomic
def remove_user(provider_id: int, uid: UUID, *, actor: Actor, expected_version: int | None = None) -> None:
    """Hand an account back: it is switched off and out of every group; its history stays. Raises ScimError.

    Where switching off is held back, the account stays the directory's until a person has decided.
    """
    provider = locked_provider(provider_id)
    identity = _identity(provider, uid, expected_version)
    if not follow_directory(identity, False, provider=provider, actor=actor):
        return
    identity.attributes = {FORMER: {"externalId": identity.external_id, "userName": identity.user_name}}
    identity.provisioned, identity.external_id, identity.user_name = False, "", ""
    identity.token_groups = []
    identity.version += 1
    _save(identity)
    DirectoryMembership.objects.filter(identity=identity).delete()
    payload = scim_events.AccountRemoved(provider_uid=provider.uid)
    _about(scim_events.ACCOUNT_REMOVED, payload, identity.user, actor)
    ports.groups_changed(identity.user_id, actor=actor)


def locked_provider(provider_id: int) -> IdentityProvider:
    """Return the provider, locked until the transaction ends. Raises ScimError for one that is archived."""
    found = IdentityProvider.objects.select_for_update(no_key=True).filter(pk=provider_id, archived_at=None).first()
    if found is None:
        raise not_found("provider")
    return found


def read_person(document: Mapping[str, Any], provider: IdentityProvider) -> Person:
    """Return what the portal needs to know of a person. Raises ScimError naming the attribute that is wrong."""
    if len(json.dumps(document)) > MAX_BYTES:
        raise ScimError(413, f"Send at most {MAX_BYTES} bytes of attributes for one person.", "tooMany")
    user_name = _text(document, "userName", 255)
    if not user_name:
        raise invalid_value("userName is required.")
    email = _email(document, user_name)
    try:
        validate_email(email)
    except ValidationError as error:
        raise invalid_value("Send an e-mail address in emails (or as userName).") from error
    if len(email) > 254:
        raise invalid_value("An e-mail address has at most 254 characters.")
    domain = email.rpartition("@")[2].lower()
    if provider.mail_domains and domain not in {one.lower() for one in provider.mail_domains}:
        raise invalid_value(f"{domain} is none of the mail domains of this provider.")
    name = document.get("name")
    name = name if isinstance(name, Mapping) else {}
    parts = [_text(name, "givenName", 100), _text(name, "familyName", 100)]
    display = _text(document, "displayName", 200) or _text(name, "formatted", 200)
    display = display or " ".join(part for part in parts if part) or user_name[:200]
    return Person(
        user_name=user_name,
        external_id=_text(document, "externalId", 255),
        email=email,
        display_name=" ".join(display.split()),
        active=truth(document.get("active", True)),
    )


# -- the parts


def _identity(provider: IdentityProvider, uid: UUID, expected_version: int | None) -> ExternalIdentity:
    found = ExternalIdentity.objects.filter(provider=provider, uid=uid, provisioned=True, user__erased_at__isnull=True)
    identity = found.select_for_update(of=("self",), no_key=True).select_related("user").first()
    if identity is None:
        raise not_found("user")
    if expected_version is not None and expected_version != identity.version:
        raise ScimError(412, "This user has changed since you read it. Read it again.")
    return identity


def _write(
    identity: ExternalIdentity, document: dict[str, Any], provider: IdentityProvider, actor: Actor
) -> ExternalIdentity:
    person = read_person(document, provider)
    _check_unique(provider, person, identity)
    before = {**identity.attributes, "active": identity.active}
    changed = sorted({key for key in before.keys() | document.keys() if before.get(key) != document.get(key)})
    if not changed:
        return identity
    user = User.objects.select_for_update(no_key=True).get(pk=identity.user_id)
    identity.user = user
    _take_over(identity, user, person)
    identity.user_name, identity.external_id = person.user_name, person.external_id
    identity.attributes = document
    identity.version += 1
    _save(identity)
    if attributes := [key for key in changed if key != "active"]:
        # Only names of the standard: a directory's own keys are its words.
        named = [key if key in _STANDARD else "other" for key in attributes]
        payload = scim_events.AccountChanged(provider_uid=provider.uid, attributes=sorted(set(named)))
        _about(scim_events.ACCOUNT_CHANGED, payload, user, actor)
    follow_directory(identity, person.active, provider=provider, actor=actor)
    return identity


_STANDARD = frozenset({"userName", "externalId", "displayName", "name", "emails", "title", "phoneNumbers", "addresses"})


def _check_unique(provider: IdentityProvider, person: Person, own: ExternalIdentity | None = None) -> None:
    others = ExternalIdentity.objects.filter(provider=provider, provisioned=True).exclude(pk=own.pk if own else 0)
    if others.filter(user_name__iexact=person.user_name).exists():
        raise not_unique("Another user of this provider has this userName.")
    if person.external_id and others.filter(external_id=person.external_id).exists():
        raise not_unique("Another user of this provider has this externalId.")


def _account(provider: IdentityProvider, person: Person) -> tuple[User, bool]:
    """Return the locked account for a new user of the directory, and whether it was there before."""
    here = ExternalIdentity.objects.filter(provider=provider, provisioned=False).select_related("user")
    same = None
    if person.external_id:
        same = here.filter(subject=person.external_id).first()
        same = same or here.filter(attributes__former__externalId=person.external_id).first()
    by_mail = User.objects.filter(email__iexact=person.email).first()
    if same is None and by_mail is None:
        return _new_account(person), False
    if same is None and not provider.links_by_mail:
        raise not_unique(
            "There is an account with this e-mail address, and this provider does not link accounts by address."
            " Switch that on for the provider, or change the address of the account."
        )
    chosen = same.user if same is not None else by_mail
    user = User.objects.select_for_update(no_key=True).get(pk=chosen.pk if chosen is not None else 0)
    if by_mail is not None and by_mail.pk != user.pk:
        raise not_unique("Another account has this e-mail address.")
    if user.kind != UserKind.PERSON or user.is_superuser or user.merged_into_id is not None or user.erased_at:
        raise not_unique("The account with this e-mail address is not open to directories.")
    if ExternalIdentity.objects.filter(provider=provider, user=user, provisioned=True).exists():
        raise not_unique("This account belongs to another user of this provider.")
    if same is None and SecondFactor.objects.in_use().filter(user=user).exists():
        # As at sign-in: what the person protected by more than a password is not handed over by its address.
        raise not_unique("The account with this e-mail address has a second factor of its own: it is not linked.")
    return user, True


def _connected(provider: IdentityProvider, user: User, actor: Actor) -> None:
    """Tell the person whose account a directory found by its address: from now on its provider opens it."""
    if user.must_change_password:
        # Somebody else chose that password and nobody has used it: with it, they could come in beside the person.
        user.set_unusable_password()
        user.must_change_password = False
        user.save(update_fields=["password", "must_change_password"])
    payload = openid_events.IdentityLinked(provider.uid, "directory", provider.name)
    _about(openid_events.IDENTITY_LINKED, payload, user, actor)
    outbox.publish(openid_events.IDENTITY_LINKED, payload, recipients=[user.pk], subject_uid=user.uid)


def _new_account(person: Person) -> User:
    user = User(
        email=User.objects.normalize_email(person.email),
        display_name=person.display_name,
        is_active=person.active,
        may_use_password=False,
    )
    user.set_unusable_password()
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:
        raise not_unique("Another account has this e-mail address.") from error
    return user


def _take_over(identity: ExternalIdentity, user: User, person: Person) -> None:
    """Let name and address of an account be what the directory says that kept it first."""
    if ExternalIdentity.objects.filter(user=user, provisioned=True, pk__lt=identity.pk).exists():
        return
    if user.email.lower() == person.email.lower() and user.display_name == person.display_name:
        return
    if User.objects.filter(email__iexact=person.email).exclude(pk=user.pk).exists():
        raise not_unique("Another account has this e-mail address.")
    if user.email.lower() != person.email.lower():
        user.email = User.objects.normalize_email(person.email)
    user.display_name = person.display_name
    user.save(update_fields=["email", "display_name"])


def _save(identity: ExternalIdentity) -> None:
    try:
        with transaction.atomic():
            identity.save()
    except IntegrityError as error:
        raise not_unique("Another user of this provider has this userName or externalId.") from error


def _text(document: Mapping[str, Any], key: str, longest: int) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid_value(f"{key} is a text.")
    if len(value) > longest:
        raise invalid_value(f"{key} has at most {longest} characters.")
    return value.strip()


def _email(document: Mapping[str, Any], user_name: str) -> str:
    found = document.get("emails")
    given = [one for one in found if isinstance(one, Mapping) and one.get("value")] if isinstance(found, list) else []
    chosen = next((one for one in given if one.get("primary") is True), None)
    chosen = chosen or next((one for one in given if str(one.get("type", "")).lower() == "work"), None)
    value = (chosen or (given[0] if given else {"value": user_name}))["value"]
    if not isinstance(value, str):
        raise invalid_value("The value of an e-mail address is a text.")
    return value.strip()


def _about(event: Any, payload: Any, user: User, actor: Actor) -> None:
    audit.record(event, payload, actor=actor, subject_type="accounts.user", subject_uid=user.uid)


__all__ = [
    "Person",
    "change_user",
    "create_user",
    "locked_provider",
    "read_person",
    "remove_user",
    "replace_user",
]
