"""Connections go to checked addresses, whatever a name resolves to and when."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from apps.clusters.addresses import check_address, checked_addresses
from apps.clusters.clients.allocation import AllocationClient
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.clients.prometheus import PrometheusClient
from apps.clusters.errors import AddressRefused, ClusterError


class _Listening:
    """A server that counts who came by."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.headers.get("Host", ""))
                data = json.dumps({"gitVersion": "v1.36.0"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def listening() -> Iterator[_Listening]:
    """A server on loopback."""
    made = _Listening()
    yield made
    made.server.shutdown()
    made.server.server_close()


class _Names:
    """A name server whose answer changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        real = socket.getaddrinfo

        def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host not in self.answers:
                return real(host, port, *args, **kwargs)
            self.asked.append(host)
            left = self.answers[host]
            found = left.pop(0) if len(left) > 1 else left[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> _Names:
    """Our own name server."""
    return _Names(monkeypatch)


@pytest.mark.requirement("cluster-onboarding-4.3")
def test_a_name_that_moves_after_the_check_is_not_followed(names: _Names, listening: _Listening) -> None:
    """Harmless when the client is made, a metadata address when it is called."""
    names.answers["api.example.com"] = [["192.0.2.1"], ["169.254.169.254"]]
    client = KubernetesClient(f"http://api.example.com:{listening.port}", token="t")
    with pytest.raises(AddressRefused, match="metadata"):
        client.version()
    assert listening.asked == []


@pytest.mark.requirement("cluster-onboarding-4.3")
def test_the_connection_goes_to_the_address_that_was_checked(names: _Names, listening: _Listening) -> None:
    """The name is resolved once for a connection; the server still reads the name."""
    names.answers["api.example.com"] = [["127.0.0.1"]]
    client = KubernetesClient(f"http://api.example.com:{listening.port}")
    before = len(names.asked)
    assert client.version() == {"gitVersion": "v1.36.0"}
    assert client.version() == {"gitVersion": "v1.36.0"}
    assert len(names.asked) == before + 1  # kept alive: the checked peer stays
    assert listening.asked == [f"api.example.com:{listening.port}"] * 2


@pytest.mark.requirement("cluster-onboarding-4.3")
def test_the_next_address_is_tried_where_one_does_not_answer(names: _Names, listening: _Listening) -> None:
    """As any client does."""
    names.answers["api.example.com"] = [["127.0.0.2", "127.0.0.1"]]
    assert KubernetesClient(f"http://api.example.com:{listening.port}").version()["gitVersion"] == "v1.36.0"


@pytest.mark.requirement("cluster-onboarding-4.3")
def test_metrics_clients_check_their_connections_too(names: _Names, listening: _Listening) -> None:
    """Prometheus and the allocation API."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for make in (
        lambda url: PrometheusClient(url, attempts=1).query("up", at),
        lambda url: AllocationClient(url).allocation(at, at, step="1h"),
    ):
        names.answers["metrics.example.com"] = [["192.0.2.1"], ["169.254.169.254"]]
        with pytest.raises(ClusterError, match="metadata"):
            make(f"http://metrics.example.com:{listening.port}")
    assert listening.asked == []


@pytest.mark.requirement("cluster-onboarding-4.3")
def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, listening: _Listening) -> None:
    """A proxy would resolve the name once more, beyond our checks."""
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert KubernetesClient(f"http://127.0.0.1:{listening.port}").version()["gitVersion"] == "v1.36.0"


@pytest.mark.requirement("cluster-onboarding-4.3", "clusters-1.3")
@pytest.mark.parametrize(
    "host",
    [
        "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",  # 169.254.169.254 as libc reads it
        "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::a9fe:a9fe", "fd20:ce::254", "168.63.129.16",
        "255.255.255.255", "::",
    ],
)  # fmt: skip
def test_no_spelling_of_an_address_gets_through(host: str) -> None:
    """Decimal, hexadecimal, octal, mapped, translated, 6to4."""
    with pytest.raises(AddressRefused):
        checked_addresses(host, 443)


@pytest.mark.requirement("cluster-onboarding-4.4")
def test_denied_networks_win_over_allowed_ones(settings: Any) -> None:
    """A network of its own inside an allowed one."""
    settings.COMMONS_CLUSTER_ALLOWED_NETWORKS = ["10.0.0.0/8"]
    settings.COMMONS_CLUSTER_DENIED_NETWORKS = ["10.9.0.0/16"]
    assert check_address("https://10.1.0.1:6443")
    with pytest.raises(AddressRefused, match="denies"):
        check_address("https://10.9.0.1:6443")
