"""One call of a Kubernetes API server over a kept-alive connection: explicit time-outs, own error classes.

Wire facts: reference kubernetes.md C4, C5 and F. Nothing here retries on its own account except one repetition of a
safe call whose kept-alive connection the server had already closed.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from apps.clusters.addresses import check_address
from apps.clusters.clients.answers import error_of, parse_date, parse_retry_after, parse_warnings
from apps.clusters.clients.checked import checked_pool
from apps.clusters.clients.guard import no_transaction
from apps.clusters.errors import ClusterError, ServerError, TooLarge, Unreachable

JSON = dict[str, Any]
Query = list[tuple[str, str]]
#: Seconds to connect, seconds without a byte.
CONNECT_SECONDS, READ_SECONDS = 3.0, 20.0
#: An object or a page of a list larger than this is refused.
MAX_BYTES = 64 * 1024 * 1024
#: Calls in flight per process and cluster (API priority and fairness treats us as one flow).
IN_FLIGHT = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returned: the object, the HTTP status, the server's warnings, milliseconds it took, its clock."""

    object: JSON
    status: int
    warnings: list[str] = field(default_factory=list)
    ms: int = 0
    date: datetime | None = None


class Caller:
    """Calls one API server. Share it between threads; make it after a fork."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        ca_pem: str = "",
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.url = check_address(url)
        self._timeout = (connect_seconds, read_seconds)
        self._max_bytes = max_bytes
        self._slots = threading.BoundedSemaphore(IN_FLIGHT)
        self._ca_pem = ca_pem
        self._prefix = urlsplit(self.url).path  # an API server behind a gateway may live below a path
        self._headers = {"Accept": "application/json", "User-Agent": "gpu-commons"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = self._new_pool()

    def _new_pool(self) -> urllib3.HTTPConnectionPool:
        # No proxy of the environment: it would resolve the name once more, out of reach of our checks.
        return checked_pool(self.url, ca_pem=self._ca_pem, maxsize=IN_FLIGHT + 16)

    def _open(
        self,
        method: str,
        path: str,
        params: dict[str, str],
        query: Query,
        body: bytes | JSON | None,
        content_type: str,
        timeout: tuple[float, float],
    ) -> urllib3.BaseHTTPResponse:
        no_transaction(f"{method} {path}")
        headers = self._headers | {"Content-Type": content_type} if content_type else self._headers
        for name, value in params.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        target = f"{self._prefix}{path}?{urlencode(query, quote_via=quote)}" if query else f"{self._prefix}{path}"
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connect, read = timeout
        for attempt in (1, 2):
            try:
                # The pool below urllib3's manager: no cookies, no redirects, no retries, and nothing copied per call.
                return self._pool.urlopen(
                    method, target, body=data, headers=headers, timeout=urllib3.Timeout(connect=connect, read=read),
                    retries=False, redirect=False, assert_same_host=False, preload_content=False,
                )  # fmt: skip
            except urllib3.exceptions.ClosedPoolError as error:  # closed between taking it and using it: nothing sent
                if attempt == 2:
                    raise Unreachable(f"no answer from {self.url}: {_plain(error)}") from error
            except urllib3.exceptions.ProtocolError as error:
                # A server may close a kept-alive connection in the instant we use it; GET and apply can be repeated.
                if attempt == 2 or method not in ("GET", "PATCH"):
                    raise Unreachable(f"the connection to {self.url} broke: {error}") from error
            except urllib3.exceptions.SSLError as error:
                raise Unreachable(f"no secure connection to {self.url}: {_plain(error)}") from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Unreachable(f"no answer from {self.url}: {_plain(error)}") from error
        raise ServerError("unreachable: the loop returns or raises")  # pragma: no cover

    def _call(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        *,
        query: Query | None = None,
        body: bytes | JSON | None = None,
        content_type: str = "",
    ) -> Answer:
        started = time.monotonic()
        with self._slots:
            response = self._open(method, path, params or {}, query or [], body, content_type, self._timeout)
            try:
                if not 200 <= response.status < 300:
                    raise self._refusal(response)
                data = self._read(response)
            finally:
                response.release_conn()
        try:
            parsed = json.loads(data)
        except ValueError as error:
            raise ServerError("the answer is not JSON", status=response.status) from error
        if not isinstance(parsed, dict):
            raise ServerError("the answer is not an object", status=response.status)
        warnings, date = parse_warnings(response.headers), parse_date(response.headers)
        return Answer(parsed, response.status, warnings, milliseconds_since(started), date)

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            for part in response.stream(65536, decode_content=True):
                size += len(part)
                if size > self._max_bytes:
                    response.close()
                    raise TooLarge(f"the answer is larger than {self._max_bytes} bytes", status=response.status)
                parts.append(part)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"the answer from {self.url} broke off: {_plain(error)}") from error
        return b"".join(parts)

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> ClusterError:
        try:
            body = json.loads(self._read(response))
        except ValueError:
            body = {}
        return error_of(
            response.status,
            body if isinstance(body, dict) else {},
            warnings=parse_warnings(response.headers),
            retry_after=parse_retry_after(response.headers),
        )


def milliseconds_since(started: float) -> int:
    """Return the whole milliseconds since a reading of the monotonic clock."""
    return round((time.monotonic() - started) * 1000)


def _plain(error: BaseException) -> str:
    """A one-line reason without object addresses (urllib3 puts its pool's repr into messages) or Python's spelling."""
    cause = error.args[1] if isinstance(error, urllib3.exceptions.ProtocolError) and len(error.args) > 1 else None
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    reason = getattr(error, "reason", None)
    text = str(reason) if isinstance(reason, str) and reason else str(error)
    return text.split("): ")[-1].splitlines()[-1][:300] if text else type(error).__name__
