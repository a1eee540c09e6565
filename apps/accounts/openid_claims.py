"""What the claims of a checked ID token say of a person: pure readings, strict where an account depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from apps.accounts.openid_tokens import moment

#: Methods of RFC 8176 by kind of factor: two kinds make a second factor, as does "mfa" itself.
_KNOWLEDGE = frozenset({"pwd", "pin", "kba"})
_POSSESSION = frozenset({"otp", "hwk", "swk", "sc", "sms", "tel", "pop"})
_INHERENCE = frozenset({"face", "fpt", "iris", "retina", "vbm"})
#: `acr` values that stand for several factors: OpenID's phishing-resistant ones, SAML's and PAPE's names, REFEDS.
_STRONG_ACR = frozenset(
    {
        "phr",
        "phrh",
        "mfa",
        "urn:okta:loa:2fa:any",
        "https://refeds.org/profile/mfa",
        "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
    }
)
#: Names of groups longer than the column are left out; more groups than this are cut off by no provider's default.
MOST_GROUPS = 2000
LONGEST_GROUP = 255


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in, as the provider says it. `groups` None: it named none at all."""

    subject: str
    email: str
    email_verified: bool
    name: str
    object_id: str
    groups: tuple[str, ...] | None
    second_factor: bool
    proved_at: datetime | None
    session: str


def person(claims: Mapping[str, Any], groups_claim: str) -> Person:
    """Read the claims of a checked token."""
    return Person(
        subject=str(claims["sub"]),
        email=address(claims),
        email_verified=verified(claims),
        name=display_name(claims),
        object_id=_text(claims.get("oid")),
        groups=groups(claims, groups_claim),
        second_factor=second_factor(claims),
        proved_at=moment(claims.get("auth_time")),
        session=_text(claims.get("sid")),
    )


def address(claims: Mapping[str, Any]) -> str:
    """Return the `email` claim where it is one plain address of ASCII letters, else "".

    Letters that only look like others would make an address that people take for somebody else's.
    """
    value = claims.get("email")
    if not isinstance(value, str) or len(value) > 254 or not value.isascii() or not value.isprintable():
        return ""
    try:
        validate_email(value)
    except ValidationError:
        return ""
    return value


def verified(claims: Mapping[str, Any]) -> bool:
    """Whether the provider vouches for the address: `email_verified`, or Microsoft's `xms_edov`."""
    return any(claims.get(name) in (True, "true", "True", "1") for name in ("email_verified", "xms_edov"))


def in_domains(email: str, domains: Sequence[str]) -> bool:
    """Whether the address lies in one of the domains exactly (no subdomains); no domains: any."""
    return not domains or email.rpartition("@")[2].lower() in {domain.lower() for domain in domains}


def display_name(claims: Mapping[str, Any]) -> str:
    """Return the name to show: `name`, else given and family name, else the address's first part, at most 200 long."""
    named = [_shown(claims.get(name)) for name in ("name", "given_name", "family_name", "preferred_username")]
    found = named[0] or " ".join(named[1:3]).strip() or named[3] or address(claims).partition("@")[0]
    return found[:200].strip()


def groups(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """Return the groups under the claim `name` ("a.b" also leads into objects); None where none are named at all.

    A provider that had too many of them (`_claim_names`, Microsoft's overage) named none.
    """
    if not name or overage(claims, name):
        return None
    value = claims.get(name)
    if value is None and "." in name:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return None
    found = (item.strip() for item in value[:MOST_GROUPS] if isinstance(item, str))
    return tuple(sorted({item for item in found if item and len(item) <= LONGEST_GROUP and item.isprintable()}))


def overage(claims: Mapping[str, Any], name: str) -> bool:
    """Whether the provider says that it has groups but left them out of the token."""
    elsewhere = claims.get("_claim_names")
    return (isinstance(elsewhere, Mapping) and name in elsewhere) or claims.get("hasgroups") in (True, "true")


def second_factor(claims: Mapping[str, Any]) -> bool:
    """Whether `amr` (RFC 8176) or `acr` shows more than one factor."""
    value = claims.get("amr")
    methods = {str(item).lower() for item in value} if isinstance(value, list) else set()
    kinds = sum(bool(methods & kind) for kind in (_KNOWLEDGE, _POSSESSION, _INHERENCE))
    return "mfa" in methods or kinds >= 2 or _text(claims.get("acr")) in _STRONG_ACR


def _shown(value: Any) -> str:
    """Return a text as people may see it: one line, no control characters or marks that turn the direction."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value[:400]).split())


def _text(value: Any, longest: int = 255) -> str:
    return value if isinstance(value, str) and len(value) <= longest and value.isprintable() else ""
