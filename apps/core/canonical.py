"""Canonical bytes (RFC 8785, JSON Canonicalization Scheme) and digests over them."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from apps.core.events import plain


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 bytes of plain data; Decimals, dates and uids become strings (`core.events.plain`).

    Raises TypeError for floats and other values without a plain form: a digest must never depend on a rounding.
    """
    return rfc8785.dumps(plain(value))


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return the digest of a value's canonical bytes."""
    return digest(canonical_bytes(value))
