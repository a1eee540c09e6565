"""What every reader of a store offers, and what can go wrong with one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import requests

from apps.clusters.clients.http import BoundedSession
from apps.clusters.errors import (
    ClusterError,
    Forbidden,
    NotFound,
    ServerError,
    Throttled,
    Unauthorised,
)

#: Listings, manifests and error texts are no larger than that.
MAX_ANSWER = 32 * 1024 * 1024
#: No single file is larger than that (S3's own limit is 50 TiB since December 2025).
MAX_FILE = 64 * 1024**4
MAX_FILES = 20_000
#: Seconds to connect, and between two pieces of an answer.
TIMEOUT = (5, 60)


class WrongContent(ClusterError):
    """What the store gives is not what it or the version says: another digest, another size, no such layout."""

    code = "wrong_content"
    retryable: ClassVar[bool] = False


class Changed(ClusterError):
    """A file was written anew while it was read: read it once more."""

    code = "changed"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file below a location. `etag`: what the store calls this state of it.

    `sha256`: proven without reading (OCI); `stated`: what the store says it is, held against what is read.
    """

    path: str
    size: int
    etag: str = ""
    sha256: str = ""
    stated: str = ""
    #: What the reader needs to get at it.
    key: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to read and with what: a store's fields, opened, and a version's location in it."""

    scheme: str
    endpoint: str
    location: str
    revision: str = ""
    region: str = ""
    ca_file: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


class Reader(Protocol):
    """A store opened at one location."""

    def entries(self) -> list[Entry]:
        """Return every file below the location, by path. Raises ClusterError."""

    def open(self, entry: Entry) -> AbstractContextManager[Iterator[bytes]]:
        """Give a file's bytes in pieces. Raises ClusterError, also while the pieces are read."""

    def probe(self) -> str:
        """Ask for as little as possible and say in a sentence what was found. Raises ClusterError."""

    def close(self) -> None:
        """Close the connections."""


class StoreSession(BoundedSession):
    """A session for stores: short answers are bounded, files are streamed."""

    def __init__(self, place: Place) -> None:
        super().__init__(MAX_ANSWER)
        if place.ca_file:
            self.verify = place.ca_file

    def answer(self, method: str, url: str, **kwargs: Any) -> requests.Response:
        """Send and return a short answer. Raises ClusterError for every status but 2xx and redirects."""
        kwargs.setdefault("timeout", TIMEOUT)
        response = self.request(method, url, **kwargs)
        raise_for(response)
        return response


def raise_for(response: requests.Response) -> None:
    """Raise the error that a store's status means; its own words are not repeated: they may quote what was sent."""
    status = response.status_code
    if status < 400:
        return
    message = f"HTTP {status}"
    if status == 401:
        raise Unauthorised(f"the store does not accept the credentials ({message})", status=status)
    if status == 403:
        raise Forbidden(f"the store refuses this with these credentials ({message})", status=status)
    if status == 404:
        raise NotFound(f"there is no such thing in the store ({message})", status=status)
    if status == 412:
        raise Changed("the file was changed while it was read", status=status)
    if status in (429, 503):
        raise Throttled(f"the store asks for patience ({message})", status=status)
    raise ServerError(f"the store failed ({message})", status=status)


def bounded(entries: list[Entry]) -> list[Entry]:
    """Return entries by path. Raises WrongContent for too many, and for a path that leads elsewhere."""
    if len(entries) > MAX_FILES:
        raise WrongContent(f"there are more than {MAX_FILES:,} files below the location: name a smaller folder")
    for entry in entries:
        parts = entry.path.split("/")
        if not entry.path or len(entry.path) > 500 or any(part in ("", ".", "..") for part in parts):
            raise WrongContent(f"a file has no usable path: {entry.path[:100]!r}")
    if len({entry.path for entry in entries}) != len(entries):
        raise WrongContent("two files have the same path")
    return sorted(entries, key=lambda entry: entry.path)
