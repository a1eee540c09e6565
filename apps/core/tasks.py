"""Core's own sweeps."""

from __future__ import annotations

from datetime import timedelta

from apps.core import idempotency, partitions
from apps.core.sweeps import sweep


@sweep("core.ensure_months", every=timedelta(hours=6))
def ensure_months() -> int:
    """Keep the month partitions of every room ready ahead of time."""
    return partitions.ensure_months_ahead()


@sweep("core.forget_idempotent_calls", every=timedelta(hours=1))
def forget_idempotent_calls() -> int:
    """Forget the answers of API calls whose keys are older than a day."""
    return idempotency.forget()
