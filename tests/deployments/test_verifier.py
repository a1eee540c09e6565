"""The verifying storage container: what it lets through, and that everything else leaves no model behind."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.catalogue import manifest as catalogue
from apps.catalogue.manifest import File
from apps.deployments import manifests, verifying
from tests.deployments.samples import STANDARD, adapted_manifest, oci_manifest, served_manifest

_SCRIPT = Path(__file__).parents[2] / "deploy" / "verifier" / "verify.py"
FILES = {"config.json": b"{}", "weights/a.bin": b"\x00" * 70_000, "Zoë.txt": b"\xff"}


@pytest.fixture(scope="module")
def verify() -> ModuleType:
    """The program, loaded as its container runs it."""
    spec = importlib.util.spec_from_file_location("verifier_program", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(files: dict[str, bytes]) -> tuple[File, ...]:
    """The files as a manifest lists them."""
    found = [File(path, len(body), hashlib.sha256(body).hexdigest()) for path, body in files.items()]
    return tuple(sorted(found, key=lambda one: one.path))


def bringing(files: dict[str, bytes]) -> Callable[[str, str], None]:
    """A download that brings these files."""

    def download(source: str, target: str) -> None:
        assert source == "s3://models/fraud"
        for path, body in files.items():
            place = Path(target, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(body)

    return download


class Case:
    """One run in a folder of its own."""

    def __init__(self, verify: ModuleType, folder: Path) -> None:
        self.verify, self.target, self.message = verify, folder / "models", folder / "message"
        self.arguments = ["gpu-commons+s3://models/fraud", str(self.target)]
        digest = manifests.files_digest(served_manifest(files=listed(FILES)))
        self.environment = {"GPU_COMMONS_FILES_DIGEST": digest}

    def run(self, download: Any) -> int:
        """Run it."""
        code: int = self.verify.run(self.arguments, self.environment, download=download, message=self.message)
        return code

    @property
    def told(self) -> dict[str, Any]:
        """Its termination message."""
        found: dict[str, Any] = json.loads(self.message.read_text())
        return found

    @property
    def left(self) -> list[str]:
        """What lies at the target."""
        return sorted(path.name for path in self.target.iterdir()) if self.target.is_dir() else []


@pytest.fixture
def case(verify: ModuleType, tmp_path: Path) -> Case:
    """A run that would succeed."""
    return Case(verify, tmp_path)


@pytest.mark.requirement("enforcement-watch-2.1")
def test_the_approved_bytes_pass_and_are_told(case: Case) -> None:
    """Exit 0, the files in place, the digest in one line of JSON; what a download leaves beside is no part of it."""
    assert case.run(bringing(FILES | {".cache/huggingface/x": b"left"})) == 0
    assert case.told == {
        "files": case.environment["GPU_COMMONS_FILES_DIGEST"], "count": 3,
        "bytes": sum(map(len, FILES.values())), "verdict": "verified",
    }  # fmt: skip
    assert case.left == ["Zoë.txt", "config.json", "weights"]


@pytest.mark.requirement("enforcement-watch-2.2")
@pytest.mark.parametrize(
    "files",
    [
        FILES | {"config.json": b"{ }"}, FILES | {"extra.bin": b""}, {k: v for k, v in FILES.items() if k != "Zoë.txt"},
        {("renamed.json" if k == "config.json" else k): v for k, v in FILES.items()}, {},
    ],
    ids=["a byte changed", "a file more", "a file less", "a file renamed", "nothing"],
)  # fmt: skip
def test_other_bytes_fail_and_nothing_is_left(case: Case, files: dict[str, bytes]) -> None:
    """With what was found beside what was approved."""
    assert case.run(bringing(files)) == 1
    assert case.left == []
    assert "not the approved ones" in case.told["verdict"]
    assert case.told["files"] != case.environment["GPU_COMMONS_FILES_DIGEST"]


@pytest.mark.requirement("enforcement-watch-2.2")
def test_a_link_is_not_followed(case: Case) -> None:
    """It could lead to bytes that change after they were hashed."""

    def download(source: str, target: str) -> None:
        bringing(FILES)(source, target)
        os.symlink("/etc/hostname", Path(target, "link"))

    assert case.run(download) == 1
    assert case.told["verdict"] == "link is no regular file"
    assert case.left == []


@pytest.mark.requirement("enforcement-watch-2.2")
def test_a_download_that_fails_fails(case: Case) -> None:
    """Half a model is no model."""

    def download(source: str, target: str) -> None:
        Path(target, "half").write_bytes(b"1")
        raise OSError("connection reset")

    assert case.run(download) == 1
    assert (case.left, case.told["verdict"]) == ([], "connection reset")


@pytest.mark.requirement("enforcement-watch-2.2")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"environment": {}}, "no annotation"),
        ({"environment": {"GPU_COMMONS_FILES_DIGEST": "latest"}}, "no annotation"),
        ({"arguments": ["gpu-commons+s3://a", "/x", "gpu-commons+s3://b", "/y"]}, "4 arguments"),
        ({"arguments": ["s3://models/fraud", "/x"]}, "does not begin with"),
        ({"arguments": ["gpu-commons+file:///etc", "/x"]}, "only s3 and hf"),
        ({"arguments": ["gpu-commons+s3://models/fraud", "models"]}, "no absolute path"),
    ],
)
def test_what_cannot_be_verified_is_not_downloaded(case: Case, change: dict[str, Any], why: str) -> None:
    """No annotation, several locations, another scheme: refused before a byte is fetched."""
    for name, value in change.items():
        setattr(case, name, value)
    fetched: list[str] = []
    assert case.run(lambda source, target: fetched.append(source)) == 1
    assert why in case.told["verdict"]
    assert fetched == []


_PATHS = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and not name.startswith(".cache") and not name.startswith(".locks")
    and len(name.encode()) < 60
)  # fmt: skip


@pytest.mark.requirement("enforcement-watch-2.3")
@given(files=st.dictionaries(_PATHS, st.binary(max_size=40), max_size=6))
def test_both_sides_compute_the_same_digest(
    verify: ModuleType, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    """The portal's renderer from the manifest, the container from the files: any names, any bytes."""
    folder = tmp_path_factory.mktemp("v")
    for path, body in files.items():
        Path(folder, path).write_bytes(body)
    assert verify.hashed(folder).digest == manifests.files_digest(served_manifest(files=listed(files)))


