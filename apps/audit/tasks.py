"""The audit room's sweeps."""

from __future__ import annotations

from datetime import timedelta

from apps.audit import checkpoints, keeping, nightly, partitions, reconciliation
from apps.core.sweeps import sweep


@sweep("audit.ensure_months", every=timedelta(hours=6))
def ensure_months() -> int:
    """Keep the trail's month partitions ready ahead of time."""
    return partitions.ensure_ahead()


@sweep("audit.make_checkpoints", every=timedelta(minutes=5))
def make_checkpoints() -> int:
    """Sign the end of the trail where a checkpoint is due."""
    return int(checkpoints.make_due() is not None)


@sweep("audit.publish_checkpoints", every=timedelta(minutes=5))
def publish_checkpoints() -> int:
    """Copy every checkpoint to every place that lacks it."""
    return checkpoints.publish_due()


@sweep("audit.verify_trail", every=timedelta(minutes=30))
def verify_trail() -> int:
    """Verify the trail once a day; say so where that did not happen."""
    return nightly.alarm_if_overdue() + nightly.verify_due()


@sweep("audit.purge_months", every=timedelta(hours=1))
def purge_months() -> int:
    """Purge the months whose proposal two persons stand behind."""
    return keeping.purge_due()


@sweep("audit.reconcile_changes", every=timedelta(minutes=30))
def reconcile_changes() -> int:
    """Once a day, look for rows that were changed without an event."""
    return reconciliation.reconcile_due()
