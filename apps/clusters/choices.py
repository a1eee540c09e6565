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
