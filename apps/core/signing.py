"""Signatures that outlive the database: Ed25519 under a key from the environment (`COMMONS_SIGNING_KEY`).

A key is a 32-byte Ed25519 seed in URL-safe base64. The first one signs; signatures of the others, and of the public
keys in `COMMONS_SIGNING_PUBLIC_KEYS` (retired keys, or the signing key of another process), are still recognised.
Only processes that sign need the key. Key id: the first 16 hexadecimal digits of SHA-256 over the raw public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

KEY_BYTES = 32
_HOW = "32 random bytes in URL-safe base64"


class CannotSign(Exception):
    """No signing key is set in this process."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A detached signature: which key made it, and its 64 bytes in standard base64."""

    key_id: str
    value: str


def key_id_of(public: bytes) -> str:
    """Return the id of a raw public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def raw_public(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """Return the 32 raw bytes of a public key."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def decode_key(text: str) -> bytes:
    """Return a key's raw bytes. Raises ValueError for anything else than 32 bytes in URL-safe base64."""
    try:
        raw = base64.urlsafe_b64decode(text.strip())
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not {_HOW}") from error
    if len(raw) != KEY_BYTES:
        raise ValueError(f"not {_HOW}")
    return raw


def _private_keys() -> list[Ed25519PrivateKey]:
    try:
        return [
            Ed25519PrivateKey.from_private_bytes(decode_key(text))
            for text in settings.COMMONS_SIGNING_KEYS
            if text.strip()
        ]
    except ValueError as error:
        raise ImproperlyConfigured(f"COMMONS_SIGNING_KEY holds a malformed key: {error}") from error


def can_sign() -> bool:
    """Whether this process holds a signing key."""
    return bool(_private_keys())


def sign(body: bytes) -> Signature:
    """Return a signature of `body` under the newest key. Raises CannotSign where this process has none."""
    keys = _private_keys()
    if not keys:
        raise CannotSign("COMMONS_SIGNING_KEY is not set in this process")
    return Signature(key_id_of(raw_public(keys[0])), base64.b64encode(keys[0].sign(body)).decode())


def public_keys() -> dict[str, bytes]:
    """Return every public key whose signatures are recognised here: id → 32 raw bytes, the signing key first."""
    raws = [raw_public(key) for key in _private_keys()]
    try:
        raws += [decode_key(text) for text in settings.COMMONS_SIGNING_PUBLIC_KEYS if text.strip()]
    except ValueError as error:
        raise ImproperlyConfigured(f"COMMONS_SIGNING_PUBLIC_KEYS holds a malformed key: {error}") from error
    return {key_id_of(raw): raw for raw in raws}


def verifies(body: bytes, key_id: str, value: str, keys: Mapping[str, bytes] | None = None) -> bool:
    """Whether `value` is a signature of `body` by the named key, one of `keys` (default: those known here)."""
    raw = (public_keys() if keys is None else keys).get(key_id)
    return raw is not None and verifies_raw(body, raw, value)


def verifies_raw(body: bytes, public: bytes, value: str) -> bool:
    """Whether `value` (standard base64) is a signature of `body` under a raw public key; malformed ones are not."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(value, validate=True), body)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
