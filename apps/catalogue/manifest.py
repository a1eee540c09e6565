"""The manifest of a version: which bytes exactly, how they are served, what they were made from. Pure.

Layout (version 1), RFC 8785 JSON; its SHA-256 is what is approved, granted and enforced:

    {"v": 1, "model": uid, "label": …, "scheme": upload|s3|oci|hf|pvc, "location": …, "revision": …,
     "files": [{"path", "size", "sha256"}, …by path], "image": name@sha256:…, "runtime": …, "format": …,
     "arguments": […], "environment": {…}, "explainer": {"storage_uri", "image", "format"} or {},
     "adapters": [{"name", "uri", "digest"}, …], "sources": [{"kind", "name", "revision", "uri", "digest"}, …],
     "card": {"number", "digest"} or null, "classification": […]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from apps.core.canonical import canonical_bytes, digest

VERSION = 1
BYTES, NAME = "bytes", "name"
#: Schemes that the verifying storage container downloads.
VERIFIED_SCHEMES = ("s3", "hf")
SHA256 = re.compile(r"^[0-9a-f]{64}$")
#: An image or OCI artifact by digest: registry/name@sha256:….
BY_DIGEST = re.compile(r"^(?P<name>[^@\s]+)@sha256:(?P<digest>[0-9a-f]{64})$")
_KEYS = frozenset(
    (
        "v", "model", "label", "scheme", "location", "revision", "files", "image", "runtime", "format", "arguments",
        "environment", "explainer", "adapters", "sources", "card", "classification",
    )
)  # fmt: skip


class Malformed(ValueError):
    """Bytes that are no manifest of ours."""


class _Version(Protocol):
    label: str
    scheme: str
    location: str
    revision: str
    image: str
    runtime: str
    model_format: str
    arguments: Any
    environment: Any
    explainer: Any

    @property
    def model(self) -> Any: ...


class _File(Protocol):
    path: str
    size: int
    sha256: str


class _Source(Protocol):
    kind: str
    name: str
    revision: str
    uri: str
    digest: str


class _Card(Protocol):
    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class File:
    """One file: its path below the location, its size in bytes, its SHA-256 in lower-case hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter (LoRA) that is loaded together with the model."""

    name: str
    uri: str
    digest: str


@dataclass(frozen=True, slots=True)
class Source:
    """What the version was made from, by name, revision and, where known, digest."""

    kind: str
    name: str
    revision: str
    uri: str
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest with the bytes it was read from and their digest."""

    model: str
    label: str
    scheme: str
    location: str
    revision: str
    files: tuple[File, ...]
    image: str
    runtime: str
    format: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    explainer: Mapping[str, str]
    adapters: tuple[Adapter, ...]
    sources: tuple[Source, ...]
    card_number: int | None
    card_digest: str
    classification: tuple[str, ...]
    digest: str
    raw: bytes = field(repr=False, default=b"")
    #: Uploaded files only: where verified copies of them lie, the newest first. No part of the manifest's bytes.
    stored: tuple[str, ...] = ()

    @property
    def storage_uri(self) -> str:
        """Where a cluster loads the model from, as KServe takes it."""
        return self.storage_uris[0]

    @property
    def storage_uris(self) -> tuple[str, ...]:
        """Every location of the model's own files; several only where uploaded files lie in several stores."""
        return self.stored or (storage_uri(self.scheme, self.location, self.revision, self.digest),)


def build(
    version: _Version,
    files: Sequence[_File],
    sources: Sequence[_Source],
    card: _Card | None,
    classification: Sequence[str],
) -> bytes:
    """Return the manifest's bytes: the same for the same content, in whatever order the rows come.

    Raises ValueError for a file without a digest or two of one path: such a version cannot be sealed.
    """
    listed = sorted(files, key=lambda file: file.path)
    if without := [file.path for file in listed if not SHA256.match(file.sha256)]:
        raise ValueError(f"no SHA-256 is known of {', '.join(without[:3])}")
    if len({file.path for file in listed}) != len(listed):
        raise ValueError("two files have the same path")
    adapters = [source for source in sources if source.kind == "adapter"]
    others = [source for source in sources if source.kind != "adapter"]
    body = {
        "v": VERSION,
        "model": str(version.model.uid),
        "label": version.label,
        "scheme": str(version.scheme),
        "location": version.location,
        "revision": version.revision,
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in listed],
        "image": version.image,
        "runtime": version.runtime,
        "format": version.model_format,
        "arguments": [str(argument) for argument in version.arguments],
        "environment": {str(key): str(value) for key, value in version.environment.items()},
        "explainer": {str(key): str(value) for key, value in version.explainer.items() if value},
        "adapters": sorted(
            ({"name": one.name, "uri": one.uri, "digest": one.digest} for one in adapters),
            key=lambda one: (one["name"], one["uri"], one["digest"]),
        ),
        "sources": sorted(
            (
                {"kind": str(one.kind), "name": one.name, "revision": one.revision, "uri": one.uri,
                 "digest": one.digest}
                for one in others
            ),
            key=lambda one: (one["kind"], one["name"], one["revision"], one["uri"], one["digest"]),
        ),
        "card": None if card is None else {"number": card.number, "digest": card.digest},
        "classification": list(classification),
    }  # fmt: skip
    return canonical_bytes(body)


