"""The simulated registry: what the catalogue reads of a made-up model; nothing there is moved or written."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from apps.catalogue.reading.base import Place
from apps.catalogue.reading.oci import OciReader
from apps.demo.cluster import SimulatedCluster, artifacts

NAME, LABEL = artifacts.MODELS[0]


def reader(cluster: SimulatedCluster, revision: str) -> OciReader:
    """The catalogue's own reader at the made-up model."""
    location = f"oci://{urlsplit(cluster.allocation_url).netloc}/{NAME}"
    return OciReader(Place("oci", cluster.allocation_url, location, revision))


@pytest.mark.requirement("simulated-serving-2.6")
def test_the_catalogue_reads_a_made_up_model_down_to_its_bytes(cluster: SimulatedCluster) -> None:
    opened = reader(cluster, artifacts.artifact(NAME, LABEL).digest)
    found = opened.entries()
    assert {entry.path for entry in found} >= {"1/model.onnx", "config.pbtxt"}
    for entry in found:
        with opened.open(entry) as pieces:
            assert hashlib.sha256(b"".join(pieces)).hexdigest() == entry.sha256
    opened.close()


@pytest.mark.requirement("simulated-serving-2.6")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 200), ("GET", f"{NAME}/manifests/latest", 404), ("GET", f"{NAME}/blobs/sha256:{'0' * 64}", 404),
        ("GET", f"{NAME}/manifests/{artifacts.artifact(*artifacts.MODELS[1]).digest}", 200),
        ("GET", f"models/other/manifests/{artifacts.artifact(NAME, LABEL).digest}", 404),
        ("PUT", f"{NAME}/manifests/latest", 405),
    ],
)  # fmt: skip
def test_only_digests_are_served_and_nothing_is_written(
    cluster: SimulatedCluster, method: str, path: str, status: int
) -> None:
    assert requests.request(method, f"{cluster.allocation_url}/v2/{path}", timeout=10).status_code == status


@pytest.mark.requirement("simulated-serving-2.6")
def test_asking_for_the_head_gives_no_body(cluster: SimulatedCluster) -> None:
    made = artifacts.artifact(NAME, LABEL)
    with requests.Session() as session:
        url = f"{cluster.allocation_url}/v2/{NAME}/manifests/{made.digest}"
        head: Any = session.head(url, timeout=10)
        assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(made.manifest)))
        # The connection is in order afterwards: no body was left in it.
        assert session.get(url, timeout=10).content == made.manifest
