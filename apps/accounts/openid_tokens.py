"""What a provider's signed tokens must show before the portal believes a word of them: no ORM, no network, no clock.

ID tokens: OpenID Connect Core 1.0 §3.1.3.7; log-out tokens: OpenID Connect Back-Channel Logout 1.0 §2.6.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from joserfc import jwk, jws
from joserfc.errors import JoseError

#: Asymmetric algorithms alone: with HS… the provider's public key could serve as the secret, "none" signs nothing.
#: Each with the kind of key it takes and its hash (for `at_hash`).
ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "RS256": ("RSA", "sha256"),
    "RS384": ("RSA", "sha384"),
    "RS512": ("RSA", "sha512"),
    "PS256": ("RSA", "sha256"),
    "PS384": ("RSA", "sha384"),
    "PS512": ("RSA", "sha512"),
    "ES256": ("EC", "sha256"),
    "ES384": ("EC", "sha384"),
    "ES512": ("EC", "sha512"),
}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_SMALLEST_RSA_BITS = 2048
#: How far the provider's clock may be from ours, and how old a token may be when it arrives (Microsoft dates tokens
#: five minutes back).
SKEW = timedelta(seconds=60)
OLDEST = timedelta(minutes=15)
LONGEST_TOKEN = 200_000
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class BadToken(Exception):
    """The token is not believed; the text says why, for the log and the provider's page, never for a visitor."""


class UnknownKey(BadToken):
    """No key known so far has the id that the token names: the provider may have new keys."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Whom a token has to come from, and for whom it has to be made."""

    issuer: str
    client_id: str


@dataclass(frozen=True, slots=True)
class LogoutNotice:
    """What a checked log-out token says: whose session ended. One of `subject` and `session` may be empty."""

    subject: str
    session: str
    token_id: str


def usable_keys(key_set: Any) -> list[Mapping[str, Any]]:
    """Return the keys of a JWK set (RFC 7517) that can check signatures; anything else in it is left out."""
    keys = key_set.get("keys") if isinstance(key_set, Mapping) else None
    if not isinstance(keys, list):
        return []
    return [key for key in keys[:100] if isinstance(key, Mapping) and _usable(key)]


def read_id_token(
    token: str,
    keys: Sequence[Mapping[str, Any]],
    expected: Expected,
    *,
    now: datetime,
    nonce: str,
    access_token: str = "",
) -> dict[str, Any]:
    """Return the claims of an ID token. Raises UnknownKey where no key has its id, BadToken for everything else."""
    claims, algorithm = _verified(token, keys)
    _for_us(claims, expected)
    _in_time(claims, now, needs_expiry=True)
    given = claims.get("nonce")
    if not nonce or not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise BadToken("the nonce is not that of this attempt")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > 255 or not subject.isprintable():
        raise BadToken("it names no subject")
    if "at_hash" in claims and not _fits(str(claims["at_hash"]), access_token, algorithm):
        raise BadToken("at_hash does not belong to the access token")
    return claims


def read_logout_token(
    token: str, keys: Sequence[Mapping[str, Any]], expected: Expected, *, now: datetime
) -> LogoutNotice:
    """Return whose session ended. Raises UnknownKey and BadToken as `read_id_token` does."""
    claims, _ = _verified(token, keys, types=("", "JWT", "LOGOUT+JWT"))
    _for_us(claims, expected)
    _in_time(claims, now, needs_expiry=False)
    events = claims.get("events")
    if not isinstance(events, Mapping) or not isinstance(events.get(LOGOUT_EVENT), Mapping):
        raise BadToken("it is no log-out token")
    if "nonce" in claims:
        raise BadToken("a log-out token carries no nonce")
    token_id, subject, session = (claims.get(name, "") for name in ("jti", "sub", "sid"))
    if not all(isinstance(value, str) and len(value) <= 255 for value in (token_id, subject, session)) or not token_id:
        raise BadToken("jti, sub and sid are texts, and jti is there")
    if not (subject or session):
        raise BadToken("it names neither person nor session")
    return LogoutNotice(subject=subject, session=session, token_id=token_id)


