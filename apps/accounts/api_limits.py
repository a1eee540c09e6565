"""How many API calls a minute: so many per token or person, fewer per address for who is nobody.

A fixed window of one minute, counted in Redis by one MULTI of INCR and EXPIRE: all web processes count together.
Without Redis everybody gets through: the limit protects the portal, the portal does not hang on it.

The answer to a call carries how it stands (`RateLimit-Limit`, `-Remaining`, `-Reset` in seconds, after
draft-ietf-httpapi-ratelimit-headers-06); beyond the limit it is a 429 problem with `Retry-After`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from apps.accounts.addresses import client_address, keyed
from apps.accounts.models import ApiToken, User
from apps.core import clock

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 60
#: Nobody waits longer for a count than this; after a failure none is tried for SILENCE_SECONDS.
TIMEOUT_SECONDS = 0.25
SILENCE_SECONDS = 5.0
LOG_EVERY_SECONDS = 60.0
API_PATH = "/api/"

_clients: dict[str, redis.Redis] = {}
_silent_until = 0.0
_logged_at = float("-inf")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands in the present window."""

    limit: int
    count: int
    #: Seconds until the next window.
    reset: int

    @property
    def exceeded(self) -> bool:
        """Whether this call is one too many."""
        return self.count > self.limit

    def headers(self) -> dict[str, str]:
        """Return the answer's headers."""
        found = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(0, self.limit - self.count)),
            "RateLimit-Reset": str(self.reset),
        }
        return {**found, "Retry-After": str(self.reset)} if self.exceeded else found


def count(who: str, limit: int) -> Standing | None:
    """Count a call of `who` in the present minute; None where limits are off or Redis is away."""
    global _silent_until
    if not settings.COMMONS_API_LIMITED or time.monotonic() < _silent_until:
        return None
    seconds = int(clock.now().timestamp())
    window, passed = divmod(seconds, WINDOW_SECONDS)
    key = f"commons:rate:{who}:{window}"
    try:
        with _client().pipeline(transaction=True) as calls:
            calls.incr(key)
            calls.expire(key, 2 * WINDOW_SECONDS)
            number = int(calls.execute()[0])
    except (redis.RedisError, OSError, ValueError) as error:
        _silent_until = time.monotonic() + SILENCE_SECONDS
        _log(error)
        return None
    return Standing(limit, number, WINDOW_SECONDS - passed)


def _client() -> redis.Redis:
    url = settings.REDIS_URL
    if url not in _clients:
        _clients[url] = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, protocol=2
        )
    return _clients[url]


def _log(error: Exception) -> None:
    global _logged_at
    if time.monotonic() - _logged_at >= LOG_EVERY_SECONDS:
        _logged_at = time.monotonic()
        logger.warning("API calls are not counted: Redis does not answer", extra={"error": str(error)[:300]})


def _count_address(request: HttpRequest) -> Standing | None:
    who = f"address:{keyed('api-address', client_address(request))}"
    return count(who, settings.COMMONS_API_ANONYMOUS_PER_MINUTE)


class CallerThrottle(BaseThrottle):
    """Counts an API call once its caller is known (REST framework asks after it has authenticated)."""

    def allow_request(self, request: Request, view: Any) -> bool:
        """Whether the call is within the limit; leaves the standing with the request."""
        if isinstance(request.auth, ApiToken):
            standing = count(f"token:{request.auth.pk}", settings.COMMONS_API_PER_MINUTE)
        elif isinstance(request.user, User):
            standing = count(f"person:{request.user.pk}", settings.COMMONS_API_PER_MINUTE)
        elif getattr(request._request, "_commons_standing", None) is not None:
            return True  # counted by the middleware
        else:
            standing = _count_address(request._request)
        self.standing = standing
        if standing is not None:
            request._request._commons_standing = standing  # type: ignore[attr-defined]  # HttpRequest takes attributes
        return standing is None or not standing.exceeded

    def wait(self) -> float | None:
        """Return the seconds until the next window (Retry-After is one more than what is returned here)."""
        standing: Standing | None = self.standing
        return None if standing is None else standing.reset - 1


class ApiLimitMiddleware:
    """Counts API calls of nobody by address, and says on every answer how its caller stands."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Refuse early who brings neither token nor session; count afterwards whose token or session is none."""
        if not request.path.startswith(API_PATH) or not settings.COMMONS_API_LIMITED:
            return self.get_response(request)
        if "Authorization" not in request.headers and settings.SESSION_COOKIE_NAME not in request.COOKIES:
            standing = _count_address(request)
            request._commons_standing = standing  # type: ignore[attr-defined]  # HttpRequest takes attributes
            if standing is not None and standing.exceeded:
                return self._with(self._refusal(request), standing)
        response = self.get_response(request)
        found: Standing | None = getattr(request, "_commons_standing", None)
        if response.status_code == 401 and found is None:
            found = _count_address(request)
            if found is not None and found.exceeded:
                response = self._refusal(request)
        return self._with(response, found) if found is not None else response

    def _refusal(self, request: HttpRequest) -> HttpResponse:
        # REST framework reads its settings, and with them this module, while the API's base is still being imported.
        from apps.core.api import problem_json

        return problem_json(request, 429, "Too many calls from your address without a valid token. Wait a moment.")

    def _with(self, response: HttpResponse, standing: Standing) -> HttpResponse:
        for name, value in standing.headers().items():
            response[name] = value
        return response
