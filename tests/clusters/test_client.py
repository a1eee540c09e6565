"""The Kubernetes client against the simulated cluster and against a server that misbehaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import transaction

from apps.clusters import errors
from apps.clusters.clients.guard import TransactionOpen
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.demo.cluster import SimulatedCluster
from tests.cluster.fixtures import client_of, fresh_namespace, namespace, quota

pytestmark = pytest.mark.cluster
Respond = Callable[[BaseHTTPRequestHandler], None]


class Misbehaving:
    """An HTTP server that answers whatever the test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Respond] = []
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer.asked.append((self.command, self.path))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.answers.pop(0)(self)

            do_GET = do_PATCH = do_POST = do_DELETE = _any

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def then(self, status: int, body: Any = None, **headers: str) -> None:
        """Queue one answer."""
        data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()

        def respond(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        self.answers.append(respond)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    """A misbehaving server."""
    made = Misbehaving()
    yield made
    made.server.shutdown()
    made.server.server_close()


def _status(code: int, message: str = "no", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "message": message, "details": details}


@pytest.mark.requirement("clusters-2.3")
@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (401, _status(401), errors.Unauthorised),
        (403, _status(403), errors.Forbidden),
        (403, _status(403, causes=[{"reason": "NamespaceTerminating"}]), errors.Terminating),
        (404, _status(404), errors.NotFound),
        (409, _status(409), errors.StaleRead),
        (410, _status(410), errors.Gone),
        (422, _status(422), errors.InvalidObject),
        (400, _status(400), errors.InvalidObject),
        (500, _status(500), errors.ServerError),
        (503, b"<html>gateway</html>", errors.ServerError),
        # An unknown field and a malformed quantity in an apply body are answered with 500, yet no retry can help.
        (500, _status(500, "failed to create typed patch object: .spec.hrd: field not declared in schema"),
         errors.InvalidObject),
        (500, _status(500, "quantities must match the regular expression"), errors.InvalidObject),
    ],
)  # fmt: skip
def test_each_refusal_is_told_apart(server: Misbehaving, code: int, body: Any, error: type[Exception]) -> None:
    """By status and, where that is not enough, by its words."""
    server.then(code, body)
    with pytest.raises(error) as caught:
        KubernetesClient(server.url).get("ResourceQuota", "q", "ns")
    assert type(caught.value) is error


@pytest.mark.requirement("clusters-2.3")
def test_throttling_says_how_long(server: Misbehaving) -> None:
    """From Retry-After."""
    server.then(429, _status(429), Retry_After="7")
    with pytest.raises(errors.Throttled) as caught:
        KubernetesClient(server.url).get("ResourceQuota", "q", "ns")
    assert caught.value.retry_after == 7.0


@pytest.mark.requirement("clusters-2.3")
def test_a_field_conflict_names_its_managers(server: Misbehaving) -> None:
    """From the causes of the 409."""
    cause = {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "kubectl-edit" using v1',
        "field": ".spec.hard.pods",
    }
    server.then(409, _status(409, causes=[cause]))
    with pytest.raises(errors.ConflictError) as caught:
        KubernetesClient(server.url).apply(quota("ns", 1))
    assert caught.value.causes == [{"manager": "kubectl-edit", "field": ".spec.hard.pods", "message": cause["message"]}]
    assert not caught.value.retryable


@pytest.mark.requirement("clusters-2.1")
def test_no_redirect_is_followed(server: Misbehaving) -> None:
    """A redirect could lead anywhere, with our token."""
    server.then(302, None, Location="http://169.254.169.254/")
    with pytest.raises(errors.ServerError, match="redirects"):
        KubernetesClient(server.url, token="t").get("ResourceQuota", "q", "ns")
    assert len(server.asked) == 1


@pytest.mark.requirement("clusters-2.1")
def test_an_answer_beyond_the_limit_is_refused(server: Misbehaving) -> None:
    """Nothing is read without end."""
    server.then(200, {"pad": "x" * 100_000})
    with pytest.raises(errors.TooLarge):
        KubernetesClient(server.url, max_bytes=50_000).get("ResourceQuota", "q", "ns")


@pytest.mark.requirement("clusters-2.1")
def test_a_silent_server_times_out(server: Misbehaving) -> None:
    """After the read time-out, as unreachable."""
    release = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        release.wait(10)
        handler.close_connection = True

    server.answers.append(silent)
    try:
        with pytest.raises(errors.Unreachable):
            KubernetesClient(server.url, read_seconds=0.2).get("ResourceQuota", "q", "ns")
    finally:
        release.set()


@pytest.mark.requirement("clusters-2.1")
def test_nothing_is_retried_behind_the_callers_back(server: Misbehaving) -> None:
    """A 503 to a PATCH and to a GET is told at once."""
    for verb in (lambda c: c.apply(quota("ns", 1)), lambda c: c.get("ResourceQuota", "q", "ns")):
        server.then(503, _status(503), Retry_After="1")
        with pytest.raises(errors.ServerError) as caught:
            verb(KubernetesClient(server.url))
        assert caught.value.retry_after == 1.0
    assert len(server.asked) == 2


