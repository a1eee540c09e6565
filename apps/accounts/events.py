"""What the accounts room tells: audit events with opaque ids; names and addresses only in erasable notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from apps.core.events import declare, private


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A person signed in. `network` is the class of the caller's address (loopback, private, public).

    `provider` is the uid of the identity provider, empty after a password.
    """

    network: str
    method: str = "password"
    provider: str = ""
    second_factor: bool = False


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """Somebody failed to sign in: wrong (account or password), limited (too many tries)."""

    cause: str
    network: str
    email: str = private(default="")


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session ended: signed_out, closed (from the profile page), password_changed or deactivated."""

    cause: str
    sessions: int


@dataclass(frozen=True, slots=True)
class PasswordChanged:
    """A person changed their password, or an administrator set a new initial one."""

    initial: bool


@dataclass(frozen=True, slots=True)
class PasswordRehashed:
    """The same password was stored under a stronger hash, when the person gave it."""

    algorithm: str


@dataclass(frozen=True, slots=True)
class TokenCreated:
    """An API token was made."""

    read_only: bool
    expires_at: datetime
    name: str = private(default="")
    limited: bool = False
    permissions: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """An API token was revoked."""

    cause: str


@dataclass(frozen=True, slots=True)
class UserCreated:
    """An administrator made an account."""

    email: str = private(default="")
    display_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class UserSwitched:
    """An administrator switched an account off, or on again."""

    sessions_closed: int
    tokens_revoked: int


SESSION_OPENED = declare("accounts.session.opened", SessionOpened, audience="auditors")
SESSION_REFUSED = declare("accounts.session.refused", SessionRefused, audience="auditors")
SESSION_CLOSED = declare("accounts.session.closed", SessionClosed, audience="auditors")
PASSWORD_CHANGED = declare(
    "accounts.password.changed",
    PasswordChanged,
    audience="the person",
    mail=True,
    headline=lambda p: (
        "A platform admin set a new initial password for you" if p.initial else "Your password was changed"
    ),
    body=lambda p: "If you did not do this or ask for it, tell a platform admin at once.",
    path=lambda p: "/account/",
)
PASSWORD_REHASHED = declare("accounts.password.rehashed", PasswordRehashed, audience="auditors")
TOKEN_CREATED = declare("accounts.token.created", TokenCreated, audience="the person")
TOKEN_REVOKED = declare("accounts.token.revoked", TokenRevoked, audience="the person")
USER_CREATED = declare("accounts.user.created", UserCreated, audience="auditors")
USER_DEACTIVATED = declare("accounts.user.deactivated", UserSwitched, audience="auditors")
USER_REACTIVATED = declare("accounts.user.reactivated", UserSwitched, audience="auditors")
