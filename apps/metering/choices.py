"""Vocabulary of the metering room."""

from __future__ import annotations

from django.db import models


class SourceKind(models.TextChoices):
    """Where readings come from."""

    PROMETHEUS = "prometheus", "Prometheus"
    ALLOCATION = "allocation", "OpenCost/Kubecost allocation API"
    KUBECOST = "kubecost", "Kubecost"
    CSV = "csv", "Imported intervals (CSV)"


#: Kinds that the sweep reads by itself; imported intervals arrive by import only.
POLLED = (SourceKind.PROMETHEUS, SourceKind.ALLOCATION, SourceKind.KUBECOST)


class HourState(models.TextChoices):
    """How complete a cluster's hour is."""

    MISSING = "missing", "Missing"
    INCOMPLETE = "incomplete", "Incomplete"
    PROVISIONAL = "provisional", "Provisional"
    FINAL = "final", "Final"


#: States in which an hour's facts stand.
METERED = (HourState.PROVISIONAL, HourState.FINAL)


class RunStatus(models.TextChoices):
    """What became of an ingest run."""

    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    PARTIAL = "partial", "Partly failed"
    FAILED = "failed", "Failed"


class Trigger(models.TextChoices):
    """What started an ingest run."""

    SWEEP = "sweep", "Schedule"
    RETRY = "retry", "Retry by a person"
    IMPORT = "import", "Import"
    MANUAL = "manual", "Started by hand"


class LineKind(models.TextChoices):
    """The lines that a cluster's GPU time of one model and hour falls on (design invariant 6)."""

    ATTRIBUTED = "attributed", "Allocated to teams"
    UNATTRIBUTED = "unattributed", "Allocated, no owner known"
    RESERVED_UNUSED = "reserved_unused", "Reserved but unused"
    UNSOLD = "unsold", "Unsold"
    STRANDED = "stranded", "Stranded by layout"
    MAINTENANCE = "maintenance", "Maintenance"
    PHYSICAL = "physical", "Physical"


class CheckVerdict(models.TextChoices):
    """What a source's self-test came to."""

    PASSED = "passed", "Fit to bill from"
    WARNED = "warned", "Fit, with remarks"
    FAILED = "failed", "Not fit to bill from"
    UNKNOWN = "unknown", "Unknown: another server or question, not tested yet"
