"""Sweep of statements of placement: thin."""

from __future__ import annotations

from datetime import timedelta

from apps.core.sweeps import sweep
from apps.deployments import placement_statement_making


@sweep("deployments.state_placement", every=timedelta(hours=1))
def state_placement() -> int:
    """Make the statements of ended months whose hours are complete, and revisions where facts changed."""
    return placement_statement_making.make_due()
