"""Sealing: from then on a version is its manifest, and that never changes."""

from __future__ import annotations

from django.db import transaction

from apps.catalogue import classification, events, lineage, manifest
from apps.catalogue.access import EDIT, locked_version
from apps.catalogue.choices import VERSION_TRANSITIONS, JobStatus, ScanStatus, Scheme, SourceKind, VersionStatus
from apps.catalogue.models import Blob, ClassificationRecord, HashJob, ModelVersion, VersionFile, VersionSource
from apps.catalogue.version_actions import record, touch
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import digest
from apps.core.errors import Conflict, Invalid
from apps.core.row_security import lifted


@lifted("whether sources are sealed holds whoever owns them; they are named as the draft names them")
def missing(version: ModelVersion) -> list[str]:
    """Return in words what still stands between a draft and its seal; empty: nothing."""
    found: list[str] = []
    files = version.files.all()
    if version.status == VersionStatus.HASHING:
        found.append("Its files are being hashed.")
    if version.scheme == Scheme.UPLOAD:
        if not files.exists():
            found.append("Upload its files.")
        if version.uploads.exists():
            found.append("A file is still on its way: finish or cancel its upload.")
        if Blob.objects.filter(pk__in=files.values("blob"), scan=ScanStatus.INFECTED).exists():
            found.append("The virus scanner refuses one of its files: take it away.")
    else:
        if version.store_id is None:
            found.append("Choose the store that its files are read from.")
        if version.scheme in (Scheme.OCI, Scheme.HF) and not version.revision:
            found.append("Name its revision: a digest (OCI) or a commit (Hugging Face).")
        if not files.exists() or files.filter(sha256="").exists():
            found.append("Have its files hashed.")
    if not version.image and not version.runtime:
        found.append("Name the serving image by digest, or the runtime that serves it.")
    if not version.model_format:
        found.append("Name the model's format.")
    open_sources = [
        # By the name it was given here: the version itself may be out of sight.
        f"“{row.name}”"
        for row in version.sources.select_related("source_version")
        if row.source_version is not None and row.source_version.status not in lineage.SEALED
    ]
    if open_sources:
        found.append(f"It is made from {', '.join(open_sources[:3])}, which is not sealed: seal that first.")
    if version.model.archived_at is not None:
        found.append("Its model is archived: bring it back.")
    return found


@transaction.atomic
def seal(version_id: int, *, actor: Actor, expected_version: int | None = None) -> ModelVersion:
    """Fix a draft for ever: its manifest, its digest and its classification over the whole lineage.

    Raises NotVisible, NotAllowed, Conflict, Invalid naming what is missing.
    """
    version = locked_version(version_id, EDIT, actor=actor, expected_version=expected_version)
    following = VERSION_TRANSITIONS.next(version.status, "seal")
    if (
        version.status == VersionStatus.HASHING
        and HashJob.objects.filter(model_version=version, status__in=[JobStatus.PENDING, JobStatus.RUNNING]).exists()
    ):
        raise Conflict("Its files are being hashed. Seal it when that is done.", current={"status": version.status})
    if lacking := missing(version):
        raise Invalid({"": lacking})
    sources = _sources(version)
    try:
        found = lineage.classification_of(version)
    except classification.Cycle as error:
        raise Invalid({"": "Its lineage runs in a circle, or is too long to be read."}) from error
    try:
        raw = manifest.build(
            version, list(VersionFile.objects.filter(model_version=version)), sources, version.card, found.classes
        )
    except ValueError as error:
        raise Invalid({"": f"No manifest can be made: {error}."}) from error
    ClassificationRecord.objects.bulk_create(
        [
            ClassificationRecord(
                model_version=version, data_class=one.data_class, origin=one.origin, detail=one.detail[:300]
            )
            for one in found.origins
        ]
    )
    version.status = following
    version.classification = list(found.classes)
    version.manifest, version.digest = raw, digest(raw)
    version.sealed_at = clock.now()
    touch(version, actor, "status", "classification", "manifest", "digest", "sealed_at")
    record(events.VERSION_SEALED, version, actor)
    return version


@lifted("a manifest pins the digests of all sources, whoever owns them")
def _sources(version: ModelVersion) -> list[VersionSource]:
    """Return the sources with what is known of those that are versions here, now that they are sealed."""
    rows = list(version.sources.select_related("source_version"))
    for row in rows:
        parent = row.source_version
        if parent is None:
            continue
        row.digest = parent.digest
        if row.kind == SourceKind.ADAPTER:
            row.uri = manifest.parse(parent.manifest).storage_uri
        row.save(update_fields=["digest", "uri"])
    return rows
