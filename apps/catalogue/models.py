"""Models and their immutable versions: files, lineage, cards. Evidence and controls: `evidence_models`."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from apps.approvals.models import ApprovalRequest
from apps.catalogue.choices import (
    ActAnnex,
    ActRole,
    AskStatus,
    JobStatus,
    RiskTier,
    ScanStatus,
    Scheme,
    SourceKind,
    VersionStatus,
)
from apps.catalogue.querysets import (
    BlobQuerySet,
    CardRevisionQuerySet,
    HashJobQuerySet,
    ModelQuerySet,
    ModelRequestQuerySet,
    ModelStoreQuerySet,
    ModelVersionQuerySet,
    UploadQuerySet,
    VersionFileQuerySet,
    VersionSourceQuerySet,
)
from apps.core.models import Row, VersionedRow
from apps.teams.models import Team

#: SHA-256, lower-case hexadecimal.
DIGEST_LENGTH = 64


class Model(VersionedRow):
    """A model that a team owns: what it is for and what data it touches. Its bytes are in its versions."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=200)
    team = models.ForeignKey(Team, models.PROTECT, related_name="models")
    purpose = models.TextField()
    data_classes: ArrayField[list[str], list[str]] = ArrayField(models.CharField(max_length=30), default=list)
    risk_tier = models.CharField(max_length=20, choices=RiskTier.choices, default=RiskTier.UNKNOWN, blank=True)
    act_annex = models.CharField(max_length=20, choices=ActAnnex.choices, default=ActAnnex.NONE, blank=True)
    act_role = models.CharField(max_length=20, choices=ActRole.choices, default=ActRole.UNKNOWN, blank=True)
    solely_automated = models.BooleanField(
        default=False, help_text="Decides about people without a person in between (GDPR Art. 22)."
    )
    extra_regimes: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=40), default=list, blank=True, help_text="Regimes added to those the rules ask for."
    )
    last_number = models.PositiveIntegerField(default=0, help_text="The highest number any version had, ever.")
    archived_at = models.DateTimeField(null=True, blank=True)

    objects = ModelQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class CardRevision(Row):
    """One revision of a model's card; immutable. A version names the revision that its manifest holds."""

    model = models.ForeignKey(Model, models.PROTECT, related_name="cards")
    number = models.PositiveIntegerField()
    body: models.JSONField = models.JSONField(help_text="By catalogue.cards' schema.")
    digest = models.CharField(max_length=DIGEST_LENGTH)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    note = models.CharField(max_length=300, blank=True)

    objects = CardRevisionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["model", "number"], name="card_once")]


class ModelVersion(VersionedRow):
    """A version: a draft until it is sealed; from then on its manifest, and so its digest, never changes."""

    model = models.ForeignKey(Model, models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField(help_text="Counts up, never used again.")
    label = models.CharField(max_length=60, help_text='What people call it, such as "1.4.0".')
    status = models.CharField(max_length=20, choices=VersionStatus.choices, default=VersionStatus.DRAFT)
    scheme = models.CharField(max_length=10, choices=Scheme.choices)
    location = models.CharField(max_length=1000, blank=True, help_text="Storage URI without its scheme's digest.")
    store = models.ForeignKey("ModelStore", models.PROTECT, null=True, related_name="versions")
    revision = models.CharField(max_length=128, blank=True, help_text="oci: sha256 digest; hf: commit.")
    model_format = models.CharField(max_length=60, blank=True, help_text="onnx, pytorch, vllm …")
    runtime = models.CharField(max_length=120, blank=True, help_text="ServingRuntime by name.")
    image = models.CharField(max_length=500, blank=True, help_text="Serving image by digest (name@sha256:…).")
    arguments: models.JSONField = models.JSONField(default=list, blank=True)
    environment: models.JSONField = models.JSONField(default=dict, blank=True, help_text="Variables of the container.")
    parameters: models.JSONField = models.JSONField(default=dict, blank=True, help_text="Training parameters, noted.")
    explainer: models.JSONField = models.JSONField(
        default=dict, blank=True, help_text="{storage_uri, image, format}; empty: none."
    )
    data_classes: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=30), default=list, blank=True, help_text="Its own, besides the model's."
    )
    classification: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=30), default=list, blank=True, help_text="Effective, with the lineage's, as sealed."
    )
    card = models.ForeignKey(CardRevision, models.PROTECT, null=True, related_name="versions")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="model_versions")
    last_editor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    editors: ArrayField[list[int], list[int]] = ArrayField(
        models.BigIntegerField(), default=list, blank=True, help_text="Ids of everybody who changed the draft."
    )
    manifest = models.BinaryField(default=b"", help_text="RFC 8785 bytes; empty until sealed.")
    digest = models.CharField(max_length=DIGEST_LENGTH, blank=True, help_text="SHA-256 over the manifest.")
    total_bytes = models.BigIntegerField(default=0)
    trained_at = models.DateTimeField(null=True, blank=True)
    sealed_at = models.DateTimeField(null=True)
    retired_at = models.DateTimeField(null=True)

    objects = ModelVersionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["model", "number"], name="model_version_number_once"),
            models.UniqueConstraint(fields=["model", "label"], name="model_version_label_once"),
            models.CheckConstraint(
                condition=Q(status__in=["sealed", "retired"]) & ~Q(digest="") & Q(sealed_at__isnull=False)
                | Q(status__in=["draft", "hashing"], digest="", sealed_at__isnull=True),
                name="model_version_sealed_whole",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["digest"], name="model_version_digest"),
            models.Index(fields=["-created_at", "-id"], name="model_version_recent"),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.label}"

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.model.team_id


