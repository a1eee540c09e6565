"""Reading a kubeconfig: address, CA and token of its current context.

Anything that would make the portal run a program or read a file is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """How to call a cluster."""

    api_url: str
    ca_certificate: str
    token: str = field(repr=False)


class Refused(ValueError):
    """The kubeconfig cannot be used; the message says why and what to do."""


def read_kubeconfig(text: str) -> Access:
    """Return the access of the current context. Raises Refused."""
    if len(text.encode()) > MAX_BYTES:
        raise Refused("This is larger than any kubeconfig; paste the text of one.")
    try:
        parsed = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a day that no month has; brackets without end
        raise Refused("This is not YAML. Paste the text of a kubeconfig.") from error
    if not isinstance(parsed, Mapping) or parsed.get("kind") not in (None, "Config"):
        raise Refused("This is not a kubeconfig.")
    context = _named(parsed, "contexts", parsed.get("current-context"), "context")
    cluster = _named(parsed, "clusters", context.get("cluster"), "cluster")
    user = _named(parsed, "users", context.get("user"), "user")
    _refuse_programs(user)
    if cluster.get("insecure-skip-tls-verify"):
        raise Refused("insecure-skip-tls-verify is not taken: put the cluster's CA certificate in instead.")
    if cluster.get("certificate-authority"):
        raise Refused("The CA is a file on your machine. Use `kubectl config view --flatten --minify --raw`.")
    if cluster.get("proxy-url"):
        raise Refused("proxy-url is not taken.")
    token = user.get("token")
    if not isinstance(token, str) or not token.strip():
        raise Refused("There is no token in it. Create one for the portal's service account (kubectl create token).")
    server, ca_certificate = cluster.get("server"), _pem(cluster.get("certificate-authority-data"))
    return Access(server if isinstance(server, str) else "", ca_certificate, token.strip())


def _refuse_programs(user: Mapping[str, Any]) -> None:
    if user.get("exec"):
        raise Refused("It runs a program to sign in (exec plugin), which the portal does not do. Use a token.")
    if user.get("auth-provider"):
        raise Refused("It uses an auth-provider plugin, which the portal does not do. Use a token.")
    for key in ("tokenFile", "client-certificate", "client-key"):
        if user.get(key):
            raise Refused(f"{key} is a file on your machine; put the token itself in.")
    if user.get("username") or user.get("password"):
        raise Refused("User name and password are not taken. Use a token of a service account.")
    if user.get("client-certificate-data") or user.get("client-key-data"):
        raise Refused("Client certificates cannot be revoked, so they are not taken. Use a token of a service account.")
    if user.get("as") or user.get("as-groups"):
        raise Refused("Impersonation is not taken: give the portal's own service account its rights.")


def _named(parsed: Mapping[str, Any], section: str, name: object, key: str) -> Mapping[str, Any]:
    # Anything but text names nothing: aliases of aliases would fill the memory once they are written out.
    rows = parsed.get(section) if isinstance(name, str) else None
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("name") == name and isinstance(row.get(key), Mapping):
            found: Mapping[str, Any] = row[key]
            return found
    raise Refused(f"Its current context names no {key} that stands in it.")


def _pem(data: object) -> str:
    if not data:
        return ""
    try:
        return base64.b64decode(data if isinstance(data, str | bytes) else b"?", validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Refused("certificate-authority-data is not base64 of a PEM certificate.") from error


def token_expiry(token: str) -> datetime | None:
    """Return when a JWT says that it ends (`exp`, RFC 7519 §4.1.4), None where it does not.

    Nothing is verified: the cluster decides whether a token is good; this is only for telling people in time.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        ends = claims.get("exp") if isinstance(claims, Mapping) else None
        if isinstance(ends, bool) or not isinstance(ends, int | float):
            return None
        return datetime.fromtimestamp(ends, UTC)
    except (binascii.Error, ValueError, OverflowError, OSError):
        return None
