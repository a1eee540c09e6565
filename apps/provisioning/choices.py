"""Vocabulary of declarations, plans and apply runs."""

from __future__ import annotations

from django.db import models


class DeclarationKind(models.TextChoices):
    """Whose objects a declaration holds."""

    BASELINE = "baseline", "Cluster baseline"
    WORKSPACE = "workspace", "Workspace"
    RELEASE = "release", "Release"


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


class RunOutcome(models.TextChoices):
    """How an apply run ended."""

    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed, will be retried"
    STOPPED = "stopped", "Stopped, needs a person"
    SUPERSEDED = "superseded", "Superseded"
    ABANDONED = "abandoned", "Abandoned by its worker"
