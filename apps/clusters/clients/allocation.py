"""The allocation API of OpenCost and Kubecost over HTTP: raw sets, nothing interpreted (reference cost C1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from apps.clusters.clients.http import BoundedSession, refusal, session_for
from apps.clusters.errors import ServerError

TIMEOUT = (3.0, 60.0)
MAX_BYTES = 256 * 1024 * 1024
#: An answer read in pieces is held by nobody as a whole: the limit is there against servers that never end.
MAX_STREAMED_BYTES = 4 * 1024 * 1024 * 1024

AllocationSet = dict[str, dict[str, Any]]


class AllocationClient:
    """Reads one server. `path` is `/allocation` for OpenCost, `/model/allocation` for Kubecost."""

    def __init__(
        self,
        url: str,
        *,
        path: str = "/allocation",
        assets_path: str = "",
        token: str = "",
        ca_file: str = "",
        timeout: tuple[float, float] = TIMEOUT,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.url, self._session = session_for(url, session=BoundedSession(max_bytes), token=token, ca_file=ca_file)
        self._path = "/" + path.strip("/")
        self._assets_path = "/" + (assets_path or self._path.replace("allocation", "assets")).strip("/")
        self._timeout = timeout

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def allocation(
        self, start: datetime, end: datetime, *, step: str = "1h", aggregate: str = "", **params: str
    ) -> list[AllocationSet]:
        """Return one map name → allocation per step of [start, end); an empty step is an empty map.

        Without `aggregate` the rows are containers. Further `params` go to the server as they are
        (`includeIdle`, `resolution`, `filter`). Raises clusters.errors.
        """
        query = {"window": _window(start, end), "step": step, "accumulate": "false", **params}
        if aggregate:
            query["aggregate"] = aggregate
        data = self._read(self._path, query)
        if not isinstance(data, list) or not all(item is None or isinstance(item, dict) for item in data):
            raise ServerError("the answer is no list of allocation sets")
        return [item or {} for item in data]

    def assets(self, start: datetime, end: datetime, **params: str) -> dict[str, dict[str, Any]]:
        """Return the assets (nodes, disks, …) of [start, end) by key. Raises clusters.errors."""
        data = self._read(self._assets_path, {"window": _window(start, end), **params})
        if isinstance(data, list):  # some releases wrap the map in a list of one
            data = data[0] if data else {}
        if data is not None and not isinstance(data, dict):
            raise ServerError("the answer is no map of assets")
        return data or {}

    @contextmanager
    def pieces(
        self, what: str, start: datetime, end: datetime, **params: str
    ) -> Iterator[tuple[dict[str, str], Iterator[bytes]]]:
        """Ask for `what` ("allocation" or "assets") of [start, end); gives the parameters sent, and the answer's bytes.

        Raises clusters.errors, also while the bytes are read. Whether they are a success is for the reader to see.
        """
        query = {"window": _window(start, end), **params}
        path = self._path if what == "allocation" else self._assets_path
        limit = max(self._session.max_bytes, MAX_STREAMED_BYTES)
        with self._session.streamed(
            "GET", f"{self.url}{path}", params=query, timeout=self._timeout, max_bytes=limit
        ) as (response, pieces):
            if response.status_code != 200:
                response._content = next(pieces, b"")
                raise refusal(response)
            yield query, pieces

    def _read(self, path: str, query: dict[str, str]) -> Any:
        response = self._session.request("GET", f"{self.url}{path}", params=query, timeout=self._timeout)
        if response.status_code != 200:
            raise refusal(response)
        try:
            body = json.loads(response.content)
        except ValueError as error:
            raise ServerError("the answer is not JSON", status=response.status_code) from error
        if not isinstance(body, dict) or body.get("code") != 200:
            told = str(body.get("message") or "no success") if isinstance(body, dict) else "not an object"
            raise ServerError(told, status=int(body.get("code") or 0) if isinstance(body, dict) else 0)
        return body.get("data")


def _window(start: datetime, end: datetime) -> str:
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("an allocation window needs timezone-aware times")
    return ",".join(at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in (start, end))