class Blob(Row):
    """Bytes by their digest, kept once, in the portal's own content-addressed store (`catalogue.blobs`)."""

    sha256 = models.CharField(max_length=DIGEST_LENGTH, unique=True)
    size = models.BigIntegerField()
    content_type = models.CharField(max_length=120, help_text="As found from the bytes, not as claimed.")
    scan = models.CharField(max_length=20, choices=ScanStatus.choices, default=ScanStatus.PENDING)
    scanned_at = models.DateTimeField(null=True)
    scan_detail = models.CharField(max_length=300, blank=True)

    objects = BlobQuerySet.as_manager()


class VersionFile(Row):
    """One file of a version. `sha256` is empty until it was computed from the bytes."""

    model_version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="files")
    path = models.CharField(max_length=500)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=DIGEST_LENGTH, blank=True)
    etag = models.CharField(max_length=200, blank=True, help_text="What the storage said when it was hashed.")
    blob = models.ForeignKey(Blob, models.PROTECT, null=True, related_name="+")

    objects = VersionFileQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["model_version", "path"], name="version_file_once")]
        ordering: ClassVar = ["path"]


class Upload(VersionedRow):
    """A file on its way: sent in pieces, each at the place where the one before ended, then taken as a whole.

    The pieces lie in the blob folder's `incoming` under this row's uid until then.
    """

    model_version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="uploads")
    path = models.CharField(max_length=500)
    size = models.BigIntegerField(help_text="As announced, in bytes.")
    received = models.BigIntegerField(default=0, help_text="Bytes that are here.")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")

    objects = UploadQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["model_version", "path"], name="upload_once"),
            models.CheckConstraint(condition=Q(received__gte=0, received__lte=F("size")), name="upload_within_size"),
        ]


class VersionSource(Row):
    """One thing that a version was made from: another version here, or something outside by name and revision."""

    model_version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="sources")
    kind = models.CharField(max_length=20, choices=SourceKind.choices)
    source_version = models.ForeignKey(ModelVersion, models.PROTECT, null=True, related_name="derived")
    name = models.CharField(max_length=300)
    revision = models.CharField(max_length=200, blank=True)
    uri = models.CharField(max_length=1000, blank=True)
    digest = models.CharField(max_length=DIGEST_LENGTH, blank=True)
    data_classes: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=30), default=list, blank=True
    )

    objects = VersionSourceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(source_version__isnull=True) | ~Q(source_version=F("model_version")),
                name="source_not_itself",
            )
        ]


