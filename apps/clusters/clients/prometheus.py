"""Prometheus (or Thanos, Mimir) over HTTP. `prometheus-api-client` does the querying; time-outs and retries are ours.

Wire format: the Prometheus HTTP API v1 (`/api/v1/query`, `/api/v1/query_range`, `/api/v1/status/buildinfo`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect

from apps.clusters.clients.http import BoundedSession, no_retry, refusal, session_for
from apps.clusters.errors import ClusterError, NotFound, ServerError, Throttled

#: Seconds to connect, seconds without a byte: heavy hours take a while.
TIMEOUT = (3.0, 60.0)
MAX_BYTES = 256 * 1024 * 1024
#: Attempts of one query; pauses of 0.5, 1, 2 … seconds in between, or what the server asks for.
ATTEMPTS = 3

Series = dict[str, Any]


class _QuerySession(BoundedSession):
    """Sends queries as forms (a query over many namespaces outgrows a URL) and raises what an answer means.

    Raising here keeps the status and the server's own words, which the library drops.
    """

    def __init__(self, max_bytes: int, timeout: tuple[float, float]) -> None:
        super().__init__(max_bytes)
        self._timeout = timeout

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """Send one query; raises clusters.errors for every answer but 200."""
        kwargs["timeout"] = self._timeout
        if method == "POST":
            kwargs["data"] = kwargs.pop("params", None)
        kwargs.pop("verify", None)
        response = super().request(method, url, *args, **kwargs)
        if response.status_code != 200:
            raise refusal(response)
        return response


class PrometheusClient:
    """Queries one server. Every method raises clusters.errors; the answer is Prometheus' own `data.result`."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        ca_file: str = "",
        timeout: tuple[float, float] = TIMEOUT,
        max_bytes: int = MAX_BYTES,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self._session = session_for(
            url, session=_QuerySession(max_bytes, timeout), token=token, ca_file=ca_file
        )
        self._attempts = attempts
        self._sleep = sleep
        self._connect = PrometheusConnect(
            url=self.url, session=self._session, retry=no_retry(), timeout=timeout, method="POST"
        )
        self._version: str | None = None

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def query(self, expression: str, at: datetime) -> list[Series]:
        """Run an instant query at `at`; returns its result vector. Raises InvalidObject for a bad expression."""
        params = {"time": _stamp(at)}
        return self._series(lambda: self._connect.custom_query(expression, params=params))

    def query_range(self, expression: str, start: datetime, end: datetime, step_seconds: int) -> list[Series]:
        """Run a range query over [start, end], both ends included; returns its matrix."""
        _stamp(start), _stamp(end)
        return self._series(lambda: self._connect.custom_query_range(expression, start, end, str(step_seconds)))

    def version(self) -> str:
        """Return the server's version ("2.42.0"), "" where the server does not tell (Thanos, Mimir)."""
        if self._version is None:
            try:
                answer = self._attempt(lambda: self._session.request("GET", f"{self.url}/api/v1/status/buildinfo"))
                data = json.loads(answer.content).get("data")
            except NotFound:
                data = {}
            except (ValueError, AttributeError) as error:
                raise ServerError("the answer is no build information") from error
            self._version = str(data.get("version", "")) if isinstance(data, dict) else ""
        return self._version

    def ranges_are_left_open(self) -> bool:
        """Whether a range selector leaves out a sample at its very start: since Prometheus 3, not before.

        A server that does not tell its version is taken for a current one.
        """
        major = self.version().lstrip("v").split(".")[0]
        return not major.isdigit() or int(major) >= 3

    def _series(self, call: Callable[[], Any]) -> list[Series]:
        try:
            result = self._attempt(call)
        except (ValueError, KeyError, TypeError) as error:  # what the library makes of an answer of another shape
            raise ServerError("the answer is no query result") from error
        if not isinstance(result, list):
            raise ServerError("the answer holds no result")
        return result

    def _attempt(self, call: Callable[[], Any]) -> Any:
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except ClusterError as error:
                if attempt == self._attempts or not error.retryable or isinstance(error, NotFound):
                    raise
                asked = error.retry_after if isinstance(error, Throttled | ServerError) else 0.0
                self._sleep(min(30.0, max(asked, 0.5 * 2 ** (attempt - 1))))
        raise ServerError("no attempt was made")


def _stamp(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError("Prometheus is asked with timezone-aware times")
    return f"{at.timestamp():.3f}"
