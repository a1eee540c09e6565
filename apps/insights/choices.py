"""Vocabulary of findings and idle cases."""

from __future__ import annotations

from django.db import models


class FindingKind(models.TextChoices):
    """What a finding is about."""

    HOARDED_QUOTA = "hoarded_quota", "Guaranteed but unused"
    CAPACITY_LOST = "capacity_lost", "Promised beyond capacity"
    IDLE_WORK = "idle_work", "Idle work"
    RIGHT_SIZE = "right_size", "Larger than needed"
    OFF_HOURS = "off_hours", "Rests at the same hours"
    SPIKE = "spike", "Cost spike"


class FindingStatus(models.TextChoices):
    """Where a finding stands."""

    OPEN = "open", "Open"
    SNOOZED = "snoozed", "Snoozed"
    ACTED = "acted", "Acted on"
    DISMISSED = "dismissed", "Dismissed"
    GONE = "gone", "No longer so"


class IdleStatus(models.TextChoices):
    """Where an idle workload stands."""

    NOTICED = "noticed", "Owner asked"
    KEPT = "kept", "Kept by its owner"
    STOPPING = "stopping", "Being stopped"
    STOPPED = "stopped", "Stopped"
    RESUMED = "resumed", "Started again"
    ENDED = "ended", "Ended, or busy again"
