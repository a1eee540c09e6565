"""Writing to S3-compatible storage: PutObject, and UploadPart for large files, signed over the bytes' own SHA-256.

The server refuses bytes that are not what was signed, so nothing that was changed on the way is stored; what lies there
afterwards is read again and hashed all the same (`catalogue.copy_jobs`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]  # the library has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # as above
from botocore.credentials import Credentials  # type: ignore[import-untyped]  # as above

from apps.catalogue.reading.base import TIMEOUT, Place, StoreSession
from apps.catalogue.reading.s3 import parse_xml
from apps.clusters.addresses import check_address
from apps.clusters.errors import ServerError, Unauthorised

#: Files up to this go in one request; larger ones in parts of this size, in bytes. S3 takes 10,000 parts of a file.
PART = 64 * 1024 * 1024
MOST_PARTS = 10_000
_PIECE = 1024 * 1024
_EMPTY = hashlib.sha256(b"").hexdigest()

OnBytes = Callable[[int], None]


class _Signed(S3SigV4Auth):
    """Signs a payload whose SHA-256 is known already, over http as over https."""

    def __init__(self, credentials: Any, region: str, sha256: str) -> None:
        super().__init__(credentials, "s3", region)
        self.sha256 = sha256

    def payload(self, request: Any) -> str:
        """Return the digest that the server holds the bytes against."""
        return self.sha256


class S3Writer:
    """Writes objects below one location of a bucket."""

    def __init__(self, place: Place) -> None:
        self.base = check_address(place.endpoint, resolve=False)
        self.bucket, _, prefix = place.location.removeprefix("s3://").partition("/")
        self.prefix = prefix.strip("/")
        self.region = place.region or "us-east-1"
        self.session = StoreSession(place)
        key, secret = place.credentials.get("access_key", ""), place.credentials.get("secret_key", "")
        if not key:
            raise Unauthorised("the store has no credentials, so nothing can be written there")
        self.credentials = Credentials(key, secret, place.credentials.get("session_token") or None)

    def key_of(self, path: str) -> str:
        """Return the key of a file of this path."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def put(self, path: str, file: BinaryIO, size: int, sha256: str, on_bytes: OnBytes) -> None:
        """Write a file from its beginning; `on_bytes` hears of every piece sent and may raise to stop.

        Raises ClusterError.
        """
        if size <= PART:
            self._send("PUT", self._url(path), _Counted(file, size, on_bytes), sha256, size)
            return
        upload = _text(self._send("POST", self._url(path, uploads=""), b"", _EMPTY, 0), "UploadId")
        try:
            self._parts(path, file, size, upload, on_bytes)
        except BaseException:
            # What is not completed would stay, unseen, and be paid for.
            self._send("DELETE", self._url(path, uploadId=upload), b"", _EMPTY, 0)
            raise

    def _parts(self, path: str, file: BinaryIO, size: int, upload: str, on_bytes: OnBytes) -> None:
        part = max(PART, -(-size // MOST_PARTS))
        tags: list[str] = []
        for number in range(1, -(-size // part) + 1):
            length = min(part, size - (number - 1) * part)
            start = file.tell()
            digest = hashlib.sha256()
            left = length
            while left:
                piece = file.read(min(_PIECE, left))
                if not piece:
                    raise ServerError("the portal's own copy of the file is shorter than it was")
                digest.update(piece)
                left -= len(piece)
            file.seek(start)
            url = self._url(path, partNumber=str(number), uploadId=upload)
            stretch = _Counted(file, length, on_bytes)
            tags.append(self._send("PUT", url, stretch, digest.hexdigest(), length).headers.get("ETag", ""))
        root = ElementTree.Element("CompleteMultipartUpload")
        for number, tag in enumerate(tags, 1):
            one = ElementTree.SubElement(root, "Part")
            ElementTree.SubElement(one, "PartNumber").text = str(number)
            ElementTree.SubElement(one, "ETag").text = tag
        body = ElementTree.tostring(root)
        answer = self._send("POST", self._url(path, uploadId=upload), body, hashlib.sha256(body).hexdigest(), len(body))
        # S3 may answer 200 and say in the body that it failed.
        if b"<Error" in answer.content:
            raise ServerError("the store could not put the parts of a file together")

    def _url(self, path: str, **query: str) -> str:
        key = quote(self.key_of(path), safe="/~")
        asked = f"?{urlencode(sorted(query.items()), quote_via=quote)}" if query else ""
        return f"{self.base}/{quote(self.bucket)}/{key}{asked}"

    def _send(self, method: str, url: str, body: Any, sha256: str, size: int) -> Any:
        headers = {"Content-Length": str(size), "Accept-Encoding": "identity"}
        request = AWSRequest(method=method, url=url, headers=headers)
        _Signed(self.credentials, self.region, sha256).add_auth(request)
        return self.session.answer(method, url, headers=dict(request.headers.items()), data=body, timeout=TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


class _Counted:
    """A stretch of a file as a request's body: its length is known, and every piece is reported."""

    def __init__(self, file: BinaryIO, size: int, on_bytes: OnBytes) -> None:
        self.file, self.size, self.left, self.on_bytes = file, size, size, on_bytes

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(_PIECE):
            yield piece

    def read(self, amount: int = -1) -> bytes:
        """Return the next bytes of the stretch."""
        wanted = min(self.left, _PIECE if amount < 0 else min(amount, _PIECE))
        piece = self.file.read(wanted) if wanted else b""
        if wanted and not piece:
            raise ServerError("the portal's own copy of the file is shorter than it was")
        self.left -= len(piece)
        if piece:
            self.on_bytes(len(piece))
        return piece


def _text(response: Any, name: str) -> str:
    for one in parse_xml(response.content).iter():
        if one.tag.rpartition("}")[2] == name and one.text:
            return one.text
    raise ServerError(f"the store's answer names no {name}")
