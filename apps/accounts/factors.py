"""The arithmetic of second factors: codes of authenticator apps, recovery codes, security keys. Reads no row.

Codes follow RFC 6238 (SHA-1, six digits, 30 seconds: what every app takes), security keys WebAuthn level 2.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pyotp
import segno
from django.conf import settings
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorData,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

STEP_SECONDS = 30
#: Time steps to either side of the present one that are taken, for clocks that differ.
STEPS_AROUND = 1
RECOVERY_CODES = 10
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_RECOVERY_GROUPS, _RECOVERY_GROUP = 4, 4
#: What a browser sends of a key is a few kilobytes.
_ANSWER_LIMIT = 20_000


class NotAccepted(Exception):
    """What a security key answered does not prove what it should."""


# -- Codes of apps


def new_secret() -> str:
    """Return the key of a new app: 160 random bits in base32."""
    return pyotp.random_base32(32)


def provisioning_uri(secret: str, account: str) -> str:
    """Return the otpauth:// address that apps read from the QR code."""
    uri: str = pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=settings.COMMONS_ORGANISATION)
    return uri


def qr_code(text: str) -> str:
    """Return `text` as a QR code: an SVG image in a data: address, dark on light in either theme."""
    address: str = segno.make(text, error="m").svg_data_uri(scale=5, border=3, dark="#000", light="#fff")
    return address


def matching_step(secret: str, code: str, at: datetime, *, after: int) -> int | None:
    """Return the time step whose code was typed, None for none; steps up to `after` were used already."""
    present = int(at.timestamp()) // STEP_SECONDS
    totp = pyotp.TOTP(secret)
    found = None
    # All are compared, so that the time it takes says nothing.
    for step in range(present - STEPS_AROUND, present + STEPS_AROUND + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()) and step > after:
            found = step
    return found


def looks_like_app_code(text: str) -> str:
    """Return the six digits of what was typed, however spaced; "" for anything else."""
    digits = re.sub(r"[\s-]", "", text)
    return digits if re.fullmatch(r"[0-9]{6}", digits) else ""


# -- Recovery codes


def new_recovery_codes() -> list[str]:
    """Return ten codes of 79 random bits each, in groups that are easy to read out."""
    return [
        "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_RECOVERY_GROUP)) for _ in range(_RECOVERY_GROUPS))
        for _ in range(RECOVERY_CODES)
    ]


def recovery_digest(code: str) -> str:
    """Return what is stored of a recovery code: SHA-256, whatever the case and spacing it was typed in."""
    return hashlib.sha256(re.sub(r"[\s-]", "", code.lower()).encode()).hexdigest()


# -- Security keys


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was registered: its id, the attested data with its public key, and its counter."""

    credential_id: bytes
    data: bytes
    sign_count: int


@dataclass(frozen=True, slots=True)
class UsedKey:
    """Which key signed, and its counter now."""

    credential_id: bytes
    sign_count: int


def keys_possible() -> bool:
    """Whether browsers allow security keys here: at a host name, encrypted or local."""
    parts = urlsplit(settings.COMMONS_BASE_URL)
    host = parts.hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host) and (parts.scheme == "https" or host == "localhost" or host.endswith(".localhost"))
    return False


def begin_registration(
    user_uid: uuid.UUID, account: str, name: str, known: Sequence[bytes]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the browser gets to make a key with, and the state to keep until it answers."""
    options, state = _server().register_begin(
        PublicKeyCredentialUserEntity(id=user_uid.bytes, name=account, display_name=name),
        credentials=[AttestedCredentialData(data) for data in known],
        resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return json.loads(json.dumps(dict(options))), _plain(state)


def complete_registration(state: dict[str, Any], answer: str) -> NewKey:
    """Check what the browser answered. Raises NotAccepted."""
    try:
        made: AuthenticatorData = _server().register_complete(state, _read(answer))
        data = made.credential_data
    except NotAccepted:
        raise
    except Exception as error:
        raise NotAccepted(str(error)[:200]) from error
    if data is None:
        raise NotAccepted("no key")
    return NewKey(bytes(data.credential_id), bytes(data), made.counter)


def begin_assertion(known: Sequence[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the browser gets to prove one of these keys with, and the state to keep until it answers."""
    options, state = _server().authenticate_begin(
        [AttestedCredentialData(data) for data in known], user_verification=UserVerificationRequirement.PREFERRED
    )
    return json.loads(json.dumps(dict(options))), _plain(state)


def complete_assertion(state: dict[str, Any], known: Sequence[bytes], answer: str) -> UsedKey:
    """Check what the browser answered. Raises NotAccepted."""
    given = _read(answer)
    try:
        used = _server().authenticate_complete(state, [AttestedCredentialData(data) for data in known], given)
        counter = AuthenticationResponse.from_dict(given).response.authenticator_data.counter
    except Exception as error:
        raise NotAccepted(str(error)[:200]) from error
    return UsedKey(bytes(used.credential_id), counter)


def _server() -> Fido2Server:
    parts = urlsplit(settings.COMMONS_BASE_URL)
    origin = f"{parts.scheme}://{parts.netloc}".lower()
    rp = PublicKeyCredentialRpEntity(id=parts.hostname or "", name=settings.COMMONS_ORGANISATION)
    # Exactly this origin: the library would take every host below the relying party's.
    return Fido2Server(rp, verify_origin=lambda given: given.lower() == origin)


def _plain(state: Any) -> dict[str, Any]:
    """Return the state as the browser's store keeps it."""
    return {"challenge": str(state["challenge"]), "user_verification": str(state["user_verification"])}


def _read(answer: str) -> dict[str, Any]:
    if len(answer) > _ANSWER_LIMIT:
        raise NotAccepted("too long")
    try:
        given = json.loads(answer)
    except ValueError as error:
        raise NotAccepted("not JSON") from error
    if not isinstance(given, dict):
        raise NotAccepted("not an object")
    return given
