"""Sweeps of watching: thin."""

from __future__ import annotations

from datetime import timedelta

from celery import current_task, shared_task

from apps.core.sweeps import nudge, sweep
from apps.deployments import guarding, objectives, sampling


def _in_worker() -> bool:
    """Whether a worker runs this; called directly (settle, a shell), the sweep does the work itself."""
    return bool(current_task) and not current_task.request.called_directly


@shared_task(name="deployments.sample_cluster", ignore_result=True, expires=60)
def sample_cluster(cluster_id: int) -> None:
    """Sample one cluster."""
    sampling.sample_cluster(cluster_id)


@sweep("deployments.sample_endpoints", every=timedelta(seconds=30))
def sample_endpoints() -> int:
    """Take the figures of what serves; a slow cluster keeps none of the others waiting."""
    return sampling.sample_all((lambda pk: nudge(sample_cluster, pk)) if _in_worker() else None)


@sweep("deployments.guard_rollouts", every=timedelta(seconds=15))
def guard_rollouts() -> int:
    """Take off canaries that are judged bad."""
    return guarding.guard_all()


@sweep("deployments.read_objectives", every=timedelta(minutes=1))
def read_objectives() -> int:
    """Read objectives and do what their breach asks."""
    return objectives.read_all()


@sweep("deployments.forget_samples", every=timedelta(hours=6))
def forget_samples() -> int:
    """Remove figures that are older than they are kept."""
    return sampling.forget() + objectives.forget()
