"""What waits in the queues of clusters, and how long it waited."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from apps.clusters.models import Cluster
from apps.core.models import Row
from apps.provisioning.querysets import QueueEntryQuerySet, QueueWaitQuerySet


class QueueEntry(Row):
    """A workload that waits in a queue of the cluster, as last seen. Positions count from 0; null: not told."""

    cluster = models.ForeignKey(Cluster, models.CASCADE, related_name="queue_entries")
    namespace = models.CharField(max_length=253)
    name = models.CharField(max_length=253)
    local_queue = models.CharField(max_length=253)
    cluster_queue = models.CharField(max_length=253, blank=True)
    workload_uid = models.CharField(max_length=64, blank=True)
    priority = models.IntegerField(default=0)
    position_cluster = models.PositiveIntegerField(null=True)
    position_local = models.PositiveIntegerField(null=True)
    requests: models.JSONField = models.JSONField(default=dict, help_text="Resource → whole units over all pods.")
    reason = models.CharField(max_length=100, blank=True)
    message = models.TextField(blank=True)
    queued_at = models.DateTimeField()
    observed_at = models.DateTimeField()

    objects = QueueEntryQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["cluster", "namespace", "name"], name="queue_entry_once")
        ]


class QueueWait(Row):
    """How long one workload waited until its queue admitted it: the history behind a waiting time range."""

    cluster = models.ForeignKey(Cluster, models.CASCADE, related_name="queue_waits")
    namespace = models.CharField(max_length=253)
    cluster_queue = models.CharField(max_length=253)
    workload_uid = models.CharField(max_length=64)
    requests: models.JSONField = models.JSONField(default=dict)
    queued_at = models.DateTimeField()
    admitted_at = models.DateTimeField()
    waited_ms = models.BigIntegerField()

    objects = QueueWaitQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["cluster", "workload_uid", "admitted_at"], name="queue_wait_once")
        ]
        indexes: ClassVar = [
            models.Index(fields=["cluster", "cluster_queue", "-admitted_at"], name="queue_wait_recent")
        ]
