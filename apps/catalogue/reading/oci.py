"""OCI registries: an artifact by its digest, checked down to its layers (OCI distribution specification v1.1)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import requests

from apps.catalogue.manifest import SHA256
from apps.catalogue.reading.base import MAX_FILE, TIMEOUT, Entry, Place, StoreSession, WrongContent, bounded, raise_for
from apps.clusters.addresses import check_address
from apps.clusters.errors import ServerError, Unauthorised

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ACCEPT = ", ".join((*_INDEXES, *_MANIFESTS))
_CHALLENGE = re.compile(r'([a-z]+)="([^"]*)"')
_TITLE = "org.opencontainers.image.title"
#: An index holds one manifest per platform, never hundreds.
_MOST_MANIFESTS = 64
_REDIRECTS = 3


class OciReader:
    """One artifact. Digests are the registry's own names for bytes: the manifest is hashed here, the rest follows."""

    def __init__(self, place: Place) -> None:
        self.base = check_address(place.endpoint, resolve=False)
        self.name = place.location.removeprefix("oci://").partition("/")[2]
        self.digest = place.revision
        self.credentials = place.credentials
        self.session = StoreSession(place)
        self._token = place.credentials.get("token", "")

    # -- HTTP

    def _get(self, path: str, *, method: str = "GET") -> requests.Response:
        url = f"{self.base}/v2/{self.name}/{path}"
        response = self.session.request(method, url, headers=self._headers(), timeout=TIMEOUT)
        if response.status_code == 401 and self._authorise(response):
            response = self.session.request(method, url, headers=self._headers(), timeout=TIMEOUT)
        raise_for(response)
        return response

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        elif self.credentials.get("username"):
            headers["Authorization"] = requests.auth._basic_auth_str(  # the library's own, so that spelling is its own
                self.credentials["username"], self.credentials.get("password", "")
            )
        return headers

    def _authorise(self, response: requests.Response) -> bool:
        """Fetch the token that a registry's challenge asks for; False where it asks for none."""
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        asked = dict(_CHALLENGE.findall(rest))
        realm = asked.get("realm", "")
        here, there = urlsplit(self.base), urlsplit(realm)
        # Credentials go to the registry itself, or encrypted to where it sends us; nowhere else.
        if not there.hostname or (there.scheme != "https" and there.netloc != here.netloc):
            raise Unauthorised("the registry sends for a token to an address without TLS", status=401)
        query = urlencode({key: asked[key] for key in ("service", "scope") if asked.get(key)})
        headers = {}
        if self.credentials.get("username"):
            headers["Authorization"] = requests.auth._basic_auth_str(
                self.credentials["username"], self.credentials.get("password", "")
            )
        answer = self.session.answer("GET", f"{realm}?{query}", headers=headers)
        try:
            body = json.loads(answer.content)
            self._token = str(body.get("token") or body["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise ServerError("the registry's token service gives no token") from error
        return True

    # -- content

    def _manifest(self, digest: str) -> dict[str, Any]:
        response = self._get(f"manifests/{quote(digest, safe=':')}")
        found = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        if found != digest:
            raise WrongContent(f"the registry gives other bytes under {digest[:19]}…: {found[:19]}…")
        try:
            body = json.loads(response.content)
        except ValueError as error:
            raise WrongContent("the artifact's manifest is no JSON") from error
        if not isinstance(body, dict):
            raise WrongContent("the artifact's manifest is no JSON object")
        return body

    def entries(self) -> list[Entry]:
        """Return the blobs of the artifact with the digests that its manifest states; each exists in the registry."""
        found: dict[str, Entry] = {}
        waiting, seen = [(self.digest, "")], 0
        while waiting:
            digest, below = waiting.pop(0)
            seen += 1
            if seen > _MOST_MANIFESTS:
                raise WrongContent("the artifact's index names too many manifests")
            body = self._manifest(digest)
            if isinstance(children := body.get("manifests"), list):
                for child in children:
                    described = _descriptor(child)
                    waiting.append((described[0], f"{below}{described[0].removeprefix('sha256:')[:12]}/"))
                continue
            if not isinstance(layers := body.get("layers"), list):
                raise WrongContent("the artifact has no layers")
            parts = [(body.get("config"), "config"), *((layer, "layer") for layer in layers)]
            for part, kind in parts:
                if part is None:
                    continue
                of_blob, size, title = _descriptor(part)
                plain = of_blob.removeprefix("sha256:")
                path = f"{below}{title or f'{kind}-{plain[:12]}'}"
                if path in found and found[path].sha256 != plain:
                    path = f"{path}-{plain[:12]}"
                found[path] = Entry(path, size, of_blob, plain, plain, key=of_blob)
        for digest in {entry.key for entry in found.values()}:
            self._get(f"blobs/{digest}", method="HEAD")
        return bounded(list(found.values()))

    @contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """Give a blob's bytes; registries may send on to a storage service."""
        url = f"{self.base}/v2/{self.name}/blobs/{entry.key}"
        with opened(self.session, url, self._headers()) as pieces:
            yield pieces

    def probe(self) -> str:
        """Read the artifact's manifest, or ask the registry whether it speaks the protocol."""
        if self.digest and self.name:
            self._manifest(self.digest)
            return "The registry answers, and the artifact is what its digest says."
        response = self.session.request("GET", f"{self.base}/v2/", headers=self._headers(), timeout=TIMEOUT)
        if response.status_code == 401 and self._authorise(response):
            return "The registry answers and accepts the credentials."
        raise_for(response)
        return "The registry answers."

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


def _descriptor(value: Any) -> tuple[str, int, str]:
    """Return digest, size and title of an OCI descriptor. Raises WrongContent."""
    if not isinstance(value, dict):
        raise WrongContent("the artifact's manifest holds no descriptor where one belongs")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not SHA256.match(digest.removeprefix("sha256:")) or not isinstance(size, int):
        raise WrongContent("the artifact's manifest holds a descriptor without SHA-256 or size")
    annotations = value.get("annotations")
    title = annotations.get(_TITLE, "") if isinstance(annotations, dict) else ""
    return digest, size, str(title).strip("/")


@contextmanager
def opened(session: StoreSession, url: str, headers: dict[str, str]) -> Iterator[Iterator[bytes]]:
    """Give a body in pieces, following a few redirects; what authorises us goes to the first host alone.

    Every hop goes through checked connections (clusters.addresses), and never from TLS to plain text.
    """
    first = urlsplit(url)
    for _ in range(_REDIRECTS + 1):
        with session.streamed("GET", url, headers=headers, timeout=TIMEOUT, max_bytes=MAX_FILE) as (response, pieces):
            if response.status_code not in (301, 302, 303, 307, 308):
                raise_for(response)
                yield pieces
                return
            target = urljoin(url, response.headers.get("Location", ""))
        there = urlsplit(target)
        if there.scheme not in ("http", "https") or (first.scheme == "https" and there.scheme != "https"):
            raise ServerError("the store sends us to an address without TLS")
        if there.netloc != first.netloc:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        url = target
    raise ServerError("the store sends us from one address to the next")