class ModelStore(VersionedRow):
    """Where files of versions are read from, with credentials encrypted at rest."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=200)
    scheme = models.CharField(max_length=10, choices=Scheme.choices)
    endpoint = models.CharField(
        max_length=300, blank=True, help_text="https://… of the service; pvc: the claim's name."
    )
    prefix = models.CharField(max_length=300, blank=True, help_text="Bucket and path, or repository prefix, allowed.")
    region = models.CharField(max_length=60, blank=True)
    ca_certificate = models.TextField(blank=True)
    credentials = models.BinaryField(default=b"", help_text="Encrypted JSON (clusters.crypto).")
    teams = models.ManyToManyField(Team, blank=True, related_name="model_stores", help_text="None: every team.")
    takes_copies = models.BooleanField(
        default=False, help_text="The portal may write approved, uploaded files there, for clusters to load."
    )
    archived_at = models.DateTimeField(null=True, blank=True)

    objects = ModelStoreQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class HashJob(VersionedRow):
    """Hashing a version's files: resumable by file, with progress; several tries, one row."""

    model_version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="hash_jobs")
    status = models.CharField(max_length=20, choices=JobStatus.choices, default=JobStatus.PENDING)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    files_total = models.PositiveIntegerField(null=True)
    files_done = models.PositiveIntegerField(default=0)
    bytes_total = models.BigIntegerField(null=True)
    bytes_done = models.BigIntegerField(default=0)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    beat_at = models.DateTimeField(null=True, help_text="Last sign of life of the worker that holds it.")
    attempts = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)

    objects = HashJobQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["model_version"], name="hash_job_one_open", condition=Q(status__in=["pending", "running"])
            )
        ]


class ModelRequest(VersionedRow):
    """A request that a sealed version be approved in a scope. Subject of approval `catalogue.version`.

    `scope`: {"environments": [...], "clusters": [slugs], "workspaces": [uids], "max_traffic": 1..100}; a missing list
    means none is named, i.e. the key is not granted (engine.covers).
    """

    model_version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="requests")
    scope: models.JSONField = models.JSONField()
    not_before = models.DateTimeField(null=True)
    valid_days = models.PositiveIntegerField(default=365)
    reason = models.TextField()
    status = models.CharField(max_length=20, choices=AskStatus.choices, default=AskStatus.IN_REVIEW)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="model_requests")
    digest = models.CharField(max_length=DIGEST_LENGTH, blank=True, help_text="Over manifest, scope and checklist.")
    checklist: models.JSONField = models.JSONField(
        default=list, help_text="The controls that apply with their computed status, as submitted."
    )
    approval = models.OneToOneField(ApprovalRequest, models.PROTECT, null=True, related_name="model_request")
    supersedes = models.OneToOneField("self", models.PROTECT, null=True, related_name="superseded_by")
    renews = models.ForeignKey(
        "self", models.PROTECT, null=True, related_name="renewals", help_text="Recertification of this earlier one."
    )
    recertify_reason = models.CharField(max_length=300, blank=True, help_text="Why it has to be looked at again.")

    objects = ModelRequestQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(valid_days__gte=1, valid_days__lte=3660), name="model_request_validity"),
            models.UniqueConstraint(
                fields=["model_version"], name="model_request_one_open", condition=Q(status="in_review")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_version}"

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.model_version.model.team_id


from apps.catalogue.copy_models import StoredCopy  # noqa: E402  (it points at the rows above)
from apps.catalogue.evidence_models import (  # noqa: E402  (they point at the rows above)
    CitationConfirmation,
    ClassificationRecord,
    Control,
    ControlAnswer,
    EvaluationResult,
    Evidence,
    EvidenceProducer,
    Regime,
    VersionException,
)
from apps.catalogue.recertification_models import Recertification  # noqa: E402  (as above)
from apps.catalogue.registry_models import (  # noqa: E402  (as above)
    Registry,
    RegistryDelivery,
    RegistryFinding,
    RegistryModel,
    RegistryVersion,
)
from apps.catalogue.signing_models import SigningKey  # noqa: E402  (as above)

__all__ = [
    "Blob", "CardRevision", "CitationConfirmation", "ClassificationRecord", "Control", "ControlAnswer",
    "EvaluationResult", "Evidence", "EvidenceProducer", "HashJob", "Model", "ModelRequest", "ModelStore",
    "ModelVersion", "Recertification", "Regime", "Registry", "RegistryDelivery", "RegistryFinding", "RegistryModel",
    "RegistryVersion", "SigningKey", "StoredCopy", "Upload", "VersionException", "VersionFile", "VersionSource",
]  # fmt: skip
