"""Calls of the API: problems become errors in words, lost answers are asked for again, pages are followed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import requests

from gpu_commons_cli.config import Config

TIMEOUT = (5, 60)
TRIES = 4
_AGAIN = (429, 502, 503, 504)


class Failed(Exception):
    """The portal refused, or could not be reached. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Portal:
    """One portal, as one person."""

    def __init__(self, config: Config, session: requests.Session | None = None) -> None:
        self.base = f"{config.url}/api/v1"
        self.session = session or requests.Session()
        self.session.headers.update({"Authorization": f"Bearer {config.token}", "Accept": "application/json"})

    def get(self, path: str, **params: Any) -> Any:
        """Return one answer's data."""
        return self._call("GET", path, params={name: value for name, value in params.items() if value is not None})[0]

    def read(self, path: str) -> tuple[Any, str]:
        """Return one row's data and its ETag."""
        return self._call("GET", path)

    def every(self, path: str, **params: Any) -> Iterator[Any]:
        """Yield the rows of a collection, page after page."""
        page = self.get(path, **params)
        while True:
            yield from page["results"]
            if not page.get("next"):
                return
            page = self._call("GET", page["next"])[0]

    def post(self, path: str, body: Any = None, *, etag: str = "") -> Any:
        """Change something, once: a lost answer is asked for again under the same Idempotency-Key."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        if etag:
            headers["If-Match"] = etag
        return self._call("POST", path, json={} if body is None else body, headers=headers)[0]

    def text(self, path: str, **params: Any) -> str:
        """Return an answer's body as text."""
        return str(self._send("GET", path, params=params).text)

    def _call(self, method: str, path: str, **options: Any) -> tuple[Any, str]:
        response = self._send(method, path, **options)
        return (response.json() if response.content else None), response.headers.get("ETag", "")

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else f"{self.base}/{path}"
        if not url.startswith(self.base):
            raise Failed(f"The portal sent an address of somebody else: {url}", 4)
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(8.0, 0.5 * 2**attempt))
            try:
                response = self.session.request(method, url, timeout=TIMEOUT, **options)
            except requests.RequestException as error:
                problem = f"{self.base} cannot be reached: {error}"
                continue
            if response.status_code not in _AGAIN:
                if response.status_code >= 400:
                    raise _refusal(response)
                return response
            problem = f"{self.base} is busy ({response.status_code})"
        raise Failed(problem, 4)


def _refusal(response: requests.Response) -> Failed:
    try:
        body = response.json()
    except ValueError:
        return Failed(f"The portal answered {response.status_code} without saying why.", 4)
    lines = [str(body.get("detail") or body.get("title") or response.status_code)]
    for name, messages in (body.get("errors") or {}).items():
        lines += [f"  {name}: {message}" for message in messages]
    if response.status_code >= 500 and body.get("request_id"):
        lines.append(f"  request id {body['request_id']}")
    return Failed("\n".join(lines), 3 if response.status_code == 401 else 1)
