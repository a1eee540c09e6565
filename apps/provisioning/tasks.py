"""Thin tasks and sweeps of the provisioning room. Every nudge has a sweep over rows behind it."""

from __future__ import annotations

from datetime import timedelta

from celery import current_task, shared_task
from django.db.models import Q

from apps.clusters.models import Cluster
from apps.clusters.selectors import callable_now
from apps.core import clock
from apps.core.sweeps import nudge, sweep
from apps.provisioning import drift_actions, observing, planning, queues, running, stop_worker
from apps.provisioning.models import WatchCursor

#: Without an observer process a cluster is listed this often.
_UNOBSERVED = timedelta(seconds=45)


def _in_worker() -> bool:
    """Whether a worker runs this; called directly (settle, a shell), sweeps do the work themselves."""
    return bool(current_task) and not current_task.request.called_directly


@shared_task(name="provisioning.apply_cluster", ignore_result=True, expires=60)
def apply_cluster(cluster_id: int) -> None:
    """Apply what is due on one cluster, for one slice; ask for another where work is left."""
    _, left = running.apply_cluster(cluster_id)
    if left:
        nudge(apply_cluster, cluster_id)


@shared_task(name="provisioning.make_plan", ignore_result=True, expires=60)
def make_plan(plan_id: int) -> None:
    """Make one plan."""
    planning.make_plan(plan_id)


@shared_task(name="provisioning.observe_cluster", ignore_result=True, expires=60)
def observe_cluster(cluster_id: int) -> None:
    """List one cluster."""
    observing.observe_cluster(cluster_id)


@sweep("provisioning.apply_due", every=timedelta(seconds=5))
def apply_due() -> int:
    """Find clusters with something due, whatever became of its nudge."""
    clusters = running.clusters_due()
    if _in_worker():  # a slow cluster must not keep the sweep from the others
        for cluster in clusters:
            nudge(apply_cluster, cluster.pk)
        return len(clusters)
    return sum(running.apply_cluster(cluster.pk)[0] for cluster in clusters)


@sweep("provisioning.make_plans", every=timedelta(seconds=10))
def make_plans() -> int:
    """Find plans that are to be made."""
    pks = planning.plans_due()
    if _in_worker():
        for pk in pks:
            nudge(make_plan, pk)
        return len(pks)
    return sum(planning.make_plan(pk) for pk in pks)


@sweep("provisioning.observe_clusters", every=timedelta(seconds=30))
def observe_clusters() -> int:
    """List clusters that no observer process watches."""
    clusters = [
        cluster
        for cluster in Cluster.objects.filter(declarations__observed_generation__gt=0).distinct().order_by("pk")
        if callable_now(cluster)
    ]
    if not _in_worker():
        return sum(observing.observe_cluster(cluster.pk) for cluster in clusters)
    now = clock.now()
    fresh = set(
        WatchCursor.objects.filter(Q(seen_at__gt=now - _UNOBSERVED)).values_list("cluster_id", flat=True).distinct()
    )
    waiting = [cluster for cluster in clusters if cluster.pk not in fresh]
    for cluster in waiting:
        nudge(observe_cluster, cluster.pk)
    return len(waiting)


@shared_task(name="provisioning.run_stops", ignore_result=True, expires=60)
def run_stops(cluster_id: int) -> None:
    """Carry out one cluster's orders to stop workloads, for one slice; ask for another where some are left."""
    _, left = stop_worker.run_cluster(cluster_id)
    if left:
        nudge(run_stops, cluster_id)


@sweep("provisioning.run_stop_orders", every=timedelta(seconds=15))
def run_stop_orders() -> int:
    """Find orders to stop or start a workload, whatever became of their nudge, and look at what is stopped."""
    clusters = stop_worker.clusters_due()
    if not _in_worker():
        return sum(stop_worker.run_cluster(cluster.pk)[0] for cluster in clusters)
    for cluster in clusters:
        nudge(run_stops, cluster.pk)
    return len(clusters)


@shared_task(name="provisioning.observe_queues_of", ignore_result=True, expires=15)
def observe_queues_of(cluster_id: int) -> None:
    """Look at what waits in one cluster's queues."""
    queues.observe_queues(cluster_id)


@sweep("provisioning.observe_queues", every=timedelta(seconds=15))
def observe_queues() -> int:
    """Look at what waits in the queues of every cluster with Kueue."""
    clusters = queues.clusters_with_queues()
    if not _in_worker():
        return sum(queues.observe_queues(cluster.pk) for cluster in clusters)
    for cluster in clusters:
        nudge(observe_queues_of, cluster.pk)
    return len(clusters)


@sweep("provisioning.forget_old_waits", every=timedelta(hours=6))
def forget_old_waits() -> int:
    """Delete the history of waits after 90 days."""
    return queues.forget_old_waits()


@sweep("provisioning.reopen_drift", every=timedelta(minutes=1))
def reopen_drift() -> int:
    """Open again what was to be left alone until now."""
    return drift_actions.reopen_due()
