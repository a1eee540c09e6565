"""Vocabulary of the catalogue."""

from __future__ import annotations

from django.db import models

from apps.core.transitions import Transitions
from apps.quotas.choices import DataClass

#: From the least to the most sensitive. A version's classification is the highest over itself and its lineage.
SENSITIVITY: tuple[str, ...] = (
    DataClass.PUBLIC,
    DataClass.INTERNAL,
    DataClass.CONFIDENTIAL,
    DataClass.PERSONAL,
    DataClass.FINANCIAL,
    DataClass.CARDHOLDER,
    DataClass.HEALTH,
)
#: Data classes under which a release is regulated: bytes must be bound, the cluster enforces, placement is proven.
REGULATED: frozenset[str] = frozenset({DataClass.PERSONAL, DataClass.FINANCIAL, DataClass.CARDHOLDER, DataClass.HEALTH})


class RiskTier(models.TextChoices):
    """Tier under Regulation (EU) 2024/1689; "unknown" until somebody has classified the model."""

    UNKNOWN = "", "Not classified yet"
    PROHIBITED = "prohibited", "Prohibited (Art. 5)"
    HIGH = "high", "High risk (Art. 6)"
    TRANSPARENCY = "transparency", "Transparency duties (Art. 50)"
    MINIMAL = "minimal", "Minimal"


class ActAnnex(models.TextChoices):
    """Why a system is high-risk; the duties apply from different dates."""

    NONE = "", "Neither"
    ANNEX_I = "annex_i", "Annex I (product safety)"
    ANNEX_III = "annex_iii", "Annex III (listed uses)"


class ActRole(models.TextChoices):
    """The company's role under the Act for this model."""

    UNKNOWN = "", "Not stated yet"
    PROVIDER = "provider", "Provider"
    DEPLOYER = "deployer", "Deployer"
    IMPORTER = "importer", "Importer"
    DISTRIBUTOR = "distributor", "Distributor"
    MANUFACTURER = "manufacturer", "Product manufacturer"
    REPRESENTATIVE = "representative", "Authorised representative"


class Scheme(models.TextChoices):
    """Where a version's files live."""

    UPLOAD = "upload", "Uploaded to the portal"
    S3 = "s3", "S3-compatible storage"
    OCI = "oci", "OCI artifact by digest"
    HF = "hf", "Hugging Face at a revision"
    PVC = "pvc", "Volume claim"


#: Said wherever somebody is about to upload a model's files, or looks at a version that has some.
UPLOADED_NOT_SERVED = (
    "Files uploaded here are catalogued, hashed, reviewed and approved, but no cluster reaches the portal's own"
    " storage. Once the version is approved, the portal can put exactly these bytes into a model store that"
    " clusters load from; until then it cannot be deployed."
)


class VersionStatus(models.TextChoices):
    """A version is edited as a draft, hashed, then sealed for ever."""

    DRAFT = "draft", "Draft"
    HASHING = "hashing", "Being hashed"
    SEALED = "sealed", "Sealed"
    RETIRED = "retired", "Retired"


VERSION_TRANSITIONS = Transitions(
    {
        VersionStatus.DRAFT: {"hash": VersionStatus.HASHING, "seal": VersionStatus.SEALED},
        VersionStatus.HASHING: {
            "seal": VersionStatus.SEALED, "done": VersionStatus.DRAFT, "fail": VersionStatus.DRAFT,
            "cancel": VersionStatus.DRAFT,
        },
        VersionStatus.SEALED: {"retire": VersionStatus.RETIRED},
        VersionStatus.RETIRED: {"restore": VersionStatus.SEALED},
    }
)  # fmt: skip


class SourceKind(models.TextChoices):
    """What a version was made from."""

    BASE_MODEL = "base_model", "Base model"
    DATASET = "dataset", "Dataset"
    TRAINING_RUN = "training_run", "Training run"
    ADAPTER = "adapter", "Adapter"


class RecertificationStatus(models.TextChoices):
    """What became of the draft that is opened before an approval ends."""

    OPEN = "open", "To be confirmed"
    SUBMITTED = "submitted", "Asked for"
    RENEWED = "renewed", "Renewed"
    SUPERSEDED = "superseded", "Covered by another approval"
    DECLINED = "declined", "Shall end"
    ENDED = "ended", "Ended"


