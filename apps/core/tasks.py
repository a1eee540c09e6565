"""Core's own sweeps."""

from __future__ import annotations

from datetime import timedelta

from apps.core import partitions
from apps.core.sweeps import sweep


@sweep("core.ensure_months", every=timedelta(hours=6))
def ensure_months() -> int:
    """Keep the month partitions of every room ready ahead of time."""
    return partitions.ensure_months_ahead()
