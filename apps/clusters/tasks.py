"""Sweeps of the clusters room."""

from __future__ import annotations

from datetime import timedelta

from apps.clusters import probing
from apps.core.sweeps import sweep


@sweep("clusters.probe_clusters", every=timedelta(seconds=15))
def probe_clusters() -> int:
    """Ask every cluster that is due for its version and nodes."""
    return probing.probe_due()
