"""One attempt to sign in at a provider: begun in a browser, which keeps it in a signed cookie, and used up once.

The cookie binds the answer to the browser that asked (RFC 6749 §10.12), so that nobody is signed in to somebody else's
account by a link; a lease on the state makes sure that no answer counts twice.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponseBase
from django.utils.http import url_has_allowed_host_and_scheme

from apps.core import clock, leases
from apps.core.models import Lease

#: How long a person may take at the provider.
LIFETIME = timedelta(minutes=10)
#: Attempts that one browser keeps at a time (tabs); the others go, so that no page fills the browser with cookies.
AT_ONCE = 5
LONGEST_NEXT = 1000
_SALT = "commons.accounts.openid"
_LEASE = "accounts.openid:"

#: What an attempt is for.
SIGN_IN, PROVE, TRY = "sign_in", "prove", "try"


@dataclass(frozen=True, slots=True)
class Flow:
    """An attempt under way: what its answer has to fit. `session` is the sign-in session it began in, if any."""

    state: str
    nonce: str
    verifier: str
    provider: str
    purpose: str
    next: str
    session: str
    began: int

    @property
    def challenge(self) -> str:
        """The proof key's challenge (RFC 7636, S256)."""
        return str(create_s256_code_challenge(self.verifier))


def begin(provider_uid: str, *, purpose: str, next_path: str, session_uid: str = "") -> Flow:
    """Return a new attempt with random state, nonce and proof key, each of 256 bits."""
    return Flow(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(32),
        provider=provider_uid,
        purpose=purpose,
        next=within_portal(next_path),
        session=session_uid,
        began=int(clock.now().timestamp()),
    )


def within_portal(path: str, default: str = "/") -> str:
    """Return `path` where it is one of this portal (no host, no scheme, not too long), else `default`."""
    allowed = url_has_allowed_host_and_scheme(path, allowed_hosts=None) and path.startswith("/")
    return path if allowed and len(path) <= LONGEST_NEXT else default


def keep(request: HttpRequest, response: HttpResponseBase, flow: Flow) -> None:
    """Have the browser keep the attempt, and forget all but its newest few."""
    ours = {name: _read(value) for name, value in request.COOKIES.items() if name.startswith(_prefix())}
    oldest = sorted(ours, key=lambda name: found.began if (found := ours[name]) else 0)
    for name in oldest[: max(0, len(oldest) - AT_ONCE + 1)]:
        _drop(response, name)
    response.set_cookie(
        cookie_name(flow.state),
        signing.dumps(asdict(flow), salt=_SALT, compress=True),
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        secure=bool(settings.SESSION_COOKIE_SECURE),
        # The provider's answer is a navigation from another site: "Strict" would keep the cookie back.
        samesite="Lax",
    )


def find(request: HttpRequest, state: str, provider_uid: str) -> Flow | None:
    """Return the attempt that began in this browser with this state at this provider; None: none, or too long ago."""
    flow = _read(request.COOKIES.get(cookie_name(state), "")) if state else None
    if flow is None or not hmac.compare_digest(flow.state.encode(), state.encode()) or flow.provider != provider_uid:
        return None
    age = clock.now().timestamp() - flow.began
    return flow if -60 <= age <= LIFETIME.total_seconds() else None


def use_up(flow: Flow) -> bool:
    """Whether this is the first answer to the attempt: one statement decides, also between two at the same moment."""
    return once("state", flow.state, seconds=2 * LIFETIME.total_seconds())


def once(kind: str, value: str, *, seconds: float) -> bool:
    """Whether `value` comes for the first time within `seconds`."""
    digest = hashlib.sha256(value.encode()).hexdigest()
    return leases.claim(f"{_LEASE}{kind}:{digest}", seconds=seconds) is not None


def forget_used() -> int:
    """Delete the marks of answers that are too old to come again; returns how many."""
    deleted, _ = Lease.objects.filter(name__startswith=_LEASE, expires_at__lte=clock.now()).delete()
    return deleted


def end(response: HttpResponseBase, flow: Flow) -> None:
    """Have the browser forget the attempt."""
    _drop(response, cookie_name(flow.state))


def cookie_name(state: str) -> str:
    """Return the cookie's name: several attempts in one browser each have their own."""
    return f"{_prefix()}{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _prefix() -> str:
    # With __Host- no other server of the same domain can plant an attempt of its own (RFC 6265bis §4.1.3).
    return "__Host-commons_openid_" if settings.SESSION_COOKIE_SECURE else "commons_openid_"


def _drop(response: HttpResponseBase, name: str) -> None:
    response.set_cookie(name, "", max_age=0, httponly=True, secure=bool(settings.SESSION_COOKIE_SECURE), samesite="Lax")


def _read(value: str) -> Flow | None:
    try:
        found: Mapping[str, Any] = signing.loads(value, salt=_SALT)
        return Flow(**found)
    except (signing.BadSignature, TypeError):
        return None