def _verified(
    token: str, keys: Sequence[Mapping[str, Any]], types: Sequence[str] = ("", "JWT")
) -> tuple[dict[str, Any], str]:
    """Check the signature; returns claims and algorithm."""
    if not token or len(token) > LONGEST_TOKEN or token.count(".") != 2:
        raise BadToken("it is no signed token")
    header = _header(token)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadToken("its algorithm is not accepted")
    if "crit" in header:
        raise BadToken("it demands an extension that the portal does not know")
    if str(header.get("typ") or "").upper().removeprefix("APPLICATION/") not in types:
        raise BadToken("it is a token of another type")
    for candidate in _candidates(keys, header.get("kid"), algorithm):
        try:
            checked = jws.deserialize_compact(token, _imported(candidate), algorithms=[algorithm])
        except (JoseError, ValueError, TypeError):
            continue
        claims = _json(checked.payload)
        if not isinstance(claims, dict):
            raise BadToken("its claims are no object")
        return claims, algorithm
    raise BadToken("no key of the provider made its signature")


def _header(token: str) -> Mapping[str, Any]:
    head = token.partition(".")[0]
    try:
        header = _json(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError as error:
        raise BadToken("its header cannot be read") from error
    if not isinstance(header, Mapping):
        raise BadToken("its header is no object")
    return header


def _json(raw: bytes) -> Any:
    """Read JSON in which no name stands twice: two readers could otherwise see two different tokens."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BadToken("a name stands twice in it")
        return found

    try:
        return json.loads(raw, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BadToken("it holds no JSON") from error


def _candidates(keys: Sequence[Mapping[str, Any]], kid: Any, algorithm: str) -> list[Mapping[str, Any]]:
    """Return the keys that may have signed: by the id that the header names, else every key that fits the algorithm.

    Keys come from the provider's published set alone; `jwk`, `jku` and `x5u` in a header are never looked at.
    """
    kind, _ = ALGORITHMS[algorithm]
    fitting = [
        key
        for key in keys
        if key.get("kty") == kind
        and key.get("alg") in (None, algorithm)
        and (kind != "EC" or key.get("crv") == _CURVES[algorithm])
    ]
    if kid is None:
        return fitting[:10]
    named = [key for key in keys if key.get("kid") == kid]
    if not named:
        raise UnknownKey("the provider publishes no key of that id")
    return [key for key in fitting if key.get("kid") == kid]


def _usable(key: Mapping[str, Any]) -> bool:
    if key.get("use") not in (None, "sig") or key.get("kty") not in ("RSA", "EC"):
        return False
    operations = key.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return False
    if key.get("kty") == "RSA" and len(str(key.get("n", ""))) * 6 < _SMALLEST_RSA_BITS:
        return False
    try:
        found = _imported(key)
    except (JoseError, ValueError, TypeError, KeyError):
        return False
    return not isinstance(found, jwk.RSAKey) or found.raw_value.key_size >= _SMALLEST_RSA_BITS


def _imported(key: Mapping[str, Any]) -> jwk.RSAKey | jwk.ECKey:
    # Public members alone: a set that published a private key by mistake is still only read as a public one.
    data: dict[str, Any] = {name: key[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in key}
    return jwk.RSAKey.import_key(data) if data.get("kty") == "RSA" else jwk.ECKey.import_key(data)


def _for_us(claims: Mapping[str, Any], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise BadToken("it comes from another issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or expected.client_id not in audiences:
        raise BadToken("it is made for somebody else")
    party = claims.get("azp")
    if (len(audiences) > 1 or party is not None) and party != expected.client_id:
        raise BadToken("another client asked for it")


def _in_time(claims: Mapping[str, Any], now: datetime, *, needs_expiry: bool) -> None:
    issued = moment(claims.get("iat"))
    if issued is None or issued > now + SKEW or issued < now - OLDEST:
        raise BadToken("it was not issued just now")
    if needs_expiry or "exp" in claims:
        expires = moment(claims.get("exp"))
        if expires is None or expires <= now - SKEW:
            raise BadToken("it has expired")
    if "nbf" in claims:
        begins = moment(claims["nbf"])
        if begins is None or begins > now + SKEW:
            raise BadToken("it is not valid yet")


def moment(value: Any) -> datetime | None:
    """Return a NumericDate (RFC 7519 §2) as a time; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 4_102_444_800:
        return None
    return datetime.fromtimestamp(value, UTC)


def _fits(at_hash: str, access_token: str, algorithm: str) -> bool:
    """Whether `at_hash` is the left half of the access token's hash (OpenID Connect Core §3.1.3.6)."""
    make: Callable[[bytes], Any] = getattr(hashlib, ALGORITHMS[algorithm][1])
    digest = make(access_token.encode()).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    return bool(access_token) and hmac.compare_digest(half, at_hash.encode())
