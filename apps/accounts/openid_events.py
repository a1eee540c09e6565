"""What sign-in at identity providers tells: opaque ids in hashed bytes, names and addresses in erasable notes only."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from apps.core.events import EventType, declare, private


@dataclass(frozen=True, slots=True)
class OpenIdRefused:
    """Nobody was signed in although a provider sent them. `cause` is one of `openid_refusals.PAGES`."""

    provider: uuid.UUID
    cause: str
    network: str
    detail: str = private(default="")


@dataclass(frozen=True, slots=True)
class IdentityLinked:
    """A subject at a provider is a person here from now on. `how`: first_sign_in, address, or directory."""

    provider: uuid.UUID
    how: str
    provider_name: str = ""


@dataclass(frozen=True, slots=True)
class IdentityUpdated:
    """Name or address of an account that a provider made followed the provider."""

    provider: uuid.UUID
    changed: list[str] = field(default_factory=list)
    email: str = private(default="")
    display_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class IdentityUnlinked:
    """An administrator cut the connection between a subject at a provider and a person."""

    provider: uuid.UUID
    sessions_closed: int


@dataclass(frozen=True, slots=True)
class ProviderSessionEnded:
    """A provider said that a session there ended. `how`: back_channel or front_channel."""

    provider: uuid.UUID
    how: str
    sessions_closed: int


@dataclass(frozen=True, slots=True)
class ProvedAgain:
    """A person proved at their provider who they are, when asked to."""

    provider: uuid.UUID
    second_factor: bool


@dataclass(frozen=True, slots=True)
class ProviderChanged:
    """An identity provider was connected, changed, switched or archived. `sessions_closed`: what ended with it."""

    name: str
    issuer: str
    enabled: bool
    changed: list[str] = field(default_factory=list)
    sessions_closed: int = 0


@dataclass(frozen=True, slots=True)
class ProviderTested:
    """An identity provider was tested. `failed` names the steps that did not pass."""

    name: str
    failed: list[str] = field(default_factory=list)


_KEEPERS = "those who keep identity providers"


def _body(payload: ProviderChanged) -> str:
    parts = [f"Issuer: {payload.issuer}."]
    if payload.changed:
        parts.append(f"Changed: {', '.join(payload.changed)}.")
    if payload.sessions_closed:
        parts.append(f"Sessions that ended: {payload.sessions_closed}.")
    return " ".join(parts)


def _link(_: object) -> str:
    return "/identity-providers/"


OPENID_REFUSED = declare("accounts.openid.refused", OpenIdRefused, audience="auditors")
IDENTITY_LINKED = declare(
    "accounts.identity.linked",
    IdentityLinked,
    audience="the person",
    mail=True,
    headline=lambda p: f"Your account is connected with {p.provider_name}",
    body=lambda p: (
        f"From now on you can sign in at {p.provider_name}. If that was not you, tell your administrators at once."
    ),
    path=lambda _: "/account/",
)
IDENTITY_UPDATED = declare("accounts.identity.updated", IdentityUpdated, audience="auditors")
IDENTITY_UNLINKED = declare("accounts.identity.unlinked", IdentityUnlinked, audience="auditors")
PROVIDER_SESSION_ENDED = declare("accounts.openid.ended", ProviderSessionEnded, audience="auditors")
PROVED_AGAIN = declare("accounts.openid.proved", ProvedAgain, audience="auditors")


def _declared(verb: str, what: str) -> EventType:
    return declare(
        f"accounts.provider.{verb}",
        ProviderChanged,
        audience=_KEEPERS,
        mail=True,
        headline=lambda p: f"Identity provider {p.name} {what}",
        body=_body,
        path=_link,
    )


PROVIDER_CREATED = _declared("created", "was connected, and is off")
PROVIDER_EDITED = _declared("edited", "was changed")
PROVIDER_ENABLED = _declared("enabled", "is open for sign-in")
PROVIDER_DISABLED = _declared("disabled", "was switched off")
PROVIDER_ARCHIVED = _declared("archived", "was archived")
PROVIDER_TESTED = declare("accounts.provider.tested", ProviderTested, audience="auditors")
