"""Whose account a checked subject of a provider is, and the session that is opened for it.

A subject is known again by provider and `sub` alone. An account is connected or made only on grounds that the person
cannot choose: an address that the provider verified, or the provider's immutable id that its directory (SCIM) gave.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.db import IntegrityError, transaction

from apps import audit
from apps.accounts import addresses, openid_claims, openid_events, ports, sessions
from apps.accounts.choices import SignInMethod, UserKind
from apps.accounts.events import SESSION_OPENED, USER_CREATED, SessionOpened, UserCreated
from apps.accounts.models import (
    ExternalIdentity,
    IdentityProvider,
    SecondFactor,
    SignInAttempt,
    SignInSession,
    User,
)
from apps.accounts.openid_claims import Person
from apps.accounts.openid_refusals import Refused
from apps.accounts.sign_in import ADDRESS_LIMIT, WINDOW
from apps.core import clock, outbox
from apps.core.actor import Actor, Channel, current_request_id

#: When the provider does not say when the person proved who they are, it counts as this long ago: never as just now.
UNKNOWN_PROOF = timedelta(days=30)
_MERGES = 10
_BEGUN, _STRAY = "openid:begun", "openid:stray"
#: Causes that lie with the provider or the account: an outage must not lock a whole office out.
_HARMLESS = frozenset(
    {"denied", "unavailable", "misconfigured", "disabled", "second_factor", "switched_off", "no_account", "not_fresh"}
)


def open_for(
    provider_id: int, person: Person, store: SessionBase, *, id_token: str, address: str, device: str = ""
) -> SignInSession:
    """Open a session of the person whom this provider signed in; connects or makes the account where that is allowed.

    Raises Refused, having changed nothing.
    """
    network = addresses.network_class(address)
    with transaction.atomic():
        # Locked: whoever switches the provider off ends every session that it opened, this one too.
        provider = IdentityProvider.objects.select_for_update(no_key=True).filter(pk=provider_id).first()
        if provider is None or not provider.enabled or provider.archived_at is not None:
            raise Refused("disabled")
        if provider.second_factor_there and not person.second_factor:
            raise Refused("second_factor")
        user = account_of(provider, person)
        session = sessions.open_session(
            user,
            store,
            device=device,
            method=SignInMethod.OPENID,
            provider=provider,
            provider_session=person.session,
            id_token=id_token,
            second_factor=person.second_factor,
            proved_at=person.proved_at or clock.now() - UNKNOWN_PROOF,
            network=network,
        )
        audit.record(
            SESSION_OPENED,
            SessionOpened(network, SignInMethod.OPENID, str(provider.uid), person.second_factor),
            actor=Actor.of(user),
            subject_type="accounts.session",
            subject_uid=session.uid,
        )
    return session


def account_of(provider: IdentityProvider, person: Person) -> User:
    """Return the account of a checked subject, in the caller's transaction. Raises Refused."""
    identity = ExternalIdentity.objects.select_for_update(no_key=True).filter(
        provider=provider, subject=person.subject
    ).first() or _from_directory(provider, person)  # fmt: skip
    if identity is None:
        identity = _connected(provider, person)
    # Locked: whoever switches the account off at the same moment ends every session of it, this one too.
    user = User.objects.select_for_update(no_key=True).get(pk=_current(identity).pk)
    # Switched off by a directory that is held back: the account stays in use until a person has decided.
    gone = not identity.active and identity.held_at is None
    if gone or not user.is_active or user.erased_at is not None or user.kind != UserKind.PERSON:
        raise Refused("switched_off")
    identity.subject = person.subject
    identity.token_groups = list(person.groups) if person.groups is not None else None
    identity.last_signed_in_at = clock.now()
    identity.save(update_fields=["subject", "token_groups", "last_signed_in_at", "updated_at"])
    _follow(provider, identity, user, person)
    ports.groups_changed(user.pk, actor=_portal())
    return user


def known(provider: IdentityProvider, person: Person) -> User | None:
    """Return the account that this subject has now, for the administrator's trial; changes nothing."""
    identity = ExternalIdentity.objects.filter(provider=provider, subject=person.subject).first()
    return _current(identity) if identity is not None else None


def refuse(provider: IdentityProvider, refused: Refused, *, address: str, begun: bool) -> None:
    """Record that nobody was signed in, in a transaction of its own.

    `begun`: it was the answer to an attempt of this browser. Those count against the address (`limited`), unless the
    cause lies with the provider or the account. Others cost nothing and slow nobody down; of them so many are recorded
    from one address that a stranger cannot fill the audit trail.
    """
    counted = begun and refused.cause not in _HARMLESS
    with transaction.atomic():
        if not begun and _count(_STRAY, address) >= ADDRESS_LIMIT:
            return
        if counted or not begun:
            SignInAttempt.objects.create(
                account_key=addresses.keyed("attempt", _BEGUN if begun else _STRAY),
                address_key=addresses.keyed("openid", address),
                at=clock.now(),
            )
        audit.record(
            openid_events.OPENID_REFUSED,
            openid_events.OpenIdRefused(
                provider.uid, refused.cause, addresses.network_class(address), refused.detail[:300]
            ),
            actor=_portal(),
            subject_type="accounts.provider",
            subject_uid=provider.uid,
        )


def limited(address: str) -> bool:
    """Whether so many attempts from this address failed within 15 minutes that no more are taken."""
    return _count(_BEGUN, address) >= ADDRESS_LIMIT


