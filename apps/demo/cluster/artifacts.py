"""A simulated model registry: made-up models as OCI artifacts by digest (OCI distribution specification v1.1, reading).

Nothing is stored: manifest, configuration and layers of a listed artifact follow from its name, so that a digest which
was approved once stays what it is. Tags are not served: what may be moved names nothing here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache

from apps.demo.cluster.errors import ApiError
from apps.demo.cluster.requests import Request, Response

PREFIX = "/v2/"
#: The made-up models, by name below the registry and version.
MODELS = (("models/payment-fraud", "2.1.0"), ("models/payment-fraud", "2.2.0"))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_BLOCKS = 512


@dataclass(frozen=True)
class Artifact:
    """One model: its manifest's bytes, and everything that the manifest names, by digest."""

    manifest: bytes
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        """The name of exactly these bytes."""
        return digest(self.manifest)


def digest(raw: bytes) -> str:
    """Return the digest of bytes as registries write it."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


@cache
def artifact(name: str, label: str) -> Artifact:
    """Return a made-up model. Raises KeyError where none is listed under this name and version."""
    if (name, label) not in MODELS:
        raise KeyError(f"{name} {label}")
    seed = f"{name} {label}".encode()
    weights = b"".join(hashlib.sha256(seed + number.to_bytes(2, "big")).digest() for number in range(_BLOCKS))
    settings = f'name: "{name.rpartition("/")[2]}"\nplatform: "onnxruntime_onnx"\n'.encode()
    config = json.dumps({"made_up": True, "version": label}, sort_keys=True).encode()
    layers = (("1/model.onnx", weights), ("config.pbtxt", settings))
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [
            {"mediaType": _LAYER, "digest": digest(raw), "size": len(raw),
             "annotations": {"org.opencontainers.image.title": title}}
            for title, raw in layers
        ],
    }  # fmt: skip
    manifest = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return Artifact(manifest, {digest(raw): raw for raw in (config, weights, settings)})


def respond(request: Request) -> Response:
    """Answer a registry client. Raises ApiError 404 for what is not there, 405 for writing."""
    if request.method not in ("GET", "HEAD"):
        raise ApiError(405, "MethodNotAllowed", "the simulated registry only reads")
    if request.path == PREFIX:
        return Response(body=b"{}")
    name, _, rest = request.path.removeprefix(PREFIX).rpartition("/manifests/")
    if name:
        for known, label in MODELS:
            if known == name and artifact(known, label).digest == rest:
                return _answer(artifact(known, label).manifest, rest, MANIFEST)
    name, _, rest = request.path.removeprefix(PREFIX).rpartition("/blobs/")
    for known, label in MODELS:
        if known == name and (raw := artifact(known, label).blobs.get(rest)) is not None:
            return _answer(raw, rest, "application/octet-stream")
    raise ApiError(404, "NotFound", "the simulated registry has no such artifact")


def _answer(raw: bytes, name: str, content_type: str) -> Response:
    return Response(body=raw, content_type=content_type, headers={"Docker-Content-Digest": name})
