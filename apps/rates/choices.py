"""Vocabulary of the rates room."""

from __future__ import annotations

from django.db import models


class Resource(models.TextChoices):
    """What besides GPUs has a price, and in which unit: a quantity is milliseconds × units (egress: see `metering`)."""

    CPU = "cpu", "CPU core-hour"
    MEMORY = "memory", "Memory GiB-hour"
    STORAGE = "storage", "Storage GiB-hour"
    EGRESS = "egress", "Network egress GiB"


class CapacityType(models.TextChoices):
    """How a node was bought; "" on a price: whatever the node is."""

    ON_DEMAND = "on_demand", "On demand"
    RESERVED = "reserved", "Reserved"
    SPOT = "spot", "Spot"


class ServiceClass(models.TextChoices):
    """What a workspace is served with beyond the standard; prices of a class are the base price times a factor."""

    COMPLIANCE = "compliance", "Compliance"
    HIGH_AVAILABILITY = "high_availability", "High availability"
    COMPLIANCE_HA = "compliance_ha", "Compliance and high availability"


class ProposalStatus(models.TextChoices):
    """Where a proposed rate card stands."""

    PROPOSED = "proposed", "Waits for a second person"
    APPROVED = "approved", "Approved and published"
    REJECTED = "rejected", "Rejected"
    WITHDRAWN = "withdrawn", "Withdrawn"
