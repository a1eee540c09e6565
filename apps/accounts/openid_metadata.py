"""What an OpenID provider publishes: its discovery document (OpenID Connect Discovery 1.0) and its signing keys.

Both are fetched through the guard of outgoing calls, outside any transaction, and kept in the process for a while.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from apps.accounts.models import IdentityProvider
from apps.accounts.openid_tokens import usable_keys
from apps.core import clock, outgoing

#: How long a discovery document is fresh, how long an old one serves while the provider does not answer, how long keys
#: are fresh, and how often at most an unknown key id makes the portal look for new ones.
FRESH = timedelta(hours=1)
STALE = timedelta(hours=24)
KEYS_FRESH = timedelta(hours=1)
KEYS_AGAIN = timedelta(seconds=30)
WELL_KNOWN = "/.well-known/openid-configuration"
_HEADERS = {"Accept": "application/json"}


class ProviderFault(Exception):
    """The provider cannot be used now. `cause` is unavailable (no or no usable answer) or misconfigured."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Metadata:
    """The parts of a discovery document that the portal uses; an empty text: the provider has no such endpoint."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    end_session_endpoint: str
    token_auth_methods: tuple[str, ...]
    algorithms: tuple[str, ...]
    scopes: tuple[str, ...]
    claims: tuple[str, ...]
    challenge_methods: tuple[str, ...]
    names_issuer: bool
    back_channel_logout: bool


@dataclass(slots=True)
class _Kept:
    metadata: Metadata
    at: datetime


@dataclass(slots=True)
class _Keys:
    keys: list[Mapping[str, Any]]
    at: datetime


_documents: dict[tuple[int, str], _Kept] = {}
_key_sets: dict[tuple[int, str], _Keys] = {}


def forget(provider: IdentityProvider | None = None) -> None:
    """Drop what is kept of one provider, or of all."""
    for kept in (_documents, _key_sets):
        for key in [key for key in kept if provider is None or key[0] == provider.pk]:
            kept.pop(key, None)


def metadata_of(provider: IdentityProvider, *, fresh: bool = False) -> Metadata:
    """Return what the provider publishes, at most an hour old; up to a day old while it does not answer.

    Raises ProviderFault.
    """
    key, at = (provider.pk, provider.issuer), clock.now()
    kept = _documents.get(key)
    if kept is not None and not fresh and abs(at - kept.at) < FRESH:
        return kept.metadata
    try:
        found = fetch_metadata(provider.issuer)
    except ProviderFault as fault:
        if kept is not None and not fresh and fault.cause == "unavailable" and abs(at - kept.at) < STALE:
            return kept.metadata
        raise
    _documents[key] = _Kept(found, at)
    return found


def keys_of(provider: IdentityProvider, *, again: bool = False) -> list[Mapping[str, Any]]:
    """Return the provider's signing keys, at most an hour old. `again`: a token named one that is not among them.

    However many such tokens come, the provider is asked once in 30 seconds. Raises ProviderFault.
    """
    key, at = (provider.pk, provider.issuer), clock.now()
    kept = _key_sets.get(key)
    if kept is not None and abs(at - kept.at) < (KEYS_AGAIN if again else KEYS_FRESH):
        return kept.keys
    found = fetch_keys(metadata_of(provider).jwks_uri)
    _key_sets[key] = _Keys(found, at)
    return found


def fetch_metadata(issuer: str) -> Metadata:
    """Fetch and check a discovery document. Raises ProviderFault."""
    document = get_json(issuer.rstrip("/") + WELL_KNOWN, "the discovery document")
    if document.get("issuer") != issuer:
        raise ProviderFault(
            "misconfigured",
            f"The discovery document names another issuer ({str(document.get('issuer'))[:200]!r}): the issuer has to be"
            " entered exactly as the provider states it.",
        )
    return Metadata(
        issuer=issuer,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", needed=True),
        token_endpoint=_endpoint(document, "token_endpoint", needed=True),
        jwks_uri=_endpoint(document, "jwks_uri", needed=True),
        userinfo_endpoint=_endpoint(document, "userinfo_endpoint"),
        end_session_endpoint=_endpoint(document, "end_session_endpoint"),
        token_auth_methods=_texts(document, "token_endpoint_auth_methods_supported") or ("client_secret_basic",),
        algorithms=_texts(document, "id_token_signing_alg_values_supported"),
        scopes=_texts(document, "scopes_supported"),
        claims=_texts(document, "claims_supported"),
        challenge_methods=_texts(document, "code_challenge_methods_supported"),
        names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        back_channel_logout=document.get("backchannel_logout_supported") is True,
    )


def fetch_keys(url: str) -> list[Mapping[str, Any]]:
    """Fetch the signing keys. Raises ProviderFault where there is none that the portal can use."""
    keys = usable_keys(get_json(url, "the signing keys"))
    if not keys:
        raise ProviderFault("misconfigured", "The provider publishes no signing key that the portal accepts.")
    return keys


def get_json(url: str, what: str, *, token: str = "") -> dict[str, Any]:
    """Fetch a JSON object, with a bearer token where one is given. Raises ProviderFault."""
    headers = {**_HEADERS, "Authorization": f"Bearer {token}"} if token else _HEADERS
    try:
        answer = outgoing.get(url, headers)
    except outgoing.CallRefused as error:
        raise ProviderFault("misconfigured", f"The portal does not call {what} at {_host(url)}: {error}.") from error
    except outgoing.CallFailed as error:
        raise ProviderFault("unavailable", f"The portal could not read {what} from {_host(url)}: {error}.") from error
    if answer.status != 200:
        cause = "unavailable" if answer.status >= 500 or answer.status == 429 else "misconfigured"
        raise ProviderFault(cause, f"{_host(url)} answered {answer.status} when asked for {what}.")
    return object_of(answer.body, what)


def object_of(body: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object. Raises ProviderFault."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProviderFault("misconfigured", f"What the provider sent for {what} is no JSON.") from error
    if not isinstance(found, dict):
        raise ProviderFault("misconfigured", f"What the provider sent for {what} is no JSON object.")
    return found


def address_fault(url: str) -> str:
    """Return why `url` cannot be an endpoint of a provider; "" where it can. Production takes https alone."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        return "it is no address"
    if not usable or parts.fragment or not url.isprintable() or " " in url or len(url) > 2000:
        return "it is no address"
    if parts.scheme != "https" and settings.COMMONS_ENVIRONMENT == "production":
        return "it does not begin with https://"
    return ""


def _endpoint(document: Mapping[str, Any], name: str, *, needed: bool = False) -> str:
    value = document.get(name)
    if value in (None, "") and not needed:
        return ""
    fault = address_fault(value) if isinstance(value, str) else "it is missing"
    if fault:
        raise ProviderFault("misconfigured", f"The discovery document's {name} cannot be used: {fault}.")
    return str(value)


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name)
    return tuple(item for item in value[:500] if isinstance(item, str)) if isinstance(value, list) else ()


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc[:200]
    except ValueError:
        return "that address"
