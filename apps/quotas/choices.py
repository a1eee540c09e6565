"""Vocabulary of workspaces, quotas and quota requests."""

from __future__ import annotations

from django.db import models

from apps.core.transitions import Transitions


class Environment(models.TextChoices):
    """What a workspace is for."""

    DEVELOPMENT = "development", "Development"
    STAGING = "staging", "Staging"
    PRODUCTION = "production", "Production"


class DataClass(models.TextChoices):
    """What kind of data may be processed in a workspace."""

    PUBLIC = "public", "Public"
    INTERNAL = "internal", "Internal"
    CONFIDENTIAL = "confidential", "Confidential"
    FINANCIAL = "financial", "Financial"
    PERSONAL = "personal", "Personal"
    HEALTH = "health", "Health"
    CARDHOLDER = "cardholder", "Cardholder"


class BorrowMode(models.TextChoices):
    """How far a workspace may go beyond its guaranteed GPUs. Unlimited needs a permission of its own."""

    NONE = "none", "None"
    LIMITED = "limited", "Up to a limit"
    UNLIMITED = "unlimited", "Unlimited"


class RequestStatus(models.TextChoices):
    """Where a quota request stands."""

    IN_REVIEW = "in_review", "In review"
    WAITING = "waiting_for_capacity", "Waiting for capacity"
    SCHEDULED = "scheduled", "Granted, starts later"
    APPLYING = "applying", "Applying"
    ACTIVE = "active", "Applied"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"
    LAPSED = "lapsed", "Lapsed"
    SUPERSEDED = "superseded", "Corrected by a later request"


REQUEST_TRANSITIONS = Transitions(
    {
        RequestStatus.IN_REVIEW: {
            "grant": RequestStatus.APPLYING,
            "schedule": RequestStatus.SCHEDULED,
            "hold": RequestStatus.WAITING,
            "reject": RequestStatus.REJECTED,
            "withdraw": RequestStatus.WITHDRAWN,
            "lapse": RequestStatus.LAPSED,
            "supersede": RequestStatus.SUPERSEDED,
        },
        RequestStatus.WAITING: {
            "grant": RequestStatus.APPLYING,
            "schedule": RequestStatus.SCHEDULED,
            "withdraw": RequestStatus.WITHDRAWN,
            "lapse": RequestStatus.LAPSED,
            "supersede": RequestStatus.SUPERSEDED,
        },
        RequestStatus.SCHEDULED: {"grant": RequestStatus.APPLYING},
        RequestStatus.APPLYING: {"applied": RequestStatus.ACTIVE},
        RequestStatus.ACTIVE: {},
        RequestStatus.REJECTED: {},
        RequestStatus.WITHDRAWN: {},
        RequestStatus.LAPSED: {},
        RequestStatus.SUPERSEDED: {},
    }
)
#: Still to be decided, or decided and waiting for room: can be withdrawn and corrected.
OPEN_STATUSES = (RequestStatus.IN_REVIEW, RequestStatus.WAITING)


class LendMode(models.TextChoices):
    """How much of its guaranteed GPUs a workspace lends to others while it does not use them."""

    ALL = "all", "All that is idle"
    LIMITED = "limited", "Up to a limit"
    NONE = "none", "Nothing"


class ChangeKind(models.TextChoices):
    """What a change request alters: everything that is declared but is no number of a quota."""

    BASELINE = "baseline", "Cluster baseline"
    LIMITS = "limits", "Workspace limits"
    IDLE_POLICY = "idle_policy", "Idle policy"
    EXPIRY_POLICY = "expiry_policy", "What happens when quota ends"
    ADOPT_DRIFT = "adopt_drift", "Adopt what lives on the cluster"
    ADOPT_NAMESPACE = "adopt_namespace", "Adopt an existing namespace"
    ARCHIVE = "archive", "Archive the workspace"
    RESTORE = "restore", "Restore the workspace"


class Rung(models.TextChoices):
    """How far a workspace whose quota has ended has been taken down. Nothing on the ladder deletes anything."""

    NONE = "none", "Running"
    STOPPED_ADMITTING = "stopped_admitting", "Admits nothing new"
    DRAINED = "drained", "Drained"
    ARCHIVED = "archived", "Archived"


class ReadingStatus(models.TextChoices):
    """Where the reading of a namespace stands."""

    PENDING = "pending", "Waiting for the cluster"
    RUNNING = "running", "Reading"
    DONE = "done", "Read"
    FAILED = "failed", "Failed"
