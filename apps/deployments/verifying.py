"""Whether the bytes that a cluster loads are the approved ones: by their location, or because they are hashed there.

KServe itself verifies nothing of what it downloads (kserve#5789). An OCI artifact by digest is fixed by its location.
Everything else is bound to an approval only where the portal's verifying storage container loads it: it downloads,
hashes, compares with the pod's annotation, and fails closed (`deploy/verifier`). It is chosen by a scheme of its own,
`gpu-commons+s3://…`, so that no workload of others meets it, and a plain `s3://…` is not what was approved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from apps.catalogue import manifest as catalogue
from apps.clusters import capabilities
from apps.clusters.capabilities import VERIFYING_CONTAINER
from apps.clusters.models import Cluster

Manifest = dict[str, Any]
PREFIX = "gpu-commons+"
#: Schemes that the container downloads.
SCHEMES = catalogue.VERIFIED_SCHEMES
_IMAGE = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def bound(cluster: Cluster, manifest: catalogue.Manifest) -> str:
    """Return "bytes" where what the cluster loads under this manifest is proven to be these bytes, else "name"."""
    return catalogue.bound_where(manifest, verified=verifies(cluster))


def verifies(cluster: Cluster) -> bool:
    """Whether the verifying storage container is set up on a cluster, as its last check found it."""
    return bool(capabilities.of(cluster).kserve.verifying)


def verifies_slug(slug: str) -> bool:
    """`verifies` by a cluster's short name."""
    cluster = Cluster.objects.filter(slug=slug).first()
    return cluster is not None and verifies(cluster)


def scheme_of(uri: str) -> str:
    """Return a location's scheme, "" where it has none."""
    return uri.partition("://")[0] if "://" in uri else ""


def location(uri: str) -> str:
    """Return a location as the verifying container takes it."""
    return f"{PREFIX}{uri}"


def image() -> str:
    """Return the image of the container as set, "" where none is. Raises ValueError for one without a digest."""
    found = settings.COMMONS_VERIFIER_IMAGE.strip()
    if found and not _IMAGE.fullmatch(found):
        raise ValueError("COMMONS_VERIFIER_IMAGE names no digest: write it as name@sha256:…")
    return str(found)


def storage_container(picture: str, labels: Mapping[str, str]) -> Manifest:
    """Return the ClusterStorageContainer (serving.kserve.io/v1alpha1): part of a cluster's baseline.

    KServe calls it with pairs of location and target; what it has to find comes by the downward API from the pod's
    annotations, and what it found goes into its termination message.
    """
    amounts = {"cpu": "1", "memory": "2Gi"}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": VERIFYING_CONTAINER, "labels": dict(labels)},
        "spec": {
            "container": {
                "name": "storage-initializer",
                "image": picture,
                "env": [
                    {
                        "name": name,
                        "valueFrom": {
                            "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['gpu-commons/{key}']"}
                        },
                    }
                    for name, key in _EXPECTED
                ],
                "resources": {"requests": dict(amounts), "limits": dict(amounts)},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "runAsNonRoot": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "terminationMessagePolicy": "File",
            },
            "supportedUriFormats": [{"prefix": f"{PREFIX}{scheme}://"} for scheme in SCHEMES],
            "workloadType": "initContainer",
        },
    }


_EXPECTED: Sequence[tuple[str, str]] = (
    ("GPU_COMMONS_FILES_DIGEST", "files-digest"),
    ("GPU_COMMONS_MANIFEST_DIGEST", "manifest-digest"),
)