#: `reopen`: what it became was rejected, withdrawn or lapsed; the approval still ends.
RECERTIFICATION_TRANSITIONS = Transitions(
    {
        RecertificationStatus.OPEN: {
            "submit": RecertificationStatus.SUBMITTED, "supersede": RecertificationStatus.SUPERSEDED,
            "decline": RecertificationStatus.DECLINED, "end": RecertificationStatus.ENDED,
        },
        RecertificationStatus.SUBMITTED: {
            "renew": RecertificationStatus.RENEWED, "reopen": RecertificationStatus.OPEN,
            "supersede": RecertificationStatus.SUPERSEDED, "end": RecertificationStatus.ENDED,
        },
        RecertificationStatus.RENEWED: {},
        RecertificationStatus.SUPERSEDED: {},
        RecertificationStatus.DECLINED: {
            "submit": RecertificationStatus.SUBMITTED, "supersede": RecertificationStatus.SUPERSEDED,
            "end": RecertificationStatus.ENDED,
        },
        RecertificationStatus.ENDED: {},
    }
)  # fmt: skip


class JobStatus(models.TextChoices):
    """State of background work on bytes."""

    PENDING = "pending", "Waiting"
    RUNNING = "running", "Running"
    DONE = "done", "Done"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class ScanStatus(models.TextChoices):
    """What the virus scanner said of a file."""

    PENDING = "pending", "Not scanned yet"
    CLEAN = "clean", "Clean"
    INFECTED = "infected", "Infected"
    OFF = "off", "No scanner configured"


class EvidenceKind(models.TextChoices):
    """What a piece of evidence is."""

    EVALUATION = "evaluation", "Evaluation results"
    BIAS = "bias", "Bias assessment"
    IMAGE_SCAN = "image_scan", "Image scan"
    MODEL_SCAN = "model_scan", "Model file scan"
    DPIA = "dpia", "Data protection impact assessment"
    RISK_ASSESSMENT = "risk_assessment", "Risk assessment"
    SECURITY_REVIEW = "security_review", "Security review"
    HUMAN_OVERSIGHT = "human_oversight", "Human oversight plan"
    TRANSFER_BASIS = "transfer_basis", "Basis of a cross-border transfer"
    TECHNICAL_DOCUMENTATION = "technical_documentation", "Technical documentation"
    SIGNATURE = "signature", "Model signature"
    OTHER = "other", "Other document"


class KeyAlgorithm(models.TextChoices):
    """How a signing key's signatures are made; the hash is SHA-256 but for Ed25519, which has its own."""

    ECDSA_P256 = "ecdsa-p256", "ECDSA on P-256, SHA-256"
    ED25519 = "ed25519", "Ed25519"
    RSA_PSS = "rsa-pss", "RSA with PSS, SHA-256"
    RSA_PKCS1 = "rsa-pkcs1v15", "RSA with PKCS #1 v1.5, SHA-256"


class Answer(models.TextChoices):
    """The documented decision on an addressable control (45 CFR 164.306(d)(3))."""

    IMPLEMENTED = "implemented", "Implemented as written"
    EQUIVALENT = "equivalent", "An equivalent measure is in place"
    NOT_REASONABLE = "not_reasonable", "Not reasonable and appropriate here"


class ControlKind(models.TextChoices):
    """How a control is met."""

    REQUIRED = "required", "Required"
    ADDRESSABLE = "addressable", "Addressable"
    COMPUTED = "computed", "Computed by the portal"
    ADVISORY = "advisory", "Advisory"


class ControlStatus(models.TextChoices):
    """Computed, never ticked."""

    SATISFIED = "satisfied", "Satisfied"
    MISSING = "missing", "Missing"
    EXPIRED = "expired", "Evidence expired"
    STALE = "stale", "Evidence is for other bytes"
    FAILED = "failed", "Evidence says no"
    WAIVED = "waived", "Exception in force"
    NOT_APPLICABLE = "not_applicable", "Does not apply"


class AskStatus(models.TextChoices):
    """Where the request for a version's approval stands."""

    IN_REVIEW = "in_review", "In review"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"
    LAPSED = "lapsed", "Lapsed"
    SUPERSEDED = "superseded", "Superseded"


class ExceptionKind(models.TextChoices):
    """What an exception, decided by a second person, lets through."""

    CLASSIFICATION = "classification", "A lower classification than the lineage's"
    CONTROL = "control", "A control that is not met"


class RegistryKind(models.TextChoices):
    """Model registries the catalogue reads."""

    MLFLOW = "mlflow", "MLflow"
    KUBEFLOW = "kubeflow", "Kubeflow model registry"


class RegistryFindingKind(models.TextChoices):
    """What a registry did that nobody here approved."""

    REWRITTEN_TAG = "rewritten_tag", "A tag was rewritten"
    MOVED_ALIAS = "moved_alias", "An alias was moved"
    DELETED_VERSION = "deleted_version", "A version was deleted"
    RENAMED = "renamed", "A model was renamed"
    CHANGED_SOURCE = "changed_source", "A version's source was changed"
    CHANGED_BYTES = "changed_bytes", "The bytes at a version's source changed"
    DELETED_MODEL = "deleted_model", "A model was deleted"
    ARCHIVED = "archived", "It was archived there"
