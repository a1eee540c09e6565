"""A requests session for metrics servers that keeps to our rules: checked address, no redirects, bounded answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
from requests.adapters import BaseAdapter
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from apps.clusters.addresses import check_address
from apps.clusters.clients.answers import parse_retry_after
from apps.clusters.clients.checked import CheckedAdapter
from apps.clusters.clients.guard import no_transaction
from apps.clusters.errors import (
    ClusterError,
    Forbidden,
    InvalidObject,
    NotFound,
    ServerError,
    Throttled,
    TooLarge,
    Unauthorised,
    Unreachable,
)

#: Bytes of an answer that are read at a time.
PIECE = 256 * 1024


class BoundedSession(requests.Session):
    """Follows no redirect, reads at most `max_bytes`, refuses to work inside a database transaction."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        # No .netrc, no environment: what is sent where is this installation's configuration alone.
        self.trust_env = False
        self._adapter = CheckedAdapter(max_retries=no_retry(), pool_maxsize=8)

    def get_adapter(self, url: Any) -> BaseAdapter:
        """Return the one adapter whose connections are checked, whatever a library mounts."""
        return self._adapter

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()
        super().close()

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Send as requests does, without redirects, and read the answer up to the limit.

        Raises Unreachable and TooLarge; statuses are the caller's business.
        """
        with self.streamed(method, url, *args, **kwargs) as (response, pieces):
            content = b"".join(pieces)
        response._content = content
        response._content_consumed = True  # type: ignore[attr-defined]  # requests keeps the flag under this name
        return response

    @contextmanager
    def streamed(
        self, method: Any, url: Any, *args: Any, max_bytes: int | None = None, **kwargs: Any
    ) -> Iterator[tuple[requests.Response, Iterator[bytes]]]:
        """Send without redirects; gives the response and its body in pieces, up to the limit (`max_bytes`: another).

        Raises Unreachable and TooLarge, also while the pieces are read; statuses are the caller's business.
        """
        no_transaction(f"{method} {url}")
        kwargs["allow_redirects"] = False
        kwargs["stream"] = True
        try:
            response = super().request(method, url, *args, **kwargs)
            try:
                yield response, self._bounded(response, max_bytes or self.max_bytes)
            finally:
                response.close()
        except (requests.RequestException, HTTPError) as error:
            # Without retries the library lets some errors of the layer below through as they are.
            raise Unreachable(f"no answer: {type(error).__name__}") from error

    def _bounded(self, response: requests.Response, limit: int) -> Iterator[bytes]:
        size = 0
        for part in response.iter_content(PIECE):
            size += len(part)
            if size > limit:
                raise TooLarge(f"the answer is larger than {limit} bytes", status=response.status_code)
            yield part


_Session = TypeVar("_Session", bound=BoundedSession)


def session_for(url: str, *, session: _Session, token: str = "", ca_file: str = "") -> tuple[str, _Session]:
    """Return the checked address and `session` set up for it. Raises AddressRefused or Unreachable for the address."""
    checked = check_address(url)
    if ca_file:
        session.verify = ca_file
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    session.headers["Accept"] = "application/json"
    return checked, session


def no_retry() -> Retry:
    """Retrying is the caller's: it knows what a repetition costs."""
    return Retry(total=False)


def refusal(response: requests.Response) -> ClusterError:
    """Return the error that a metrics server's answer means; its own words where it has any."""
    try:
        body = json.loads(response.content)
    except ValueError:
        body = {}
    told = body.get("error") or body.get("message") if isinstance(body, dict) else ""
    status, message = response.status_code, str(told or f"HTTP {response.status_code}")[:2000]
    after = parse_retry_after(response.headers)
    if status == 429:
        return Throttled(message, retry_after=after or 1.0)
    if status == 401:
        return Unauthorised(message, status=status)
    if status == 403:
        return Forbidden(message, status=status)
    if status == 404:
        return NotFound(message, status=status)
    if status in (400, 422):
        return InvalidObject(message, status=status)
    return ServerError(message, status=status, retry_after=after or 0.0)
