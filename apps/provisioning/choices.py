"""Vocabulary of declarations, plans and apply runs."""

from __future__ import annotations

from django.db import models


class DeclarationKind(models.TextChoices):
    """Whose objects a declaration holds."""

    BASELINE = "baseline", "Cluster baseline"
    WORKSPACE = "workspace", "Workspace"
    RELEASE = "release", "Release"
    ENFORCEMENT = "enforcement", "Approved models"


class DeclarationStatus(models.TextChoices):
    """How far the newest generation has come on the cluster."""

    APPLYING = "applying", "Applying"
    APPLIED = "applied", "Applied"
    STOPPED = "stopped", "Stopped, needs a person"


class PlanStatus(models.TextChoices):
    """State of a plan."""

    PENDING = "pending", "Being made"
    READY = "ready", "Ready"
    FAILED = "failed", "Could not be made"
    STALE = "stale", "Out of date"


class Removal(models.TextChoices):
    """What becomes of an object that the newest generation no longer holds."""

    NONE = "", "Declared"
    PLANNED = "planned", "To be removed, as planned"
    UNPLANNED = "unplanned", "Its removal was not in the plan"
    RETAINED = "retained", "Left where it is"


class RunOutcome(models.TextChoices):
    """How an apply run ended."""

    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed, will be retried"
    STOPPED = "stopped", "Stopped, needs a person"
    SUPERSEDED = "superseded", "Superseded"
    ABANDONED = "abandoned", "Abandoned by its worker"


class DriftResolution(models.TextChoices):
    """What became of a drift."""

    OPEN = "", "Open"
    GONE = "gone", "Lives as declared again"
    REAPPLIED = "reapplied", "Re-applied"
    ADOPTED = "adopted", "Adopted by an approved change"


class DriftDecision(models.TextChoices):
    """What a person decided about a drift."""

    NONE = "", "To be decided"
    REAPPLY = "reapply", "Apply what was approved again"
    ADOPT = "adopt", "Ask to adopt what lives there"
    IGNORE = "ignore", "Leave it until a date"


class Handling(models.TextChoices):
    """How one object is treated by the apply that is due."""

    NORMAL = "", "As usual"
    TAKE_OVER = "take_over", "Take its fields over from other managers"
    LEAVE = "leave", "Leave it as it lives"


class StopCause(models.TextChoices):
    """Why the portal stops a workload."""

    IDLE = "idle", "Idle"
    DRAIN = "drain", "Drained at the end of quota"


class StopStatus(models.TextChoices):
    """State of an order to stop one workload."""

    PENDING = "pending", "To be stopped"
    STOPPED = "stopped", "Stopped"
    UNDOING = "undoing", "Being started again"
    UNDONE = "undone", "Started again"
    GONE = "gone", "Ended by itself"
    REFUSED = "refused", "The cluster refuses"
