"""Calls whose whole answer is read (identity providers): bounded in bytes and seconds, no redirect, no metadata."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from apps.clusters import outgoing as guard
from apps.core import outgoing


class _Handler(BaseHTTPRequestHandler):
    seen: list[str]
    goes_on: threading.Event

    def do_GET(self) -> None:
        type(self).seen.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}")
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        self.send_response(401 if self.path == "/no" else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.path == "/drips":
            self.wfile.write(b"{")
            self.wfile.flush()
            type(self).goes_on.wait(5)
            self.wfile.write(b"}")
        elif self.path == "/large":
            self.wfile.write(b"x" * 5000)
        else:
            self.wfile.write(b'{"a": 1}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).seen.append(f"POST {self.path} {body}")
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b'{"error": "invalid_grant"}')

    def log_message(self, *args: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    """A server on this machine."""
    _Handler.seen, _Handler.goes_on = [], threading.Event()
    made = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    _Handler.goes_on.set()
    made.shutdown()
    made.server_close()


@pytest.mark.django_db
@pytest.mark.requirement("openid-sign-in-1.6")
def test_an_answer_is_read_whole_whatever_its_status(server: str) -> None:
    answer = outgoing.get(f"{server}/whole", {"Authorization": "Bearer t"})
    assert (answer.status, answer.body, answer.content_type) == (200, b'{"a": 1}', "application/json")
    assert outgoing.get(f"{server}/no", {}).status == 401
    answer = outgoing.exchange(f"{server}/token", b"code=x", {})
    assert (answer.status, answer.body) == (400, b'{"error": "invalid_grant"}')
    assert _Handler.seen == ["GET /whole Bearer t", "GET /no ", "POST /token code=x"]


@pytest.mark.django_db
@pytest.mark.requirement("openid-sign-in-1.6")
def test_no_redirect_is_followed_and_nothing_endless_is_read(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outgoing.get(f"{server}/away", {}).status == 302
    assert len(_Handler.seen) == 1
    monkeypatch.setattr(guard, "WHOLE_BYTES", 4000)
    with pytest.raises(outgoing.CallFailed, match="larger than 4000"):
        outgoing.get(f"{server}/large", {})
    monkeypatch.setattr(guard, "WHOLE_SECONDS", 0.0)
    with pytest.raises(outgoing.CallFailed, match="longer than"):
        outgoing.get(f"{server}/drips", {})


@pytest.mark.requirement("openid-sign-in-1.6")
@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "https://[::]/"])
def test_places_that_nobody_calls_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(outgoing.CallRefused):
        outgoing.get(url, {})
    monkeypatch.setattr(outgoing, "_call", None)
    with pytest.raises(outgoing.CallRefused, match="no guard"):
        outgoing.exchange("https://id.example.com/token", b"", {})
