"""Small real servers for tests: an S3-compatible store that checks signatures, an OCI registry, a hub, a scanner."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

ACCESS, SECRET = "test-access", "test-secret"


class Server:
    """A server on a free port. `answer(request)` returns (status, headers, body); `seen` lists what was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.authorisations: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                outer.seen.append((self.command, self.path))
                outer.authorisations.append(self.headers.get("Authorization", ""))
                status, headers, body = outer.answer(self)
                self.send_response(status)
                size = headers.pop("Content-Length", None)
                for name, value in headers.items():
                    self.send_header(name, value)
                pieces = [body] if isinstance(body, bytes) else body
                self.send_header("Content-Length", size or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    for piece in pieces:
                        self.wfile.write(piece)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.netloc = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.netloc}"

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], Any]:
        """Return what a request gets."""
        raise AssertionError("say what is answered")


@contextmanager
def running(server: Server) -> Iterator[Any]:
    """Serve in a thread for the block."""
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        server.server.server_close()
        thread.join()


# ---------------------------------------------------------------- S3


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature_of(request: BaseHTTPRequestHandler, region: str) -> str:
    """Work out the signature that AWS Signature Version 4 asks for (written from its specification)."""
    given = request.headers["Authorization"]
    fields = dict(part.strip().split("=", 1) for part in given.partition(" ")[2].split(","))
    day = fields["Credential"].split("/")[1]
    parts = urlsplit(request.path)
    query = "&".join(
        f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}"
        for key, value in sorted(parse_qsl(parts.query, keep_blank_values=True))
    )
    names = fields["SignedHeaders"].split(";")
    headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in names)
    canonical = "\n".join(
        (request.command, parts.path, query, headers, fields["SignedHeaders"], request.headers["X-Amz-Content-SHA256"])
    )
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = "\n".join(
        ("AWS4-HMAC-SHA256", request.headers["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest())
    )
    key = _hmac(_hmac(_hmac(_hmac(b"AWS4" + SECRET.encode(), day), region), "s3"), "aws4_request")
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


class S3(Server):
    """One bucket `models`. `objects` are its keys; `fail(key)` may return an answer of its own once asked."""

    def __init__(self, objects: dict[str, bytes], *, page: int = 1000, region: str = "us-east-1") -> None:
        super().__init__()
        self.objects, self.page, self.region = objects, page, region
        self.fail: Callable[[str], tuple[int, dict[str, str], Any] | None] = lambda key: None

    def etag(self, key: str) -> str:
        """As S3 gives it for objects that were sent whole."""
        return hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], Any]:
        """Check the signature, then list or give."""
        given = request.headers.get("Authorization", "")
        if f"Signature={signature_of(request, self.region)}" not in given if given else True:
            return 403, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        parts = urlsplit(request.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if bucket != "models":
            return 404, {}, b"<Error><Code>NoSuchBucket</Code></Error>"
        if not key:
            return self._list(dict(parse_qsl(parts.query)))
        if (found := self.fail(key)) is not None:
            return found
        if key not in self.objects:
            return 404, {}, b""
        if request.headers.get("If-Match", f'"{self.etag(key)}"') != f'"{self.etag(key)}"':
            return 412, {}, b""
        return 200, {"ETag": f'"{self.etag(key)}"'}, self.objects[key]

    def _list(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        keys = sorted(key for key in self.objects if key.startswith(query.get("prefix", "")))
        start = int(query.get("continuation-token", "0"))
        most = min(self.page, int(query.get("max-keys", "1000")))
        cut = keys[start : start + most]
        more = start + most < len(keys)
        items = "".join(
            f"<Contents><Key>{escape(quote(key))}</Key><ETag>&quot;{self.etag(key)}&quot;</ETag>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in cut
        )
        following = f"<NextContinuationToken>{start + most}</NextContinuationToken>" if more else ""
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{following}{items}</ListBucketResult>"
        )
        return 200, {"Content-Type": "application/xml"}, body.encode()


class WritableS3(S3):
    """The same bucket, taking PutObject and parts; bytes that are not what was signed are refused, as S3 does.

    `spoil(key, body)` returns what is stored instead of what was sent (a store that loses or mixes up bytes).
    """

    def __init__(self, objects: dict[str, bytes] | None = None, **kwargs: Any) -> None:
        super().__init__(objects or {}, **kwargs)
        self.spoil: Callable[[str, bytes], bytes] = lambda key, body: body
        self.refuse: Callable[[str, str], tuple[int, dict[str, str], Any] | None] = lambda method, key: None
        self.parts: dict[str, dict[int, bytes]] = {}
        self.puts: list[str] = []

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], Any]:
        """Write, or read as before."""
        if request.command not in ("PUT", "POST", "DELETE"):
            return super().answer(request)
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        if f"Signature={signature_of(request, self.region)}" not in request.headers.get("Authorization", ""):
            return 403, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        if hashlib.sha256(body).hexdigest() != request.headers["X-Amz-Content-SHA256"]:
            return 400, {}, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>"
        parts = urlsplit(request.path)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if (refused := self.refuse(request.command, key)) is not None:
            return refused
        if "uploads" in query:
            self.parts[key] = {}
            return 200, {}, b"<InitiateMultipartUploadResult><UploadId>u-1</UploadId></InitiateMultipartUploadResult>"
        if request.command == "DELETE":
            self.parts.pop(key, None)
            return 204, {}, b""
        if request.command == "PUT" and "partNumber" in query:
            self.parts[key][int(query["partNumber"])] = body
            return 200, {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}, b""
        if request.command == "POST":
            whole = self.parts.pop(key)
            body = b"".join(whole[number] for number in sorted(whole))
        self.puts.append(key)
        self.objects[key] = self.spoil(key, body)
        return 200, {"ETag": f'"{self.etag(key)}"'}, b"<CompleteMultipartUploadResult/>"


