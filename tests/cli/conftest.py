"""The command line against the portal in this process: requests go to Django's test client instead of a socket."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.test import Client
from requests.adapters import BaseAdapter

from tests.api import contract

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cli"))


class InProcess(BaseAdapter):
    """Hands a request to the portal's own stack."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[requests.PreparedRequest] = []
        #: Status codes to answer with instead, the next first: what a proxy does on a bad day.
        self.failures: list[int | Exception] = []
        #: Called after an answer was made but before it is given: a lost answer.
        self.lose: int = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request."""
        self.sent.append(request)
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return self._answer(request, failure, b"", {})
        parts = urlsplit(str(request.url))
        # What the command line sends and reads is what the description says: the contract's other side.
        contract.check_request(str(request.method), str(request.url), request.body)
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
        made = Client(raise_request_exception=False).generic(
            str(request.method), f"{parts.path}?{parts.query}" if parts.query else parts.path, request.body or b"",
            content_type=request.headers.get("Content-Type", "application/json"), **headers,
        )  # fmt: skip
        if made.status_code != 404 or made.headers["Content-Type"].startswith("application/problem"):
            contract.check_response(str(request.method), str(request.url), made.status_code, made.headers, made.content)
        if self.lose:
            self.lose -= 1
            raise requests.ConnectionError("the answer was lost")
        return self._answer(request, made.status_code, made.content, dict(made.headers))

    def _answer(self, request: Any, status: int, content: bytes, headers: dict[str, str]) -> requests.Response:
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, str(request.url)
        response._content = content
        response.headers.update(headers)
        return response

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InProcess:
    """Put the portal of this process behind every session of the command line."""
    adapter = InProcess()

    def session() -> requests.Session:
        made = real()
        made.mount("http://", adapter)
        made.mount("https://", adapter)
        return made

    real = requests.Session
    monkeypatch.setattr("gpu_commons_cli.client.requests.Session", session)
    monkeypatch.setattr("gpu_commons_cli.client.time.sleep", lambda seconds: None)
    monkeypatch.setattr("gpu_commons_cli.quota.time.sleep", lambda seconds: None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("COMMONS_URL", "COMMONS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return adapter


@pytest.fixture
def commons(wire: InProcess) -> Callable[..., Any]:
    """`commons("quota", "list", …)` runs a command and returns click's result."""
    from click.testing import CliRunner
    from gpu_commons_cli.main import commons as group

    def run(*arguments: str, given: str | None = None) -> Any:
        return CliRunner().invoke(group, list(arguments), input=given, prog_name="commons")

    return run
