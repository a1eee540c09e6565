"""A receiver of webhooks: a real HTTP server that keeps what it got and answers as told."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Got:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Listens on a free port until closed. `hold`: answers nothing before it is closed."""

    def __init__(self, files: tuple[Path, Path] | None = None) -> None:
        self.status, self.words, self.headers = 200, b"", dict[str, str]()
        self.hold = False
        self.got: list[Got] = []
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.got.append(Got(self.path, dict(self.headers), body))
                if outer.hold:
                    outer._closing.wait(30)
                    return
                self.send_response_only(outer.status)
                for name, value in {**outer.headers, "Content-Length": str(len(outer.words))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(outer.words)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                """A client that hangs up is what some tests are about."""

        self.server = Server(("127.0.0.1", 0), Handler)
        if files is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*files)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if files else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}/hook?key=k"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._closing.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(10)
