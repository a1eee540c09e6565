"""Small HTTPS servers with certificates of our choosing, for what can be wrong with one."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


class Authority:
    """A certificate authority of a test."""

    def __init__(self, name: str = "Test authority") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        builder = _builder(self.name, self.name, self.key, now - dt.timedelta(days=400), now + dt.timedelta(days=400))
        self.certificate = builder.add_extension(x509.BasicConstraints(True, None), critical=True).sign(
            self.key, hashes.SHA256()
        )

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self, folder: Path, *, days: tuple[float, float] = (-1, 365), address: str = "127.0.0.1"
    ) -> tuple[Path, Path]:
        """Write a server certificate valid from and to so many days from now; returns (certificate, key) files."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        builder = _builder(subject, self.name, key, now + dt.timedelta(days=days[0]), now + dt.timedelta(days=days[1]))
        names = [x509.DNSName("api.example.com"), x509.IPAddress(ipaddress.ip_address(address))]
        certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(
            self.key, hashes.SHA256()
        )
        chain, private = folder / "tls.crt", folder / "tls.key"
        chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return chain, private


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, start: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


Reply = tuple[int, Any, dict[str, str]]


class Api:
    """An HTTPS server that answers a few paths of an API server; `answers` (path prefix → function) come first."""

    def __init__(self, files: tuple[Path, Path] | None, *, version: str = "v1.36.2", skew_seconds: float = 0.0) -> None:
        self.version = version
        self.skew = skew_seconds
        self.answers: dict[str, Callable[[], Reply]] = {}
        self.objects: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {"admissionregistration.k8s.io": ["v1"]}
        self.denied: set[tuple[str, str]] = set()
        self.reviews: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                with outer._lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    outer.tokens.append(self.headers.get("Authorization", ""))
                    status, answer, headers = outer.reply(self.path.partition("?")[0], body)
                finally:
                    with outer._lock:
                        outer.at_once -= 1
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response_only(status)
                now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=outer.skew)
                self.send_header("Date", format_datetime(now, usegmt=True))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _any

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if files is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*files)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if files is not None else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()

    def reply(self, path: str, body: bytes) -> Reply:
        """Answer one request."""
        for prefix, answer in self.answers.items():
            if path.startswith(prefix):
                return answer()
        if path == "/version":
            return 200, {"gitVersion": self.version}, {}
        if path == "/apis":
            groups = [{"name": n, "versions": [{"version": v} for v in vs]} for n, vs in self.groups.items()]
            return 200, {"kind": "APIGroupList", "groups": groups}, {}
        if path.endswith("/selfsubjectreviews"):
            return 201, {"status": {"userInfo": {"username": "system:serviceaccount:gpu-commons:gpu-commons"}}}, {}
        if path.endswith("/selfsubjectaccessreviews"):
            spec = json.loads(body)["spec"]
            self.reviews.append(spec)
            asked = spec.get("resourceAttributes") or {}
            allowed = (asked.get("verb"), asked.get("resource")) not in self.denied
            return 201, {"status": {"allowed": allowed}}, {}
        if path == "/api/v1/nodes":
            return 200, {"items": [], "metadata": {"resourceVersion": "1"}}, {}
        if path in self.objects:
            return 200, self.objects[path], {}
        if path.startswith("/apis/admissionregistration.k8s.io"):
            return 200, {"resources": [{"name": "validatingadmissionpolicies"}]}, {}
        if path.startswith("/apis/kueue.x-k8s.io"):
            return 200, {"resources": [{"name": "topologies"}]}, {}
        return 404, {"kind": "Status", "code": 404, "message": "not found"}, {}
