"""Vocabulary of the clusters room."""

from __future__ import annotations

from django.db import models


class Health(models.TextChoices):
    """What the last contact with a cluster told."""

    UNKNOWN = "unknown", "Not contacted yet"
    HEALTHY = "healthy", "Healthy"
    UNREACHABLE = "unreachable", "Unreachable"
    REFUSED = "refused", "Refuses our credentials"


class Sharing(models.TextChoices):
    """How a flavour shares a GPU."""

    EXCLUSIVE = "exclusive", "Exclusive"
    MIG = "mig", "MIG profile"
    TIME_SLICED = "time_sliced", "Time-sliced"


class PoolKind(models.TextChoices):
    """Where a pool's capacity comes from."""

    FIXED = "fixed", "Fixed"
    RESERVED = "reserved", "Reserved"
    ELASTIC = "elastic", "Elastic"


class DeviceClass(models.TextChoices):
    """What a flavour's units are: GPUs (or shares of one), or CPU cores."""

    GPU = "gpu", "GPU"
    CPU = "cpu", "CPU"


class KueueMode(models.TextChoices):
    """Whether and how far quotas are applied through Kueue on a cluster; an admin's decision, within what was found."""

    OFF = "off", "Not used"
    JOBS = "jobs", "For jobs; pods of services are outside of it"
    PODS = "pods", "For jobs and pods"


class GuardMode(models.TextChoices):
    """What the cluster's own guard does when somebody else changes an object that the portal owns."""

    OFF = "off", "Off"
    AUDIT = "audit", "Audit: note it in the cluster's audit log"
    DENY = "deny", "Deny: refuse it"


class CheckStatus(models.TextChoices):
    """State of a cluster check."""

    PENDING = "pending", "Queued"
    RUNNING = "running", "Running"
    DONE = "done", "Done"


class StepOutcome(models.TextChoices):
    """How one step of a cluster check ended."""

    OK = "ok", "OK"
    WARNING = "warning", "Warning"
    FAILED = "failed", "Failed"
    SKIPPED = "skipped", "Skipped"


class Location(models.TextChoices):
    """Where a cluster stands; placement rules ask for it."""

    UNKNOWN = "", "Not stated"
    ON_PREMISES = "on_premises", "On premises"
    CLOUD = "cloud", "Cloud"
