"""The Prometheus and allocation clients: what they ask and what they make of answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from apps.clusters import errors
from apps.clusters.clients.allocation import AllocationClient
from apps.clusters.clients.prometheus import PrometheusClient

START, END = datetime(2026, 11, 1, 13, tzinfo=UTC), datetime(2026, 11, 1, 14, tzinfo=UTC)


class Server:
    """Answers in the queued order; keeps method, path, query and form of what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.asked: list[tuple[str, str, dict[str, list[str]], dict[str, list[str]], str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                parts = urlsplit(self.path)
                form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                outer.asked.append(
                    (
                        self.command,
                        parts.path,
                        parse_qs(parts.query),
                        parse_qs(form),
                        self.headers.get("Authorization", ""),
                    )
                )
                status, body, headers = outer.answers.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _any

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def then(self, status: int, body: Any, **headers: str) -> None:
        """Queue one answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, data, {key.replace("_", "-"): value for key, value in headers.items()}))


@pytest.fixture
def server() -> Iterator[Server]:
    """A metrics server that answers as told."""
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def _success(result: list[Any]) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.mark.requirement("clusters-5.1")
def test_an_instant_query_is_a_form_at_a_time(server: Server) -> None:
    """Long queries do not fit into a URL."""
    server.then(200, _success([{"metric": {}, "value": [1, "2"]}]))
    expression = 'up{namespace=~"' + "|".join(f"team-{n}" for n in range(2000)) + '"}'
    assert PrometheusClient(server.url, token="t").query(expression, START) == [{"metric": {}, "value": [1, "2"]}]
    method, path, query, form, auth = server.asked[0]
    assert (method, path, query, auth) == ("POST", "/api/v1/query", {}, "Bearer t")
    assert form["query"] == [expression]
    assert form["time"] == [f"{START.timestamp():.3f}"]


@pytest.mark.requirement("clusters-5.1")
def test_a_range_query_names_both_ends_and_step(server: Server) -> None:
    """As query_range takes them."""
    server.then(200, _success([]))
    assert PrometheusClient(server.url).query_range("up", START, END, 300) == []
    _, path, _, form, _ = server.asked[0]
    assert path == "/api/v1/query_range"
    assert [form[key][0] for key in ("start", "end", "step")] == [
        str(int(START.timestamp())), str(int(END.timestamp())), "300",
    ]  # fmt: skip


@pytest.mark.requirement("clusters-5.1")
def test_what_is_worth_it_is_retried_and_a_bad_query_is_not(server: Server) -> None:
    """With growing pauses, and not before the server asked."""
    pauses: list[float] = []
    client = PrometheusClient(server.url, sleep=pauses.append)
    server.then(503, b"busy", Retry_After="4")
    server.then(429, b"slow down")
    server.then(200, _success([]))
    assert client.query("up", START) == []
    assert pauses == [4.0, 1.0]
    server.then(400, {"status": "error", "errorType": "bad_data", "error": "parse error at char 3"})
    with pytest.raises(errors.InvalidObject, match="parse error at char 3"):
        client.query("up{", START)
    for _ in range(3):
        server.then(500, b"")
    with pytest.raises(errors.ServerError):
        client.query("up", START)
    assert server.answers == []


@pytest.mark.requirement("clusters-5.1")
@pytest.mark.parametrize("body", [b"not json", {"status": "success"}, {"data": {"result": "x"}}, [1]])
def test_an_answer_of_another_shape_is_an_error(server: Server, body: Any) -> None:
    """Never an empty result."""
    server.then(200, body)
    with pytest.raises(errors.ServerError):
        PrometheusClient(server.url, attempts=1).query("up", START)


@pytest.mark.requirement("clusters-5.1")
@pytest.mark.parametrize(
    ("version", "left_open"), [("2.42.0", False), ("2.55.1", False), ("3.0.0", True), ("v3.5.0", True), ("", True)]
)
def test_the_version_tells_whether_ranges_are_left_open(server: Server, version: str, left_open: bool) -> None:
    """Prometheus 3 leaves out a sample at the very start of a range."""
    server.then(200, {"status": "success", "data": {"version": version}})
    client = PrometheusClient(server.url)
    assert client.ranges_are_left_open() is left_open
    assert client.version() == version


@pytest.mark.requirement("clusters-5.1")
def test_a_server_without_build_information_has_no_version(server: Server) -> None:
    """Thanos and Mimir answer 404."""
    server.then(404, b"")
    assert PrometheusClient(server.url).version() == ""


@pytest.mark.requirement("clusters-5.1")
def test_naive_times_and_large_answers_are_refused(server: Server) -> None:
    """A time without zone means nothing to a server."""
    with pytest.raises(ValueError, match="timezone-aware"):
        PrometheusClient(server.url).query("up", START.replace(tzinfo=None))
    server.then(200, _success([{"pad": "x" * 5000}]))
    with pytest.raises(errors.TooLarge):
        PrometheusClient(server.url, max_bytes=1000).query("up", START)


@pytest.mark.requirement("clusters-5.2")
def test_allocation_gives_a_map_per_step(server: Server) -> None:
    """Empty steps included."""
    server.then(200, {"code": 200, "data": [{"a/b": {"gpuHours": 4}}, None, {}]})
    sets = AllocationClient(server.url).allocation(START, END, includeIdle="true")
    assert sets == [{"a/b": {"gpuHours": 4}}, {}, {}]
    _, path, query, _, _ = server.asked[0]
    assert path == "/allocation"
    assert query["window"] == ["2026-11-01T13:00:00Z,2026-11-01T14:00:00Z"]
    assert (query["step"], query["includeIdle"], query["accumulate"]) == (["1h"], ["true"], ["false"])


@pytest.mark.requirement("clusters-5.2")
def test_assets_are_a_map_and_kubecost_lives_below_model(server: Server) -> None:
    """Some releases wrap it in a list."""
    server.then(200, {"code": 200, "data": [{"n": {"GPUHours": 8}}]})
    client = AllocationClient(server.url, path="/model/allocation")
    assert client.assets(START, END) == {"n": {"GPUHours": 8}}
    assert server.asked[0][1] == "/model/assets"


@pytest.mark.requirement("clusters-5.2")
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"<html>", errors.ServerError),
        (200, {"code": 500, "message": "window too long"}, errors.ServerError),
        (200, {"code": 200, "data": {"not": "a list"}}, errors.ServerError),
        (200, {"code": 200, "data": ["x"]}, errors.ServerError),
        (400, {"code": 400, "message": "bad window"}, errors.InvalidObject),
        (302, b"", errors.ServerError),
    ],
)
def test_what_is_no_envelope_is_an_error(server: Server, status: int, body: Any, error: type[Exception]) -> None:
    """Never an empty hour."""
    server.then(status, body, Location="http://169.254.169.254/")
    with pytest.raises(error):
        AllocationClient(server.url).allocation(START, END)
    assert len(server.asked) == 1
