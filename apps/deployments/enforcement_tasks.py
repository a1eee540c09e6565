"""Sweeps of enforcement: thin."""

from __future__ import annotations

from apps.core.sweeps import sweep
from apps.deployments import enforcement_probe, enforcement_worker


@sweep("deployments.withdraw_ended_grants", every=enforcement_worker.EVERY)
def withdraw_ended_grants() -> int:
    """Take grants that ended out of what clusters take, and put those in that began."""
    return enforcement_worker.withdraw()


@sweep("deployments.look_for_overdue_grants", every=enforcement_worker.EVERY)
def look_for_overdue_grants() -> int:
    """Note ended grants that a cluster has not taken in, and what serves without one."""
    return enforcement_worker.look()


@sweep("deployments.probe_enforcement", every=enforcement_probe.EVERY)
def probe_enforcement() -> int:
    """Note what clusters would refuse of what runs in workspaces with enforcement."""
    return enforcement_probe.probe_all()


@sweep("deployments.resume_refused_releases", every=enforcement_worker.EVERY)
def resume_refused_releases() -> int:
    """Apply releases again that a cluster refused before it knew their approval."""
    return enforcement_worker.resume_refused()
