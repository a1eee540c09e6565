"""Celery tasks of the metering room: thin."""

from __future__ import annotations

from datetime import timedelta

from apps.core.sweeps import sweep
from apps.metering import due, reattribution, selftest_run


@sweep("metering.ingest_due", every=timedelta(minutes=1))
def ingest_due() -> int:
    """Read the hours that are due, newest first, a bounded number per source; returns how many were read."""
    return due.ingest_due()


@sweep("metering.check_sources", every=timedelta(minutes=1))
def check_sources() -> int:
    """Test the sources that are due: asked for, new, six hours after the last time; returns how many were tested."""
    return selftest_run.run_due()


@sweep("metering.move_claimed", every=timedelta(minutes=1))
def move_claimed() -> int:
    """Move open hours of claimed and released namespaces to whom they are; returns how many hours were moved."""
    return reattribution.move_claimed()
