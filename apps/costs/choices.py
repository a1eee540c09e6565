"""Vocabulary of the costs room."""

from __future__ import annotations

from django.db import models


class ChargeKind(models.TextChoices):
    """What a charge is for."""

    ALLOCATED = "allocated", "Allocated"
    UNATTRIBUTED = "unattributed", "Allocated, no owner known"
    RESERVED_UNUSED = "reserved_unused", "Reserved but unused"
    UNSOLD = "unsold", "Unsold"
    STRANDED = "stranded", "Stranded by layout"
    MAINTENANCE = "maintenance", "Maintenance"
    CPU = "cpu", "CPU"
    MEMORY = "memory", "Memory"
    STORAGE = "storage", "Storage"
    EGRESS = "egress", "Network egress"


#: Capacity that nobody had allocated: "unallocated" in reports.
UNALLOCATED = (ChargeKind.RESERVED_UNUSED, ChargeKind.UNSOLD, ChargeKind.STRANDED, ChargeKind.MAINTENANCE)

#: What besides GPUs is charged for; a charge of it without a team belongs to the platform.
RESOURCES = (ChargeKind.CPU, ChargeKind.MEMORY, ChargeKind.STORAGE, ChargeKind.EGRESS)

#: GPU time that somebody held: what GPU-hours and GPU money are counted in.
HELD = (ChargeKind.ALLOCATED, ChargeKind.UNATTRIBUTED)

#: What a team pays for: GPU time and resources. Quantities of the two are never added up; their money is.
PAID = (*HELD, *RESOURCES)


class PeriodStatus(models.TextChoices):
    """Where a billing month stands (design §7). Re-opening is its own approved action."""

    OPEN = "open", "Open"
    CLOSING = "closing", "Closing"
    CLOSED = "closed", "Closed"


class WaiverKind(models.TextChoices):
    """What the close of a month would wait for, waived by name."""

    HOURS = "hours", "Hours that are missing or incomplete"
    SOURCE = "source", "A source that fails its self-test"
    UNPRICED = "unpriced", "Quantities without a price"
    DISPUTE = "dispute", "An open dispute"
    CROSS_CHECK = "cross_check", "An unexplained difference to another system"


class OwnerKind(models.TextChoices):
    """Whom a statement is for."""

    TEAM = "team", "Team"
    UNIT = "unit", "Unit"
    COST_CENTRE = "cost_centre", "Cost centre"
    PLATFORM = "platform", "Platform"


class LineSort(models.TextChoices):
    """What a statement line is."""

    CHARGE = "charge", "Metered"
    DISTRIBUTED = "distributed", "Share of a common cost"
    CORRECTION = "correction", "Correction of a closed month"
    CREDIT = "credit", "Credit"
    ROUNDING = "rounding", "Rounding"
    TEAM = "team", "Team's statement"


class Keeper(models.TextChoices):
    """Who bears a common cost under a distribution policy."""

    PLATFORM = "platform", "Stays with the platform"
    OWNERS = "owners", "Goes to the owners of the reservation"
    SHARED = "shared", "Shared by allocated GPU-seconds"


class Verdict(models.TextChoices):
    """Where something that takes a second person stands."""

    PROPOSED = "proposed", "Waits for a second person"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"


class DisputeStatus(models.TextChoices):
    """Where a dispute of a statement stands."""

    OPEN = "open", "Open"
    ACCEPTED = "accepted", "Accepted"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"


class BillingMode(models.TextChoices):
    """What becomes of a unit's statements."""

    SHOWBACK = "showback", "Showback: shown, not posted"
    CHARGEBACK = "chargeback", "Chargeback: posted to the ledger"


class FileKind(models.TextChoices):
    """What a period or statement is written as."""

    CSV = "csv", "CSV"
    XLSX = "xlsx", "Excel (XLSX)"
    PDF = "pdf", "PDF"
    FOCUS = "focus", "FOCUS 1.2 (CSV)"
    JOURNAL = "journal", "Journal (CSV)"


class FileStatus(models.TextChoices):
    """Where the making of a file stands."""

    QUEUED = "queued", "Queued"
    RUNNING = "running", "Being made"
    DONE = "done", "Ready"
    FAILED = "failed", "Failed"


#: A worker has it, or will.
UNDER_WAY = (FileStatus.QUEUED, FileStatus.RUNNING)


class CheckKind(models.TextChoices):
    """What our dollars of a cluster-day are compared with."""

    ALLOCATION = "allocation", "OpenCost/Kubecost's own dollars"
    BILL = "bill", "Invoice"


class CheckState(models.TextChoices):
    """Where a difference stands."""

    MATCHED = "matched", "No difference beyond the tolerance"
    OPEN = "open", "Open"
    EXPLAINED = "explained", "Explained"


class Measure(models.TextChoices):
    """What a budget step was reached in."""

    MONEY = "money", "Money"
    GPU_HOURS = "gpu_hours", "GPU-hours"
