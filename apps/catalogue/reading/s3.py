"""S3-compatible storage: ListObjectsV2 and GetObject with Signature Version 4 (botocore signs, our session sends)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]  # the library has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # as above
from botocore.credentials import Credentials  # type: ignore[import-untyped]  # as above

from apps.catalogue.reading.base import (
    MAX_FILE,
    MAX_FILES,
    TIMEOUT,
    Entry,
    Place,
    StoreSession,
    WrongContent,
    bounded,
    raise_for,
)
from apps.clusters.addresses import check_address
from apps.clusters.errors import ServerError

_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
#: Names of objects that stand for a folder.
_FOLDER = "/"


class S3Reader:
    """One prefix of a bucket. Buckets are part of the path, which every S3-compatible service understands."""

    def __init__(self, place: Place) -> None:
        self.base = check_address(place.endpoint, resolve=False)
        self.bucket, _, prefix = place.location.removeprefix("s3://").partition("/")
        self.prefix = prefix.strip("/")
        self.region = place.region or "us-east-1"
        self.session = StoreSession(place)
        key, secret = place.credentials.get("access_key", ""), place.credentials.get("secret_key", "")
        token = place.credentials.get("session_token") or None
        self.credentials = Credentials(key, secret, token) if key else None

    def _signed(self, url: str, headers: dict[str, str] | None = None) -> dict[str, str]:
        sent = dict(headers or {})
        # Otherwise requests asks for compressed transfer, and what is hashed would depend on who sits in between.
        sent["Accept-Encoding"] = "identity"
        if self.credentials is None:
            return sent
        request = AWSRequest(method="GET", url=url, headers=sent)
        request.context["payload_signing_enabled"] = False
        S3SigV4Auth(self.credentials, "s3", self.region).add_auth(request)
        return dict(request.headers.items())

    def _list(self, token: str, most: int) -> tuple[list[Entry], str]:
        query = {"list-type": "2", "max-keys": str(most), "encoding-type": "url"}
        # A file of exactly that name counts, too; what merely begins with the same letters does not (`_entries`).
        query["prefix"] = self.prefix
        if token:
            query["continuation-token"] = token
        url = f"{self.base}/{quote(self.bucket)}?{urlencode(sorted(query.items()), quote_via=quote)}"
        response = self.session.answer("GET", url, headers=self._signed(url))
        return self._entries(response.content)

    def _entries(self, body: bytes) -> tuple[list[Entry], str]:
        root = parse_xml(body)
        if _name(root) != "ListBucketResult":
            raise ServerError("the store's answer is no list of objects")
        found = []
        for item in root:
            if _name(item) != "Contents":
                continue
            fields = {_name(child): (child.text or "") for child in item}
            key = _unquoted(fields.get("Key", ""))
            path = key if not self.prefix else key.removeprefix(f"{self.prefix}/")
            if key.endswith(_FOLDER) or (self.prefix and path == key and key != self.prefix):
                continue
            if key == self.prefix:
                path = key.rpartition("/")[2]
            if not fields.get("Size", "").isdecimal():
                raise ServerError("the store gives no size of an object")
            found.append(Entry(path, int(fields["Size"]), fields.get("ETag", "").strip('"'), key=key))
        texts = {_name(child): (child.text or "") for child in root}
        following = texts.get("NextContinuationToken", "") if texts.get("IsTruncated") == "true" else ""
        return found, following

    def entries(self) -> list[Entry]:
        """Return every object below the prefix."""
        found, token = self._list("", 1000)
        while token:
            more, token = self._list(token, 1000)
            found += more
            if len(found) > MAX_FILES:
                break
        return bounded(found)

    @contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """Give an object's bytes, as it was when it was listed."""
        url = f"{self.base}/{quote(self.bucket)}/{quote(entry.key, safe='/~')}"
        headers = {"If-Match": f'"{entry.etag}"'} if entry.etag else {}
        with self.session.streamed(
            "GET", url, headers=self._signed(url, headers), timeout=TIMEOUT, max_bytes=MAX_FILE
        ) as (response, pieces):
            raise_for(response)
            if response.status_code != 200:
                raise ServerError(f"HTTP {response.status_code} instead of the object")
            yield pieces

    def probe(self) -> str:
        """List one object."""
        found, more = self._list("", 2)
        if not found:
            return "The bucket answers; nothing lies at this prefix yet."
        return f"The bucket answers, and {'several objects lie' if more or len(found) > 1 else 'an object lies'} there."

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


def parse_xml(body: bytes) -> ElementTree.Element:
    """Return the root of an answer. Raises ServerError for no XML, WrongContent for entities of its own."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise WrongContent("the store's answer declares entities")
    try:
        return ElementTree.fromstring(body)  # noqa: S314 (bounded, and what declares entities was refused above)
    except ElementTree.ParseError as error:
        raise ServerError("the store's answer is no XML") from error


def _name(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(_NAMESPACE).rpartition("}")[2]


def _unquoted(text: str) -> str:
    from urllib.parse import unquote_plus

    return unquote_plus(text)
