"""What provisioning by directories tells. Names, addresses and groups stand in erasable notes only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class AccountProvisioned:
    """A directory made an account, or took one over that was there (`linked`)."""

    provider_uid: UUID
    linked: bool
    active: bool
    email: str = private(default="")
    user_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class AccountChanged:
    """A directory changed attributes of an account; only their names are kept."""

    provider_uid: UUID
    attributes: list[str]


@dataclass(frozen=True, slots=True)
class AccountRemoved:
    """A directory keeps an account no longer. It is switched off, and stays for what it did."""

    provider_uid: UUID


@dataclass(frozen=True, slots=True)
class GroupChanged:
    """A directory made, changed or removed a group."""

    provider_uid: UUID
    renamed: bool
    added: list[UUID]
    removed: list[UUID]
    group: str = private(default="")


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A directory switched off so many people at once that those after them wait for a person."""

    provider_uid: UUID
    provider: str
    off: int
    people: int


@dataclass(frozen=True, slots=True)
class HoldEnded:
    """Somebody let the waiting through, or kept the accounts."""

    provider_uid: UUID
    switched_off: int
    kept: int


@dataclass(frozen=True, slots=True)
class LastAdminRefused:
    """A directory tried to switch off the last platform admin and was refused."""

    provider_uid: UUID
    provider: str
    user_uid: UUID


@dataclass(frozen=True, slots=True)
class ScimTokenChanged:
    """A directory's token was made, rotated or revoked."""

    provider_uid: UUID
    expires_at: datetime
    replaces: UUID | None = None
    name: str = private(default="")


@dataclass(frozen=True, slots=True)
class ScimTokenExpires:
    """A directory's token will expire, and nobody has rotated it."""

    provider_uid: UUID
    provider: str
    expires_at: datetime


def _page(payload: HeldBack | LastAdminRefused | ScimTokenExpires) -> str:
    return f"/identity-providers/{payload.provider_uid}/provisioning/"


ACCOUNT_PROVISIONED = declare("accounts.provisioning.created", AccountProvisioned, audience="auditors")
ACCOUNT_CHANGED = declare("accounts.provisioning.changed", AccountChanged, audience="auditors")
ACCOUNT_REMOVED = declare("accounts.provisioning.removed", AccountRemoved, audience="auditors")
GROUP_CREATED = declare("accounts.group.created", GroupChanged, audience="auditors")
GROUP_CHANGED = declare("accounts.group.changed", GroupChanged, audience="auditors")
GROUP_REMOVED = declare("accounts.group.removed", GroupChanged, audience="auditors")
HELD_BACK = declare(
    "accounts.provisioning.held",
    HeldBack,
    audience="platform admins",
    mail=True,
    headline=lambda p: f"{p.provider} switched off {p.off} of {p.people} people within a day",
    body=lambda p: "From now on nobody else is switched off before you look: they keep their access until then.",
    path=_page,
)
HOLD_RELEASED = declare("accounts.provisioning.released", HoldEnded, audience="auditors")
HOLD_DISMISSED = declare("accounts.provisioning.dismissed", HoldEnded, audience="auditors")
LAST_ADMIN_REFUSED = declare(
    "accounts.provisioning.last_admin_refused",
    LastAdminRefused,
    audience="platform admins",
    mail=True,
    headline=lambda p: f"{p.provider} tried to switch off the last platform admin",
    body=lambda p: "It was refused. Give the role to somebody else first; the directory then tries again.",
    path=_page,
)
TOKEN_CREATED = declare("accounts.scim_token.created", ScimTokenChanged, audience="auditors")
TOKEN_REVOKED = declare("accounts.scim_token.revoked", ScimTokenChanged, audience="auditors")
TOKEN_EXPIRES = declare(
    "accounts.scim_token.expires",
    ScimTokenExpires,
    audience="platform admins",
    mail=True,
    headline=lambda p: f"The directory's token for {p.provider} expires soon",
    body=lambda p: "Rotate it and give the new one to the directory; until then people are provisioned as before.",
    path=_page,
)
