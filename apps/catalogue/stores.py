"""Stores as rows: what lies within one, how it is opened, whether it answers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from apps.catalogue.choices import Scheme
from apps.catalogue.models import ModelStore
from apps.catalogue.reading.base import Place, Reader
from apps.catalogue.reading.hf import HfReader
from apps.catalogue.reading.oci import OciReader
from apps.catalogue.reading.pvc import PvcReader
from apps.catalogue.reading.s3 import S3Reader
from apps.clusters import crypto
from apps.clusters.errors import ClusterError, Unauthorised

#: What a store's credentials consist of.
CREDENTIALS: dict[str, tuple[str, ...]] = {
    Scheme.S3: ("access_key", "secret_key", "session_token"),
    Scheme.OCI: ("username", "password", "token"),
    Scheme.HF: ("token",),
    Scheme.PVC: (),
}
_READERS: dict[str, Callable[[Place], Reader]] = {
    Scheme.S3: S3Reader,
    Scheme.OCI: OciReader,
    Scheme.HF: HfReader,
    Scheme.PVC: PvcReader,
}


def outside(store: ModelStore, location: str) -> str:
    """Say in words why a location does not lie in a store; "" where it does."""
    place = location.partition("://")[2]
    first, _, rest = place.partition("/")
    prefix = store.prefix.strip("/")
    if store.scheme == Scheme.PVC:
        if first != store.endpoint:
            return f"{store} is the volume {store.endpoint}: write pvc://{store.endpoint}/…"
        place = rest
    if store.scheme == Scheme.OCI:
        host = urlsplit(store.endpoint).netloc
        if first != host:
            return f"{store} is the registry {host}: write oci://{host}/…"
        place = rest
    if prefix and place != prefix and not place.startswith(f"{prefix}/"):
        return f"{store} is open below {prefix} only."
    return ""


def place_of(store: ModelStore, location: str, revision: str, ca_file: str = "") -> Place:
    """Return a store's fields, opened. Raises Unauthorised where the credentials cannot be decrypted."""
    try:
        secret = crypto.decrypt(store.credentials)
    except crypto.CannotDecrypt as error:
        raise Unauthorised(
            f"the credentials of {store} cannot be read with the keys in force: enter them anew"
        ) from error
    return Place(
        store.scheme, store.endpoint, location, revision, store.region, ca_file, json.loads(secret) if secret else {}
    )


@contextmanager
def opened(store: ModelStore, location: str, revision: str = "") -> Iterator[Reader]:
    """Open a store at a location, and close it afterwards. Raises ClusterError."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as authority:
        if store.ca_certificate:
            authority.write(store.ca_certificate)
            authority.flush()
        place = place_of(store, location, revision, authority.name if store.ca_certificate else "")
        reader: Reader = _READERS[Scheme(store.scheme)](place)
        try:
            yield reader
        finally:
            reader.close()


def example_location(store: ModelStore) -> str:
    """Return the location that a connection is tried at: the store's own prefix."""
    prefix = store.prefix.strip("/")
    if store.scheme == Scheme.PVC:
        return "/".join(part for part in (f"pvc://{store.endpoint}", prefix) if part)
    if store.scheme == Scheme.OCI:
        return f"oci://{urlsplit(store.endpoint).netloc}/{prefix}".rstrip("/")
    return f"{store.scheme}://{prefix}"


def test_connection(store: ModelStore) -> tuple[bool, str]:
    """Try a store and say in words what was found. A network call: never inside a transaction."""
    location = example_location(store)
    if store.scheme == Scheme.S3 and not store.prefix.strip("/"):
        return False, "Name the bucket in “Prefix”: without it there is nothing to ask for."
    try:
        with opened(store, location) as reader:
            return True, reader.probe()
    except ClusterError as error:
        text = error.message
        return False, text[:1].upper() + text[1:] + "."