def parse(raw: bytes | memoryview) -> Manifest:
    """Return the manifest in `raw`. Raises Malformed for anything that `build` cannot have written."""
    data = bytes(raw)
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or body.keys() != _KEYS or body["v"] != VERSION:
            raise Malformed("no manifest of version 1")
        if canonical_bytes(body) != data:
            raise Malformed("not the canonical bytes")
        card = body["card"]
        return Manifest(
            model=_text(body["model"]),
            label=_text(body["label"]),
            scheme=_text(body["scheme"]),
            location=_text(body["location"]),
            revision=_text(body["revision"]),
            files=tuple(File(_text(f["path"]), _number(f["size"]), _text(f["sha256"])) for f in body["files"]),
            image=_text(body["image"]),
            runtime=_text(body["runtime"]),
            format=_text(body["format"]),
            arguments=tuple(_text(argument) for argument in body["arguments"]),
            environment={_text(key): _text(value) for key, value in body["environment"].items()},
            explainer={_text(key): _text(value) for key, value in body["explainer"].items()},
            adapters=tuple(Adapter(_text(a["name"]), _text(a["uri"]), _text(a["digest"])) for a in body["adapters"]),
            sources=tuple(
                Source(*(_text(s[key]) for key in ("kind", "name", "revision", "uri", "digest")))
                for s in body["sources"]
            ),
            card_number=None if card is None else _number(card["number"]),
            card_digest="" if card is None else _text(card["digest"]),
            classification=tuple(_text(one) for one in body["classification"]),
            digest=digest(data),
            raw=data,
        )
    except Malformed:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"no manifest: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{value!r} is no text")
    return value


def _number(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal():  # beyond 2^53 numbers travel as text (core.events.plain)
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"{value!r} is no number")
    return value


def storage_uri(scheme: str, location: str, revision: str, manifest_digest: str = "") -> str:
    """Return the URI that a cluster loads from, in KServe's spelling.

    oci: `oci://name@sha256:…`; hf: `hf://owner/repository:revision` (KServe's separator is a colon); s3 and pvc as they
    are. Uploaded files have no storage of their own before a copy of them lies in a store (`Manifest.stored`): until
    then they are named by the manifest's digest, `gpu-commons://sha256/<digest>`, which no cluster loads.
    """
    if scheme == "oci":
        return f"{location}@{revision}" if revision else location
    if scheme == "hf":
        return f"{location}:{revision}" if revision else location
    if scheme == "upload":
        return f"gpu-commons://sha256/{manifest_digest}" if manifest_digest else ""
    return location


def model_uris(manifest: Manifest) -> list[str]:
    """Return every location a cluster may load under this manifest: storage, adapters, explainer; sorted, each once."""
    found = {*manifest.storage_uris, manifest.explainer.get("storage_uri", "")}
    found |= {adapter.uri for adapter in manifest.adapters}
    return sorted(uri for uri in found if uri)


def images(manifest: Manifest) -> list[str]:
    """Return every image that a pod may run under this manifest, by digest; sorted, each once.

    What lies in an OCI registry is mounted as a container of its own (KServe's modelcar): it is an image, too.
    """
    found = {manifest.image, manifest.explainer.get("image", "")}
    found |= {uri.removeprefix("oci://") for uri in model_uris(manifest) if uri.startswith("oci://")}
    return sorted(image for image in found if image)


def bound_by(manifest: Manifest) -> str:
    """Return "bytes" where the locations themselves fix the bytes (all of them OCI by digest), else "name".

    Other schemes are bound by bytes only where the cluster has the verifying storage container.
    """
    uris = model_uris(manifest)
    fixed = bool(uris) and all(uri.startswith("oci://") and BY_DIGEST.match(uri) for uri in uris)
    return BYTES if fixed else NAME


def verifiable(manifest: Manifest) -> bool:
    """Whether a verifying storage container can check all that is loaded: files that are listed, at one location.

    It downloads what it checks, from `VERIFIED_SCHEMES`; a mounted volume is not downloaded, so nothing hashes it.
    """
    others = {adapter.uri for adapter in manifest.adapters} | {manifest.explainer.get("storage_uri", "")} - {""}
    fixed = all(uri.startswith("oci://") and BY_DIGEST.match(uri) for uri in others)
    # Uploaded files are loaded from their copies alone (`catalogue.copies`), which lie in S3-compatible stores.
    scheme = "s3" if manifest.scheme == "upload" else manifest.storage_uri.partition("://")[0]
    return bool(manifest.files) and not manifest.adapters and fixed and scheme in VERIFIED_SCHEMES


def bound_where(manifest: Manifest, *, verified: bool) -> str:
    """`bound_by` on a cluster; `verified`: whether it has the verifying storage container."""
    return BYTES if verified and verifiable(manifest) else bound_by(manifest)


__all__ = [
    "BYTES",
    "BY_DIGEST",
    "NAME",
    "SHA256",
    "VERIFIED_SCHEMES",
    "Adapter",
    "File",
    "Malformed",
    "Manifest",
    "Source",
    "bound_by",
    "bound_where",
    "build",
    "images",
    "model_uris",
    "parse",
    "storage_uri",
    "verifiable",
]  # fmt: skip
