"""Canonical bytes (RFC 8785, JSON Canonicalization Scheme) and digests over them."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import rfc8785

from apps.core.events import plain

#: RFC 8785 orders keys by UTF-16 code units, Python by code points: beyond these characters the two may differ.
_BEYOND = re.compile("[^\\x00-\ud7ff\ue000-\uffff]")


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 bytes of plain data; Decimals, dates and uids become strings (`core.events.plain`).

    Raises TypeError for floats and other values without a plain form: a digest must never depend on a rounding.
    """
    data = plain(value)
    # Plain data holds no floats and no large integers, so that the standard library writes the very same bytes, many
    # times faster (a property test compares them).
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return rfc8785.dumps(data) if _BEYOND.search(text) else text.encode()


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return the digest of a value's canonical bytes."""
    return digest(canonical_bytes(value))
