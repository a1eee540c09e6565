"""What is told of second factors: never a secret, names of keys in erasable notes only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.events import declare, private

_WHAT = {"totp": "An authenticator app", "webauthn": "A security key or passkey", "recovery": "A recovery code"}
_NOT_YOU = "If that was not you, change your password at once and tell a platform admin."


@dataclass(frozen=True, slots=True)
class FactorChanged:
    """A factor was added or removed (`kind`: totp, webauthn); `cause`: added, removed or reset."""

    kind: str
    cause: str
    label: str = private(default="")


@dataclass(frozen=True, slots=True)
class FactorUsed:
    """A factor was given; `purpose`: sign_in or confirm; `left`: recovery codes that remain."""

    kind: str
    purpose: str
    left: int


@dataclass(frozen=True, slots=True)
class CodesMade:
    """New recovery codes were made; the old ones are void."""

    count: int


@dataclass(frozen=True, slots=True)
class FactorsReset:
    """An administrator removed all factors of somebody who lost theirs."""

    factors: int
    sessions_closed: int
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class ResetProposed:
    """An administrator proposed to remove somebody's factors; another person has to agree until then."""

    reset_uid: UUID
    person_uid: UUID
    until: datetime
    person_name: str = private(default="")
    by_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class ResetEnded:
    """Such a proposal ended without effect; `cause`: refused or withdrawn. The reason is the event's erasable note."""

    reset_uid: UUID
    person_uid: UUID
    cause: str
    person_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class ResetOnServer:
    """Somebody with access to the server removed a person's factors, or set a password, without a second person."""

    what: str
    person_name: str = private(default="")


@dataclass(frozen=True, slots=True)
class FactorRefused:
    """A second step was refused; `cause`: wrong, limited, key or copied (its counter did not rise)."""

    cause: str
    purpose: str
    network: str


@dataclass(frozen=True, slots=True)
class FactorGuessed:
    """So many codes were wrong after the right password that none is taken for a while."""

    tries: int


@dataclass(frozen=True, slots=True)
class PasswordUseChanged:
    """Whether somebody may sign in with a password here was changed."""

    allowed: bool
    sessions_closed: int


def _profile(payload: object) -> str:
    return "/account/second-factors/"


FACTOR_ADDED = declare(
    "accounts.factor.added",
    FactorChanged,
    audience="the person",
    mail=True,
    headline=lambda p: f"{_WHAT.get(p.kind, 'A second factor')} was added to your account",
    body=lambda p: _NOT_YOU,
    path=_profile,
)
FACTOR_REMOVED = declare(
    "accounts.factor.removed",
    FactorChanged,
    audience="the person",
    mail=True,
    headline=lambda p: f"{_WHAT.get(p.kind, 'A second factor')} was removed from your account",
    body=lambda p: _NOT_YOU,
    path=_profile,
)
FACTOR_USED = declare("accounts.factor.used", FactorUsed, audience="auditors")
RECOVERY_USED = declare(
    "accounts.factor.recovered",
    FactorUsed,
    audience="the person",
    mail=True,
    headline=lambda p: "A recovery code of your account was used",
    body=lambda p: f"{p.left} remain. {_NOT_YOU}",
    path=_profile,
)
CODES_MADE = declare(
    "accounts.factor.codes_made",
    CodesMade,
    audience="the person",
    mail=True,
    headline=lambda p: "New recovery codes were made for your account",
    body=lambda p: f"The old ones are void. {_NOT_YOU}",
    path=_profile,
)
FACTORS_RESET = declare(
    "accounts.factor.reset",
    FactorsReset,
    audience="the person",
    mail=True,
    headline=lambda p: "A platform admin removed your second factors",
    body=lambda p: f"You are signed out everywhere. Sign in and set one up again. {_NOT_YOU}",
    path=_profile,
)
RESET_PROPOSED = declare(
    "accounts.factor.reset_proposed",
    ResetProposed,
    audience="those who can agree",
    mail=True,
    headline=lambda p: f"The second factors of {p.person_name or 'somebody'} are to be removed: do you agree?",
    body=lambda p: (
        f"{p.by_name or 'A platform admin'} proposes it. Ask the person by another way before you agree; the proposal"
        f" lapses on {str(p.until)[:16].replace('T', ' ')} UTC."
    ),
    path=lambda p: f"/people/factor-resets/{p.reset_uid}/confirm/",
)
RESET_ANNOUNCED = declare(
    "accounts.factor.reset_announced",
    ResetProposed,
    audience="the person",
    mail=True,
    headline=lambda p: "Your second factors are about to be removed",
    body=lambda p: (
        f"{p.by_name or 'A platform admin'} proposed it; nothing happens before a second person agrees. If you did not"
        " ask for it, tell another platform admin or compliance now."
    ),
    path=_profile,
)
RESET_ENDED = declare(
    "accounts.factor.reset_ended",
    ResetEnded,
    audience="the person and who proposed it",
    mail=True,
    headline=lambda p: f"The second factors of {p.person_name or 'somebody'} stay as they are",
    body=lambda p: f"The proposal to remove them was {p.cause}.",
)
RESET_ON_SERVER = declare(
    "accounts.factor.reset_on_server",
    ResetOnServer,
    audience="platform admins and compliance",
    mail=True,
    headline=lambda p: f"Break-glass on the server: {p.what} of {p.person_name or 'somebody'}",
    body=lambda p: "Somebody with access to the server did this alone. Make sure that it was meant to be.",
)
FACTOR_REFUSED = declare("accounts.factor.refused", FactorRefused, audience="auditors")
FACTOR_GUESSED = declare(
    "accounts.factor.guessed",
    FactorGuessed,
    audience="the person",
    mail=True,
    headline=lambda p: "Somebody knows your password and does not get past your second factor",
    body=lambda p: f"{p.tries} codes were wrong. If that was not you, change your password now.",
    path=lambda p: "/account/password/",
)
PASSWORD_USE_CHANGED = declare("accounts.password.use_changed", PasswordUseChanged, audience="auditors")
