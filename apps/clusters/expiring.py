"""Telling the platform admins before a cluster's certificate or the portal's token ends there: 30, 7, 1 day, and after.

What was told is kept at the cluster, by end and step: a renewed one starts anew, and nothing is told twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from apps import audit
from apps.clusters import events
from apps.clusters.models import Cluster
from apps.core import clock, formats, outbox
from apps.core.actor import Actor

#: Days before the end at which people are told; 0: it has ended.
STEPS_DAYS = (0, 1, 7, 30)
_WHAT = {
    "credentials_expire_at": "the portal's token there",
    "certificate_expires_at": "the API server's certificate",
}


def step_of(end: datetime, now: datetime) -> int | None:
    """Return the step (days) that has been reached before `end`, None where it is still far."""
    left = end - now
    return next((days for days in STEPS_DAYS if left <= timedelta(days=days)), None)


def notice_due() -> int:
    """Tell what is due to be told; returns how many notices were given."""
    from apps.teams import scope

    now = clock.now()
    soon = now + timedelta(days=max(STEPS_DAYS))
    due = Cluster.objects.filter(Q(credentials_expire_at__lte=soon) | Q(certificate_expires_at__lte=soon))
    told = 0
    for pk in list(due.order_by("pk").values_list("pk", flat=True)):
        with transaction.atomic():
            cluster = Cluster.objects.select_for_update(no_key=True).filter(pk=pk).first()
            if cluster is None:
                continue
            for field, what in _WHAT.items():
                end: datetime | None = getattr(cluster, field)
                step = step_of(end, now) if end is not None else None
                if end is None or step is None:
                    continue
                mark = f"{end.isoformat()} {step}"
                if cluster.expiry_notices.get(field) == mark:
                    continue
                cluster.expiry_notices = {**cluster.expiry_notices, field: mark}
                cluster.save(update_fields=["expiry_notices", "updated_at"])
                left = "has ended" if step == 0 else f"ends in {formats.duration(end - now)}"
                payload = events.Expiring(cluster.slug, cluster.name, what, end, left)
                audit.record(
                    events.CLUSTER_EXPIRING, payload, actor=Actor.system("clusters.expiring"),
                    subject_type="clusters.cluster", subject_uid=cluster.uid,
                )  # fmt: skip
                people = scope.holders("clusters.cluster.manage")
                outbox.publish(events.CLUSTER_EXPIRING, payload, recipients=people, subject_uid=cluster.uid)
                told += 1
    return told
