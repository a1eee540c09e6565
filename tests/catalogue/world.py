"""Models and versions for tests, written directly: quick, and independent of the actions that have tests of their own.

model = make_model(team)                       # a registered model
draft = make_version(model, author)            # an uploaded draft with one file
sealed = make_sealed(model, author)            # sealed, its digest over a real manifest (`catalogue.manifest`)
sealed = make_sealed(model, author, scheme="oci", classes=["health"])
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

from apps.accounts.models import User
from apps.catalogue import lineage, manifest
from apps.catalogue.choices import ScanStatus, Scheme, SourceKind, VersionStatus
from apps.catalogue.models import (
    Blob,
    CardRevision,
    ClassificationRecord,
    Model,
    ModelStore,
    ModelVersion,
    VersionFile,
    VersionSource,
)
from apps.core import clock
from apps.core.canonical import digest, digest_of
from apps.teams.models import Team

_numbers = itertools.count(1)
IMAGE = f"registry.example.com/serving/triton@sha256:{'a' * 64}"
OCI_DIGEST = f"sha256:{'b' * 64}"
COMMIT = "c" * 40
LOCATIONS: dict[str, tuple[str, str]] = {
    Scheme.UPLOAD: ("", ""),
    Scheme.S3: ("s3://models/fraud/v1", ""),
    Scheme.OCI: ("oci://registry.example.com/models/fraud", OCI_DIGEST),
    Scheme.HF: ("hf://example/fraud", COMMIT),
    Scheme.PVC: ("pvc://models/fraud/v1", ""),
}


def make_model(team: Team, name: str = "", *, data_classes: Sequence[str] = ("internal",), **values: Any) -> Model:
    """Make a model of a team."""
    number = next(_numbers)
    values.setdefault("slug", f"model-{number}")
    values.setdefault("purpose", "Scores card payments for fraud before they are settled.")
    return Model.objects.create(team=team, name=name or f"Model {number}", data_classes=list(data_classes), **values)


def make_card(model: Model, author: User, body: dict[str, Any] | None = None) -> CardRevision:
    """Add a revision to a model's card."""
    number = model.cards.count() + 1
    content = body or {"model_details": {"overview": f"Revision {number}"}}
    return CardRevision.objects.create(
        model=model, number=number, body=content, digest=digest_of(content), author=author
    )


def make_blob(content: bytes, **values: Any) -> Blob:
    """Make the row of stored bytes; the bytes themselves only where a test needs them (`blobs.put`)."""
    values.setdefault("content_type", "application/octet-stream")
    values.setdefault("scan", ScanStatus.OFF)
    sha256 = hashlib.sha256(content).hexdigest()
    return Blob.objects.get_or_create(sha256=sha256, defaults={"size": len(content), **values})[0]


def make_version(
    model: Model,
    author: User,
    label: str = "",
    *,
    scheme: str = Scheme.UPLOAD,
    files: dict[str, bytes] | None = None,
    **values: Any,
) -> ModelVersion:
    """Make a draft with its files hashed (by default one), ready to be sealed but for a store."""
    model.refresh_from_db(fields=["last_number"])
    number = model.last_number + 1
    model.last_number = number
    model.save(update_fields=["last_number"])
    location, revision = LOCATIONS[scheme]
    values.setdefault("location", location)
    values.setdefault("revision", revision)
    values.setdefault("image", IMAGE)
    values.setdefault("model_format", "onnx")
    values.setdefault("runtime", "kserve-tritonserver")
    version = ModelVersion.objects.create(
        model=model, number=number, label=label or f"{number}.0.0", scheme=scheme, author=author, last_editor=author,
        **values,
    )  # fmt: skip
    content = {"model.onnx": f"{model.slug} {version.label}".encode()} if files is None else files
    for path, data in content.items():
        blob = make_blob(data) if scheme == Scheme.UPLOAD else None
        VersionFile.objects.create(
            model_version=version, path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), blob=blob
        )
    version.total_bytes = sum(len(data) for data in content.values())
    version.save(update_fields=["total_bytes"])
    return version


def add_source(
    version: ModelVersion,
    name: str = "",
    *,
    parent: ModelVersion | None = None,
    kind: str = SourceKind.BASE_MODEL,
    **values: Any,
) -> VersionSource:
    """Say what a draft was made from."""
    return VersionSource.objects.create(
        model_version=version, source_version=parent, kind=kind, name=name or str(parent or "Dataset"),
        digest=values.pop("digest", parent.digest if parent else ""), **values,
    )  # fmt: skip


def seal_directly(version: ModelVersion) -> ModelVersion:
    """Seal a draft with a real manifest and its computed classification, without the action."""
    found = lineage.classification_of(version)
    ClassificationRecord.objects.bulk_create(
        ClassificationRecord(model_version=version, data_class=one.data_class, origin=one.origin, detail=one.detail)
        for one in found.origins
    )
    raw = manifest.build(version, list(version.files.all()), list(version.sources.all()), version.card, found.classes)
    version.classification, version.manifest, version.digest = list(found.classes), raw, digest(raw)
    version.status, version.sealed_at = VersionStatus.SEALED, clock.now()
    version.save()
    return version


def make_sealed(
    model: Model, author: User, label: str = "", *, classes: Sequence[str] = (), **values: Any
) -> ModelVersion:
    """Make a sealed version. `classes`: its own data classes besides the model's."""
    return seal_directly(make_version(model, author, label, data_classes=list(classes), **values))


def make_store(scheme: str = Scheme.S3, **values: Any) -> ModelStore:
    """Make a store that is open to every team."""
    number = next(_numbers)
    endpoints = {
        Scheme.S3: "https://storage.example.com", Scheme.OCI: "https://registry.example.com",
        Scheme.HF: "https://hub.example.com", Scheme.PVC: "models",
    }  # fmt: skip
    values.setdefault("endpoint", endpoints[Scheme(scheme)])
    values.setdefault("name", f"Store {number}")
    return ModelStore.objects.create(slug=f"store-{number}", scheme=scheme, **values)
