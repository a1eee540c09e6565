"""From usable grants to what a cluster reads: pure.

A grant names locations and images; what else names the approved model in variables and arguments stands in the
version's manifest, and only there.
"""

from __future__ import annotations

from datetime import datetime

from apps.catalogue import manifest as catalogue
from apps.deployments import verifying
from apps.deployments.admission import Entry
from apps.deployments.manifests import files_digest

_PVC = "pvc://"


def entry(
    manifest: catalogue.Manifest,
    *,
    grant: str,
    version: str,
    not_before: datetime,
    expires: datetime | None,
    max_traffic: int = 100,
    bound: str = catalogue.BYTES,
    verified: bool = False,
    release: str = "",
) -> Entry:
    """Return the entry of a grant over a version. Raises ValueError for an image that no digest names.

    `release`: set for what serves on after its grant ended.
    `verified`: the cluster has the verifying storage container; what it can check is approved through it alone.
    """
    uris = catalogue.model_uris(manifest)
    if verified and catalogue.verifiable(manifest):
        uris = [verifying.location(uri) if _downloaded(uri, manifest) else uri for uri in uris]
    return Entry(
        grant=grant,
        manifest=manifest.digest,
        version=version,
        uris=tuple(uris),
        images=tuple(sorted({_digest(image) for image in catalogue.images(manifest)})),
        values=tuple(sorted({*manifest.arguments, *manifest.environment.values()} - {""})),
        claims=tuple(sorted({uri.removeprefix(_PVC).split("/")[0] for uri in uris if uri.startswith(_PVC)})),
        files=files_digest(manifest) if manifest.files else "",
        not_before=not_before,
        expires=expires,
        max_traffic=max_traffic,
        bound=bound,
        release=release,
    )


def _downloaded(uri: str, manifest: catalogue.Manifest) -> bool:
    """Whether the verifying container loads this: the model's own files, wherever copies of them lie."""
    return uri in manifest.storage_uris and verifying.scheme_of(uri) in verifying.SCHEMES


def _digest(image: str) -> str:
    found = catalogue.BY_DIGEST.match(image)
    if found is None:
        raise ValueError(f"{image} is not named by its digest")
    return f"sha256:{found['digest']}"