# ---------------------------------------------------------------- OCI


def sha(data: bytes) -> str:
    """The SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class Oci(Server):
    """A registry that wants a token; `blobs` by digest."""

    def __init__(self, files: dict[str, bytes], *, token: str = "pull-token") -> None:
        super().__init__()
        self.token = token
        config = b"{}"
        self.blobs = {f"sha256:{sha(data)}": data for data in [config, *files.values()]}
        layers = [
            {"mediaType": "application/octet-stream", "digest": f"sha256:{sha(data)}", "size": len(data),
             "annotations": {"org.opencontainers.image.title": path}}
            for path, data in files.items()
        ]  # fmt: skip
        self.manifest = json.dumps(
            {"schemaVersion": 2, "config": {"digest": f"sha256:{sha(config)}", "size": len(config)}, "layers": layers}
        ).encode()
        self.digest = f"sha256:{sha(self.manifest)}"
        self.realm = f"{self.url}/token"

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], Any]:
        """Ask for the token, then give manifests and blobs."""
        path = urlsplit(request.path).path
        if path == "/token":
            if request.headers.get("Authorization") != "Basic cm9ib3Q6c2VjcmV0":  # robot:secret
                return 401, {}, b"{}"
            return 200, {}, json.dumps({"token": self.token}).encode()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.realm}",service="registry",scope="repository:models/fraud:pull"'
            return 401, {"WWW-Authenticate": challenge}, b"{}"
        if path == f"/v2/models/fraud/manifests/{self.digest}":
            return 200, {}, self.manifest
        digest = path.rpartition("/")[2]
        if path.startswith("/v2/models/fraud/blobs/") and digest in self.blobs:
            data = self.blobs[digest]
            return 200, {"Content-Length": str(len(data))}, data
        return 404, {}, b"{}"


# ---------------------------------------------------------------- Hugging Face


class Hub(Server):
    """A mirror with one repository; large files are sent on to `storage`, where the token must not arrive."""

    def __init__(self, files: dict[str, bytes], commit: str, storage: Server | None = None) -> None:
        super().__init__()
        self.files, self.commit, self.storage = files, commit, storage
        self.stated = {path: sha(data) for path, data in files.items()}

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], Any]:
        """List in two pages, or give."""
        if request.headers.get("Authorization") != "Bearer hub-token":
            return 401, {}, b"{}"
        parts = urlsplit(request.path)
        if parts.path == f"/api/models/example/fraud/tree/{self.commit}":
            paths = sorted(self.files)
            second = "cursor=2" in parts.query
            cut = paths[1:] if second else paths[:1]
            rows = [
                {"type": "file", "path": path, "size": len(self.files[path]), "oid": "0" * 40}
                | ({"lfs": {"oid": self.stated[path]}} if path.endswith(".safetensors") else {})
                for path in cut
            ]
            rows.append({"type": "directory", "path": "weights", "size": 0})
            link = {} if second else {"Link": f'<{self.url}{parts.path}?recursive=true&cursor=2>; rel="next"'}
            return 200, link, json.dumps(rows).encode()
        path = unquote(parts.path).removeprefix(f"/example/fraud/resolve/{self.commit}/")
        if path not in self.files:
            return 404, {}, b""
        if self.storage is not None and path.endswith(".safetensors"):
            return 302, {"Location": f"{self.storage.url}/{path}"}, b""
        return 200, {}, self.files[path]


class Plain(Server):
    """Gives files by path, to whoever asks."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], Any]:
        """Give."""
        path = unquote(urlsplit(request.path).path).lstrip("/")
        return (200, {}, self.files[path]) if path in self.files else (404, {}, b"")


# ---------------------------------------------------------------- clamd


@contextmanager
def clamd(*, limit: int = 25 * 1024 * 1024, reply: str = "") -> Iterator[Any]:
    """A scanner that speaks INSTREAM: finds the word EICAR; gives `reply` instead, if any."""
    listener = socket.create_server(("127.0.0.1", 0))
    scanned: list[bytes] = []
    over = threading.Event()

    def read(link: socket.socket, count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = link.recv(count - len(found))
            if not piece:
                break
            found += piece
        return found

    def serve() -> None:
        while not over.is_set():
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                if read(link, 10) != b"zINSTREAM\0":
                    continue
                data = b""
                while (size := int.from_bytes(read(link, 4), "big")) and len(data) + size <= limit:
                    data += read(link, size)
                scanned.append(data)
                if size:
                    link.sendall(b"INSTREAM size limit exceeded. ERROR\0")
                elif reply:
                    link.sendall(reply.encode() + b"\0")
                elif b"EICAR" in data:
                    link.sendall(b"stream: Eicar-Test-Signature FOUND\0")
                else:
                    link.sendall(b"stream: OK\0")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", scanned
    finally:
        over.set()
        # Wakes accept(), which a close from another thread does not.
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass
        thread.join(timeout=5)
        listener.close()
