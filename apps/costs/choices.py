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


#: Capacity that nobody had allocated: "unallocated" in reports.
UNALLOCATED = (ChargeKind.RESERVED_UNUSED, ChargeKind.UNSOLD, ChargeKind.STRANDED, ChargeKind.MAINTENANCE)
