"""What live fragments ask first: did anything change since the browser last looked? Marks, not figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, QuerySet, TextField, Value
from django.db.models.functions import Cast, Concat

from apps.clusters.choices import Health
from apps.clusters.models import Cluster
from apps.core import clock
from apps.provisioning.models import Observation
from apps.quotas.models import Quota, QuotaRequest, Workspace

#: Even where nothing changed on the cluster, ages and standing are drawn anew this often.
REDRAWN_SECONDS = 15


def _joined(*parts: str) -> Concat:
    texts: list[Any] = []
    for part in parts:
        texts += [Cast(part, TextField()), Value("|")]
    return Concat(*texts, output_field=TextField())


def with_marks(workspaces: QuerySet[Workspace], at: datetime | None = None) -> QuerySet[Workspace]:
    """Add to workspaces what changes when their figures do: `seen_mark`, `held_mark`. No further query."""
    seen = Observation.objects.filter(
        cluster_id=OuterRef("cluster_id"), namespace=OuterRef("namespace"), kind="ResourceQuota", missing=False
    )
    held = Quota.objects.filter(workspace=OuterRef("pk")).in_force(at)
    return workspaces.annotate(
        seen_mark=ArraySubquery(
            seen.order_by("pk").annotate(mark=_joined("pk", "resource_version", "observed_at")).values("mark")
        ),
        held_mark=ArraySubquery(held.order_by("pk").annotate(mark=_joined("pk", "valid", "guaranteed")).values("mark")),
    )


def etag_of(user_id: int, workspaces: Iterable[Workspace], at: datetime | None = None) -> str:
    """Return the ETag of what a person sees of workspaces loaded `with_marks`."""
    now = at or clock.now()
    parts: list[str] = [str(user_id), str(int(now.timestamp()) // REDRAWN_SECONDS)]
    for workspace in workspaces:
        cluster = workspace.cluster
        parts += [
            str(workspace.pk),
            str(getattr(workspace, "seen_mark", "")),
            str(getattr(workspace, "held_mark", "")),
            f"{cluster.health}|{cluster.unreachable_since}|{cluster.paused_at}|{cluster.kueue_mode}",
        ]
    return f'W/"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class Away:
    """A cluster that is not current, since when, and what to make of the figures."""

    cluster: Cluster
    since: datetime | None
    words: str


def away(clusters: Iterable[Cluster]) -> list[Away]:
    """Return the clusters that do not answer or are paused, once each, by name."""
    found: dict[int, Away] = {}
    for cluster in clusters:
        if cluster.paused_at is not None:
            found[cluster.pk] = Away(cluster, cluster.paused_at, "is paused")
        elif cluster.health == Health.REFUSED:
            found[cluster.pk] = Away(cluster, cluster.unreachable_since, "refuses the portal")
        elif cluster.health == Health.UNREACHABLE:
            found[cluster.pk] = Away(cluster, cluster.unreachable_since, "is unreachable")
    return sorted(found.values(), key=lambda one: one.cluster.name)


def request_mark(request: QuotaRequest, standing: str = "") -> str:
    """Return what changes when a request's page would: its row, its approval's, its plan's, its standing."""
    approval, plan = request.approval, request.plan
    parts = [
        str(request.version),
        str(approval.version) if approval is not None else "",
        f"{plan.status}{plan.version}" if plan is not None else "",
        standing,
    ]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


__all__ = ["REDRAWN_SECONDS", "Away", "away", "etag_of", "request_mark", "with_marks"]