def test_a_closed_port_is_unreachable() -> None:
    """Without an answer there is nothing to interpret."""
    with pytest.raises(errors.Unreachable):
        KubernetesClient("http://127.0.0.1:9").version()


@pytest.mark.requirement("clusters-2.2")
def test_a_name_with_a_path_in_it_is_never_sent(server: Misbehaving) -> None:
    """Refused here, not there."""
    client = KubernetesClient(server.url)
    with pytest.raises(ValueError, match="no name"):
        client.get("ResourceQuota", "a/../../../../api/v1/namespaces/x/secrets", "ns")
    with pytest.raises(ValueError, match="namespace"):
        client.list("ResourceQuota", "x/../y")
    assert server.asked == []


@pytest.mark.requirement("clusters-2.4")
def test_a_list_follows_its_pages_and_starts_again_once_a_token_expired(server: Misbehaving) -> None:
    """The half that was read before counts for nothing."""
    first = {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "tok", "resourceVersion": "5"}}
    server.then(200, first)
    server.then(410, _status(410))
    server.then(200, first)
    server.then(200, {"items": [{"metadata": {"name": "b"}}], "metadata": {"resourceVersion": "9"}})
    listing = KubernetesClient(server.url).list("ResourceQuota", label_selector="a=b")
    assert [item["metadata"]["name"] for item in listing.items] == ["a", "b"]
    assert listing.resource_version == "9"
    assert listing.items[0]["kind"] == "ResourceQuota"
    assert "continue=tok" in server.asked[3][1]
    assert "labelSelector=a%3Db" in server.asked[0][1]


@pytest.mark.requirement("clusters-2.6")
def test_warnings_are_kept(server: Misbehaving) -> None:
    """All of them, unquoted."""
    server.then(200, {"kind": "X"}, Warning='299 - "old \\"v1\\" is going", 299 - "second"')
    answer = KubernetesClient(server.url).apply(quota("ns", 1))
    assert answer.warnings == ['old "v1" is going', "second"]


@pytest.mark.requirement("clusters-2.5")
def test_a_watch_hands_on_events_and_bookmarks(simulated: SimulatedCluster) -> None:
    """With the versions to resume from."""
    client, name = client_of(simulated), fresh_namespace()
    version = client.list("Namespace").resource_version
    stream = client.watch("Namespace", version, label_selector="gpu-commons/managed=true", seconds=20)
    client.apply(namespace(name))
    seen = []
    for event in stream:
        seen.append(event.type)
        if event.type == "BOOKMARK":
            break
    stream.close()
    assert seen[0] == "ADDED"
    resumed = client.watch("Namespace", event.resource_version, seconds=20)
    client.apply(namespace(name, extra="yes"))
    after = next(iter(resumed))
    assert (after.type, after.object["metadata"]["labels"]["extra"]) == ("MODIFIED", "yes")
    resumed.close()


@pytest.mark.requirement("clusters-2.5")
def test_an_expired_version_is_gone(server: Misbehaving) -> None:
    """At once (410), or inside the stream (an ERROR event)."""
    server.then(410, _status(410))
    with pytest.raises(errors.Gone):
        KubernetesClient(server.url).watch("Namespace", "1")
    server.then(200, (json.dumps({"type": "ERROR", "object": _status(410)}) + "\n").encode())
    with pytest.raises(errors.Gone):
        list(KubernetesClient(server.url).watch("Namespace", "1"))


@pytest.mark.requirement("clusters-2.5")
def test_a_closed_watch_wakes_its_reader(simulated: SimulatedCluster) -> None:
    """From another thread, without waiting for the time-out."""
    client = client_of(simulated)
    stream = client.watch("Node", client.list("Node").resource_version, label_selector="none=there", seconds=60)
    reader = threading.Thread(target=lambda: [None for _ in stream])
    reader.start()
    stream.close()
    reader.join(5)
    assert not reader.is_alive()


@pytest.mark.requirement("clusters-2.7")
@pytest.mark.django_db
def test_no_call_inside_a_transaction(simulated: SimulatedCluster) -> None:
    """The test case's own transaction does not count; one opened by code does."""
    client = client_of(simulated)
    client.version()
    with transaction.atomic(), pytest.raises(TransactionOpen):
        client.version()


@pytest.mark.requirement("clusters-2.1")
def test_at_most_five_calls_are_in_flight(server: Misbehaving) -> None:
    """Per client, whatever the number of threads."""
    lock, now, most = threading.Lock(), 0, 0
    gate, full = threading.Semaphore(0), threading.Event()

    def respond(handler: BaseHTTPRequestHandler) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 5:
                full.set()
        gate.acquire(timeout=5)
        with lock:
            now -= 1
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    server.answers = [respond] * 12
    client = KubernetesClient(server.url)
    threads = [threading.Thread(target=client.get, args=("Namespace", "a")) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert full.wait(5)
    for _ in range(12):
        gate.release()
    for thread in threads:
        thread.join(10)
    assert most == 5
    assert len(server.asked) == 12
