"""Events of models, versions, files and stores. Other parts of the room declare theirs in `<part>_events.py`."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from apps.core.events import declare, private
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A model as it stands after the change; `changed` names the fields that are new."""

    model_uid: uuid.UUID
    slug: str
    data_classes: list[str]
    risk_tier: str
    act_annex: str
    act_role: str
    changed: list[str] = field(default_factory=list)
    name: str = private(default="")
    purpose: str = private(default="")
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class VersionEvent:
    """A version as it stands after the change; `digest` is its manifest's once it is sealed."""

    version_uid: uuid.UUID
    model_uid: uuid.UUID
    label: str
    status: str
    digest: str = ""
    changed: list[str] = field(default_factory=list)
    classification: list[str] = field(default_factory=list)
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class FileEvent:
    """A file was added to a draft or taken away from it."""

    version_uid: uuid.UUID
    path: str = private()
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class BlobRefused:
    """Bytes that the virus scanner refused. They are not kept; their digest is."""

    sha256: str
    size: int
    finding: str


@dataclass(frozen=True, slots=True)
class HashJobEvent:
    """Hashing of a version's files began, ended, failed or was cancelled."""

    job_uid: uuid.UUID
    version_uid: uuid.UUID
    status: str
    files: int = 0
    bytes: int = 0
    attempts: int = 0
    path: str = ""
    label: str = ""
    model_name: str = private(default="")
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class CopyEvent:
    """A copy of an uploaded version's files in a store began, was verified, failed or was cancelled."""

    copy_uid: uuid.UUID
    version_uid: uuid.UUID
    manifest_digest: str
    store_uid: uuid.UUID
    status: str
    files: int = 0
    bytes: int = 0
    location: str = private(default="")
    what: str = private(default="")
    reason: str = private(default="")


def _of_copy(payload: CopyEvent) -> str:
    return f"/catalogue/versions/{payload.version_uid}/"


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """A store as it stands; credentials never."""

    store_uid: uuid.UUID
    slug: str
    scheme: str
    changed: list[str] = field(default_factory=list)
    teams: list[uuid.UUID] = field(default_factory=list)
    endpoint: str = private(default="")


MODEL_REGISTERED = declare("catalogue.model.registered", ModelEvent, audience="auditors")
MODEL_EDITED = declare("catalogue.model.edited", ModelEvent, audience="auditors")
MODEL_ARCHIVED = declare("catalogue.model.archived", ModelEvent, audience="auditors")
MODEL_RESTORED = declare("catalogue.model.restored", ModelEvent, audience="auditors")
VERSION_CREATED = declare("catalogue.version.created", VersionEvent, audience="auditors")
VERSION_EDITED = declare("catalogue.version.edited", VersionEvent, audience="auditors")
VERSION_DISCARDED = declare("catalogue.version.discarded", VersionEvent, audience="auditors")
VERSION_SEALED = declare("catalogue.version.sealed", VersionEvent, audience="auditors")
VERSION_RETIRED = declare("catalogue.version.retired", VersionEvent, audience="auditors")
VERSION_REINSTATED = declare("catalogue.version.reinstated", VersionEvent, audience="auditors")
FILE_ADDED = declare("catalogue.file.added", FileEvent, audience="auditors")
FILE_REMOVED = declare("catalogue.file.removed", FileEvent, audience="auditors")
FILE_TAKEN = declare("catalogue.file.taken", FileEvent, audience="auditors")
BLOB_REFUSED = declare("catalogue.blob.refused", BlobRefused, audience="auditors")
COPY_STARTED = declare("catalogue.copy.started", CopyEvent, audience="auditors", path=_of_copy)
COPY_ENDED = declare("catalogue.copy.cancelled", CopyEvent, audience="auditors", path=_of_copy)
COPY_DONE = declare(
    "catalogue.copy.done", CopyEvent, audience="whoever asked for it", path=_of_copy,
    headline=lambda p: f"In the model store: {p.what}",
    body=lambda p: "Every file was read back and is what was approved. It can be deployed now.",
)  # fmt: skip
COPY_FAILED = declare(
    "catalogue.copy.failed", CopyEvent, audience="whoever asked for it", mail=True, path=_of_copy,
    headline=lambda p: f"Could not be put into the model store: {p.what}",
    body=lambda p: f"{p.reason}\nMend what it says and start again: files that lie there already are not sent again.",
)  # fmt: skip
HASHING_STARTED = declare("catalogue.hashing.started", HashJobEvent, audience="auditors")
HASHING_CANCELLED = declare("catalogue.hashing.cancelled", HashJobEvent, audience="auditors")
HASHING_DONE = declare(
    "catalogue.hashing.done",
    HashJobEvent,
    audience="whoever asked for it",
    headline=lambda p: f"Hashed: {p.model_name} {p.label}",
    body=lambda p: "Every file has its SHA-256 now. Check the list, then seal the version.",
    path=lambda p: p.path,
)
HASHING_FAILED = declare(
    "catalogue.hashing.failed",
    HashJobEvent,
    audience="whoever asked for it",
    mail=True,
    headline=lambda p: f"Could not be hashed: {p.model_name} {p.label}",
    body=lambda p: f"{p.reason}\nCorrect what it says and start hashing again: files that are done are kept.",
    path=lambda p: p.path,
)
STORE_ADDED = declare("catalogue.store.added", StoreEvent, audience="auditors")
STORE_EDITED = declare("catalogue.store.edited", StoreEvent, audience="auditors")
STORE_ARCHIVED = declare("catalogue.store.archived", StoreEvent, audience="auditors")
STORE_RESTORED = declare("catalogue.store.restored", StoreEvent, audience="auditors")
MODELS_EXPORTED = declare("catalogue.models.exported", Exported, audience="auditors")
