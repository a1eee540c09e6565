"""Where a request came from, and keys that count attempts without keeping whose they were."""

from __future__ import annotations

import ipaddress
import uuid

from django.conf import settings
from django.http import HttpRequest
from django.utils.crypto import salted_hmac


def client_address(request: HttpRequest) -> str:
    """Return the caller's address: behind a trusted proxy the last entry of X-Forwarded-For, else the peer's."""
    if settings.SECURE_PROXY_SSL_HEADER is not None:
        forwarded = request.headers.get("X-Forwarded-For", "").rsplit(",", 1)[-1].strip()
        if forwarded:
            return forwarded
    return str(request.META.get("REMOTE_ADDR", ""))


def network_class(address: str) -> str:
    """Return loopback, private, public or unknown for an address: what the audit trail may know of it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.is_loopback:
        return "loopback"
    return "private" if parsed.is_private else "public"


def keyed(purpose: str, value: str) -> str:
    """Return a digest of `value` under the installation's secret key: equal values match, nothing can be read back."""
    return salted_hmac(f"commons.accounts.{purpose}", value, algorithm="sha256").hexdigest()


def account_uid(email: str) -> uuid.UUID:
    """Return a stable opaque id for an address that may belong to nobody, so that attempts on it can be connected."""
    return uuid.UUID(hex=keyed("account", email.strip().lower())[:32])