@pytest.mark.requirement("enforcement-watch-2.4")
def test_what_is_verifiable() -> None:
    """Listed files at one location in s3 or hf; adapters, explainers elsewhere and volumes are not."""
    assert catalogue.verifiable(served_manifest())
    assert catalogue.verifiable(served_manifest(scheme="hf", location="hf://example/fraud", revision="a" * 40))
    assert not catalogue.verifiable(served_manifest(files=()))
    assert not catalogue.verifiable(adapted_manifest())
    assert not catalogue.verifiable(served_manifest(scheme="pvc", location="pvc://models/fraud"))
    assert not catalogue.verifiable(served_manifest(explainer={"storage_uri": "s3://models/explainer"}))


@pytest.mark.requirement("enforcement-watch-2.4")
def test_bytes_or_name() -> None:
    """OCI by digest anywhere; what is downloaded only where the container was found by the cluster's check."""
    import dataclasses

    from apps.clusters.capabilities import as_json
    from apps.clusters.models import Cluster

    without = Cluster(capabilities=as_json(STANDARD))
    kserve = dataclasses.replace(STANDARD.kserve, verifying=True)
    having = Cluster(capabilities=as_json(dataclasses.replace(STANDARD, kserve=kserve)))
    assert verifying.bound(without, oci_manifest()) == "bytes"
    assert verifying.bound(without, served_manifest()) == "name"
    assert verifying.bound(having, served_manifest()) == "bytes"
    assert verifying.bound(having, adapted_manifest()) == "name"


@pytest.mark.requirement("enforcement-watch-2.5")
def test_the_container_is_chosen_by_its_own_scheme(settings: Any) -> None:
    """So no workload of others meets it; its image is named by digest or not at all."""
    container = verifying.storage_container("registry.example.com/verifier@sha256:" + "a" * 64, {})
    prefixes = [one["prefix"] for one in container["spec"]["supportedUriFormats"]]
    assert prefixes == ["gpu-commons+s3://", "gpu-commons+hf://"]
    settings.COMMONS_VERIFIER_IMAGE = "registry.example.com/verifier:latest"
    with pytest.raises(ValueError, match="no digest"):
        verifying.image()
