"""Hugging Face repositories at a commit, from the hub or a mirror of it inside the company (its HTTP API)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urljoin, urlsplit

from apps.catalogue.manifest import SHA256
from apps.catalogue.reading.base import Entry, Place, StoreSession, WrongContent, bounded
from apps.catalogue.reading.oci import opened
from apps.clusters.addresses import check_address
from apps.clusters.errors import ServerError

#: Pages of a listing that are followed.
_MOST_PAGES = 50


class HfReader:
    """One repository at one commit."""

    def __init__(self, place: Place) -> None:
        self.base = check_address(place.endpoint, resolve=False)
        self.repository = place.location.removeprefix("hf://")
        self.revision = place.revision
        self.session = StoreSession(place)
        self._token = place.credentials.get("token", "")

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        return headers | {"Authorization": f"Bearer {self._token}"} if self._token else headers

    def entries(self) -> list[Entry]:
        """Return every file of the commit. For large files the hub states the SHA-256, which is held against ours."""
        found: list[Entry] = []
        url = f"{self.base}/api/models/{quote(self.repository)}/tree/{quote(self.revision)}?recursive=true"
        for _ in range(_MOST_PAGES):
            response = self.session.answer("GET", url, headers=self._headers())
            try:
                rows = json.loads(response.content)
            except ValueError as error:
                raise ServerError("the hub's answer is no JSON") from error
            if not isinstance(rows, list):
                raise ServerError("the hub's answer is no list of files")
            found += [self._entry(row) for row in rows if isinstance(row, dict) and row.get("type") == "file"]
            link = response.links.get("next", {}).get("url", "")
            if not link:
                return bounded(found)
            url = urljoin(url, link)
            if urlsplit(url).netloc != urlsplit(self.base).netloc:
                raise ServerError("the hub's list goes on at another host")
        raise WrongContent("the repository has too many files")

    def _entry(self, row: dict[str, object]) -> Entry:
        path, size, lfs = row.get("path"), row.get("size"), row.get("lfs")
        if not isinstance(path, str) or not isinstance(size, int):
            raise ServerError("the hub names a file without path or size")
        stated = str(lfs.get("oid", "")).removeprefix("sha256:") if isinstance(lfs, dict) else ""
        # Git's own object id changes whenever the content does.
        known = stated if SHA256.match(stated) else ""
        return Entry(path, size, known or str(row.get("oid", ""))[:200], stated=known, key=path)

    @contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """Give a file's bytes; the hub sends on to its storage for large ones."""
        url = f"{self.base}/{quote(self.repository)}/resolve/{quote(self.revision)}/{quote(entry.key)}"
        with opened(self.session, url, self._headers()) as pieces:
            yield pieces

    def probe(self) -> str:
        """Ask for the repository, or whether anything answers."""
        if self.repository and self.revision:
            return f"The hub answers; the commit has {len(self.entries())} files."
        self.session.answer("GET", f"{self.base}/api/models?limit=1", headers=self._headers())
        return "The hub answers."

    def close(self) -> None:
        """Close the connections."""
        self.session.close()
