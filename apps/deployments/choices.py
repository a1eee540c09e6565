"""Vocabulary of endpoints, releases and rollouts."""

from __future__ import annotations

from django.db import models

from apps.core.transitions import Transitions


class ReleaseKind(models.TextChoices):
    """What a release changes about its endpoint."""

    DEPLOY = "deploy", "Deploy a version"
    CHANGE = "change", "Change flavour, scale or schedule"
    ROLL_BACK = "roll_back", "Go back to an earlier version"
    REMOVE = "remove", "Remove the endpoint"


class ReleaseStatus(models.TextChoices):
    """Where a release stands. What it serves is told by the endpoint's rollout steps."""

    IN_REVIEW = "in_review", "In review"
    WAITING = "waiting_for_capacity", "Waiting for capacity"
    STARTING = "starting", "Starting"
    CANARY = "canary", "Canary"
    HELD = "held", "Held"
    LIVE = "live", "Live"
    SUPERSEDED = "superseded", "Replaced by a later release"
    ROLLED_BACK = "rolled_back", "Rolled back"
    FAILED = "failed", "Failed"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"
    LAPSED = "lapsed", "Lapsed"
    ENDED = "ended", "Ended with its endpoint"


RELEASE_TRANSITIONS = Transitions(
    {
        ReleaseStatus.IN_REVIEW: {
            "grant": ReleaseStatus.STARTING, "hold_for_capacity": ReleaseStatus.WAITING,
            "reject": ReleaseStatus.REJECTED, "withdraw": ReleaseStatus.WITHDRAWN, "lapse": ReleaseStatus.LAPSED,
            "supersede": ReleaseStatus.SUPERSEDED,
        },
        ReleaseStatus.WAITING: {
            "grant": ReleaseStatus.STARTING, "withdraw": ReleaseStatus.WITHDRAWN, "lapse": ReleaseStatus.LAPSED,
            "reject": ReleaseStatus.REJECTED, "supersede": ReleaseStatus.SUPERSEDED,
        },
        ReleaseStatus.STARTING: {
            "start_canary": ReleaseStatus.CANARY, "go_live": ReleaseStatus.LIVE, "fail": ReleaseStatus.FAILED,
            "roll_back": ReleaseStatus.ROLLED_BACK, "hold": ReleaseStatus.HELD, "supersede": ReleaseStatus.SUPERSEDED,
            "end": ReleaseStatus.ENDED,
        },
        ReleaseStatus.CANARY: {
            "step": ReleaseStatus.CANARY, "hold": ReleaseStatus.HELD, "go_live": ReleaseStatus.LIVE,
            "roll_back": ReleaseStatus.ROLLED_BACK, "fail": ReleaseStatus.FAILED,
            "supersede": ReleaseStatus.SUPERSEDED,
        },
        ReleaseStatus.HELD: {
            "resume": ReleaseStatus.CANARY, "step": ReleaseStatus.CANARY, "go_live": ReleaseStatus.LIVE,
            "roll_back": ReleaseStatus.ROLLED_BACK, "fail": ReleaseStatus.FAILED,
            "supersede": ReleaseStatus.SUPERSEDED,
        },
        ReleaseStatus.LIVE: {
            "supersede": ReleaseStatus.SUPERSEDED, "roll_back": ReleaseStatus.ROLLED_BACK,
            "fail": ReleaseStatus.FAILED, "end": ReleaseStatus.ENDED,
        },
        # Going back to it, exactly as it was approved, where its grants are still usable.
        ReleaseStatus.SUPERSEDED: {"return": ReleaseStatus.LIVE},
        ReleaseStatus.ROLLED_BACK: {},
        ReleaseStatus.FAILED: {},
        ReleaseStatus.REJECTED: {},
        ReleaseStatus.WITHDRAWN: {},
        ReleaseStatus.LAPSED: {},
        ReleaseStatus.ENDED: {},
    }
)  # fmt: skip

#: A release in one of these has not ended.
OPEN_RELEASES = (
    ReleaseStatus.IN_REVIEW, ReleaseStatus.WAITING, ReleaseStatus.STARTING, ReleaseStatus.CANARY, ReleaseStatus.HELD,
)  # fmt: skip
#: In these it has objects on the cluster.
ON_CLUSTER = (ReleaseStatus.STARTING, ReleaseStatus.CANARY, ReleaseStatus.HELD, ReleaseStatus.LIVE)


class Tier(models.TextChoices):
    """How ready a release is kept."""

    HOT = "hot", "Hot: always at full size"
    WARM = "warm", "Warm: one replica always, more on demand"
    COLD = "cold", "Cold: no replica until it is asked"


class CanaryMode(models.TextChoices):
    """How two versions share traffic on a cluster; decided from its capability record (`canary_matrix`)."""

    NONE = "none", "No canary: all at once"
    KNATIVE = "knative", "Knative canaryTrafficPercent"
    STANDARD = "standard", "KServe spec.canary with Gateway API"
    ROUTE = "route", "An HTTPRoute of ours over two InferenceServices"


class StepKind(models.TextChoices):
    """What happened to an endpoint; append-only."""

    STARTED = "started", "Started"
    CANARY = "canary", "Canary share changed"
    PROMOTED = "promoted", "Promoted"
    HELD = "held", "Held"
    RESUMED = "resumed", "Resumed"
    ROLLED_BACK = "rolled_back", "Rolled back"
    FAILED = "failed", "Failed"
    STOPPED = "stopped", "Stopped"
    STARTED_AGAIN = "started_again", "Started again"
    SCALED_BACK = "scaled_back", "Scaled back at the end of its grant"
    REMOVED = "removed", "Removed"
    APPROVAL_ENDED = "approval_ended", "Its approval ended"


class LoadState(models.TextChoices):
    """What the cluster says of a version's model."""

    UNKNOWN = "", "Not observed yet"
    PENDING = "pending", "Pending"
    LOADING = "loading", "Loading"
    LOADED = "loaded", "Loaded"
    FAILED = "failed", "Failed to load"
    STOPPED = "stopped", "Stopped"


class ObjectiveKind(models.TextChoices):
    """What an objective is about. Latency in ms; ratios as shares of 1."""

    AVAILABILITY = "availability", "Availability"
    LATENCY_P95 = "latency_p95_ms", "95th percentile latency"
    ERROR_RATE = "error_rate", "Error rate"
    PSI = "psi", "Population stability index"
    KS = "ks", "Kolmogorov–Smirnov distance"
    AGE = "age_days", "Days since training"


class ObjectiveAction(models.TextChoices):
    """What a breach does."""

    NOTIFY = "notify", "Tell the team"
    RECERTIFY = "recertify", "Open recertification"
    ROLL_BACK = "roll_back", "Roll back while it is a canary"


class EnforcementMode(models.TextChoices):
    """What the cluster does with a model that no usable grant covers."""

    OFF = "off", "Off"
    AUDIT = "audit", "Audit: let it through and note it"
    DENY = "deny", "Deny: refuse it"


class ExpiryAction(models.TextChoices):
    """What the end of a grant does to what is serving; never a silent stop."""

    BLOCK_NEW = "block_new", "Block new rollouts, keep serving"
    SCALE_BACK = "scale_back", "Go back to the previous version with a usable grant, else to the smallest size"
    ALERT_ONLY = "alert_only", "Only alert"
