"""Sweeps of the clusters room."""

from __future__ import annotations

from datetime import timedelta

from apps.clusters import checking, expiring, probing
from apps.core.sweeps import sweep


@sweep("clusters.probe_clusters", every=timedelta(seconds=15))
def probe_clusters() -> int:
    """Ask every cluster that is due for its version and nodes."""
    return probing.probe_due()


@sweep("clusters.run_checks", every=timedelta(seconds=15))
def run_checks() -> int:
    """Carry out the checks of clusters that wait."""
    return checking.run_due()


@sweep("clusters.notice_expiring", every=timedelta(hours=1))
def notice_expiring() -> int:
    """Tell the platform admins what ends soon."""
    return expiring.notice_due()
