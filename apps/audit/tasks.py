"""The audit room's sweeps."""

from __future__ import annotations

from datetime import timedelta

from apps.audit import partitions
from apps.core.sweeps import sweep


@sweep("audit.ensure_months", every=timedelta(hours=6))
def ensure_months() -> int:
    """Keep the trail's month partitions ready ahead of time."""
    return partitions.ensure_ahead()
