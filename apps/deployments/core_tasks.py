"""Celery tasks of rollouts: thin."""

from __future__ import annotations

from datetime import timedelta

from apps.core.sweeps import sweep
from apps.deployments import advancing


@sweep("deployments.advance_rollouts", every=timedelta(seconds=20))
def advance_rollouts() -> int:
    """Let ladders climb, take off what failed, look at what serves on ended grants; returns how many moved."""
    return advancing.advance_due()
