"""HTTP/1.1 over TLS on the loopback address."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from apps.demo.cluster.auth import User
from apps.demo.cluster.errors import ApiError
from apps.demo.cluster.faults import Down, Faults
from apps.demo.cluster.requests import Request, Response

MAX_BODY = 3 * 1024 * 1024
"""The API server's request limit."""

Handle = Callable[[Request, Callable[[], bool]], Response]


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1 only. One thread per connection; `halt` ends open streams, too."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(
        self,
        port: int,
        handle: Handle,
        authenticate: Callable[[str], User | None],
        faults: Faults,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.handle_one = handle
        self.authenticate = authenticate
        self.faults = faults
        self.tls = tls
        self.expired_tls: ssl.SSLContext | None = None
        self.halting = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the TLS handshake happens in the connection's own thread."""
        connection, address = self.socket.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            tls = self.expired_tls if self.expired_tls is not None and self.faults.expired() else self.tls
            connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget and close a connection."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is the client's affair; anything else is ours and goes to stderr."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError | ssl.SSLError):
            traceback.print_exc()

    def halt(self) -> None:
        """Stop listening and cut every open connection."""
        self.halting.set()
        self.shutdown()
        self.server_close()
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):  # it may have gone by itself
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    timeout = 600
    server: Server
    stream_since: float = float("inf")

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(10)
            self.request.do_handshake()
        super().setup()

    def version_string(self) -> str:
        """The `Server` header."""
        return "simulated-kube-apiserver"

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` header, by the server's own clock, which may be wrong."""
        moment = time.time() if timestamp is None else timestamp
        return super().date_time_string(int(moment + self.server.faults.skew().total_seconds()))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def _serve(self) -> None:
        try:
            response = self._respond()
        except Down:
            self._cut()
            return
        except ApiError as error:
            response = _failure(error)
        except Exception:  # noqa: BLE001  (last resort of a connection: answered with 500)
            traceback.print_exc()
            response = _failure(ApiError(500, "InternalError", "Internal error occurred: see the server's log"))
        if response.stream is not None:
            self._stream(response, response.stream)
        else:
            self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _respond(self) -> Response:
        body = self._body()
        path, query = Request.split(self.path)
        if not path.startswith("/simulated/"):
            self.server.faults.strike(self.command, self.path)
        user = self._user()
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, query, headers, body, user)
        return self.server.handle_one(request, self._alive)

    def _alive(self) -> bool:
        age = max(0.0, time.monotonic() - self.stream_since)
        return not self.server.halting.is_set() and not self.server.faults.cuts(self.path, age)

    def _user(self) -> User:
        """Identity of the bearer token; without one `system:anonymous`. Raises 401 for an unknown token."""
        header = self.headers.get("Authorization", "")
        scheme, _, credential = header.partition(" ")
        if not header:
            return User("system:anonymous", ("system:unauthenticated",))
        user = self.server.authenticate(credential.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunks()
        text = self.headers.get("Content-Length", "0")
        if not text.isdigit():
            self.close_connection = True
            raise ApiError(400, "BadRequest", "malformed Content-Length")
        length = int(text)
        if length > MAX_BODY:
            self.close_connection = True
            raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
        return self.rfile.read(length) if length else b""

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                length = int(self.rfile.readline(64).split(b";")[0], 16)
            except ValueError as error:
                self.close_connection = True
                raise ApiError(400, "BadRequest", "malformed chunk") from error
            size += length
            if size > MAX_BODY:
                self.close_connection = True
                raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
            parts.append(self.rfile.read(length))
            self.rfile.readline(64)
            if length == 0:
                return b"".join(parts)

    def _head(self, response: Response) -> None:
        self.send_response(response.code)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Cache-Control", "no-cache, private")
        for name, value in response.headers.items():
            self.send_header(name, value)
        for text in response.warnings:
            escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
            self.send_header("Warning", f'299 - "{escaped}"')

    def _send(self, response: Response) -> None:
        self._head(response)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _stream(self, response: Response, lines: Iterator[bytes]) -> None:
        self.stream_since = time.monotonic()
        self._head(response)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for line in lines:
            if line:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            elif self._gone():
                self.close_connection = True
                return
        if self._alive():
            self.wfile.write(b"0\r\n\r\n")
        else:
            self._cut()

    def _gone(self) -> bool:
        """Whether the watching client has hung up: during a stream it has nothing else to send."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        if not readable:
            return False
        try:
            self.connection.settimeout(0.2)
            return not self.connection.recv(1)
        except TimeoutError:
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def _cut(self) -> None:
        """End the connection without an answer and with a reset, as a dying server does."""
        self.close_connection = True
        with contextlib.suppress(OSError):  # the peer may be quicker
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)


def _failure(error: ApiError) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return Response(error.code, json.dumps(error.status()).encode(), headers=headers)