def _count(kind: str, address: str) -> int:
    # Keys of its own: passwords, by which administrators get in while a provider is away, have their own limit.
    return SignInAttempt.objects.filter(
        address_key=addresses.keyed("openid", address),
        account_key=addresses.keyed("attempt", kind),
        at__gt=clock.now() - WINDOW,
    ).count()


def _from_directory(provider: IdentityProvider, person: Person) -> ExternalIdentity | None:
    """Find the account that the provider's directory made for a subject who comes for the first time.

    By the directory's immutable id first; by address only where it is verified. Names that people may choose
    themselves (`preferred_username`) connect nothing.
    """
    waiting = ExternalIdentity.objects.select_for_update(no_key=True, of=("self",)).filter(
        provider=provider, subject="", provisioned=True
    )
    found = None
    for external_id in dict.fromkeys(value for value in (person.object_id, person.subject) if value):
        found = found or waiting.filter(external_id=external_id).first()
    if found is None and person.email and person.email_verified:
        found = waiting.filter(user_name__iexact=person.email).first()
    if found is not None:
        if found.user.is_superuser:
            raise Refused("taken", "the emergency administrator is connected by nobody")
        _linked(provider, found, "directory")
    return found


def _connected(provider: IdentityProvider, person: Person) -> ExternalIdentity:
    """Connect the account with the verified address, or make one. Raises Refused where neither is allowed."""
    if not provider.just_in_time and not provider.links_by_mail:
        raise Refused("no_account")
    if not person.email or not person.email_verified:
        raise Refused("unverified")
    if not openid_claims.in_domains(person.email, provider.mail_domains):
        raise Refused("domain")
    user = User.objects.select_for_update(no_key=True).filter(email__iexact=person.email).first()
    if user is not None:
        _may_connect(provider, user)
        identity = ExternalIdentity.objects.create(provider=provider, subject=person.subject, user=user)
        if user.must_change_password:
            # Somebody else chose that password and nobody has used it: with it, they could come in beside the person.
            user.set_unusable_password()
            user.must_change_password = False
            user.save(update_fields=["password", "must_change_password"])
        _linked(provider, identity, "address")
        return identity
    if not provider.just_in_time:
        raise Refused("no_account")
    user = User(
        email=User.objects.normalize_email(person.email),
        display_name=person.name or person.email.partition("@")[0],
        may_use_password=False,
    )
    user.set_unusable_password()
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:
        # Somebody made an account with this address at the same moment: the next try finds it and decides anew.
        raise Refused("expired", "an account with this address was made at the same moment") from error
    audit.record(
        USER_CREATED,
        UserCreated(email=user.email, display_name=user.display_name),
        actor=_portal(),
        subject_type="accounts.user",
        subject_uid=user.uid,
    )
    identity = ExternalIdentity.objects.create(provider=provider, subject=person.subject, user=user)
    _linked(provider, identity, "first_sign_in")
    return identity


def _may_connect(provider: IdentityProvider, user: User) -> None:
    """Raise Refused where an account must not be handed over by its address alone."""
    if not user.is_active or user.merged_into_id is not None or user.erased_at is not None:
        raise Refused("switched_off")
    if not provider.links_by_mail or user.kind != UserKind.PERSON or user.is_superuser:
        raise Refused("taken")
    if SecondFactor.objects.in_use().filter(user=user).exists():
        raise Refused("taken", "the account has a second factor of its own")
    others = ExternalIdentity.objects.filter(user=user, provider__archived_at__isnull=True)
    if others.exists():
        raise Refused("taken", "the account is connected with a provider already")


def _linked(provider: IdentityProvider, identity: ExternalIdentity, how: str) -> None:
    user = identity.user
    payload = openid_events.IdentityLinked(provider.uid, how, provider.name)
    audit.record(
        openid_events.IDENTITY_LINKED, payload, actor=_portal(), subject_type="accounts.user", subject_uid=user.uid
    )
    if how != "first_sign_in":
        outbox.publish(openid_events.IDENTITY_LINKED, payload, recipients=[user.pk], subject_uid=user.uid)


def _current(identity: ExternalIdentity) -> User:
    """Return the person of an identity, following accounts that were merged into another."""
    user = identity.user
    for _ in range(_MERGES):
        if user.merged_into is None:
            return user
        user = user.merged_into
    raise Refused("switched_off", "accounts merged in a circle")


def _follow(provider: IdentityProvider, identity: ExternalIdentity, user: User, person: Person) -> None:
    """Have name and address of an account that only this provider knows follow it (people marry, addresses change)."""
    if identity.provisioned or user.may_use_password or user.pk != identity.user_id:
        return
    if ExternalIdentity.objects.filter(user=user).exclude(pk=identity.pk).exists():
        return
    changes: dict[str, Any] = {}
    if person.name and person.name != user.display_name:
        changes["display_name"] = person.name
    email = User.objects.normalize_email(person.email)
    accepted = person.email_verified and openid_claims.in_domains(person.email, provider.mail_domains)
    if email and accepted and email != user.email:
        taken = User.objects.filter(email__iexact=email).exclude(pk=user.pk).exists()
        changes |= {} if taken else {"email": email}
    if not changes:
        return
    for name, value in changes.items():
        setattr(user, name, value)
    user.save(update_fields=list(changes))
    audit.record(
        openid_events.IDENTITY_UPDATED,
        openid_events.IdentityUpdated(provider.uid, sorted(changes), **changes),
        actor=_portal(),
        subject_type="accounts.user",
        subject_uid=user.uid,
    )


def _portal() -> Actor:
    return Actor(user_id=None, channel=Channel.WEB, request_id=current_request_id(), name="accounts.openid")
